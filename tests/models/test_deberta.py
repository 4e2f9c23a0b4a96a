"""What is special about DeBERTa: no absolute positions, the mask decoder, replaced-token detection."""

import pytest
import torch
from torch.testing import assert_close
from transformers import DebertaV2Config, DebertaV2ForMaskedLM

import hf_zoo
from hf_zoo.upstream import to_upstream

SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}


def make(task=None, seed=0, **options):
    torch.manual_seed(seed)
    model = hf_zoo.create_model("deberta-tiny", task, **{**SIZES, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=10):
    return torch.randint(5, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_outputs_depend_on_distance_alone():
    """`position_ids` that start anywhere change nothing, unless positions are added to the embeddings."""
    tokens = ids()
    later = torch.arange(10)[None] + 7
    model = make()
    assert_close(model(tokens, position_ids=later).logits, model(tokens).logits)
    for option in ({"position_biased_input": True}, {"mask_decoder_steps": 2}):
        model = make(**option)
        assert (model(tokens, position_ids=later).logits - model(tokens).logits).abs().max() > 1e-2


@torch.no_grad()
def test_surroundings_may_shift():
    """Far enough from both ends of a text, what a layer makes of it does not depend on where it stands."""
    model = make("feature-extraction", max_relative_positions=32, position_buckets=0, conv_kernel_size=0)
    text, filler = ids(1, 6), torch.full((1, 1), 5)
    masks = torch.zeros(2, 30, dtype=torch.long)
    rows = filler.repeat(2, 30)
    for row, start in enumerate((3, 19)):
        rows[row, start : start + 6], masks[row, start : start + 6] = text, 1
    first, second = model(rows, attention_mask=masks).last_hidden_state
    assert_close(first[3:9], second[19:25])


@torch.no_grad()
def test_the_index_of_keys_is_the_codes_or_the_papers():
    tokens = ids()
    one, other = make(p2c_index="code"), make(p2c_index="paper")
    assert (one(tokens).logits - other(tokens).logits).abs().max() > 1e-2
    for model in (one, other):  # a table that is the same for i - j and j - i cannot tell them apart
        table = model.model.relative.embedding.weight
        table[1:] = (table[1:] + table[1:].flip(0)) / 2
    other.load_state_dict(one.state_dict())
    assert_close(one(tokens).logits, other(tokens).logits)


OPTIONS = {
    "mask decoder": {"mask_decoder_steps": 2},
    "decoder on a convolution": {"mask_decoder_steps": 1, "num_hidden_layers": 2},
    "first version": {"position_buckets": 0, "norm_relative": False, "share_projections": False, "key_bias": False},
    "absolute and relative": {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16},
    "paper's index": {"p2c_index": "paper", "position_terms": ["p2c"]},
    "content alone": {"position_terms": []},
}


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_padding_and_packing_of_every_kind(name):
    model, tokens = make(**OPTIONS[name]), ids()
    expected = model(tokens).logits
    pads, ones = torch.full((2, 3), 9), torch.ones_like(tokens)
    for parts in ((pads, tokens), (tokens, pads)):
        mask = torch.cat([ones if part is tokens else pads * 0 for part in parts], 1)
        got = model(torch.cat(parts, 1), attention_mask=mask).logits
        assert_close(got[mask.bool()].view_as(expected), expected, atol=2e-5, rtol=1e-4)
    positions = torch.cat((torch.arange(4), torch.arange(6)))[None]
    apart = torch.cat([model(part).logits for part in (tokens[:, :4], tokens[:, 4:])], 1)
    assert_close(model(tokens, position_ids=positions).logits, apart, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", OPTIONS)
def test_checkpointing_and_learning_of_every_kind(name):
    model, tokens = make(**OPTIONS[name]).train(), ids()
    gradients = []
    for kwargs in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        if kwargs is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
        model.zero_grad()
        torch.manual_seed(3)
        model(tokens, labels=tokens).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for again in gradients[1:]:
        assert_close(again, gradients[0])
    silent = [n for n, g in gradients[0].items() if g.abs().max() < 1e-9]
    assert [n for n in silent if not (name == "content alone" and n.endswith("k_proj.bias"))] == []


@torch.no_grad()
def test_the_mask_decoder_is_the_last_layer_run_on_queries():
    model, tokens = make(mask_decoder_steps=2, conv_kernel_size=0), ids()
    trunk = model.model
    x = trunk(tokens, output_hidden_states=True).hidden_states[2]
    positions, rows = trunk.relative(10)
    query = x + trunk.decoder_positions.weight[:10]
    for _ in range(2):
        block = trunk.layers[2]
        h = block.mixer_norm(query + block.self_attn(x, None, positions, rows, query)[0])
        query = block.mlp_norm(h + block.mlp(h))
    assert_close(model(tokens).logits, model.lm_head(model.transform(query)))
    other = make("feature-extraction", mask_decoder_steps=2)
    assert other.decoder_positions is None  # absolute positions are the masked LM's alone


def masked(tokens):
    labels = tokens.masked_fill(torch.arange(tokens.shape[1]) % 3 > 0, -100)
    return tokens.masked_fill(labels != -100, 4), labels


def test_gradients_of_replaced_tokens_stay_out_of_the_generator():
    model = make("pre-training")
    tokens, labels = masked(ids(4, 12))
    torch.manual_seed(0)
    outputs = model(tokens, labels=labels)
    outputs.replaced_loss.backward(retain_graph=True)
    assert model.embed_difference.weight.grad.abs().max() > 0
    assert [n for n, p in model.generator.named_parameters() if p.grad is not None and p.grad.any()] == []
    model.zero_grad()
    outputs.masked_loss.backward(retain_graph=True)
    learnt = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learnt
    assert all(name.startswith("generator.") for name in learnt)
    assert_close(outputs.loss, outputs.masked_loss + 50 * outputs.replaced_loss)


def test_losses_are_those_of_the_samples():
    """A generator that is sure replaces nothing; one that is sure of something else replaces every masked token."""
    model = make("pre-training", replaced_loss_weight=2.0)
    tokens, labels = masked(ids(4, 12))
    labels[:] = torch.where(labels != -100, 7, -100)
    with torch.no_grad():
        model.generator.lm_head.bias[7] = 1e4
        sure = model(tokens, labels=labels)
        filled = tokens.where(labels == -100, labels)
        assert_close(sure.masked_loss, torch.zeros(()))
        assert_close(sure.logits, model(filled).logits)
        softplus = torch.nn.functional.softplus
        assert_close(sure.replaced_loss, softplus(sure.logits).mean())
        model.generator.lm_head.bias[7] = 0
        model.generator.lm_head.bias[9] = 1e4
        wrong = model(tokens, labels=labels)
        signs = torch.where(labels != -100, -1.0, 1.0)
        assert_close(wrong.replaced_loss, softplus(signs * wrong.logits).mean())
        pads = torch.full((4, 3), 9)
        padded = {"input_ids": torch.cat((pads, tokens), 1), "labels": torch.cat((pads * 0 - 100, labels), 1)}
        again = model(**padded, attention_mask=torch.cat((pads * 0, torch.ones_like(tokens)), 1))
        assert_close(again.loss, wrong.loss)


@torch.no_grad()
def test_samples_differ_in_training_alone():
    model = make("pre-training", hidden_dropout=0.0, attention_dropout=0.0)
    tokens, labels = masked(ids(4, 12))
    assert torch.equal(model(tokens, labels=labels).loss, model(tokens, labels=labels).loss)
    model.train()
    assert not torch.equal(model(tokens, labels=labels).loss, model(tokens, labels=labels).loss)
    assert model(tokens, labels=torch.full_like(tokens, -100)).loss == 0


def test_accumulated_batches_weigh_as_one():
    model = make("pre-training")
    tokens, labels = masked(ids(4, 12))
    labels[:] = torch.where(labels != -100, 7, -100)
    with torch.no_grad():
        model.generator.lm_head.bias[7] = 1e4  # so that samples do not differ
        total = (labels != -100).sum()
        batches = zip(tokens[:, None], labels[:, None], strict=True)
        parts = [model(t, labels=y, num_items_in_batch=total).loss for t, y in batches]
        assert_close(sum(parts), model(tokens, labels=labels).loss)


def test_the_encoder_after_pre_training(tmp_path):
    model, tokens = make("pre-training"), ids()
    encoder = model.encoder()
    with torch.no_grad():
        x = model(tokens, output_hidden_states=True).hidden_states[-1]
        assert_close(encoder(tokens).last_hidden_state, x)
    encoder.save_pretrained(tmp_path / "encoder")
    model.save_pretrained(tmp_path / "whole")
    classifier = hf_zoo.create_model("deberta-tiny", "sequence-classification", **SIZES)
    again = type(classifier).from_pretrained(tmp_path / "encoder").eval()
    with torch.no_grad():
        assert_close(again.model(tokens).last_hidden_state, x)
    with pytest.raises(ValueError, match="embed_tokens"):
        type(classifier).from_pretrained(tmp_path / "whole")
    with pytest.raises(ValueError, match="embed_difference"):
        type(model).from_pretrained(tmp_path / "encoder")


def test_the_generator_is_what_the_config_says():
    model = make("pre-training", num_hidden_layers=4, mask_decoder_steps=1)
    assert len(model.generator.model.layers) == 2
    assert model.generator.model.decoder_positions is not None
    assert model.generator.lm_head.weight is model.generator.model.embed_tokens.weight
    assert not model.embed_difference.weight.new_zeros(1).any()
    narrow = make("pre-training", generator={"hidden_size": 16, "num_hidden_layers": 1})
    assert narrow.generator.model.layers[0].mlp.up_proj.in_features == 16
    tokens, labels = masked(ids())
    narrow(tokens, labels=labels).loss.backward()
    with pytest.raises(ValueError, match="hiden_size"):
        make("pre-training", generator={"hiden_size": 16})
    with pytest.raises(ValueError, match="cannot be shared"):
        make("pre-training", generator={"vocab_size": 32})


def test_the_difference_starts_at_zero_and_is_resized():
    torch.manual_seed(0)
    model = hf_zoo.create_model("deberta-tiny", "pre-training", **SIZES)
    assert not model.embed_difference.weight.any()
    model.resize_token_embeddings(70)
    assert model.embed_difference.weight.shape == (70, 32)
    assert model.generator.lm_head.weight.shape == (70, 32)
    model(ids())
    model.resize_token_embeddings(60)
    assert model.embed_difference.weight.shape == (60, 32)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"position_terms": ["p2p"]}, "position_terms"),
        ({"position_buckets": -1}, "position_buckets"),
        ({"position_buckets": 32, "max_relative_positions": 8}, "max_relative_positions=8"),
        ({"conv_kernel_size": 4}, "conv_kernel_size"),
        ({"mask_decoder_steps": 1, "num_hidden_layers": 1}, "num_hidden_layers"),
        ({"pooler_act": "gellu"}, "pooler_act 'gellu'"),
        ({"legacy_head": False, "embedding_size": 16}, "legacy_head"),
    ],
)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_embeddings_cannot_be_replaced():
    model, tokens = make("pre-training"), ids()
    embeds = model.get_input_embeddings()(tokens)
    assert model(inputs_embeds=embeds).logits.shape == tokens.shape
    with pytest.raises(ValueError, match="input_ids"):
        model(inputs_embeds=embeds, labels=tokens)


