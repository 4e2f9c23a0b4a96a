"""Linear attention: a kernel in the place of the softmax, so that the past fits in a state of fixed size.

Katharopoulos et al. 2020, "Transformers are RNNs", https://arxiv.org/abs/2006.16236, section 3.2 and 3.3; with decay
it is the retention of Sun et al. 2023, https://arxiv.org/abs/2307.08621, section 2:

    S_t = γ S_{t-1} + φ(k_t) v_tᵀ      z_t = γ z_{t-1} + φ(k_t)       γ = 1 without decay
    o_t = φ(q_t)ᵀ S_t / φ(q_t)ᵀ z_t,   or RMSNorm(φ(q_t)ᵀ S_t) without a denominator

z is S for a value that is always 1, so it is kept as one more column of S. Tokens are taken in chunks of C:

    O_n = (tril(Φ(Q) Φ(K)ᵀ) V + Φ(Q) S_{n-1}),   S_n = S_{n-1} + Φ(K)ᵀ V       O(T C (m + V) + T m V)

To both sides, o_i = φ(q_i)ᵀ Σ_j γ^|i-j| φ(k_j) v_jᵀ and its denominator.

Shapes: B batch, T tokens, D hidden size, H heads, K head size, m features, V value size, C chunk, n chunks.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mamba_kernels import kernel_for
from .norm import RMSNorm
from .precision import without_autocast


class LinearAttention(nn.Module):
    """Multi-head linear attention.

    Args:
        hidden_size: D.
        num_heads: H.
        head_dim: K, of queries, keys and values.
        feature_map: φ, called with (B, H, T, K) and whether these are queries.
        has_denominator: whether outputs are weighted means; if not, each head's is normalised by its root mean square.
        has_decay: whether head h forgets by γ_h = 1 - 2^(-5-h) a token.
        chunk_size: C; changes speed and memory, not results.
        is_causal: whether later tokens are hidden.
        q_norm, k_norm: of a head (..., K), before the feature map, if any.
    """

    eps = 1e-6

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        head_dim: int,
        feature_map: nn.Module,
        *,
        has_denominator: bool = True,
        has_decay: bool = False,
        chunk_size: int = 64,
        is_causal: bool = True,
        bias: bool = False,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.feature_map = feature_map
        self.log_decay = [math.log1p(-(2.0 ** (-5 - h))) for h in range(num_heads)] if has_decay else None
        self.chunk_size = chunk_size
        self.is_causal = is_causal
        self.q_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.k_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.v_proj = nn.Linear(hidden_size, num_heads * head_dim, bias=bias)
        self.o_proj = nn.Linear(num_heads * head_dim, hidden_size, bias=bias)
        self.q_norm, self.k_norm = q_norm, k_norm
        self.head_norm = None if has_denominator else RMSNorm(head_dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        state: tuple[None, Tensor] | None = None,
        position_ids: Tensor | None = None,
    ) -> tuple[Tensor, tuple[None, Tensor] | None]:
        """x (B, T, D), mask (B, T) with 1 on real tokens -> y (B, T, D) and the new state.

        Args:
            x: (B, T, D).
            mask: (B, T). Padding neither writes to the state nor makes it fade.
            state: no window, and S (B, H, m, V + 1) in float32; the last column is z, and absent without denominator.
                None where both sides are seen.
            position_ids: (B, T), only if a row holds several documents: 0 on a real token starts a new one.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)
        q, k, v = (self._split_heads(y) for y in (self.q_proj(x), self.k_proj(x), self.v_proj(x)))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.to(dtype) for y in (q, k, v))
        with without_autocast(x):  # which would sum in half precision
            q, k = self.feature_map(q, is_query=True), self.feature_map(k, is_query=False)
            if mask is not None:
                k = k * mask[:, None, :, None].to(dtype)
            if self.head_norm is None:
                v = F.pad(v, (0, 1), value=1.0)
            log_decay = None if self.log_decay is None else torch.tensor(self.log_decay, dtype=dtype, device=x.device)
            documents = None
            if position_ids is not None:
                starts = position_ids == 0 if mask is None else (position_ids == 0) & mask.bool()
                documents = starts.cumsum(1).expand(len(x), -1)
            if self.is_causal:
                memory = None if state is None else state[1]
                y, memory = causal_linear_attention(q, k, v, memory, log_decay, mask, documents, self.chunk_size)
            else:
                y, memory = bidirectional_linear_attention(q, k, v, log_decay, mask, documents, self.chunk_size), None
            if self.head_norm is None:
                y = y[..., :-1] / (y[..., -1:] + self.eps)
        y = y.transpose(1, 2).to(x.dtype)  # (B, T, H, V)
        if self.head_norm is not None:
            y = self.head_norm(y)
        return self.o_proj(y.flatten(2)), None if memory is None else (None, memory)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H K) -> (B, H, T, K)


