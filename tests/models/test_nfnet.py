"""What is special to NFNet: variances that follow the analysis, fresh blocks that are their shortcut, the grid."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.nfnet.modeling_nfnet import ZooNfnetForImageClassification, ZooNfnetModel

WIDE = {"depths": [1, 3, 3, 3], "widths": [64, 128, 256, 256], "stem_widths": [16, 32, 64, 64], "group_size": 32}


def make(seed=0, **options):
    torch.manual_seed(seed)
    return ZooNfnetModel(hf_zoo.create_config("nfnet-tiny", **options)).eval()


def open_branches(model):
    """Gains of one, with which the analysis reckons."""
    for stage in model.layers:
        for block in stage.blocks:
            block.skip_gain.data.fill_(1.0)
    return model


def test_betas_are_those_of_the_analysis():
    model = make(**WIDE)
    variances, expected = [], []
    for number, stage in enumerate(model.layers):
        variances += [block.beta**2 for block in stage.blocks]
        before = 1.0 if number == 0 else 1 + 0.04 * WIDE["depths"][number - 1]
        expected += [before, *(1 + 0.04 * i for i in range(1, WIDE["depths"][number]))]
    assert variances == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.2, 0.5])
@torch.no_grad()
def test_variances_of_signals_follow_the_analysis(alpha):
    """Of images without detail: the analysis leaves out that pooling takes variance from neighbours that differ."""
    model = open_branches(make(**WIDE, residual_scale=alpha))
    x = torch.randn(64, WIDE["stem_widths"][-1], 1, 1).expand(-1, -1, 64, 64)
    for stage in model.layers:
        for i, block in enumerate(stage.blocks):
            x = block(x)
            middle = x.shape[-1] // 2  # the border sees zeros
            inner = x[..., middle - 1 : middle + 1, middle - 1 : middle + 1]
            assert inner.var().item() == pytest.approx(1 + alpha**2 * (i + 1), rel=0.2)


@torch.no_grad()
def test_fresh_blocks_are_the_identity_but_where_a_stage_begins():
    model = make(**WIDE)
    x = torch.randn(2, 128, 8, 8)
    for block in model.layers[1].blocks[1:]:
        assert block.shortcut is None and torch.equal(block(x), x)
    first = model.layers[2].blocks[0]
    assert first(x).shape == (2, 256, 4, 4)
    assert_close(first(x), first.shortcut(torch.nn.functional.avg_pool2d(scaled(x) / first.beta, 2)))


def scaled(x):
    return torch.nn.functional.gelu(x) * 1.7015043497085571


@torch.no_grad()
def test_a_block_is_its_equation():
    model = make(**WIDE).double()
    block = model.layers[1].blocks[1]
    block.skip_gain.fill_(0.7)
    x = torch.randn(2, 128, 8, 8, dtype=torch.float64)
    y = block.reduce(scaled(x) / block.beta)
    for conv in (block.mix, block.mix_again, block.expand):
        y = conv(scaled(y))
    assert_close(block(x), x + 0.2 * 0.7 * block.channels(y))


@torch.no_grad()
def test_the_grid_and_its_mean():
    model = open_branches(make())
    pixels = torch.randn(2, 3, 64, 96)
    out = model(pixels, output_hidden_states=True)
    assert out.last_hidden_state.shape == (2, 6, 64)
    assert_close(out.pooler_output, out.last_hidden_state.mean(1))
    shapes = [tuple(x.shape[1:]) for x in out.hidden_states]
    assert shapes == [(16, 16, 24), (32, 16, 24), (32, 8, 12), (64, 4, 6), (64, 2, 3)]
    changed = pixels.clone()
    changed[..., 64:, :] += 1
    grid = scaled(model.final_conv(out.hidden_states[-1]))
    assert_close(out.last_hidden_state[:, 4], grid[:, :, 1, 1])  # row by row


def test_branches_are_left_out_in_training_alone():
    model = open_branches(make(path_dropout=0.9)).train()
    pixels = torch.randn(4, 3, 32, 32)
    assert not torch.equal(model(pixels).pooler_output, model(pixels).pooler_output)
    rates = [block.path_dropout for stage in model.layers for block in stage.blocks]
    assert rates == pytest.approx([0.9 * i / 5 for i in range(5)])
    model.eval()
    assert torch.equal(model(pixels).pooler_output, model(pixels).pooler_output)


def test_no_image_sees_another_in_training():
    torch.manual_seed(0)
    model = open_branches(make()).train()
    pixels = torch.randn(3, 3, 32, 32)
    assert_close(model(pixels).pooler_output[:1], model(pixels[:1]).pooler_output, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name, published", [("nfnet-f0", 71.5), ("nfnet-f6", 438.4)])
def test_published_counts_with_the_classifier_of_imagenet(name, published):
    with torch.device("meta"):
        model = ZooNfnetForImageClassification(hf_zoo.create_config(name, num_labels=1000))
    assert model.num_parameters() / 1e6 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depths": [1, 2]}, "depths and widths"),
        ({"stem_widths": [8, 8]}, "stem_widths"),
        ({"group_size": 64}, "group_size=64"),
        ({"depths": [1, 0, 1, 1]}, "at least 1"),
    ],
)
def test_configs_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("nfnet-tiny", **options)
