"""The generalised delta rule of RWKV-7: a memory that replaces what it holds under a key, and forgets by channel.

Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution", https://arxiv.org/abs/2503.14456, section 3:

    S_t = diag(w_t) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T          y_t = S_t^T r_t

with S (K, V), the transpose of the paper's, a = -kappa and b = kappa ∘ (in-context learning rate).

Within a chunk of C tokens that starts with S_0, with L_t the product of w_1 to w_t and u_t = S_{t-1}^T a_t, all tokens
are solved at once (the WY form; Yang et al. 2024, https://arxiv.org/abs/2406.06484):

    (I - A_ab) U = (a_t ∘ L_{t-1}) S_0 + A_ak V        A_az[t, i] = sum over channels of a_t z_i L_{t-1} / L_i, i < t
    Y            = (r_t ∘ L_t) S_0 + A_rb U + A_rk V    A_rz[t, i] = sum over channels of r_t z_i L_t / L_i, i <= t
    S_C          = L_C ∘ S_0 + sum_i (L_C / L_i) ∘ (b_i u_i^T + k_i v_i^T)

U, Y and S_C are linear in S_0, so that everything but S_C = M S_0 + N is one batched product over all chunks.
Because w > 0.545, products over at most 64 tokens stay far from the ends of float32.

Shapes: B batch, T tokens, H heads, K key size, V value size, C tokens a chunk, M chunks.
"""

import torch
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from .chunks import Documents, join_chunks, split_chunks
from .rwkv_kernels import kernel_for


def delta_rule(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int = 32,
) -> tuple[Tensor, Tensor]:
    """The recurrence above, computed in at least float32.

    Args:
        r, k, a, b: (B, T, H, K).
        log_w: (B, T, H, K), between -0.61 and 0. A token of zeros here and in k and b leaves the state untouched.
        v: (B, T, H, V).
        state: (B, H, K, V) left by earlier tokens, zeros if not given.
        starts: (B, T), True on the first token of a document, which sees nothing of the state before it.
        chunk_size: tokens a chunk, at most 64; changes speed, not results.

    Returns:
        y (B, T, H, V) in the dtype of v, and the state (B, H, K, V) after the last token.
    """
    kernel = kernel_for(v, "rwkv7", "chunk_rwkv7") if starts is None else None
    if kernel is not None:
        return kernel(r, log_w, k, v, a, b, scale=1.0, initial_state=state, output_final_state=True)
    dtype = torch.promote_types(v.dtype, torch.float32)
    B, T, H, K = k.shape
    state = v.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    tensors = [x.to(dtype) for x in (r, log_w, k, v, a, b)]
    with maybe_autocast(v.device.type, enabled=False):  # autocast would take the products in half precision
        if T == 1:
            y, state = _step(*(x[:, 0] for x in tensors), state, starts)
            return y[:, None].to(v.dtype), state
        documents = None if starts is None else Documents(starts, chunk_size)
        y, state = _solve(*(split_chunks(x, chunk_size) for x in tensors), state, documents)
        return join_chunks(y, T).to(v.dtype), state


def _solve(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    state: Tensor,
    documents: Documents | None,
) -> tuple[Tensor, Tensor]:
    """All chunks (B, H, M, C, K) and v (B, H, M, C, V) -> y like v, and the last state."""
    K, V, C = k.shape[-1], v.shape[-1], k.shape[-2]
    decay = log_w.cumsum(-2)  # (B, H, M, C, K), the logarithm of L_t
    shrink, grow = decay.exp(), decay.neg().exp()
    a_now, r_now = a * (decay - log_w).exp(), r * shrink
    writes = torch.cat((b * grow, k * grow), dim=-2)  # (B, H, M, 2 C, K)
    scores_b, scores_k = (torch.cat((a_now, r_now), dim=-2) @ writes.mT).chunk(2, dim=-1)  # (B, H, M, 2 C, C)
    A_ab, A_ak = scores_b[..., :C, :].tril(-1), scores_k[..., :C, :].tril(-1)
    A_rb, A_rk = scores_b[..., C:, :].tril(), scores_k[..., C:, :].tril()
    last = decay[..., -1:, :].exp()  # (B, H, M, 1, K)
    keeps = last
    if documents is not None:
        A_ab, A_ak, A_rb, A_rk = (x * documents.same for x in (A_ab, A_ak, A_rb, A_rk))
        a_now, r_now = a_now * documents.first, r_now * documents.first
        writes = writes * torch.cat((documents.last, documents.last), dim=-2)
        keeps = last * documents.first[..., -1:, :]

    # U = W S_0 + W_0, both solved for at once
    rhs = torch.cat((a_now, A_ak @ v), dim=-1)
    solved = torch.linalg.solve_triangular(-A_ab, rhs, upper=False, unitriangular=True)  # the diagonal is not read
    W, W_0 = solved.split((K, V), dim=-1)
    reads, own = ((A_rb @ solved) + torch.cat((r_now, A_rk @ v), dim=-1)).split((K, V), dim=-1)
    from_b, from_k = (writes * last).mT.split(C, dim=-1)  # (B, H, M, K, C)
    transition = torch.diag_embed(keeps[..., 0, :]) + from_b @ W
    written = from_b @ W_0 + from_k @ v

    befores = []
    for M_c, N_c in zip(transition.unbind(2), written.unbind(2), strict=True):
        befores.append(state)
        state = N_c + M_c @ state
    return own + reads @ torch.stack(befores, dim=2), state


def _step(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor, starts: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence for T = 1, (B, H, K) each and v (B, H, V), as in generation."""
    if starts is not None:
        state = state.masked_fill(starts[..., None, None], 0.0)
    removed = a[:, :, None] @ state  # (B, H, 1, V)
    state = state * log_w.exp()[..., None] + torch.stack((b, k), dim=-1) @ torch.cat((removed, v[:, :, None]), dim=2)
    return (r[:, :, None] @ state)[:, :, 0], state
