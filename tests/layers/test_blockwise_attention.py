import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.blockwise_attention import blockwise_attention

B, H, K = 2, 3, 8


def qkv(T, S, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = ((B, H, T, K), (B, H, S, K), (B, H, S, K))
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def dense(q, k, v, real=None, is_causal=True, scaling=None):
    T, S = q.shape[2], k.shape[2]
    seen = torch.ones(T, S, dtype=torch.bool).tril(S - T) if is_causal else torch.ones(T, S, dtype=torch.bool)
    seen = seen.expand(B, 1, T, S) if real is None else seen & real[:, None, None].bool()
    scores = ((q @ k.mT) * (K**-0.5 if scaling is None else scaling)).masked_fill(~seen, -torch.inf)
    weights = torch.nan_to_num(F.softmax(scores, dim=-1))
    return weights @ v


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("block_size", [1, 5, 16, 64])
@pytest.mark.parametrize("T, S", [(23, 23), (1, 23), (9, 23), (16, 16)])
def test_equals_dense_attention_and_its_gradients(T, S, block_size, is_causal):
    tensors, results = qkv(T, S), []
    options = {"is_causal": is_causal, "scaling": 0.4}
    for y in (blockwise_attention(*tensors, **options, block_size=block_size), dense(*tensors, **options)):
        results.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), tensors)))
    assert_close(*results)


def test_padding_is_not_seen_and_a_row_of_it_gives_zeros():
    tensors, results = qkv(23, 23), []
    real = torch.ones(B, 23)
    real[0, :9] = 0  # the first nine queries of this row see nothing
    for attention in (lambda *z: blockwise_attention(*z, block_size=5), dense):
        y = attention(*tensors, real)
        results.append((y, *torch.autograd.grad(y.square().sum(), tensors)))
    assert_close(*results)
    assert not results[0][0][0, :, :9].any()


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("block_size", [5, 64])
def test_dropout_scales_what_it_keeps_and_forgets_the_rest_in_the_gradient_too(block_size, is_causal):
    q, k, v = qkv(23, 23)
    mask = torch.rand(B, 1, 23, 23) < 0.9
    mask |= torch.eye(23, dtype=torch.bool)
    options = {"is_causal": is_causal, "dropout": 0.25, "block_size": block_size}

    def attend(v):
        torch.manual_seed(5)
        return blockwise_attention(q, k, v, mask, **options)

    dropped = attend(torch.eye(23, dtype=q.dtype).expand(B, H, 23, 23))  # the weights themselves
    seen = mask & torch.ones(23, 23, dtype=torch.bool).tril() if is_causal else mask
    scores = (q @ k.mT * K**-0.5).masked_fill(~seen, -torch.inf)
    weights = F.softmax(scores, dim=-1)
    kept = (dropped != 0).double()
    assert_close(dropped, weights * kept / 0.75)
    share = kept[seen.expand(B, H, 23, 23)].mean()
    assert 0.70 < share < 0.80, share
    results = []
    for y in (attend(v), (weights * kept / 0.75) @ v):
        results.append((y, *torch.autograd.grad(y.square().sum(), (q, k, v), retain_graph=True)))
    assert_close(*results)


def test_large_scores_stay_exact():
    q, k, v = (z.detach() * 100 for z in qkv(23, 23))
    assert_close(blockwise_attention(q, k, v, block_size=4), dense(q, k, v))


def test_half_precision_is_summed_in_single():
    q, k, v = (z.detach() for z in qkv(300, 300, torch.bfloat16))
    y = blockwise_attention(q, k, v, block_size=32)
    assert y.dtype == torch.bfloat16
    assert_close(y.double(), dense(q.double(), k.double(), v.double()), atol=0.02, rtol=0.02)  # rounding of bfloat16


def test_memory_grows_with_the_length_and_not_with_its_square():
    from torch.profiler import ProfilerActivity, profile

    sizes = []
    for T in (1024, 4096):
        q, k, v = (torch.randn(1, 2, T, K, requires_grad=True) for _ in range(3))
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            blockwise_attention(q, k, v, block_size=128).sum().backward()
        events = profiler.profiler.kineto_results.events()
        alive = peak = 0
        for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda event: event.start_ns()):
            alive += event.nbytes()
            peak = max(peak, alive)
        sizes.append(peak)
    assert sizes[1] < 4.5 * sizes[0]
