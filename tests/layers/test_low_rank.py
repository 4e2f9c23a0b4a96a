"""Low-rank layers: what they compute, how many weights they have, and that singular values give the nearest one."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from hf_zoo.modeling.layers.low_rank import LowRankLinear, factorise, largest_rank

IN, OUT = 12, 20


def dense(bias=True):
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=bias).double()


@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_dense_layer_of_its_product(bias):
    layer = LowRankLinear(IN, OUT, 3, bias).double()
    x = torch.randn(5, IN, dtype=torch.float64)
    product = layer.weight @ layer.reduce
    assert torch.linalg.matrix_rank(product) == 3
    assert_close(layer(x), nn.functional.linear(x, product, layer.bias))
    assert_close(layer.dense()(x), layer(x))
    assert sum(p.numel() for p in layer.parameters()) == 3 * (IN + OUT) + bias * OUT


@pytest.mark.parametrize("rank", [1, 3, 11])
def test_singular_values_give_the_nearest(rank):
    source = dense()
    sigma = torch.linalg.svdvals(source.weight)
    error = (LowRankLinear.from_dense(source, rank).dense().weight - source.weight).square().sum()
    assert_close(error, sigma[rank:].square().sum())


def test_a_full_rank_is_exact():
    source, x = dense(), torch.randn(5, IN, dtype=torch.float64)
    assert_close(LowRankLinear.from_dense(source, IN)(x), source(x))


def test_half_precision_is_factorised_in_single():
    layer = LowRankLinear.from_dense(dense().to(torch.bfloat16), IN)
    assert layer.weight.dtype == torch.bfloat16
    assert_close(layer.dense().weight.double(), dense().weight, atol=0.02, rtol=0.02)


def test_outputs_start_with_the_variance_of_inputs():
    torch.manual_seed(0)
    layer = LowRankLinear(300, 400, 50, bias=False)
    assert layer(torch.randn(500, 300)).var().item() == pytest.approx(1, rel=0.1)


def test_the_largest_rank_saves_and_the_next_does_not():
    for sizes in ((IN, OUT), (4, 4), (768, 3072)):
        rank = largest_rank(*sizes)
        assert rank * sum(sizes) < sizes[0] * sizes[1] <= (rank + 1) * sum(sizes)
    assert largest_rank(1, 7) == 0


def test_named_layers_are_replaced_wherever_they_are():
    module = nn.ModuleDict({"a": nn.ModuleDict({"q": nn.Linear(4, 6)}), "q": nn.Linear(8, 8, bias=False)})
    factorise(module, {"q": 2})
    assert [type(m) for m in (module["a"]["q"], module["q"])] == [LowRankLinear, LowRankLinear]
    assert module["a"]["q"].bias is not None and module["q"].bias is None
