"""A BERT or RoBERTa with more positions: the same answers on short texts, the table repeated, folders and command."""

import pytest
import torch
import transformers
from torch.testing import assert_close
from typer.testing import CliRunner

import hf_zoo
from hf_zoo.cli import app
from hf_zoo.registry import ARCHITECTURES

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
OPTIONS = {"zoo_longformer": {"attention_window": 40}, "zoo_bigbird": {"block_size": 4, "num_random_blocks": 1}}


def source(task="masked-lm", **options):
    torch.manual_seed(0)
    options = {**SIZES, "vocab_size": 64, "max_position_embeddings": 20, **options}
    model = hf_zoo.create_model("mlm-tiny", task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(tokens):
    return torch.randint(5, 64, (2, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", ["masked-lm", "feature-extraction", "token-classification"])
@pytest.mark.parametrize("to", OPTIONS)
@torch.no_grad()
def test_short_texts_get_the_same_answers(to, task):
    model = source(task)
    longer = hf_zoo.extend_positions(model, to, 64, **OPTIONS[to])
    assert longer.config.model_type == to and not longer.training
    mask = torch.ones(2, 20, dtype=torch.long)
    mask[1, :6] = 0
    got, expected = (m(ids(20), attention_mask=mask)[0] for m in (longer, model))
    assert_close(got[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4)
    assert longer(ids(64))[0].isfinite().all()


@torch.no_grad()
def test_global_tokens_read_with_copies():
    """A global first token and a window over all: BERT's attention under two names."""
    model = source("sequence-classification")
    longer = hf_zoo.extend_positions(model, "zoo_longformer", 64, attention_window=40)
    assert_close(longer(ids(20)).logits, model(ids(20)).logits, atol=1e-5, rtol=1e-4)
    attention = longer.model.layers[1].self_attn
    for name in ("q", "k", "v"):
        ours, theirs = (getattr(attention, f"{name}{kind}_proj").weight for kind in ("_global", ""))
        assert torch.equal(ours, theirs) and ours is not theirs


@pytest.mark.parametrize("offset", [0, 2])
def test_the_table_is_repeated_after_its_offset(offset):
    model = source(position_offset=offset)
    longer = hf_zoo.extend_positions(model, "zoo_longformer", 50, attention_window=4)
    table, rows = longer.model.embed_positions.weight, model.model.embed_positions.weight
    assert len(table) == 50 + offset and longer.config.position_offset == offset
    assert torch.equal(table[:20], rows)
    for position in range(50):
        assert torch.equal(table[offset + position], rows[offset + position % (20 - offset)])


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@torch.no_grad()
def test_folders_of_transformers_are_extended(kind, tmp_path):
    positions = {"bert": 40, "roberta": 42}[kind]
    options = {"pad_token_id": 1} if kind == "roberta" else {}
    config = transformers.AutoConfig.for_model(
        kind, **SIZES, **options, vocab_size=64, max_position_embeddings=positions
    )
    torch.manual_seed(0)
    upstream = transformers.AutoModelForMaskedLM.from_config(config).eval()
    upstream.save_pretrained(tmp_path / "short")
    arguments = [tmp_path / "short", tmp_path / "long", "--to", "zoo_longformer", "--positions", 100]
    result = CliRunner().invoke(app, ["extend", *map(str, arguments)])
    assert result.exit_code == 0, result.exception
    longer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "long").eval()
    assert type(longer) is ARCHITECTURES["zoo_longformer"].model_class("masked-lm")
    assert len(longer.model.embed_positions.weight) == 100 + positions - 40
    assert_close(longer(ids(40)).logits, upstream(ids(40)).logits, atol=1e-5, rtol=1e-4)
    assert longer(ids(100)).logits.isfinite().all()


def test_what_cannot_be_extended_is_named(tmp_path):
    with pytest.raises(ValueError, match="not zoo_llm"):
        hf_zoo.extend_positions(hf_zoo.create_model("llm-tiny"))
    with pytest.raises(ValueError, match="zoo_longformer"):
        hf_zoo.extend_positions(source(), "zoo_llm")
    with pytest.raises(ValueError, match="at least the 20"):
        hf_zoo.extend_positions(source(), positions=10)
    with pytest.raises(ValueError, match="next-sentence-prediction"):
        hf_zoo.extend_positions(source("next-sentence-prediction"))


def test_blocks_that_the_target_lacks_are_named():
    model = hf_zoo.create_model("mlm-tiny", num_attention_blocks=2)
    with pytest.raises(ValueError, match="num_attention_blocks=2: zoo_bigbird has no such attention"):
        hf_zoo.extend_positions(model, to="zoo_bigbird")
