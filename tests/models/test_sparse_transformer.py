"""What is special about the Sparse Transformer: what it keeps in its cache, how it starts, positions of two digits."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo

STRIDE, COLUMNS = 4, 1
OPTIONS = [
    {"pattern": pattern, "head_assignment": heads, "num_summary_groups": groups}
    for pattern, groups in (("strided", 1), ("fixed", 1), ("fixed", 2))
    for heads in ("merged", "interleaved", "split")
]


def make(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 32, "stride": STRIDE, "summary_size": COLUMNS}
    model = hf_zoo.create_model("sparse-transformer-tiny", **{**sizes, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def ids(rows=2, tokens=12):
    return torch.randint(1, 64, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())))
@torch.no_grad()
def test_every_pattern_decodes_what_it_reads(options):
    """Parts of a prompt, then single tokens, beside a shorter row with padding."""
    model, tokens = make(**options), ids(tokens=30)
    expected = model(tokens).logits
    outputs = model(tokens[:, :7], use_cache=True)
    logits = [outputs.logits]
    for part in tokens[:, 7:].split([6, *[1] * 17], dim=1):
        outputs = model(part, past_key_values=outputs.past_key_values, use_cache=True)
        logits.append(outputs.logits)
    assert_close(torch.cat(logits, dim=1), expected, atol=2e-5, rtol=1e-4)

    mask = torch.ones(2, 14, dtype=torch.long)
    mask[0, :5] = 0
    wide = tokens[:, :14].clone()
    wide[0, 5:] = tokens[0, :9]
    outputs = model(wide, attention_mask=mask, use_cache=True)
    for t in range(12):
        step = torch.stack((tokens[0, 9 + t], tokens[1, 14 + t]))[:, None]
        mask = torch.cat((mask, torch.ones(2, 1, dtype=torch.long)), dim=1)
        outputs = model(step, attention_mask=mask, past_key_values=outputs.past_key_values, use_cache=True)
        assert_close(
            outputs.logits[:, 0], torch.stack((expected[0, 9 + t], expected[1, 14 + t])), atol=2e-5, rtol=1e-4
        )


@pytest.mark.parametrize("groups", [1, 2])
@torch.no_grad()
def test_the_fixed_pattern_forgets_what_it_never_reads_again(groups):
    model = make(pattern="fixed", num_summary_groups=groups)
    for tokens in (3, 17, 40):
        for parts in ((tokens,), (1,) * tokens, (2, tokens - 2)):
            cache = None
            for part in ids(tokens=tokens).split(parts, dim=1):
                cache = model(part, past_key_values=cache, use_cache=True).past_key_values
            assert cache.get_seq_length() == tokens
            blocks = -(-tokens // STRIDE)
            assert cache.layers[0].keys.shape[2] == STRIDE + COLUMNS * groups * blocks


@torch.no_grad()
def test_the_strided_pattern_keeps_everything():
    cache = make(pattern="strided")(ids(tokens=17), use_cache=True).past_key_values
    assert cache.layers[0].keys.shape[2] == 17


def test_what_was_forgotten_does_not_come_back():
    cache = make()(ids(), use_cache=True).past_key_values
    with pytest.raises(RuntimeError, match="forgotten"):
        cache.crop(5)


def test_weights_start_as_published():
    torch.manual_seed(0)
    model = hf_zoo.create_model("sparse-transformer-tiny", hidden_size=256, vocab_size=1024, num_hidden_layers=8)
    block, D = model.model.layers[0], 256
    assert not model.lm_head.weight.any()
    assert model(ids()).logits.abs().max() == 0
    expected = {
        model.model.embed_tokens.weight: 0.125 * D**-0.5,
        model.model.embed_positions.tables[0].weight: 0.125 * (2 * D) ** -0.5,
        block.self_attn.q_proj.weight: 0.125 * D**-0.5,
        block.self_attn.o_proj.weight: 0.125 * D**-0.5 / 16**0.5,
        block.mlp.down_proj.weight: 0.125 * block.mlp.down_proj.in_features**-0.5 / 16**0.5,
    }
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.05)


@torch.no_grad()
def test_positions_are_written_in_digits():
    model = make(position_shape=(3, 4, 5)).model
    tables = [table.weight for table in model.embed_positions.tables]
    position = 2 * 20 + 3 * 5 + 1
    assert_close(model.embed_positions(torch.tensor([[position]]))[0, 0], tables[0][2] + tables[1][3] + tables[2][1])
    with pytest.raises(ValueError, match=r"position 60 is beyond position_shape=\(3, 4, 5\)"):
        model(ids(tokens=61))


@pytest.mark.parametrize(
    "options, named",
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"summary_size": 5}, "summary_size . num_summary_groups must be from 1 to stride=4"),
        ({"summary_size": 2, "num_summary_groups": 3}, "num_summary_groups"),
        ({"position_shape": ()}, "position_shape"),
        ({"head_assignment": "merge"}, "merged"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
    ],
)
def test_options_that_do_not_fit_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        make(**options)
