"""Selective scan, the recurrence of Mamba-1 (S6), in linear time and memory without a compiled kernel.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", https://arxiv.org/abs/2312.00752,
sections 3.2 and 3.3. Each channel has a state of N numbers, which every token lets decay and writes to at a rate dt of
its own; A is discretised by zero-order hold and B by Euler's rule, as in the authors' code:

    h_t = exp(dt_t A) ∘ h_{t-1} + (dt_t u_t) ⊗ B_t
    y_t = h_t C_t + D ∘ u_t

Backwards, the gradient of h_t follows the same recurrence in reverse: g_t = ∂y_t ⊗ C_t + exp(dt_{t+1} A) ∘ g_{t+1}.

Why it is fast on a CPU: the sequence is cut into chunks whose (C, B, N, E) tensors fit the cache and are written in place
into the same few buffers. Inside a chunk everything but the recurrence is one operation over the whole chunk, and the
recurrence is one fused multiply-add per token. N stands before E, so that all of these run along E (N is too short to
fill vector registers) and the sums over N or E are batched matrix products that read the states once. The exponential,
otherwise the most expensive step, is an exp2 with log2(e) folded into A, three times as fast. For the backward pass only
the state before each chunk is kept; it computes the others again.

Shapes: B batch, T tokens, E channels, N state size, C chunk.
"""

import math

