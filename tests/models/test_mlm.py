"""What is special about the masked language model: both sides, two sentences, the pooler."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo


def make(task=None, **options):
    torch.manual_seed(0)
    model = hf_zoo.create_model("mlm-tiny", task, vocab_size=64, hidden_size=32, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=10):
    return torch.randint(5, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layout", ["post", "pre"])
def test_every_token_sees_both_sides(layout):
    model = make("feature-extraction", num_hidden_layers=1, block_layout=layout)
    x = torch.randn(1, 8, 32, requires_grad=True)
    hidden = model(inputs_embeds=x).last_hidden_state[0]
    for t in range(8):
        (gradient,) = torch.autograd.grad(hidden[t].sum(), x, retain_graph=True)
        assert (gradient[0].abs().amax(-1) > 0).all()


@torch.no_grad()
def test_the_second_sentence_is_told_from_the_first():
    model, tokens = make(), ids()
    types = torch.zeros_like(tokens)
    types[:, 5:] = 1
    swapped = model(tokens, token_type_ids=1 - types).logits
    assert (model(tokens, token_type_ids=types).logits - swapped).abs().max() > 1e-2
    assert torch.equal(model(tokens).logits, model(tokens, token_type_ids=torch.zeros_like(tokens)).logits)


@torch.no_grad()
def test_the_pooler_reads_the_first_real_token():
    model, tokens = make("feature-extraction"), ids()
    expected = model(tokens).pooler_output
    pads, ones = torch.full((2, 3), 9), torch.ones_like(tokens)
    mask = torch.cat((pads * 0, ones), 1)
    assert_close(model(torch.cat((pads, tokens), 1), attention_mask=mask).pooler_output, expected)


def test_pre_training_adds_both_losses():
    model, tokens = make("pre-training"), ids()
    labels, follows = torch.full_like(tokens, -100), torch.tensor([0, 1])
    labels[:, 3] = tokens[:, 3]
    masked = model(tokens, labels=labels).loss
    sentence = model(tokens, next_sentence_label=follows).loss
    assert_close(model(tokens, labels=labels, next_sentence_label=follows).loss, masked + sentence)
    assert model(tokens).loss is None


def test_the_masked_head_is_tied_and_has_a_bias():
    model = make()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.bias.shape == (64,)


def test_rows_beyond_the_table_are_named():
    with pytest.raises(ValueError, match="max_position_embeddings=8"):
        make(max_position_embeddings=8)(ids())


def test_a_checkpoint_without_pooler_opens_with_one(tmp_path):
    make().save_pretrained(tmp_path)
    model = hf_zoo.create_model("mlm-tiny", "sequence-classification").from_pretrained(tmp_path)
    assert model.model.pooler.dense.weight.isfinite().all()


def test_blocks_of_a_text_reach_across_in_two_layers():
    """One layer sees its own block and those that its heads' shifts lead to; two layers carry it on."""
    options = {"num_attention_blocks": 4, "head_shifts": [0, 0, 1, 1], "hidden_dropout": 0.0}
    block = torch.arange(16) // 4
    for layers, reach in ((1, 1), (2, 2)):
        model = make("feature-extraction", num_hidden_layers=layers, **options).double()
        x = torch.randn(1, 16, model.config.hidden_size, dtype=torch.float64, requires_grad=True)
        hidden = model(inputs_embeds=x).last_hidden_state[0]
        rows = [torch.autograd.grad(h.sum() + h[0], x, retain_graph=True)[0][0].abs().amax(-1) > 0 for h in hidden]
        ahead = (block - block[:, None]) % 4  # of token j seen from token i
        assert torch.equal(torch.stack(rows), ahead <= reach)


@torch.no_grad()
def test_padding_around_blocks_changes_nothing():
    model, tokens = make("masked-lm", num_attention_blocks=3), ids()
    expected, ones = model(tokens).logits, torch.ones_like(tokens)
    for left, right in ((3, 0), (0, 2), (1, 4)):
        wide = torch.nn.functional.pad(tokens, (left, right), value=9)
        mask = torch.nn.functional.pad(ones, (left, right))
        got = model(wide, attention_mask=mask).logits[:, left : left + tokens.shape[1]]
        assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_shifts_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="head_shifts must be num_attention_heads=4 numbers from 0 to"):
        make(num_attention_blocks=2, head_shifts=[0, 0, 1, 2])
    with pytest.raises(ValueError, match="num_attention_blocks must be at least 1, got 0"):
        make(num_attention_blocks=0)
