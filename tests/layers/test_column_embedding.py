"""Tokens of columns against their equations, in float64."""

import math

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.column_embedding import (
    CategoryEmbedding,
    IdentifiedCategoryEmbedding,
    NumberEmbedding,
    PiecewiseLinearEmbedding,
)

BINS = [[-1.0, 0.0, 0.5, 2.0], [0.0, 1.0], [-2.0, -1.5, 3.0]]


def drawn(layer, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def encoding(x, edges):
    """e(x) of Gorishniy et al. 2022, equation 1, with plain ifs."""
    e = []
    for t in range(1, len(edges)):
        low, high = edges[t - 1], edges[t]
        if x < low and t > 1:
            e.append(0.0)
        elif x >= high and t < len(edges) - 1:
            e.append(1.0)
        else:
            e.append((x - low) / (high - low))
    return e


def test_numbers_are_linear():
    layer = drawn(NumberEmbedding(3, 5))
    x = torch.randn(4, 3, dtype=torch.float64)
    y = layer(x)
    for row in range(4):
        for column in range(3):
            assert_close(y[row, column], layer.bias[column] + x[row, column] * layer.weight[column])
    assert_close(layer(2 * x) - layer(x), x[..., None] * layer.weight)


@pytest.mark.parametrize("make", [lambda: NumberEmbedding(3, 5), lambda: PiecewiseLinearEmbedding(BINS, 5)])
def test_a_missing_number_has_a_token_of_its_own(make):
    layer = drawn(make())
    x = torch.randn(4, 3, dtype=torch.float64)
    whole = layer(x)
    x[1, 2] = math.nan
    y = layer(x)
    assert_close(y[1, 2], layer.missing[2] + layer.bias[2])
    is_known = ~x.isnan()
    assert torch.equal(y[is_known], whole[is_known])
    y.sum().backward()
    for parameter in layer.parameters():
        assert parameter.grad.isfinite().all()
    assert layer.missing.grad[2].abs().min() > 0 and not layer.missing.grad[:2].any()


def test_piecewise_linear_encodings():
    layer = drawn(PiecewiseLinearEmbedding(BINS, 5))
    x = torch.tensor(
        [[-3.0, -1.0, -4.0], [-1.0, 0.0, -1.5], [0.2, 0.3, 0.0], [0.5, 1.0, 3.0], [7.0, 4.0, 9.0]]
    ).double()
    y = layer(x)
    for row in range(len(x)):
        for column, edges in enumerate(BINS):
            expected = layer.bias[column].clone()
            for t, e in enumerate(encoding(x[row, column].item(), edges)):
                expected = expected + e * layer.weight[column, t]
            assert_close(y[row, column], expected)
            assert not layer.encode(x)[row, column, len(edges) - 1 :].any()  # bins that the column lacks


def test_one_bin_is_a_linear_number():
    piecewise, linear = drawn(PiecewiseLinearEmbedding([[-1.0, 3.0]], 4)), drawn(NumberEmbedding(1, 4))
    with torch.no_grad():
        linear.weight.copy_(piecewise.weight[:, 0] / 4)
        linear.bias.copy_(piecewise.bias + piecewise.weight[:, 0] / 4)
    x = torch.tensor([[-5.0], [0.0], [2.0], [9.0]]).double()
    assert_close(piecewise(x), linear(x))


def test_gradients_of_piecewise_encodings():
    layer = drawn(PiecewiseLinearEmbedding(BINS, 2))
    x = torch.tensor([[-0.4, 0.7, 0.1], [0.3, 1.7, -1.6]]).double().requires_grad_()
    assert torch.autograd.gradcheck(layer, x)


def test_categories_have_a_table_a_column():
    sizes = [3, 1, 4]
    layer = drawn(CategoryEmbedding(sizes, 5))
    tables = layer.weight.split(sizes)
    ids = torch.tensor([[0, 0, 3], [2, 0, 0], [1, 0, 2]])
    for row, ids_of_row in enumerate(ids.tolist()):
        for column, i in enumerate(ids_of_row):
            assert_close(layer(ids)[row, column], tables[column][i] + layer.bias[column])


def test_identifiers_say_which_column_it_is():
    sizes = [3, 2]
    layer = drawn(IdentifiedCategoryEmbedding(sizes, 8, 3))
    ids = torch.tensor([[0, 1], [2, 0]])
    y = layer(ids)
    assert y.shape == (2, 2, 8)
    assert torch.equal(y[0, :, :3], y[1, :, :3])
    assert torch.equal(y[0, :, :3], layer.bias)
    assert_close(y[1, 0, 3:], layer.weight[2])
    assert_close(y[0, 1, 3:], layer.weight[3 + 1])


@pytest.mark.parametrize("wrong", [3, -1])
def test_unknown_categories_are_named(wrong):
    with pytest.raises(ValueError, match=rf"category {wrong} of column 1 .* category_sizes\[1\] is 3"):
        CategoryEmbedding([5, 3], 4)(torch.tensor([[3, 2], [4, wrong]]))


def test_edges_come_back_after_loading():
    """They are made of the configuration and are in no checkpoint."""
    layer = PiecewiseLinearEmbedding(BINS, 4)
    before = layer.encode(torch.tensor([[0.2, 0.3, 0.0]]))
    with torch.no_grad():
        for buffer in layer.buffers():
            buffer.fill_(torch.nan)
    layer.initialise()
    assert torch.equal(layer.encode(torch.tensor([[0.2, 0.3, 0.0]])), before)
    assert set(layer.state_dict()) == {"weight", "bias", "missing"}
