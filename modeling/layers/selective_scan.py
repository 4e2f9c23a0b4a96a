"""Selective scan, the recurrence of Mamba-1 (S6), in linear time and memory without a compiled kernel.

Gu and Dao 2023, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", https://arxiv.org/abs/2312.00752,
sections 3.2 and 3.3. Each channel has a state of N numbers, which every token lets decay and writes to at a rate dt of
its own; A is discretised by zero-order hold and B by Euler's rule, as in the authors' code:

    h_t = exp(dt_t A) ∘ h_{t-1} + (dt_t u_t) ⊗ B_t
    y_t = h_t C_t + D ∘ u_t

Backwards, the gradient of h_t follows the same recurrence in reverse: g_t = ∂y_t ⊗ C_t + exp(dt_{t+1} A) ∘ g_{t+1}.

Why it is fast on a CPU: the sequence is cut into chunks whose (C, B, N, E) tensors fit the cache and are written in
place into the same few buffers. Inside a chunk everything but the recurrence is one operation over the whole chunk,
and the recurrence is one fused multiply-add per token. N stands before E, so that all of these run along E (N is too
short to fill vector registers) and the sums over N or E are batched matrix products that read the states once. The
exponential, otherwise the most expensive step, is an exp2 with log2(e) folded into A, three times as fast. For the
backward pass only the state before each chunk is kept; it computes the others again.

Shapes: B batch, T tokens, E channels, N state size, C chunk.
"""

import math

import torch
from torch import Tensor

from .mamba_kernels import kernel_for
from .precision import without_autocast


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
    kernel = kernel_for(x, "mamba_ssm", "selective_scan_fn") if state is None and starts is None else None
    if kernel is not None:
        y, state = kernel(x.mT, dt.mT, A, B.mT, C.mT, None if D is None else D.to(dtype), return_last_state=True)
        return y.mT.to(u.dtype), state
    state = x.new_zeros(len(x), *A.shape) if state is None else state.to(dtype)
    if x.shape[1] == 1:
        y, state = _step(x, dt, A, B, C, state, starts)
    else:
        y, state, _ = _scan(x, dt, A, B, C, state, starts, chunk_size or _default_chunk_size(state.numel()))
    if D is not None:
        y = y.addcmul_(x, D.to(dtype))
    return y.to(u.dtype), state


def _step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, starts: Tensor | None):
    """The recurrence for T = 1, as in generation, where a custom operator would cost more than the arithmetic."""
    decay = torch.exp(dt.mT * A)  # (B, E, N)
    if starts is not None:
        decay = decay.masked_fill(starts[..., None], 0.0)
    state = torch.addcmul(decay * state, (dt * x).mT, B)
    return (state * C).sum(-1)[:, None], state


