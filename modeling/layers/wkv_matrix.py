"""The WKV of RWKV-5 and 6: a matrix memory for each head that decays channel by channel.

Peng et al. 2024, "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence",
https://arxiv.org/abs/2404.05892, section 4:

    y_t = (S_{t-1} + (u ∘ k_t) v_t^T)^T r_t          S_t = diag(w_t) S_{t-1} + k_t v_t^T

with S (K, V). In RWKV-5 w is constant, in RWKV-6 it depends on the token and may be as small as it likes, so that
products of 1 / w may not be formed. Within a chunk of C tokens, with L_t the product of w_1 to w_t,

    y_t = (r_t ∘ L_{t-1})^T S_0 + sum_{i<t} (sum over channels of r_t k_i L_{t-1} / L_i) v_i + (r_t^T (u ∘ k_t)) v_t

the ratio is the exponential of a difference that is never positive, taken for every pair of tokens of the chunk.

Shapes: B batch, T tokens, H heads, K key size, V value size, C tokens a chunk, M chunks.
"""

import torch
from torch import Tensor
from transformers.utils.generic import maybe_autocast

from .chunks import Documents, join_chunks, split_chunks
from .rwkv_kernels import kernel_for

# A channel that keeps less than this of its past keeps nothing that float32 could tell from 0, and a sum of the
# logarithms stays small enough to be exact
LEAST_LOG_W = -30.0


def wkv_matrix(
    r: Tensor,
    log_w: Tensor,
    k: Tensor,
    v: Tensor,
    u: Tensor,
    state: Tensor | None = None,
    starts: Tensor | None = None,
    chunk_size: int = 8,
) -> tuple[Tensor, Tensor]:
    """The recurrence above, computed in at least float32.

    Args:
        r, k: (B, T, H, K).
        log_w: (B, T, H, K) or (H, K), not positive. A token of zeros here and in k leaves the state untouched.
        v: (B, T, H, V).
        u: (H, K), how much more the present token counts.
        state: (B, H, K, V) left by earlier tokens, zeros if not given.
        starts: (B, T), True on the first token of a document, which sees nothing of the state before it.
        chunk_size: tokens a chunk; changes speed and memory, not results.

    Returns:
        y (B, T, H, V) in the dtype of v, and the state (B, H, K, V) after the last token.
    """
    log_w = log_w.expand(k.shape)
    kernel = kernel_for(v, "rwkv6", "chunk_rwkv6") if starts is None else None
    if kernel is not None:
        return kernel(r, k, v, log_w, u, scale=1.0, initial_state=state, output_final_state=True)
    dtype = torch.promote_types(v.dtype, torch.float32)
    B, T, H, K = k.shape
    state = v.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    r, log_w, k, values = (x.to(dtype) for x in (r, log_w, k, v))
    with maybe_autocast(v.device.type, enabled=False):  # autocast would take the products in half precision
        now = (r * k * u).sum(-1, keepdim=True) * values
        if T == 1:
            if starts is not None:
                state = state.masked_fill(starts[..., None, None], 0.0)
            y = (r[:, 0, :, None] @ state)[:, None, :, 0]
            state = torch.addcmul(state * log_w[:, 0].exp()[..., None], k[:, 0, ..., None], values[:, 0, :, None])
        else:
            documents = None if starts is None else Documents(starts, chunk_size)
            chunks = (split_chunks(x, chunk_size) for x in (r, log_w.clamp_min(LEAST_LOG_W), k, values))
            y, state = _solve(*chunks, state, documents)
            y = join_chunks(y, T)
        return (y + now).to(v.dtype), state


def _solve(
    r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, state: Tensor, documents: Documents | None
) -> tuple[Tensor, Tensor]:
    """All chunks (B, H, M, C, K) and v (B, H, M, C, V) -> y like v, without the present token, and the last state."""
    decay = log_w.cumsum(-2)
    before = decay - log_w  # (B, H, M, C, K), the logarithm of L_{t-1}
    # Pairs with i >= t have no meaning and are cut off below
    ratios = (before[..., :, None, :] - decay[..., None, :, :]).clamp_max(0).exp()  # (B, H, M, C, C, K)
    scores = ((ratios * k[..., None, :, :]) @ r[..., None])[..., 0].tril(-1)
    reads = r * before.exp()
    total = decay[..., -1:, :]
    writes, keeps = k * (total - decay).exp(), total.exp()
    if documents is not None:
        scores, reads, writes = scores * documents.same, reads * documents.first, writes * documents.last
        keeps = keeps * documents.first[..., -1:, :]
    written = writes.mT @ v  # (B, H, M, K, V)
    befores = []
    for keep, new in zip(keeps.mT.unbind(2), written.unbind(2), strict=True):
        befores.append(state)
        state = torch.addcmul(new, keep, state)
    return scores @ v + reads @ torch.stack(befores, dim=2), state
