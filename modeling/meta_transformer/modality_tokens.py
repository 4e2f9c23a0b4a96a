"""From data to tokens: a tokeniser for each modality, and all that are given side by side.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..base_model import embed_tokens
from ..layers.column_embedding import CategoryEmbedding, NumberEmbedding
from ..layers.graph_tokens import GraphTokens
from ..layers.patches import ImageTokens
from ..layers.point_tokens import PointTokens
from ..layers.positions import LearnedPositions
from ..layers.series_tokens import SeriesTokens
from ..layers.spectral_bands import BandTokens
from ..layers.spectrogram_patches import SpectrogramTokens
from ..layers.tubelets import TubeletTokens
from ..masks import token_positions

# modality -> what the model calls its inputs, the one that cannot be left out first
INPUTS = {
    "text": ("input_ids", "attention_mask"),
    "image": ("pixel_values",),
    "infrared": ("infrared_values",),
    "x_ray": ("x_ray_values",),
    "video": ("pixel_values_videos",),
    "hyperspectral": ("band_values",),
    "points": ("points",),
    "audio": ("audio_values",),
    "table": ("numeric_values", "category_ids"),
    "graph": ("node_values", "edge_index", "edge_values", "node_mask", "node_identifiers"),
    "time_series": ("series_values",),
    "imu": ("imu_values",),
}


class TextTokens(nn.Module):
    """Word pieces and their learned positions; real tokens alone are counted."""

    def __init__(self, vocab_size: int, max_length: int, hidden_size: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, hidden_size)
        self.embed_positions = LearnedPositions(max_length, hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """input_ids (B, T), attention_mask (B, T) -> tokens (B, T, D) and the mask."""
        x = embed_tokens(self.embed_tokens, input_ids, None)
        return x + self.embed_positions(token_positions(x, attention_mask, 0)), attention_mask


class TableTokens(nn.Module):
    """Columns of numbers, then of categories."""

    def __init__(self, num_numeric_columns: int, category_sizes: list[int], hidden_size: int) -> None:
        super().__init__()
        self.numbers = NumberEmbedding(num_numeric_columns, hidden_size) if num_numeric_columns else None
        self.categories = CategoryEmbedding(category_sizes, hidden_size) if category_sizes else None
        self.expected = {"numeric_values": num_numeric_columns, "category_ids": len(category_sizes)}

    def forward(self, numeric_values: Tensor | None = None, category_ids: Tensor | None = None) -> Tensor:
        """numeric_values (B, N), NaN where one is missing, category_ids (B, C) -> (B, N + C, D)."""
        for name, values in (("numeric_values", numeric_values), ("category_ids", category_ids)):
            count = 0 if values is None else values.shape[-1]
            if count != self.expected[name]:
                raise ValueError(f"{name} must have {self.expected[name]} columns, got {count}")
        tokens = [] if self.numbers is None else [self.numbers(numeric_values)]
        tokens += [] if self.categories is None else [self.categories(category_ids)]
        return torch.cat(tokens, dim=1)


def make_tokeniser(name: str, sizes: dict[str, Any], hidden_size: int) -> nn.Module:
    """The tokeniser of a modality with sizes as in the config."""
    if name in ("image", "infrared", "x_ray"):
        return ImageTokens(**sizes, hidden_size=hidden_size, use_cls=False)
    if name == "points":  # how many there are is for the processor to say
        sizes = {field: value for field, value in sizes.items() if field != "num_points"}
    kinds = {
        **{"text": TextTokens, "video": TubeletTokens, "hyperspectral": BandTokens, "points": PointTokens},
        **{"audio": SpectrogramTokens, "table": TableTokens, "graph": GraphTokens},
        **{"time_series": SeriesTokens, "imu": SeriesTokens},
    }
    return kinds[name](**sizes, hidden_size=hidden_size)


class ModalityTokens(nn.Module):
    """All tokenisers.

    Args:
        modalities: name -> sizes.
        hidden_size: D.
    """

    def __init__(self, modalities: dict[str, dict[str, Any]], hidden_size: int) -> None:
        super().__init__()
        self.by_name = nn.ModuleDict(
            {name: make_tokeniser(name, sizes, hidden_size) for name, sizes in modalities.items()}
        )

    def forward(self, **inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, T, D) of all modalities that are given, one after the other in the order of `INPUTS`, and their
        mask (B, T), None where all are real.

        Args:
            inputs: by the names in `INPUTS`.

        Raises:
            ValueError: nothing is given, or something that the model has no tokeniser for.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        wanted = [name for name in INPUTS if any(field in given for field in INPUTS[name])]
        for name in wanted:
            if name not in self.by_name:
                field = next(field for field in INPUTS[name] if field in given)
                raise ValueError(f"{field} is of {name}, but the model has {', '.join(self.by_name)}")
        if not wanted:
            fields = [INPUTS[name][0] for name in self.by_name]
            raise ValueError(f"nothing to read: give at least one of {', '.join(fields)}")
        parts, masks = [], []
        for name in self.by_name:
            if name in wanted:
                x = self.by_name[name](*(given.get(field) for field in INPUTS[name]))
                x, mask = x if isinstance(x, tuple) else (x, None)
                parts.append(x)
                masks.append(mask)
        if all(mask is None for mask in masks):
            return torch.cat(parts, dim=1), None
        masks = [x.new_ones(x.shape[:2]) if m is None else m.to(x.dtype) for x, m in zip(parts, masks, strict=True)]
        return torch.cat(parts, dim=1), torch.cat(masks, dim=1).long()


def noise(modalities: dict[str, dict[str, Any]], num_rows: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A valid batch of all modalities, which means nothing."""
    batch = {}

    def normal(*shape: int) -> Tensor:
        return torch.randn(num_rows, *shape, generator=generator)

    for name, sizes in modalities.items():
        field = INPUTS[name][0]
        if name == "text":
            shape = (num_rows, min(8, sizes["max_length"]))
            batch[field] = torch.randint(0, sizes["vocab_size"], shape, generator=generator)
            batch["attention_mask"] = torch.ones_like(batch[field])
        elif name == "video":
            side = sizes["image_size"]
            batch[field] = normal(sizes["num_frames"], sizes["num_channels"], side, side)
        elif "image_size" in sizes:
            batch[field] = normal(sizes["num_channels"], sizes["image_size"], sizes["image_size"])
        elif name == "hyperspectral":
            batch[field] = normal(sizes["num_bands"], sizes["patch_size"], sizes["patch_size"])
        elif name == "points":
            batch[field] = normal(sizes["num_points"], sizes["num_channels"])
        elif name == "audio":
            batch[field] = normal(sizes["max_frames"], sizes["num_mel_bins"])
        elif name == "table":
            if sizes["num_numeric_columns"]:
                batch["numeric_values"] = normal(sizes["num_numeric_columns"])
                batch["numeric_values"][0, 0] = torch.nan
            if counts := sizes["category_sizes"]:
                draws = torch.rand(num_rows, len(counts), generator=generator)
                batch["category_ids"] = (draws * torch.tensor(counts)).long()
        elif name == "graph":
            num_nodes = min(5, sizes["identifier_size"])
            nodes = torch.arange(num_nodes)
            batch[field] = normal(num_nodes, sizes["node_size"])
            edges = torch.stack((nodes, nodes.roll(-1)), dim=-1).expand(num_rows, -1, -1).clone()
            edges[0, -1] = -1
            batch["edge_index"] = edges
            if sizes["edge_size"]:
                batch["edge_values"] = normal(num_nodes, sizes["edge_size"])
        else:
            batch[field] = normal(8, sizes["num_channels"])
    return batch