def test_the_authors_head_is_read_under_a_config_that_says_legacy(tmp_path):
    """As published: the file holds the head, the configuration does not say so."""
    sizes = {**SIZES, "num_attention_heads": 4, "relative_attention": True, "pos_att_type": "c2p|p2c"}
    torch.manual_seed(0)
    upstream = DebertaV2ForMaskedLM(DebertaV2Config(**sizes, position_biased_input=False, legacy=False)).eval()
    upstream.config.legacy = True
    upstream.save_pretrained(tmp_path)
    model = type(make()).from_pretrained(tmp_path).eval()
    assert_close(model(ids()).logits, upstream(ids()).logits, atol=1e-5, rtol=1e-4)


def test_what_upstream_lacks_is_named():
    with pytest.raises(ValueError, match="mask_decoder_steps=2"):
        to_upstream(make(mask_decoder_steps=2))
    with pytest.raises(ValueError, match="no head like that of ZooDebertaForPreTraining"):
        to_upstream(make("pre-training"), "deberta-v2")


@pytest.mark.slow
@torch.no_grad()
def test_flex_attention_agrees():
    model, tokens = make(), ids()
    expected = model(tokens).logits
    model.set_attn_implementation("flex_attention")
    torch.compiler.reset()  # for sizes that change, torch's C++ kernel of FlexAttention does not compile
    assert_close(model(tokens).logits, expected, atol=2e-5, rtol=1e-4)
