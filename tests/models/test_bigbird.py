"""What is special about BigBird: its random graph, blocks of the text itself, upstream's folders under one plan."""

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention

import hf_zoo
from hf_zoo.modeling.layers.random_block_attention import random_blocks
from hf_zoo.registry import ARCHITECTURES
from hf_zoo.upstream import to_upstream

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WITHOUT_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0}


def make(task="feature-extraction", **options):
    torch.manual_seed(0)
    options = {**SIZES, **WITHOUT_DROPOUT, "vocab_size": 64, "block_size": 4, **options}
    model = hf_zoo.create_model("bigbird-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(tokens, rows=1, seed=1):
    return torch.randint(5, 64, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def reached(model, tokens):
    """(T, T), true where a token's output depends on another's embedding."""
    x = torch.randn(1, tokens, 32, dtype=torch.float64, requires_grad=True)
    hidden = model.double()(inputs_embeds=x).last_hidden_state[0]
    rows = [torch.autograd.grad(h.sum() + h[0], x, retain_graph=True)[0][0].abs().amax(-1) > 0 for h in hidden]
    return torch.stack(rows)


def test_one_layer_sees_its_blocks_and_two_see_all():
    model = make(num_hidden_layers=1, num_attention_heads=1, random_seed=5)
    tokens, n = 46, 12
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        seen[i, [0, n - 1, *(j for j in (i - 1, i, i + 1) if 0 <= j < n)]] = True
    seen[0] = seen[-1] = True
    for i, (block,) in enumerate(random_blocks(n, 1, 1, 5000)[0].tolist(), start=1):
        seen[i, block] = True
    expected = seen.repeat_interleave(4, 0).repeat_interleave(4, 1)[:tokens, :tokens]
    assert torch.equal(reached(model, tokens), expected)
    assert reached(make(num_attention_heads=1), tokens).all()


@torch.no_grad()
def test_the_graph_is_the_same_in_training_and_after_loading(tmp_path):
    model, tokens = make(), ids(60)
    expected = model(tokens).last_hidden_state
    assert torch.equal(model.train()(tokens).last_hidden_state, expected)
    model.save_pretrained(tmp_path)
    random_blocks.cache_clear()
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert_close(again(tokens).last_hidden_state, expected)
    again.config.random_seed = 1
    other = type(again)(again.config).eval()
    other.load_state_dict(again.state_dict())
    assert (other(tokens).last_hidden_state - expected).abs().max() > 1e-3


@torch.no_grad()
def test_rows_of_all_lengths_stand_side_by_side():
    """Short ones that see all of themselves, long ones of different numbers of blocks, padding on both sides."""
    model = make()
    lengths, width = (61, 9, 40, 28, 29, 53), 64
    batch, mask = torch.full((6, width), 7), torch.zeros(6, width, dtype=torch.long)
    for row, (length, offset) in enumerate(zip(lengths, (0, 20, 24, 36, 5, 11), strict=True)):
        batch[row, offset : offset + length] = ids(length, seed=row)[0]
        mask[row, offset : offset + length] = 1
    got = model(batch, attention_mask=mask).last_hidden_state
    for row, length in enumerate(lengths):
        expected = model(ids(length, seed=row)).last_hidden_state[0]
        assert_close(got[row][mask[row].bool()], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_short_texts_see_all_of_themselves():
    model = make()
    full = make(attention_type="original_full")
    full.load_state_dict(model.state_dict())
    for tokens in (1, 3, 4, 27, 28):
        assert_close(model(ids(tokens)).last_hidden_state, full(ids(tokens)).last_hidden_state, atol=1e-5, rtol=1e-4)
    assert (model(ids(36)).last_hidden_state - full(ids(36)).last_hidden_state).abs().max() > 1e-3


@pytest.fixture
def one_plan(monkeypatch):
    """Upstream with our random blocks, which it looks up in training alone."""

    def plan(self, from_seq_length, num_heads, **_):
        return random_blocks(from_seq_length // 4, num_heads, self.num_random_blocks, self.seed).numpy()

    monkeypatch.setattr(BigBirdBlockSparseAttention, "_bigbird_block_rand_mask_with_head", plan)


@pytest.mark.parametrize("num_random", [1, 2, 3])
@torch.no_grad()
def test_upstream_gives_the_same_under_the_same_plan(one_plan, num_random, tmp_path):
    """In blocks: transformers in training mode, where its random blocks are not all the first."""
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 128}
    config = transformers.BigBirdConfig(**SIZES, **options, vocab_size=64, block_size=4, num_random_blocks=num_random)
    torch.manual_seed(0)
    upstream = transformers.BigBirdForMaskedLM(config)
    for parameter in upstream.parameters():
        parameter.normal_(0, 0.15)
    upstream.tie_weights()
    upstream.save_pretrained(tmp_path)
    model = ARCHITECTURES["zoo_bigbird"].model_class("masked-lm").from_pretrained(tmp_path).eval()
    upstream.train()
    for tokens in (4 * (6 + 2 * num_random), 70, 97):
        batch, mask = ids(tokens, rows=2), torch.ones(2, tokens, dtype=torch.long)
        mask[1, (tokens - 1) // 4 * 4 + 1 :] = 0  # all but the first token of the last block
        expected = upstream(batch, attention_mask=mask).logits
        assert_close(
            model(batch, attention_mask=mask).logits[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4
        )


def test_questions_are_no_answers():
    model = make("question-answering", sep_token_id=63)
    tokens = ids(12, rows=2).clamp_max(62)
    tokens[0, 4] = 63
    start = model(tokens).start_logits
    assert (start[0, 1:5] < -1e5).all() and start[0, [0, 5, 11]].abs().max() < 1e3
    assert start[1].abs().max() < 1e3


def test_sizes_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="num_random_blocks must be at least 0, got -1"):
        make(num_random_blocks=-1)


# global tokens beside the text


def test_global_tokens_carry_everything_in_two_layers():
    model = make(num_hidden_layers=1, num_attention_heads=1, num_global_tokens=2, num_random_blocks=0)
    block = torch.arange(46) // 4
    assert torch.equal(reached(model, 46), (block[:, None] - block).abs() <= 1)  # no block is global
    assert reached(make(num_attention_heads=1, num_global_tokens=2, num_random_blocks=0), 46).all()
    other = make(num_hidden_layers=1, num_global_tokens=2)
    before = other(ids(46)).last_hidden_state
    other.embed_globals.weight.data[1] = torch.randn(32)
    assert (other(ids(46)).last_hidden_state - before).abs().amax(-1).min() > 1e-4  # seen by all


@torch.no_grad()
def test_every_text_has_global_tokens_of_its_own():
    """Rows of all lengths side by side, packed documents, and only the text's tokens come out."""
    model = make(num_global_tokens=3)
    lengths, width = (61, 9, 20, 21, 0, 53), 64
    batch, mask = torch.full((6, width), 7), torch.zeros(6, width, dtype=torch.long)
    for row, (length, offset) in enumerate(zip(lengths, (0, 20, 24, 36, 0, 11), strict=True)):
        if length:
            batch[row, offset : offset + length] = ids(length, seed=row)[0]
        mask[row, offset : offset + length] = 1
    outputs = model(batch, attention_mask=mask, output_hidden_states=True)
    assert {state.shape for state in outputs.hidden_states} == {(6, width, 32)}
    alone = [model(ids(length, seed=row)).last_hidden_state[0] for row, length in enumerate(lengths) if length]
    assert_close(outputs.last_hidden_state[mask.bool()], torch.cat(alone), atol=2e-5, rtol=1e-4)

    tokens = torch.cat([ids(length, seed=row) for row, length in enumerate(lengths) if length], dim=1)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    packed = model(tokens, position_ids=positions).last_hidden_state[0]
    assert_close(packed, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_what_global_tokens_cannot_do_is_named():
    with pytest.raises(ValueError, match="num_global_tokens=2 needs attention_type='block_sparse'"):
        make(num_global_tokens=2, attention_type="original_full")
    model = make(num_global_tokens=2)
    model.set_attn_implementation("flex_attention")
    with pytest.raises(ValueError, match="flex_attention has no global tokens"):
        model(ids(46))
    with pytest.raises(ValueError, match="num_global_tokens=2 cannot be written"):
        to_upstream(model)


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_agrees():
    model, tokens = make(), ids(60, rows=3)
    mask = torch.ones_like(tokens)
    mask[1, 20:] = 0  # short enough to see all of itself
    mask[2, :15] = 0
    expected = model(tokens, mask).last_hidden_state
    model.set_attn_implementation("flex_attention")
    torch.compiler.reset()  # for sizes that change, torch's C++ kernel of FlexAttention does not compile
    assert_close(model(tokens, mask).last_hidden_state[mask.bool()], expected[mask.bool()], atol=2e-5, rtol=1e-4)
