"""The WKV of RWKV-4: an average of the values so far whose weights decay at a rate of each channel's own.

Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era", https://arxiv.org/abs/2305.13048, section 3.1:

    y_t = (a_t + e^{u + k_t} v_t) / (b_t + e^{u + k_t})        b has 1 in place of v:
    a_t = sum_{i<t} e^{(t-1-i) w + k_i} v_i                     a_{t+1} = e^w a_t + e^{k_t} v_t

Sums of exponentials are kept as (a, b, p): the sums times e^{-p}, with p their largest exponent so far, so that keys
of any size stay finite (appendix D). With Z_t the logarithm of the denominator, the gradients

    dv_i = e^{k_i} R_i + e^{u + k_i - Z_i} g_i                  R_i = sum_{t>i} e^{(t-1-i) w - Z_t} g_t
    dk_i = e^{k_i} (v_i R_i - S_i) + e^{u + k_i - Z_i} g_i (v_i - y_i)                     S_i the same of g_t y_t
    dw   = sum_j e^w (a_j R_j - b_j S_j)

need the same sums of the reversed row, with -Z for keys: one scan serves both directions.

Why it is fast without a compiled kernel: a row of T tokens is cut into chunks of about sqrt(T), which are scanned side
by side, one step for the t-th token of all of them; then their ends are joined one after the other, and what came
before a chunk is added to all its tokens at once. That is 2 sqrt(T) steps instead of T, and memory linear in T.

Shapes: B batch, T tokens, D channels, C tokens a chunk, M chunks.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

EMPTY = -1e38  # the exponent p of sums that hold nothing


def wkv(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    mask: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The average above, computed in at least float32 and differentiable once.

    Args:
        w: (D,), negative: the logarithm of what is kept from one token to the next.
        u: (D,), added to the key of the present token.
        k, v: (B, T, D).
        state: (B, 3, D) of a, b and p left by earlier tokens, nothing if not given.
        mask: (B, T), 1 on real tokens; the others neither decay the sums nor enter them.
        starts: (B, T), True on the first token of a document, which sees nothing of what came before it.
        chunk_size: tokens a chunk; changes speed, not results.

    Returns:
        y (B, T, D) in the dtype of v, and the state (B, 3, D) after the last token.
    """
    dtype = torch.promote_types(v.dtype, torch.float32)
    w, u, k, values = (z.to(dtype) for z in (w, u, k, v))
    if mask is not None:
        k = k.masked_fill(mask[..., None] == 0, EMPTY)
        mask = mask.to(dtype)
    if state is None:
        state = torch.stack((torch.zeros_like(k[:, 0]),) * 2 + (torch.full_like(k[:, 0], EMPTY),), dim=1)
    state = state.to(dtype)
    if k.shape[1] == 1:
        y, state = _step(w, u, k[:, 0], values[:, 0], state, mask, starts)
        return y[:, None].to(v.dtype), state
    if starts is not None:
        state = _forget(state, starts[:, :1])
    y, state, *_ = _wkv(w, u, k, values, state, mask, starts, chunk_size or _default_chunk_size(k.shape[1]))
    return y.to(v.dtype), state


def _default_chunk_size(T: int) -> int:
    """As many steps inside the chunks as from chunk to chunk."""
    return max(1, math.isqrt(T))


def _forget(state: Tensor, starts: Tensor) -> Tensor:
    """The state (B, 3, D), empty in the rows that start a document: starts (B, 1)."""
    a, b, p = state.unbind(1)
    return torch.stack((a.masked_fill(starts, 0), b.masked_fill(starts, 0), p.masked_fill(starts, EMPTY)), dim=1)


def _step(w: Tensor, u: Tensor, k: Tensor, v: Tensor, state: Tensor, mask: Tensor | None, starts: Tensor | None):
    """The recurrence for T = 1, k and v (B, D), as in generation."""
    if starts is not None:
        state = _forget(state, starts)
    a, b, p = state.unbind(1)
    now = u + k
    top = torch.maximum(p, now)
    before, now = torch.exp(p - top), torch.exp(now - top)
    y = torch.addcmul(before * a, now, v) / torch.addcmul(now, before, b)
    p = p + (w if mask is None else w * mask)
    top = torch.maximum(p, k)
    before, now = torch.exp(p - top), torch.exp(k - top)
    return y, torch.stack((torch.addcmul(before * a, now, v), torch.addcmul(now, before, b), top), dim=1)


