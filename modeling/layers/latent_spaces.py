"""Attention whose heads work in latent spaces of their own, and exchange what they hold before they attend.

The Multihead Latent Transformer: each head i projects a token into its space Z_i of r numbers, looks at what the other
heads made of the same token (interaction), and attends within Z_i:

    z^i = RMSNorm(act(x W_z^i + b^i))
    M   = softmax_j((z^i + e_i) A_q · (z^j + e_j) A_k / sqrt(a) + b_ij)            over heads, token by token
    z̃^i = z^i + γ_i Σ_j M_ij z^j P
    o^i = softmax((z̃^i W_q^i) (z̃^i W_k^i)ᵀ / sqrt(K)) z̃^i W_v^i,    y = concat_i(o^i) W_o

The interaction mixes heads and never tokens, so it is as causal as the attention. γ starts at 0, that is, with
independent heads. Values are latents: W_v^i is applied after attention, so that z̃ alone needs to be remembered, r
numbers a head and token, from which keys are made again. Without rotary positions not even that: W_k^i moves to the
query of a single new token.

Shapes: B batch, T tokens, S remembered tokens, D hidden size, H heads, r latent size of the largest head, R that of
all heads together, a interaction size, K size of queries and keys, V size of values.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import eager_attention
from .positions import rotate


def by_head(flat: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Numbers of all heads side by side (..., R) -> (..., H, r), smaller heads filled up with zeros."""
    if len(set(sizes)) == 1:
        return flat.unflatten(-1, (len(sizes), sizes[0]))
    parts = (F.pad(part, (0, max(sizes) - part.shape[-1])) for part in flat.split(sizes, dim=-1))
    return torch.stack(list(parts), dim=-2)


