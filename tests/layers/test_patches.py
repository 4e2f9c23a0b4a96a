"""Patches and positions against plain loops."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.patches import GridPositions, ImageTokens, PatchEmbedding


@pytest.fixture(autouse=True)
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_patches_are_a_convolution_with_its_gradients():
    layer, pixels = PatchEmbedding(3, 10, 4), torch.randn(2, 3, 8, 12, requires_grad=True)
    expected = F.conv2d(pixels, layer.weight, layer.bias, stride=4).flatten(2).mT
    got = layer(pixels)
    assert got.shape == (2, 6, 10)
    assert_close(got, expected)
    grads = [torch.autograd.grad(y.square().sum(), (pixels, *layer.parameters())) for y in (got, expected)]
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs)


def test_patches_stand_row_by_row():
    layer = PatchEmbedding(1, 1, 2, bias=False)
    layer.weight.data.fill_(0.25)
    pixels = torch.arange(6.0).view(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    assert_close(layer(pixels)[0, :, 0], torch.arange(6.0))


def test_pixels_that_make_no_patch_are_left_out():
    layer, pixels = PatchEmbedding(3, 10, 4), torch.randn(1, 3, 9, 11)
    assert_close(layer(pixels), layer(pixels[..., :8, :8]))


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 3, 8), (3, 8, 8)])
def test_images_that_do_not_fit_are_named(shape):
    with pytest.raises(ValueError, match=r"num_channels=3.*4 x 4"):
        PatchEmbedding(3, 10, 4)(torch.randn(shape))


def test_positions_of_the_own_grid_are_the_table():
    table = GridPositions(3, 5, num_extra=1)
    assert table(3, 3) is table.weight


def cubic(t, a=-0.75):
    """The kernel of bicubic interpolation at a distance t."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def test_other_grids_interpolate_and_leave_the_first_token():
    table, height, width = GridPositions(3, 5, num_extra=1), 4, 7
    table.float()  # interpolation is in float32
    got = table(height, width)
    assert torch.equal(got[0], table.weight[0])
    grid = table.weight[1:].view(3, 3, 5)
    for i in range(height):
        for j in range(width):
            y, x = (i + 0.5) * 3 / height - 0.5, (j + 0.5) * 3 / width - 0.5
            expected = torch.zeros(5)
            for m in range(int(y // 1) - 1, int(y // 1) + 3):
                for n in range(int(x // 1) - 1, int(x // 1) + 3):
                    cell = grid[min(max(m, 0), 2), min(max(n, 0), 2)]
                    expected = expected + cubic(y - m) * cubic(x - n) * cell
            assert_close(got[1 + i * width + j], expected.float(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("use_cls", [True, False])
def test_tokens_are_patches_and_positions(use_cls):
    layer, pixels = ImageTokens(6, 2, 3, 8, use_cls, use_mask_token=True), torch.randn(2, 3, 6, 6)
    for parameter in layer.parameters():
        parameter.data.normal_()
    masked = torch.rand(2, 9) < 0.5
    got, positions = layer(pixels, masked), layer.embed_positions.weight
    assert got.shape == (2, 9 + use_cls, 8)
    patches = layer.patch_embed(pixels)
    for b in range(2):
        if use_cls:
            assert_close(got[b, 0], layer.cls_token + positions[0])
        for n in range(9):
            vector = layer.mask_token if masked[b, n] else patches[b, n]
            assert_close(got[b, n + use_cls], vector + positions[n + use_cls])


def test_sizes_and_masks_that_do_not_fit_are_named():
    layer = ImageTokens(6, 2, 3, 8)
    with pytest.raises(ValueError, match=r"4 x 6 and image_size is 6.*interpolate_pos_encoding"):
        layer(torch.randn(1, 3, 4, 6))
    assert layer(torch.randn(1, 3, 4, 6), interpolate=True).shape == (1, 7, 8)
    with pytest.raises(ValueError, match="use_mask_token"):
        layer(torch.randn(1, 3, 6, 6), torch.ones(1, 9))
