"""State-space duality (SSD), the recurrence of Mamba-2, in chunks of matrix products.

Dao and Gu 2024, "Transformers are SSMs", https://arxiv.org/abs/2405.21060, sections 5 and 6. Each head has a state of
P x N numbers that decays by one factor a token:

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t ⊗ B_t        y_t = h_t C_t + D x_t

Inside a chunk this is attention without softmax, with scores C_i · B_j and a decay between j and i; what came before
the chunk enters through its state:

    Y = (L ∘ C Bᵀ) (dt x) + exp(s) C h        L_ij = exp(s_i - s_j) for j <= i,  s = cumsum(dt A) in the chunk

The decays are summed in float64: they are few, and a difference of sums in float32 would lose what matters after a
token that forgets everything. Scores are computed once a group of heads, which share B and C.

Shapes: B batch, T tokens, H heads, P head size, G groups, N state size, C chunk.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .mamba_kernels import kernel_for

_FORGET = -1e4  # a log-decay that is 0 after exp in any dtype, yet can be summed and subtracted


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """The recurrence of Mamba-2, computed in at least float32.

    Args:
        x: (B, T, H, P), the input.
        dt: (B, T, H), step sizes, not negative. A step of 0 leaves the state untouched, as padding should.
        A: (H,), negative.
        B, C: (B, T, G, N), what a token writes to and reads from; heads h G / H share one.
        D: (H,), the skip connection.
        state: (B, H, P, N) left by earlier tokens, zeros if not given.
        starts: (B, T), True on the first token of a document, which sees nothing of the state before it.
        chunk_size: tokens per chunk; changes speed and memory, not results.

    Returns:
        y (B, T, H, P) in the dtype of x, and the state (B, H, P, N) after the last token.

    Raises:
        ValueError: if the shapes do not agree.
    """
    if x.shape[:3] != dt.shape or B.shape != C.shape or x.shape[:2] != B.shape[:2] or x.shape[2] % B.shape[2]:
        shapes = ", ".join(str(tuple(z.shape)) for z in (x, dt, B, C))
        raise ValueError(
            f"x must be (B, T, H, P), dt (B, T, H), B and C (B, T, G, N) with H a multiple of G: {shapes}"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    if kernel := kernel_for(x, "mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined"):
        documents = None if starts is None else starts.cumsum(-1, dtype=torch.int32)
        return kernel(
            x, dt, A, B, C, chunk_size, D=D, initial_states=state, seq_idx=documents, return_final_states=True
        )
    u, dt, A, B, C = (z.to(dtype) for z in (x, dt, A, B, C))
    if state is None:
        state = u.new_zeros(*u.shape[:1], *u.shape[2:], B.shape[-1])
    recurrence = _step if u.shape[1] == 1 else _scan
    y, state = recurrence(u, dt, A, B, C, state.to(dtype), starts, chunk_size)
    if D is not None:
        y = torch.addcmul(y, u, D.to(dtype)[:, None])
    return y.to(x.dtype), state


def _step(u, dt, A, B, C, state, starts, _):
    """The recurrence for T = 1, as in generation."""
    decay = torch.exp(dt[:, 0] * A)  # (B, H)
    if starts is not None:
        decay = decay.masked_fill(starts, 0.0)
    H, G = u.shape[2], B.shape[2]
    B, C = (z[:, 0] if G in (1, H) else z[:, 0].repeat_interleave(H // G, 1) for z in (B, C))  # (B, 1 or H, N)
    written = (u * dt[..., None])[:, 0, :, :, None]
    state = torch.addcmul(state * decay[..., None, None], written, B[:, :, None])
    return (state @ C[..., None])[:, None, ..., 0], state


def _scan(u, dt, A, B, C, state, starts, chunk_size):
    T, H, G = u.shape[1], u.shape[2], B.shape[2]
    chunk_size = min(chunk_size, T)
    log_decay = dt.double() * A.double()
    if starts is not None:
        log_decay = log_decay.masked_fill(starts[..., None], _FORGET)
    written = u * dt[..., None]
    # (B, T, heads or groups, size) -> (B, chunks, G, heads of the group, C, size): padding has a step of 0
    written, B, C, log_decay = (_chunks(z, chunk_size, G) for z in (written, B, C, log_decay[..., None]))
    sums = log_decay.squeeze(-1).cumsum(-1)  # (B, chunks, G, H / G, C)
    decay = torch.exp(sums.clamp_min(_FORGET)).to(u.dtype)  # from before the chunk to each token
    to_end = torch.exp(sums[..., -1:] - sums).to(u.dtype)  # from each token to the end of the chunk

    between = (sums[..., :, None] + (-sums)[..., None, :]).to(u.dtype)  # negated small, for the backward pass's sake
    ahead = torch.ones(chunk_size, chunk_size, dtype=torch.bool, device=u.device).triu(1)
    weights = (C @ B.mT) * between.masked_fill_(ahead, -torch.inf).exp_()
    y = weights @ written  # (B, chunks, G, H / G, C, P)

    added = (written * to_end[..., None]).mT @ B  # (B, chunks, G, H / G, P, N)
    h, before = state.unflatten(1, (G, H // G)), []
    for added_c, decay_c in zip(added.unbind(1), decay[..., -1, None, None].unbind(1), strict=True):
        before.append(h)
        h = torch.addcmul(added_c, decay_c, h)
    y = y + (C * decay[..., None]) @ torch.stack(before, dim=1).mT
    return y.flatten(2, 3).transpose(2, 3).flatten(1, 2)[:, :T], h.flatten(1, 2)


def _chunks(z: Tensor, chunk_size: int, num_groups: int) -> Tensor:
    """(B, T, heads, size) -> (B, chunks, G, heads / G, C, size), filled up with zeros."""
    z = F.pad(z, (0, 0, 0, 0, 0, -z.shape[1] % chunk_size))
    return z.unflatten(1, (-1, chunk_size)).transpose(2, 3).unflatten(2, (num_groups, -1))
