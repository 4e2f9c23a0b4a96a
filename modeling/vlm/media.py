"""What a language model sees of images by attention: which token sees which image, and what a cache keeps of them.

Alayrac et al. 2022, https://arxiv.org/abs/2204.14198, section 2.3: a token attends to the image before it alone, and
later ones know earlier images by what the text made of them. In "late" fusion a token sees all images before it.

Shapes: B batch, T tokens, M images a row, N features an image, S = M N, E size of a feature, H heads, K head size.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from ..layers.gated_cross_attention import GatedCrossAttention

_NEVER = 1 << 30  # number of an image that no row has


def looking_layers(config: PreTrainedConfig) -> list[int]:
    """The layers of the language model before which it attends to images."""
    num_layers = config.text_config.num_hidden_layers
    if config.fusion == "late":
        return list(range(num_layers - config.num_fusion_layers, num_layers))
    if config.fusion == "interleaved":
        return list(range(config.cross_attention_every - 1, num_layers, config.cross_attention_every))
    return []


@dataclass
class Media:
    """The images of each row, and where they stand.

    Args:
        features: (B, S, E) of the images that came with these tokens; None where none did.
        numbers: (B, S), which image of its row each feature is of, from 1; with those that a cache holds.
        seen: (B, T, S), which of them each token sees.
        kept: layer -> keys and values (B, H, S, K), of earlier images and, once a layer has run, of all.
        is_kept: whether a cache wants them.
    """

    features: Tensor | None
    numbers: Tensor
    seen: Tensor
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    is_kept: bool = False

    def keys_and_values(self, layer: GatedCrossAttention, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Of all images of each row, (B, H, S, K)."""
        pairs = [self.kept[layer_idx]] if layer_idx in self.kept else []
        if self.features is not None:
            pairs.append(layer.project_context(self.features))
        keys, values = pairs[0] if len(pairs) == 1 else (torch.cat(both, dim=2) for both in zip(*pairs, strict=True))
        if self.is_kept:
            self.kept[layer_idx] = keys, values
        return keys, values


@dataclass
class Seen:
    """What a cache remembers of images.

    Args:
        count: (B,), placeholders so far.
        numbers: (B, S), see `Media`.
        kept: see `Media`.
    """

    count: Tensor
    numbers: Tensor | None = None
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


def rows_of_images(features: Tensor, is_image: Tensor) -> tuple[Tensor, Tensor]:
    """Features (images, N, E) of all rows, in the order of their placeholders, as rows (B, M N, E).

    Args:
        is_image: (B, T), true on placeholders, as many as images.

    Returns:
        The rows, and which image of its row each feature is of (B, M N), from 1; `_NEVER` where a row has fewer.
    """
    counts = is_image.sum(-1)
    row, _ = is_image.nonzero(as_tuple=True)
    slot = is_image.long().cumsum(-1)[is_image] - 1
    most = int(counts.max())
    rows = features.new_zeros(len(is_image), most, *features.shape[1:])
    rows[row, slot] = features
    numbers = torch.arange(1, most + 1, device=features.device).expand(len(is_image), -1)
    numbers = torch.where(numbers <= counts[:, None], numbers, _NEVER)
    return rows.flatten(1, 2), numbers.repeat_interleave(features.shape[1], dim=1)


def make_media(
    features: Tensor | None, is_image: Tensor, cache: Cache | None, keep: bool, only_last: bool
) -> Media | None:
    """What each token sees of the images of its row; None where there are none.

    Args:
        features: (images, N, E), as many as placeholders among these tokens; None where none came.
        is_image: (B, T), true on placeholders.
        cache: what earlier tokens left.
        keep: whether later tokens will ask.
        only_last: whether a token sees the last image before it alone, rather than all.
    """
    past: Seen | None = getattr(cache, "images", None) if cache is not None and cache.get_seq_length() else None
    time = is_image.long().cumsum(-1)
    if past is not None:
        time = time + past.count[:, None]
    rows = numbers = None
    if features is not None and len(features):
        rows, numbers = rows_of_images(features, is_image)
        if past is not None:
            numbers = torch.where(numbers < _NEVER, numbers + past.count[:, None], numbers)
    if past is not None and past.numbers is not None:
        numbers = past.numbers if numbers is None else torch.cat((past.numbers, numbers), dim=1)
    if numbers is None:
        return None
    ours, theirs = time[..., None], numbers[:, None]
    seen = theirs == ours if only_last else theirs <= ours
    kept = {} if past is None else past.kept
    return Media(rows, numbers, seen, dict(kept), keep)


def remember_media(cache: Cache, media: Media | None, is_image: Tensor) -> None:
    """Leave in a cache what later tokens need; beams of a row share its images, so no order of rows matters."""
    past: Seen | None = getattr(cache, "images", None) if cache.get_seq_length() > is_image.shape[1] else None
    count = is_image.sum(-1) + (0 if past is None else past.count)
    cache.images = Seen(count) if media is None else Seen(count, media.numbers, media.kept)


def look(
    layer: GatedCrossAttention | None, layer_idx: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook before a layer of a language model: it takes `media` from the layer's arguments, and attends to them.

    Args:
        layer: which does; None where the language model is left alone.
        layer_idx: of the language model's layer.
    """
    media = kwargs.pop("media", None)
    if layer is None:
        return args, kwargs
    name = None if args else "hidden_states"
    x = args[0] if args else kwargs[name]
    x = layer(x) if media is None else layer(x, *media.keys_and_values(layer, layer_idx), media.seen)
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, name: x})
