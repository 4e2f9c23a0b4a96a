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
