"""Exact attention in blocks, with memory that grows with T and not with T^2.

Rabe and Staats 2021, https://arxiv.org/abs/2112.05682; Dao et al. 2022, https://arxiv.org/abs/2205.14135; Liu and
Abbeel 2023 (blockwise transformers), https://arxiv.org/abs/2305.19370. Queries meet one block of keys after another,
and running statistics (the largest score m and the sum l of exponentials) keep the softmax exact:

    m' = max(m, max s)    l' = l e^(m - m') + Σ e^(s - m')    a' = a e^(m - m') + e^(s - m') V    y = a / l

Backwards the weights are made again from what is kept, one number a query: p = exp(s - m - log l). With D = Σ dy y,

    dV = pᵀ dy    ds = p (dy Vᵀ - D)    dQ = ds K    dK = dsᵀ Q

Dropout multiplies p by a mask z of zeros and 1 / (1 - rate) where it meets V, and dy Vᵀ by it; z is not kept but drawn
again from the same seed.

Shapes: B batch, H heads, T queries, S keys, K head size.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .dropout import Keep


def blockwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    is_causal: bool = True,
    scaling: float | None = None,
    dropout: float = 0.0,
    block_size: int = 256,
) -> Tensor:
    """Attention of the last T of S tokens -> (B, H, T, K); a query that sees nothing gets zeros.

    Args:
        q: (B, H, T, K).
        k, v: (B, H, S, K), S at least T.
        mask: true on keys that may be seen, (B, S), or (B or 1, H or 1, T or 1, S); None where all may.
        is_causal: whether later keys are hidden. Blocks of them are skipped.
        scaling: factor on the scores, 1 / sqrt(K) by default.
        dropout: share of the weights that are set to zero.
        block_size: queries and keys of a block; changes speed and memory, not results.
    """
    scaling = q.shape[-1] ** -0.5 if scaling is None else scaling
    if mask is not None:
        mask = (mask[:, None, None] if mask.ndim == 2 else mask).bool()
    seed = int(torch.randint(1 << 62, ())) if dropout else 0
    return _Blockwise.apply(q, k, v, mask, is_causal, scaling, block_size, dropout, seed)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, mask, is_causal, scaling, block_size, dropout, seed):
        y = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype, device=q.device)
        normaliser = q.new_empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32))
        keep = Keep(dropout, q.device, seed)
        for rows, blocks in _blocks(q.shape[2], k.shape[2], is_causal, block_size):
            largest = normaliser.new_full((*q.shape[:2], rows.stop - rows.start, 1), -torch.inf)
            total, mixed = torch.zeros_like(largest), 0.0
            for columns in blocks:
                scores = _scores(q, k, mask, is_causal, scaling, rows, columns)
                new = torch.maximum(largest, scores.amax(-1, keepdim=True))
                new = new.masked_fill(new == -torch.inf, 0.0)  # nothing seen so far
                weights, before = scores.sub_(new).exp_(), torch.exp(largest - new)
                total = total * before + weights.sum(-1, keepdim=True)
                mixed = mixed * before + keep(weights) @ v[:, :, columns].to(weights.dtype)
                largest = new
            y[:, :, rows] = (keep.factor * mixed / total.clamp_min(torch.finfo(total.dtype).tiny)).to(y.dtype)
            normaliser[:, :, rows] = (largest + total.log())[..., 0]  # -inf where nothing is seen
        ctx.save_for_backward(q, k, v, mask, y, normaliser)
        ctx.arguments = is_causal, scaling, block_size, dropout, seed
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        q, k, v, mask, y, normaliser = ctx.saved_tensors
        is_causal, scaling, block_size, dropout, seed = ctx.arguments
        keep = Keep(dropout, q.device, seed)
        grad_q, grad_k, grad_v = (torch.zeros_like(z, dtype=normaliser.dtype) for z in (q, k, v))
        sums = (grad_y * y).sum(-1, keepdim=True).to(normaliser.dtype)
        normaliser = normaliser[..., None].nan_to_num(neginf=torch.inf)  # exp(-inf): a query that sees nothing
        for rows, blocks in _blocks(q.shape[2], k.shape[2], is_causal, block_size):
            g = grad_y[:, :, rows].to(normaliser.dtype) * keep.factor
            for columns in blocks:
                scores = _scores(q, k, mask, is_causal, scaling, rows, columns)
                weights = scores.sub_(normaliser[:, :, rows]).exp_()
                grad_weights = g @ v[:, :, columns].to(g.dtype).mT
                kept = keep.draw(weights.shape, weights.dtype)
                if kept is None:
                    grad_v[:, :, columns] += weights.mT @ g
                else:
                    grad_v[:, :, columns] += (weights * kept).mT @ g
                    grad_weights *= kept
                grad_scores = grad_weights.sub_(sums[:, :, rows]).mul_(weights)
                grad_q[:, :, rows] += scaling * grad_scores @ k[:, :, columns].to(g.dtype)
                grad_k[:, :, columns] += scaling * grad_scores.mT @ q[:, :, rows].to(g.dtype)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), *[None] * 6


def _blocks(num_queries: int, num_keys: int, is_causal: bool, block_size: int):
    """Each block of queries, with the blocks of keys that it may see."""
    for first in range(0, num_queries, block_size):
        rows = slice(first, min(first + block_size, num_queries))
        stop = rows.stop + num_keys - num_queries if is_causal else num_keys
        yield rows, [slice(j, min(j + block_size, stop)) for j in range(0, stop, block_size)]


def _scores(q, k, mask, is_causal, scaling, rows, columns):
    """Scores of a block of queries and a block of keys in at least float32, -inf where nothing may be seen."""
    scores = ((q[:, :, rows] * scaling) @ k[:, :, columns].mT).to(torch.promote_types(q.dtype, torch.float32))
    offset = k.shape[2] - q.shape[2]
    if is_causal and columns.stop > rows.start + offset + 1:
        i = torch.arange(rows.start, rows.stop, device=q.device)[:, None] + offset
        scores = scores.masked_fill(torch.arange(columns.start, columns.stop, device=q.device) > i, -torch.inf)
    if mask is not None:
        seen = mask[..., columns] if mask.shape[2] == 1 else mask[:, :, rows, columns]
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores
