"""Exact attention in blocks, with memory that grows with T and not with T^2.

Rabe and Staats 2021, https://arxiv.org/abs/2112.05682; Dao et al. 2022, https://arxiv.org/abs/2205.14135; Liu and
Abbeel 2023 (blockwise transformers), https://arxiv.org/abs/2305.19370. Queries meet one block of keys after another,
and running statistics (the largest score m and the sum l of exponentials) keep the softmax exact:

    m' = max(m, max s)    l' = l e^(m - m') + Σ e^(s - m')    a' = a e^(m - m') + e^(s - m') V    y = a / l

Backwards the weights are made again from what is kept, one number a query: p = exp(s - m - log l). With D = Σ dy y,

    dV = pᵀ dy    ds = p (dy Vᵀ - D)    dQ = ds K    dK = dsᵀ Q

Shapes: B batch, H heads, T queries, S keys, K head size.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def blockwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    real: Tensor | None = None,
    *,
    is_causal: bool = True,
    scaling: float | None = None,
    block_size: int = 256,
) -> Tensor:
    """Attention of the last T of S tokens -> (B, H, T, K); a query that sees nothing gets zeros.

    Args:
        q: (B, H, T, K).
        k, v: (B, H, S, K), S at least T.
        real: (B, S), true on keys that may be seen; None where all may.
        is_causal: whether later keys are hidden. Blocks of them are skipped.
        scaling: factor on the scores, 1 / sqrt(K) by default.
        block_size: queries and keys of a block; changes speed and memory, not results.
    """
    scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
    return _Blockwise.apply(q, k, v, real, is_causal, scaling, block_size)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, real, is_causal, scaling, block_size):
        y = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype, device=q.device)
        normaliser = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        for rows, blocks in _blocks(q.shape[2], k.shape[2], is_causal, block_size):
            largest = normaliser.new_full((*q.shape[:2], rows.stop - rows.start, 1), -torch.inf)
            total, mixed = torch.zeros_like(largest), 0.0
            for columns in blocks:
                scores = _scores(q, k, real, is_causal, scaling, rows, columns)
                new = torch.maximum(largest, scores.amax(-1, keepdim=True))
                new = new.masked_fill(new == -torch.inf, 0.0)  # nothing seen so far
                weights, kept = torch.exp(scores - new), torch.exp(largest - new)
                total = total * kept + weights.sum(-1, keepdim=True)
                mixed = mixed * kept + weights @ v[:, :, columns].to(weights.dtype)
                largest = new
            y[:, :, rows] = (mixed / total.clamp_min(torch.finfo(total.dtype).tiny)).to(y.dtype)
            normaliser[:, :, rows] = (largest + total.log())[..., 0]  # -inf where nothing is seen
        ctx.save_for_backward(q, k, v, real, y, normaliser)
        ctx.arguments = is_causal, scaling, block_size
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        q, k, v, real, y, normaliser = ctx.saved_tensors
        is_causal, scaling, block_size = ctx.arguments
        grad_q, grad_k, grad_v = (torch.zeros_like(z, dtype=normaliser.dtype) for z in (q, k, v))
        sums = (grad_y * y).sum(-1, keepdim=True).to(normaliser.dtype)
        normaliser = normaliser[..., None].nan_to_num(neginf=torch.inf)  # exp(-inf): a query that sees nothing
        for rows, blocks in _blocks(q.shape[2], k.shape[2], is_causal, block_size):
            g = grad_y[:, :, rows].to(normaliser.dtype)
            for columns in blocks:
                scores = _scores(q, k, real, is_causal, scaling, rows, columns)
                weights = torch.exp(scores - normaliser[:, :, rows])
                grad_v[:, :, columns] += weights.mT @ g
                grad_scores = weights * (g @ v[:, :, columns].to(g.dtype).mT - sums[:, :, rows])
                grad_q[:, :, rows] += scaling * grad_scores @ k[:, :, columns].to(g.dtype)
                grad_k[:, :, columns] += scaling * grad_scores.mT @ q[:, :, rows].to(g.dtype)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None, None, None


def _blocks(num_queries: int, num_keys: int, is_causal: bool, block_size: int):
    """Each block of queries, with the blocks of keys that it may see."""
    for first in range(0, num_queries, block_size):
        rows = slice(first, min(first + block_size, num_queries))
        stop = rows.stop + num_keys - num_queries if is_causal else num_keys
        yield rows, [slice(j, min(j + block_size, stop)) for j in range(0, stop, block_size)]


def _scores(q, k, real, is_causal, scaling, rows, columns):
    """Scores of a block of queries and a block of keys in at least float32, -inf where nothing may be seen."""
    scores = ((q[:, :, rows] * scaling) @ k[:, :, columns].mT).to(torch.promote_types(q.dtype, torch.float32))
    offset = k.shape[2] - q.shape[2]
    if is_causal and columns.stop > rows.start + offset + 1:
        i = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + offset
        scores = scores.masked_fill(torch.arange(columns.start, columns.stop, device=q.device) > i, -torch.inf)
    if real is not None:
        scores = scores.masked_fill(~real[:, None, None, columns].bool(), -torch.inf)
    return scores
