"""What RETRO's decoder attends to: neighbours, their encoder, and which token sees which of them.

Shapes: B batch, T tokens, D hidden size, N chunks, k neighbours, r tokens of a neighbour, S = k r, m tokens a chunk, E
encoder's hidden size, G groups of tokens (see layers/chunk_groups.py).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from ..layers.chunk_groups import ChunkGroups
from ..layers.chunked_cross_attention import ChunkedCrossAttention, Rotary, RotaryCrossAttention
from ..layers.mlp import MLP, GatedMLP
from ..layers.norm import NORMS
from ..layers.positions import rotary_angles
from .cache_retro import RetrievalState, RetroCache, joined
from .configuration_retro import ZooRetroConfig

Retriever = Callable[[Tensor], Tensor]  # chunks (n, m) -> neighbours (n, k, r), -1 after the end of a short one


class NeighbourBlock(GradientCheckpointingLayer):
    """A layer of the encoder: attention within a neighbour, to the chunk in some layers, a feed-forward network."""

    def __init__(self, config: ZooRetroConfig, layer_idx: int) -> None:
        super().__init__()
        size, heads, head_dim = config.encoder_hidden_size, config.num_encoder_heads, config.encoder_head_dim
        norm = partial(NORMS[config.norm], eps=config.norm_eps)
        mlp = GatedMLP if config.is_gated_mlp else MLP
        self.mixer_norm = norm(size)
        self.self_attn = RotaryCrossAttention(size, size, heads, head_dim, config.attention_dropout)
        self.cross_attn = None
        if layer_idx in config.encoder_cross_layers:
            self.cross_norm = norm(size)
            self.cross_attn = RotaryCrossAttention(size, config.hidden_size, heads, head_dim, config.attention_dropout)
        self.mlp_norm = norm(size)
        self.mlp = mlp(size, config.encoder_intermediate_size, config.hidden_act, config.mlp_bias)

    def forward(
        self, x: Tensor, mask: Tensor | None, chunk: Tensor, rotary: Rotary, wide_rotary: Rotary, chunk_rotary: Rotary
    ) -> Tensor:
        """x (N k, r, E), the tokens of chunks (N, m, D) -> (N k, r, E).

        Args:
            mask: (N k, r), true on real tokens; None where all are.
            rotary, wide_rotary, chunk_rotary: positions in a neighbour, in the k neighbours of a chunk, in a chunk.
        """
        y = self.mixer_norm(x)
        x = x + self.self_attn(y, y, rotary, rotary, mask)
        if self.cross_attn is not None:
            y = self.cross_norm(x).view(len(chunk), -1, x.shape[-1])  # (N, S, E)
            x = x + self.cross_attn(y, chunk, wide_rotary, chunk_rotary).view_as(x)
        return x + self.mlp(self.mlp_norm(x))


class NeighbourEncoder(nn.Module):
    """What the decoder attends to, from the tokens of neighbours and the activations of the chunk they are of."""

    def __init__(self, config: ZooRetroConfig) -> None:
        super().__init__()
        size = config.encoder_hidden_size
        self.head_dim = config.encoder_head_dim
        is_wide = size != config.hidden_size
        self.embed_proj = nn.Linear(config.hidden_size, size, bias=False) if is_wide else None
        self.chunk_norm = NORMS[config.norm](config.hidden_size, eps=config.norm_eps)
        self.layers = nn.ModuleList(NeighbourBlock(config, i) for i in range(config.num_encoder_layers))
        self.norm = NORMS[config.norm](size, eps=config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor | None, chunk: Tensor) -> Tensor:
        """x (N, k, r, D), embeddings; mask (N, k, r), true on real tokens; chunk (N, m, D) -> (N, S, E)."""
        num_neighbours, length = x.shape[1:3]
        if mask is not None:
            mask = mask.flatten(0, 1)
            mask = mask | ~mask.any(1, keepdim=True)  # what is no neighbour at all must not become NaN
        places = torch.arange(max(length, chunk.shape[1]), device=x.device)[None]
        cos, sin = rotary_angles(places, self.head_dim, x.dtype)
        rotary, chunk_rotary = ((cos[:, :n], sin[:, :n]) for n in (length, chunk.shape[1]))
        wide_rotary = tuple(z.repeat(1, num_neighbours, 1) for z in rotary)
        x = x.flatten(0, 1)
        x = x if self.embed_proj is None else self.embed_proj(x)
        chunk = self.chunk_norm(chunk)
        for block in self.layers:
            x = block(x, mask, chunk, rotary, wide_rotary, chunk_rotary)
        return self.norm(x).view(len(chunk), num_neighbours * length, -1)


class Retrieval:
    """The neighbours that one forward pass attends to, and what it leaves to the next.

    Args:
        groups: which chunk each token comes after.
        chunk_ids: (B, m - 1), the last tokens, for the next pass; None where they are not known.
        neighbours: (N, k, r), of the chunks that are completed here, -1 where there is none; None for none at all.
        encode: (tokens (N, k, r), mask (N, k, r) or None, activations (N, m, D)) -> (N, S, E).
        past: what earlier tokens left.
        head_dim: of the decoder.
    """

    def __init__(
        self,
        groups: ChunkGroups,
        chunk_ids: Tensor | None,
        neighbours: Tensor | None,
        encode: Callable[[Tensor, Tensor | None, Tensor], Tensor],
        past: RetrievalState | None,
        head_dim: int,
    ) -> None:
        self.groups = groups
        self.past = past
        self.neighbours = neighbours if len(groups.row) else None
        self._encode = encode
        self.head_dim = head_dim
        self.state = RetrievalState(groups.counts + (0 if past is None else past.counts), ids=chunk_ids)
        self.rotary: Rotary | None = None
        self.mask = self._mask()  # (G, S), None where all are seen

    def _mask(self) -> Tensor | None:
        groups, past = self.groups, self.past
        new = None if self.neighbours is None else self.neighbours.flatten(1) >= 0
        old = None if past is None else past.mask
        if new is None and old is None:
            groups.group = torch.full_like(groups.group, -1)
            return None
        if new is None:
            new = old.new_zeros(len(groups.row), old.shape[1])
        if old is None and past is not None:
            old = new.new_zeros(len(past.counts), new.shape[1])
        if old is not None and old.shape[1] != new.shape[1]:
            raise ValueError(
                f"the neighbours of each chunk must have {old.shape[1]} tokens in all, as those before, "
                f"got {new.shape[1]}"
            )
        mask = joined(old, new)
        if not len(mask):
            return None
        is_visible = mask.any(1)
        groups.hide(is_visible)
        self.state.mask = groups.of_rows(mask)
        return None if bool(mask.all()) else mask | ~is_visible[:, None]

    def encode(self, x: Tensor) -> Tensor | None:
        """x (B, T, D), the activations of the first layer that attends to neighbours -> (N, S, E)."""
        chunks, self.state.hidden = self.groups.chunks(x, None if self.past is None else self.past.hidden)
        if self.neighbours is None:
            return None
        is_real = self.neighbours >= 0
        return self._encode(self.neighbours.clamp_min(0), None if bool(is_real.all()) else is_real, chunks)

    def attend(self, x: Tensor, encoded: Tensor | None, cross_attn: ChunkedCrossAttention, layer: int) -> Tensor:
        """What a layer reads for x (B, T, D) in the neighbours of the past and in the new ones (N, S, E)."""
        if self.state.mask is None:
            return torch.zeros_like(x)
        new, shape = None, None
        if encoded is not None:
            places = torch.arange(self.neighbours.shape[2], device=x.device).repeat(self.neighbours.shape[1])
            new = cross_attn.keys_values(encoded, rotary_angles(places[None], self.head_dim, x.dtype))
            shape = new[0].shape[1:]
        old = None
        if self.past is not None:
            old = self.past.keys.get(layer), self.past.values.get(layer)
            if old[0] is None:
                old = tuple(x.new_zeros(len(x), *shape) for _ in range(2))
            elif new is None and len(self.groups.row):
                new = tuple(x.new_zeros(len(self.groups.row), *z.shape[1:]) for z in old)
        keys, values = (joined(*pair) for pair in zip(old or (None, None), new or (None, None), strict=True))
        self.state.keys[layer], self.state.values[layer] = (self.groups.of_rows(z) for z in (keys, values))
        if self.rotary is None:
            place = self.groups.offset + self.groups.chunk_size - 1  # a chunk's last token stands beside a neighbour's
            self.rotary = rotary_angles(place, self.head_dim, x.dtype)
        return cross_attn(x, keys, values, self.groups, self.rotary, self.mask)


def check_inputs(
    config: ZooRetroConfig,
    cache: Cache | None,
    past: RetrievalState | None,
    input_ids: Tensor | None,
    neighbour_ids: Tensor | None,
    neighbour_mask: Tensor | None,
    retriever: Retriever | None,
) -> None:
    """Raise a ValueError unless neighbours can be used in the way they are given."""
    if cache is not None and not isinstance(cache, RetroCache):
        raise ValueError(f"a {type(cache).__name__} cannot hold neighbours: leave it to the model to make its cache")
    if cache is not None and past is None and cache.get_seq_length():
        raise ValueError("the cache holds tokens from before retrieval: give neighbours from the first token on")
    if neighbour_ids is not None and retriever is not None:
        raise ValueError("give neighbour_ids or a retriever, not both")
    if retriever is not None and (input_ids is None or past is not None and past.ids is None):
        raise ValueError("a retriever needs input_ids, from the first token on")
    if neighbour_ids is not None and neighbour_ids.ndim != 4:
        raise ValueError(
            "neighbour_ids must be (rows, chunks, neighbours, tokens), chunks being of "
            f"chunk_size={config.chunk_size} tokens, got shape {tuple(neighbour_ids.shape)}"
        )
    if neighbour_mask is not None and (neighbour_ids is None or neighbour_mask.shape != neighbour_ids.shape):
        raise ValueError("neighbour_mask must have the shape of neighbour_ids")


def find_neighbours(retriever: Retriever, chunks: Tensor) -> Tensor | None:
    """The neighbours (N, k, r) of chunks (N, m); None where there are no chunks.

    Raises:
        ValueError: the retriever returns another shape.
    """
    if not len(chunks):
        return None
    found = torch.as_tensor(retriever(chunks), device=chunks.device)
    if found.ndim != 3 or len(found) != len(chunks) or found.is_floating_point():
        raise ValueError(
            f"the retriever must return token ids ({len(chunks)}, neighbours, tokens) for {len(chunks)} chunks, got "
            f"{found.dtype} of shape {tuple(found.shape)}"
        )
    return found


def neighbours_of(
    groups: ChunkGroups, past: RetrievalState | None, neighbour_ids: Tensor | None, neighbour_mask: Tensor | None
) -> Tensor | None:
    """The neighbours (N, k, r) of the new chunks, -1 where there are none, from those of all chunks of the rows."""
    if neighbour_ids is None or not neighbour_ids.shape[1]:
        return None
    if neighbour_mask is not None:
        neighbour_ids = neighbour_ids.masked_fill(neighbour_mask == 0, -1)
    number = groups.number if past is None else groups.number + past.counts[groups.row]
    found = neighbour_ids[groups.row, number.clamp_max(neighbour_ids.shape[1] - 1)]
    return found.masked_fill((number >= neighbour_ids.shape[1])[:, None, None], -1)
