"""Dense models cut to low rank, and made dense again."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.layers.low_rank import LowRankLinear

RANKS = {"q_proj": 16, "up_proj": 0.5}


def ids():
    return torch.randint(5, 64, (2, 12), generator=torch.Generator().manual_seed(1))


def make(name, task=None, **options):
    torch.manual_seed(0)
    model = hf_zoo.create_model(name, task, vocab_size=64, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("task", ["causal-lm", "sequence-classification", "masked-lm"])
@torch.no_grad()
def test_each_projection_is_the_nearest_of_its_rank(task):
    model = make("slm-tiny", task)
    small = hf_zoo.compress(model, RANKS)
    assert type(small) is type(model)
    assert small.num_parameters() < model.num_parameters()
    seen = 0
    for name, layer in small.named_modules():
        if isinstance(layer, LowRankLinear):
            weight = model.get_submodule(name).weight
            tail = torch.linalg.svdvals(weight)[layer.rank :].square().sum()
            assert_close((layer.dense().weight - weight).square().sum(), tail, atol=1e-4, rtol=1e-4)
            seen += 1
    assert seen == 2 + 2  # a mixer and a network in each layer
    again = hf_zoo.expand(small)
    assert again.config.low_rank is None and again.num_parameters() == model.num_parameters()
    inputs = {"input_ids": ids()}
    assert_close(again(**inputs).logits, small(**inputs).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"sliding_window": 5, "num_labels": 3}, {"tie_word_embeddings": True}])
@torch.no_grad()
def test_a_dense_decoder_becomes_a_small_one(options):
    for task in ("causal-lm", "sequence-classification"):
        model = make("llm-tiny", task, **options)
        same = hf_zoo.expand(model)
        assert type(same).__name__ == type(model).__name__.replace("Llm", "Slm")
        assert_close(same(ids()).logits, model(ids()).logits, atol=2e-5, rtol=1e-4)
        small = hf_zoo.compress(model, RANKS)
        assert torch.linalg.matrix_rank(small.model.layers[0].self_attn.q_proj.dense().weight) == 16


@torch.no_grad()
def test_what_was_cut_off_was_not_there():
    """A dense model whose projections are of low rank already loses nothing."""
    model = make("slm-tiny")
    for name, layer in model.named_modules():
        if name.endswith("q_proj"):
            u, sigma, vt = torch.linalg.svd(layer.weight)
            layer.weight.copy_((u[:, :8] * sigma[:8]) @ vt[:8])
    assert_close(hf_zoo.compress(model, {"q_proj": 8})(ids()).logits, model(ids()).logits, atol=1e-4, rtol=1e-4)


def test_a_small_model_can_be_cut_again_and_saved(tmp_path):
    small = hf_zoo.compress(hf_zoo.compress(make("slm-tiny"), RANKS), {"q_proj": 4})
    small.save_pretrained(tmp_path)
    again = type(small).from_pretrained(tmp_path).eval()
    assert again.config.low_rank == {"q_proj": 4}
    assert torch.equal(again(ids()).logits, small(ids()).logits)


def test_the_original_is_left_alone():
    model = make("slm-tiny").train()
    small = hf_zoo.compress(model, RANKS)
    assert small.training and model.config.low_rank is None
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(p.abs().max() > 0 for p in model.parameters())


def test_what_has_no_low_rank_form_is_named():
    with pytest.raises(ValueError, match="zoo_mamba has no low-rank form"):
        hf_zoo.compress(make("mamba-tiny"), RANKS)
    with pytest.raises(ValueError, match="attention_softmax='off_by_one'"):
        hf_zoo.compress(make("llm-tiny", attention_softmax="off_by_one"), RANKS)
    with pytest.raises(ValueError, match="from 1 to 31"):
        hf_zoo.compress(make("slm-tiny"), {"q_proj": 60})