def causal_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: Tensor | None = None,
    log_decay: Tensor | None = None,
    mask: Tensor | None = None,
    documents: Tensor | None = None,
    chunk_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """The sums of the equations above, before any division, parallel in a chunk and recurrent between chunks.

    Args:
        q, k: (B, H, T, m), features; those of padded keys are zero.
        v: (B, H, T, V).
        state: (B, H, m, V) left by earlier tokens.
        log_decay: (H), log γ.
        mask: (B, T) with 1 on real tokens: what time passes for, if there is decay.
        documents: (B, T), which document a token is of, counted from 0 for the one that the state is of.
        chunk_size: C.

    Returns:
        y of shape (B, H, T, V) and the state after the last token.
    """
    num_tokens = q.shape[2]
    if state is None:
        state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1])
    state = state.to(q.dtype)
    if num_tokens == 1 and documents is None and mask is None:
        faded = state if log_decay is None else state * log_decay.exp()[:, None, None]
        state = faded + k.mT @ v
        return q @ state, state
    kernel = kernel_for(q, "fla.ops.simple_gla", "chunk_simple_gla") if documents is None else None
    if kernel is not None:
        return _run_kernel(kernel, q, k, v, state, log_decay, mask)

    size = min(chunk_size, max(num_tokens, 1))
    num_chunks = -(-num_tokens // size)
    q, k, v = (_chunks(x, num_chunks, size) for x in (q, k, v))  # (B, H, n, C, ...)
    scores = q @ k.mT
    reading, writing, carry = q, k, None
    if log_decay is not None:
        age = _ages(mask, num_tokens, num_chunks, size, q)  # (B or 1, 1, n, C), real tokens since the chunk began
        rate, end = log_decay[:, None, None], age[..., -1:]
        scores = scores * ((age[..., :, None] - age[..., None, :]).clamp_min(0) * rate[..., None]).exp()
        reading = q * (age * rate).exp()[..., None]
        writing = k * ((end - age) * rate).exp()[..., None]
        carry = (end * rate).exp()[..., None]  # (B or 1, H, n, 1, 1)
    if documents is not None:
        missing = num_chunks * size - num_tokens
        documents = torch.cat((documents, documents[:, -1:].expand(-1, missing)), dim=1)
        documents = documents.unflatten(1, (num_chunks, size))[:, None]  # (B, 1, n, C)
        last = documents[..., -1:]
        before = F.pad(last, (0, 0, 1, 0))[:, :, :-1]  # (B, 1, n, 1), whose the state before a chunk is
        scores = scores * (documents[..., :, None] == documents[..., None, :])
        reading = reading * (documents == before)[..., None]
        writing = writing * (documents == last)[..., None]
        goes_on = (before == last)[..., None].to(q.dtype)
        carry = goes_on if carry is None else carry * goes_on
    written = (writing.mT @ v).unbind(2)
    carries = [None] * num_chunks if carry is None else carry.unbind(2)
    states = []
    for added, kept in zip(written, carries, strict=True):
        states.append(state)
        state = state + added if kept is None else torch.addcmul(added, state, kept)
    y = scores.tril_() @ v + reading @ torch.stack(states, dim=2)
    return y.flatten(2, 3)[:, :, :num_tokens], state


def bidirectional_linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None = None,
    mask: Tensor | None = None,
    documents: Tensor | None = None,
    chunk_size: int = 64,
) -> Tensor:
    """Every token sees all of its document, before any division -> (B, H, T, V); arguments as in the causal form."""
    if log_decay is None and documents is None:
        return q @ (k.mT @ v)
    forwards, _ = causal_linear_attention(q, k, v, None, log_decay, mask, documents, chunk_size)
    q_, k_, v_ = (x.flip(2) for x in (q, k, v))
    mask, documents = (None if x is None else x.flip(1) for x in (mask, documents))
    backwards, _ = causal_linear_attention(q_, k_, v_, None, log_decay, mask, documents, chunk_size)
    return forwards + backwards.flip(2) - (q * k).sum(-1, keepdim=True) * v  # a token itself was counted twice


def _chunks(x: Tensor, num_chunks: int, size: int) -> Tensor:
    """(B, H, T, ...) -> (B, H, n, C, ...), the last chunk filled up with zeros."""
    if missing := num_chunks * size - x.shape[2]:
        x = F.pad(x, (0, 0, 0, missing))
    return x.unflatten(2, (num_chunks, size))


def _ages(mask: Tensor | None, num_tokens: int, num_chunks: int, size: int, like: Tensor) -> Tensor:
    """(B or 1, 1, n, C): how many real tokens of the chunk there are up to each, itself included."""
    real = like.new_ones(1, num_tokens) if mask is None else mask.to(like.dtype)
    real = F.pad(real, (0, num_chunks * size - num_tokens))
    return real.unflatten(1, (num_chunks, size))[:, None].cumsum(-1)


def _run_kernel(
    kernel, q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The chunked kernel of flash-linear-attention, whose tensors have tokens before heads."""
    decay = None
    if log_decay is not None:
        decay = log_decay.expand(q.shape[0], q.shape[2], -1)
        decay = decay if mask is None else decay * mask[..., None].to(decay.dtype)
    y, state = kernel(
        *(x.transpose(1, 2).contiguous() for x in (q, k, v)),
        g=decay,
        scale=1.0,
        initial_state=state,
        output_final_state=True,
    )
    return y.transpose(1, 2), state