def _default_chunk_size(state_numel: int) -> int:
    """As many tokens as have two megabytes of states, but enough that the states kept are no more than the inputs."""
    return max(16, min(64, 2**19 // max(state_numel, 1)))


class _Chunk:
    """Buffers for the states of one chunk, allocated once per call: fresh memory costs more than the arithmetic."""

    def __init__(self, x: Tensor, A: Tensor, size: int) -> None:
        shape = (size, len(x), *A.t().shape)
        self.decays, self.states = x.new_empty(shape), x.new_empty(size + 1, *shape[1:])
        self.written = x.new_empty(size, len(x), A.shape[0])
        self.decays_by_token, self.states_by_token = self.decays.unbind(), self.states.unbind()
        self.A = A.t().contiguous()
        self.log2_decay = self.A * math.log2(math.e)

    def fill(self, before: Tensor, x: Tensor, dt: Tensor, B: Tensor, starts: Tensor | None) -> tuple[Tensor, ...]:
        """before (B, N, E), x, dt (C, B, E) -> decays and what is written (C, B, ...), states (C + 1, ...)."""
        n = len(x)
        h = self.states_by_token[0].copy_(before)  # first, for `before` may be the last of these states
        decays, states = self.decays[:n], self.states[: n + 1]
        torch.mul(dt[:, :, None], self.log2_decay, out=decays).exp2_()
        if starts is not None:
            decays.masked_fill_(starts[:, :, None, None], 0.0)
        written = torch.mul(dt, x, out=self.written[:n])
        torch.mul(written[:, :, None], B[..., None], out=states[1:])
        for decay, after in zip(self.decays_by_token[:n], self.states_by_token[1 : n + 1], strict=True):
            h = after.addcmul_(decay, h)
        return decays, states, written


def _chunks(chunk_size: int, *tensors: Tensor | None) -> list[tuple[Tensor | None, ...]]:
    """Cuts (B, T, ...) tensors into chunks, tokens first: (C, B, ...)."""
    num_chunks = -(-tensors[0].shape[1] // chunk_size)
    pieces = ([None] * num_chunks if z is None else z.transpose(0, 1).split(chunk_size)[:num_chunks] for z in tensors)
    return list(zip(*pieces, strict=True))


@torch.library.custom_op("hf_zoo::selective_scan", mutates_args=())
def _scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, starts: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y without its skip connection, the last state, and the states (chunks, B, N, E) before each chunk.

    An operator of its own, so that torch.compile sees one node and not a loop to unroll.
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    kept = x.new_empty(-(-x.shape[1] // chunk_size), len(x), *A.t().shape)
    chunk = _Chunk(x, A, chunk_size)
    read = x.new_empty(chunk_size, len(x), 1, x.shape[2])
    h = state.mT
    for kept_c, (y_c, x_c, dt_c, B_c, C_c, starts_c) in zip(
        kept, _chunks(chunk_size, y, x, dt, B, C, starts), strict=True
    ):
        kept_c.copy_(h)
        _, states, _ = chunk.fill(h, x_c, dt_c, B_c, starts_c)
        y_c.copy_(torch.matmul(C_c[:, :, None], states[1:], out=read[: len(x_c)])[:, :, 0])
        h = states[-1]
    return y, h.mT.clone(memory_format=torch.contiguous_format), kept


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
    grads = [torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, dt, B, C)]
    chunk = _Chunk(x, A, chunk_size)
    g_buffer, product = torch.empty_like(chunk.decays), torch.empty_like(chunk.decays)
    g_by_token = g_buffer.unbind()
    row = x.new_empty(chunk_size, len(x), 1, x.shape[2])
    grad_A, sum_A = torch.zeros_like(chunk.log2_decay), torch.empty_like(chunk.log2_decay)
    carry = grad_state.mT.clone(memory_format=torch.contiguous_format)  # gradient of the state after the chunk
    chunks = _chunks(chunk_size, grad_y, x, dt, B, C, starts, *grads)
    with without_autocast(x):  # which would take these products in half precision
        for before, tensors in reversed(list(zip(kept, chunks, strict=True))):
            grad_y_c, x_c, dt_c, B_c, C_c, starts_c, grad_x_c, grad_dt_c, grad_B_c, grad_C_c = tensors
            n = len(x_c)
            decays, states, written = chunk.fill(before, x_c, dt_c, B_c, starts_c)

            g = torch.mul(grad_y_c[:, :, None], C_c[..., None], out=g_buffer[:n])
            after = g_by_token[n - 1].add_(carry)
            for t in range(n - 1, 0, -1):
                after = g_by_token[t - 1].addcmul_(chunk.decays_by_token[t], after)

            grad_C_c.copy_((grad_y_c[:, :, None] @ states[1:].mT)[:, :, 0])
            grad_B_c.copy_((written[:, :, None] @ g.mT)[:, :, 0])
            grad_written = torch.matmul(B_c[:, :, None], g, out=row[:n])[:, :, 0]
            torch.mul(grad_written, dt_c, out=grad_x_c)

            decays.mul_(g)
            carry.copy_(decays[0])  # the gradient of the state before the chunk
            decays.mul_(states[:-1])  # now the gradient of dt_t A
            torch.sum(torch.mul(decays, chunk.A, out=product[:n]), 2, out=grad_dt_c)
            grad_dt_c.addcmul_(grad_written, x_c)
            grad_A += torch.sum(torch.mul(decays, dt_c[:, :, None], out=product[:n]), (0, 1), out=sum_A)
    grad_x, grad_dt, grad_B, grad_C = grads
    return grad_x, grad_dt, grad_A.t().contiguous(), grad_B, grad_C, carry.mT.contiguous()


@_scan.register_fake
def _(x, dt, A, B, C, state, starts, chunk_size):
    kept = x.new_empty(-(-x.shape[1] // chunk_size), len(x), A.shape[1], A.shape[0])
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(state.shape), kept


@_scan_backward.register_fake
def _(grad_y, grad_state, x, dt, A, B, C, kept, starts, chunk_size):
    grads = tuple(torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, dt, A, B, C))
    return *grads, x.new_empty(grad_state.shape)


def _save(ctx, inputs, output):
    x, dt, A, B, C, _, starts, ctx.chunk_size = inputs
    ctx.save_for_backward(x, dt, A, B, C, output[2], starts)


def _backward(ctx, grad_y, grad_state, grad_kept):
    *tensors, starts = ctx.saved_tensors
    grads = _scan_backward(grad_y, grad_state, *tensors, starts, ctx.chunk_size)
    return *grads, None, None


_scan.register_autograd(_backward, setup_context=_save)