import torch
from torch import Tensor


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The selective scan, computed in at least float32 and differentiable once.

    Args:
        u: (B, T, E), the input.
        dt: (B, T, E), the step sizes, not negative. A step of 0 leaves the state untouched, as padding should.
        A: (E, N), negative.
        B, C: (B, T, N), what a token writes to and reads from.
        D: (E,), the skip connection.
        state: (B, E, N) left by earlier tokens, zeros if not given.
        starts: (B, T), True on the first token of a document, which sees nothing of the state before it.
        chunk_size: tokens per chunk; changes speed and memory, not results.

    Returns:
        y (B, T, E) in the dtype of u, and the state (B, E, N) after the last token.

    Raises:
        ValueError: if the shapes do not agree.
    """
    if u.shape != dt.shape or B.shape != C.shape or (*u.shape, A.shape[1]) != (*B.shape[:2], *A.shape):
        shapes = ", ".join(str(tuple(x.shape)) for x in (u, dt, A, B, C))
        raise ValueError(f"u and dt must be (B, T, E), A (E, N), B and C (B, T, N), not {shapes}")
    dtype = torch.promote_types(u.dtype, torch.float32)
    x, dt, A, B, C = (z.to(dtype) for z in (u, dt, A, B, C))
    state = x.new_zeros(len(x), *A.shape) if state is None else state.to(dtype)
    if x.shape[1] == 1:
        y, state = _step(x, dt, A, B, C, state, starts)
    else:
        y, state, _ = _scan(x, dt, A, B, C, state, starts, chunk_size or _default_chunk_size(state.numel()))
    if D is not None:
        y = torch.addcmul(y, x, D.to(dtype))
    return y.to(u.dtype), state


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, starts: Tensor | None):
    """The recurrence for T = 1, as in generation, where a custom operator would cost more than the arithmetic."""
    decay = torch.exp(dt.mT * A)  # (B, E, N)
    if starts is not None:
        decay = decay.masked_fill(starts[..., None], 0.0)
    state = torch.addcmul(decay * state, (dt * x).mT, B)
    return (state * C).sum(-1)[:, None], state


def _default_chunk_size(state_numel: int) -> int:
    """As many tokens as have a megabyte of states, but enough that the states kept are no more than the inputs."""
    return max(16, min(64, 2**18 // max(state_numel, 1)))


def _fill_states(decays: Tensor, states: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, starts: Tensor | None):
    """Writes decays (C, B, N, E) and states[1:] (C + 1, B, N, E), given states[0]; tokens come first in dt (C, B, E)."""
    torch.mul(dt[:, :, None], A.t() * math.log2(math.e), out=decays).exp2_()
    if starts is not None:
        decays.masked_fill_(starts[:, :, None, None], 0.0)
    torch.mul((dt * x)[:, :, None], B[..., None], out=states[1:])
    before, *after = states.unbind()
    for decay, h in zip(decays.unbind(), after, strict=True):
        before = h.addcmul_(decay, before)


def _chunks(chunk_size: int, *tensors: Tensor | None) -> list[tuple[Tensor | None, ...]]:
    """Cuts (B, T, ...) tensors into chunks, tokens first."""
    num_chunks = -(-tensors[0].shape[1] // chunk_size)
    split = ([None] * num_chunks if z is None else z.transpose(0, 1).split(chunk_size) for z in tensors)
    return list(zip(*split))[:num_chunks]


@torch.library.custom_op("hf_zoo::selective_scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, starts: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y without its skip connection, the last state, and the states (chunks, B, N, E) before each chunk.

    An operator of its own, so that torch.compile takes the loop as one node, with nothing to unroll."""
    batch, T, E = x.shape
    N = A.shape[1]
    y = x.new_empty(T, batch, E)
    kept = x.new_empty(-(-T // chunk_size), batch, N, E)
    decays = x.new_empty(chunk_size, batch, N, E)
    states = x.new_empty(chunk_size + 1, batch, N, E)
    h = state.mT
    with torch.autocast(x.device.type, enabled=False):
        for i, (x_c, dt_c, B_c, C_c, starts_c) in enumerate(_chunks(chunk_size, x, dt, B, C, starts)):
            n = len(x_c)
            kept[i] = states[0] = h
            _fill_states(decays[:n], states[: n + 1], x_c, dt_c, A, B_c, starts_c)
            y[i * chunk_size : i * chunk_size + n] = (C_c[:, :, None] @ states[1 : n + 1]).squeeze(2)
            h = states[n]
    return y.transpose(0, 1).contiguous(), h.mT.clone(memory_format=torch.contiguous_format), kept


@torch.library.custom_op("hf_zoo::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad_y: Tensor,
    grad_state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    kept: Tensor,
    starts: Tensor | None,
    chunk_size: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C and the first state."""
    decays, grads, scratch = (x.new_empty(chunk_size, *kept.shape[1:]) for _ in range(3))
    states = x.new_empty(chunk_size + 1, *kept.shape[1:])
    grad_x, grad_dt, grad_B, grad_C = (torch.empty_like(z.transpose(0, 1)) for z in (x, dt, B, C))
    grad_A = torch.zeros_like(A.t())
    carry = grad_state.mT  # gradient of the state after the chunk
    chunks = _chunks(chunk_size, grad_y, x, dt, B, C, starts)
    with torch.autocast(x.device.type, enabled=False):
        for i in reversed(range(len(chunks))):
            grad_y_c, x_c, dt_c, B_c, C_c, starts_c = chunks[i]
            n = len(x_c)
            a, g, h, tmp = decays[:n], grads[:n], states[: n + 1], scratch[:n]
            h[0] = kept[i]
            _fill_states(a, h, x_c, dt_c, A, B_c, starts_c)

            torch.mul(grad_y_c[:, :, None], C_c[..., None], out=g)
            *before, after = g.unbind()
            after += carry
            for decay, before_ in zip(a.unbind()[:0:-1], reversed(before), strict=True):
                after = before_.addcmul_(decay, after)

            written, tokens = dt_c * x_c, slice(i * chunk_size, i * chunk_size + n)
            grad_C[tokens] = (grad_y_c[:, :, None] @ h[1:].mT).squeeze(2)
            grad_B[tokens] = (written[:, :, None] @ g.mT).squeeze(2)
            grad_written = (B_c[:, :, None] @ g).squeeze(2)
            torch.mul(grad_written, dt_c, out=grad_x[tokens])

            a.mul_(g)  # the gradient of the state before each token
            carry = a[0].clone()
            a.mul_(h[:-1])  # the gradient of dt_t A
            torch.sum(torch.mul(a, A.t(), out=tmp), 2, out=grad_dt[tokens]).addcmul_(grad_written, x_c)
            grad_A += torch.mul(a, dt_c[:, :, None], out=tmp).sum((0, 1))
    return tuple(z.transpose(0, 1).contiguous() for z in (grad_x, grad_dt, grad_A, grad_B, grad_C)) + (
        carry.mT.clone(memory_format=torch.contiguous_format),
    )


@_scan.register_fake
def _(x, dt, A, B, C, state, starts, chunk_size):
    kept = x.new_empty(-(-x.shape[1] // chunk_size), len(x), A.shape[1], A.shape[0])
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(state.shape), kept


@_scan_backward.register_fake
def _(grad_y, grad_state, x, dt, A, B, C, kept, starts, chunk_size):
    grads = tuple(torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, dt, A, B, C))
    return *grads, x.new_empty(grad_state.shape)


def _save(ctx, inputs, output):
    x, dt, A, B, C, _, ctx_starts, ctx.chunk_size = inputs
    ctx.save_for_backward(x, dt, A, B, C, output[2], ctx_starts)


def _backward(ctx, grad_y, grad_state, grad_kept):
    *tensors, starts = ctx.saved_tensors
    grads = _scan_backward(grad_y, grad_state, *tensors, starts, ctx.chunk_size)
    return *grads, None, None


_scan.register_autograd(_backward, setup_context=_save)