def _scan(
    w: Tensor,
    k: Tensor,
    x: Tensor,
    first: Tensor,
    units: Tensor | None,
    wipes: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor]:
    """Decaying sums of e^k x before each token: the sums (2, B, T + 1 or more, D) and their exponents, without the 2.

    What stands at T comes after the last token, and what is beyond has no meaning.

    Args:
        w: (D,), the decay from token to token.
        k: (B, T, D).
        x: (2, B, T, D), two things to sum.
        first: (B, 3, D), the sums and exponents before the first token.
        units: (B, T), how often each token lets the sums decay; once if not given.
        wipes: (B, T), True where the sums are emptied after a token.
    """
    B, T, D = k.shape
    C, M = chunk_size, T // chunk_size + 1
    k, x = (F.pad(z, (0, 0, 0, M * C - T)).unflatten(-2, (M, C)) for z in (k, x))
    if units is not None:
        units = F.pad(units, (0, M * C - T)).view(B, M, C, 1)
    if wipes is not None:
        wipes = F.pad(wipes, (0, M * C - T)).view(B, M, C, 1)

    # inside all chunks at once, from nothing
    sums, exponents = torch.empty_like(x), torch.empty_like(k)
    ends, p = torch.zeros_like(x[..., 0, :]), torch.full_like(k[:, :, 0], EMPTY)
    for t in range(C):
        sums[..., t, :], exponents[:, :, t] = ends, p
        k_t = k[:, :, t]
        p = p + (w if units is None else w * units[:, :, t])
        top = torch.maximum(p, k_t)
        ends = torch.addcmul(p.sub_(top).exp_() * ends, (k_t - top).exp_(), x[..., t, :])
        p = top if wipes is None else top.masked_fill_(wipes[:, :, t], EMPTY)

    # from chunk to chunk
    if units is None:
        decay = w * torch.arange(C + 1, device=k.device, dtype=k.dtype)[:, None]  # (C + 1, D)
    else:
        decay = w * F.pad(units.cumsum(2), (0, 0, 1, 0))  # (B, M, C + 1, D)
    if wipes is not None:
        decay = torch.where(F.pad(wipes.cumsum(2), (0, 0, 1, 0)) > 0, EMPTY, decay)
    decay = decay.expand(B, M, C + 1, D)
    carries, carried = torch.empty_like(ends), torch.empty_like(p)
    carry, q = first[:, :2].transpose(0, 1), first[:, 2]
    for m in range(M):
        carries[:, :, m], carried[:, m] = carry, q
        q = (q + decay[:, m, C]).clamp_min_(EMPTY)
        top = torch.maximum(q, p[:, m])
        carry = torch.addcmul(q.sub_(top).exp_() * carry, (p[:, m] - top).exp_(), ends[:, :, m])
        q = top

    # what came before a chunk, added to all its tokens
    carried = (carried[:, :, None] + decay[:, :, :-1]).clamp_min_(EMPTY)
    top = torch.maximum(carried, exponents)
    sums.mul_(exponents.sub_(top).exp_()).addcmul_(carried.sub_(top).exp_(), carries[..., None, :])
    return sums.flatten(2, 3), top.flatten(1, 2)


@torch.library.custom_op("hf_zoo::wkv", mutates_args=())
def _wkv(
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    mask: Tensor | None,
    starts: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y, the last state, Z (B, T, D), and the sums and exponents of `_scan`.

    An operator of its own, so that torch.compile sees one node and not a loop to unroll.
    """
    T = k.shape[1]
    wipes = None if starts is None else F.pad(starts[:, 1:], (0, 1))
    sums, exponents = _scan(w, k, torch.stack((v, torch.ones_like(v))), state, mask, wipes, chunk_size)
    last = torch.stack((sums[0, :, T], sums[1, :, T], exponents[:, T]), dim=1)
    (a, b), p = sums[:, :, :T], exponents[:, :T]
    now = u + k
    top = torch.maximum(p, now)
    before, now = torch.exp(p - top), now.sub_(top).exp_()
    Z = torch.addcmul(now, before, b)
    y = before.mul_(a).addcmul_(now, v).div_(Z)
    return y, last, Z.log_().add_(top), sums, exponents


@torch.library.custom_op("hf_zoo::wkv_backward", mutates_args=())
def _wkv_backward(
    grad_y: Tensor,
    grad_state: Tensor,
    w: Tensor,
    u: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor,
    y: Tensor,
    last: Tensor,
    Z: Tensor,
    sums: Tensor,
    exponents: Tensor,
    mask: Tensor | None,
    starts: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of w, u, k, v and the first state."""
    T = k.shape[1]
    # The exponent of a state is as good as any other, so that nothing depends on it: only a and b have gradients.
    after = torch.stack((grad_state[:, 0], -grad_state[:, 1], -last[:, 2]), dim=1)
    units, wipes = (None if x is None else x.flip(1) for x in (mask, starts))
    values = torch.stack((grad_y.flip(1), (grad_y * y).flip(1)))
    sums_after, exponents_after = _scan(w, Z.neg().flip(1), values, after, units, wipes, chunk_size)
    (R, S), p = sums_after[:, :, :T].flip(2), exponents_after[:, :T].flip(1)

    own = (u + k).sub_(Z).exp_().mul_(grad_y)
    later = (k + p).exp_()
    grad_now = own * (v - y)
    grad_v = torch.addcmul(own, later, R)
    grad_k = torch.addcmul(grad_now, later, (v * R).sub_(S))
    (a, b), p_before = sums[:, :, :T], exponents[:, :T]
    both = (p_before + p).add_(w).exp_()
    if mask is not None:
        both.mul_(mask[..., None])
    grad_w = both.mul_((a * R).sub_(b * S)).sum((0, 1))
    scale = (state[:, 2] + exponents_after[:, T]).exp_()
    grad_a, grad_b = scale * sums_after[0, :, T], -scale * sums_after[1, :, T]
    grad_p = state[:, 0] * grad_a + state[:, 1] * grad_b
    return grad_w, grad_now.sum((0, 1)), grad_k, grad_v, torch.stack((grad_a, grad_b, grad_p), dim=1)


@_wkv.register_fake
def _(w, u, k, v, state, mask, starts, chunk_size):
    y, Z = torch.empty_like(v), torch.empty_like(v)
    exponents = v.new_empty(len(v), (v.shape[1] // chunk_size + 1) * chunk_size, v.shape[2])
    return y, torch.empty_like(state), Z, v.new_empty(2, *exponents.shape), exponents


@_wkv_backward.register_fake
def _(grad_y, grad_state, w, u, k, v, state, *_):
    return tuple(torch.empty_like(x) for x in (w, u, k, v, state))


def _save(ctx, inputs, output):
    *tensors, mask, starts, ctx.chunk_size = inputs
    ctx.save_for_backward(*tensors, *output, mask, starts)


def _backward(ctx, grad_y, grad_state, *_):
    grads = _wkv_backward(grad_y, grad_state, *ctx.saved_tensors, ctx.chunk_size)
    return *grads, None, None, None


_wkv.register_autograd(_backward, setup_context=_save)