class LatentProjection(nn.Module):
    """x (B, T, D) -> z (B, T, H, r), normalised in each head; in training drawn from N(μ, σ²) if it is stochastic.

    Args:
        hidden_size: D.
        sizes: of each head's latent space.
        hidden_act: on the latents, a name that transformers knows; None for none.
        has_norm: whether latents are normalised.
        is_stochastic: whether they are drawn.
        eps: of the norm.
    """

    def __init__(
        self,
        hidden_size: int,
        sizes: tuple[int, ...],
        hidden_act: str | None = None,
        has_norm: bool = True,
        is_stochastic: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.sizes, self.eps = sizes, eps
        self.act_fn = None if hidden_act is None else ACT2FN[hidden_act]
        self.proj = LatentLinear(hidden_size, sum(sizes))
        self.log_var = LatentLinear(hidden_size, sum(sizes), start=-6.0) if is_stochastic else None
        self.weight = nn.Parameter(torch.ones(sum(sizes))) if has_norm else None

    @torch.no_grad()
    def initialise(self) -> None:
        """Gains one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> z (B, T, H, r), and if drawn the divergence of each head from N(0, 1), (B, T, H)."""
        z, divergence = self.proj(x), None
        if self.log_var is not None:
            log_var = self.log_var(x)
            divergence = by_head(0.5 * (z.square() + log_var.exp() - 1 - log_var), self.sizes).sum(-1)
            z = z + (0.5 * log_var).exp() * torch.randn_like(z) if self.training else z
        z = z if self.act_fn is None else self.act_fn(z)
        z = by_head(z, self.sizes)
        if self.weight is not None:
            sizes = torch.tensor(self.sizes, device=z.device)[:, None]
            z = z * torch.rsqrt(z.square().sum(-1, keepdim=True) / sizes + self.eps) * by_head(self.weight, self.sizes)
        return z, divergence


class LatentLinear(nn.Linear):
    """A linear layer that starts from N(0, 1 / D), so that latents are about as large as what they are made of."""

    def __init__(self, in_features: int, out_features: int, start: float | None = None) -> None:
        self.start = start
        super().__init__(in_features, out_features)

    @torch.no_grad()
    def initialise(self) -> None:
        """With a start the weights are zero, and the bias is that."""
        if self.start is None:
            init.normal_(self.weight, std=self.in_features**-0.5)
            init.zeros_(self.bias)
        else:
            init.zeros_(self.weight)
            init.constant_(self.bias, self.start)


class HeadInteraction(nn.Module):
    """Every head takes from the others' latents of the same token: z (B, T, H, r) -> z̃ (B, T, H, r).

    Args:
        sizes: of each head's latent space.
        size: a, of the space in which heads are compared.
    """

    def __init__(self, sizes: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.sizes, self.scaling = sizes, size**-0.5
        num_heads, latent_dim = len(sizes), max(sizes)
        self.query, self.key = (nn.Parameter(torch.empty(latent_dim, size)) for _ in range(2))
        self.value = nn.Parameter(torch.empty(latent_dim, latent_dim))
        self.head_embedding = nn.Parameter(torch.empty(sum(sizes)))
        self.bias = nn.Parameter(torch.empty(num_heads, num_heads))
        self.gain = nn.Parameter(torch.empty(num_heads))
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Independent heads: the gains are zero, all else is ready to be used once they are not.

        Without an embedding of its own every head would start with the same weights over the others.
        """
        for weight in (self.query, self.key, self.value):
            init.normal_(weight, std=weight.shape[0] ** -0.5)
        init.normal_(self.head_embedding, std=1.0)
        init.zeros_(self.bias)
        init.zeros_(self.gain)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, T, H, r) -> z̃ (B, T, H, r)."""
        told = z + by_head(self.head_embedding, self.sizes)
        scores = (told @ self.query) @ (told @ self.key).mT * self.scaling + self.bias  # (B, T, H, H)
        # What a smaller head has no room for meets weights of zero
        return z + self.gain[:, None] * (scores.softmax(-1) @ (z @ self.value))


class LatentSpaceAttention(nn.Module):
    """The layer. `config` is kept for the attention backends alone, which look up `is_causal` and `layer_idx` here.

    Tokens of different modalities have projections of their own into the same spaces, and share all else.

    Args:
        config: for the backends.
        layer_idx: where the cache keeps the latents.
        projections: modality -> its projection; the first is that of tokens no modality is named for.
        interaction: None for independent heads.
        qk_dim: K.
        v_dim: V.
        dropout: on the weights.
        is_causal: whether later tokens are hidden.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        layer_idx: int,
        hidden_size: int,
        projections: dict[str, LatentProjection],
        interaction: HeadInteraction | None,
        qk_dim: int,
        v_dim: int,
        dropout: float = 0.0,
        is_causal: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer_idx
        self.is_causal, self.num_key_value_groups = is_causal, 1
        self.dropout, self.scaling = dropout, qk_dim**-0.5
        self.latents = nn.ModuleDict(projections)
        self.interaction = interaction
        self.sizes = next(iter(projections.values())).sizes
        self.q_weight, self.k_weight = (nn.Parameter(torch.empty(qk_dim, sum(self.sizes))) for _ in range(2))
        self.v_weight = nn.Parameter(torch.empty(v_dim, sum(self.sizes)))
        self.o_proj = nn.Linear(len(self.sizes) * v_dim, hidden_size, bias=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """The weights of head i from N(0, 1 / r_i)."""
        stds = torch.cat([torch.full((r,), r**-0.5) for r in self.sizes])
        for weight in (self.q_weight, self.k_weight, self.v_weight):
            init.copy_(weight, torch.randn_like(weight) * stds.to(weight))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        remember: Callable[[Tensor], Tensor] | None = None,
        modalities: dict[str, slice] | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        key_position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """x (B, T, D) -> y (B, T, D), the weights (B, H, T, S) from eager, and the divergence (B, T, H) if drawn.

        Args:
            mask: as the backend wants it.
            remember: takes the latents of the tokens (B, H, T, r), returns all that are remembered (B, H, S, r).
            modalities: modality -> which of the tokens are of it; all are of the first without it.
            position_embeddings: cos and sin (B, T, K) of rotary positions for queries.
            key_position_embeddings: the same (B, S, K) for everything remembered; those of queries without it.
            kwargs: for the backend, such as `position_bias` (B, H, T, S).
        """
        z, divergence = self.project(x, modalities)
        z = z.transpose(1, 2)  # (B, H, T, r)
        remembered = z if remember is None else remember(z)
        W_q, W_k, W_v = (by_head(w, self.sizes).transpose(0, 1) for w in (self.q_weight, self.k_weight, self.v_weight))
        q, k = z @ W_q.mT, remembered  # weights (H, K or V, r)
        if position_embeddings is not None:
            keys = position_embeddings if key_position_embeddings is None else key_position_embeddings
            q, k = rotate(q, *position_embeddings), rotate(k @ W_k.mT, *keys)
        elif q.shape[2] < k.shape[2]:  # q (W_k z) = (q W_k) z, and there are fewer queries than latents
            q = q @ W_k
        else:
            k = k @ W_k.mT
        y, weights = self._attend(q, k, remembered, mask, **kwargs)  # (B, T, H, r)
        y = torch.einsum("bthr,hvr->bthv", y, W_v)
        return self.o_proj(y.flatten(2)), weights, divergence

    def project(self, x: Tensor, modalities: dict[str, slice] | None = None) -> tuple[Tensor, Tensor | None]:
        """x (B, T, D) -> z̃ (B, T, H, r), and the divergence (B, T, H) if drawn."""
        if modalities is None:
            z, divergence = next(iter(self.latents.values()))(x)
        else:
            parts = [self.latents[name](x[:, tokens]) for name, tokens in modalities.items()]
            z = torch.cat([z for z, _ in parts], dim=1)
            divergence = None if parts[0][1] is None else torch.cat([d for _, d in parts], dim=1)
        return z if self.interaction is None else self.interaction(z), divergence

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, K), k (B, H, S, K), v (B, H, S, r) -> (B, T, H, r), and weights or None."""
        if not q.numel():  # torch's kernels refuse an empty batch
            return q.new_zeros(len(q), q.shape[2], q.shape[1], v.shape[-1]), None
        backend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        dropout = self.dropout if self.training else 0.0
        return backend(self, q, k, v, mask, dropout=dropout, scaling=self.scaling, **kwargs)
