"""What models that take no tokens are given in the sweep: a batch of two kinds of thing or more, and labels for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hf_zoo.modeling.meta_transformer.modality_tokens import noise

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Modality:
    """How to make a batch.

    Args:
        inputs: (config, rows, tokens of a text, generator) -> a batch without labels.
        labels: (model, batch) -> what training needs beside it.
    """

    inputs: Callable[[Any, int, int, torch.Generator], Batch]
    labels: Callable[[torch.nn.Module, Batch], Batch]


def pixels(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Images of noise."""
    shape = (rows, config.num_channels, config.image_size, config.image_size)
    return {"pixel_values": torch.randn(shape, generator=generator)}


def image_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes, or which patches are hidden."""
    rows = len(inputs["pixel_values"])
    if type(model).__name__.endswith("ForMaskedImageModeling"):
        num_patches = (model.config.image_size // model.config.patch_size) ** 2
        return {"bool_masked_pos": (torch.arange(num_patches) % 2 == 0).expand(rows, -1)}
    return {"labels": torch.arange(rows) % 2}


def pairs(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Images and texts."""
    text = config.text_config
    ids = torch.randint(5, text.vocab_size, (rows, tokens), generator=generator)
    ids[:, -1] = text.eos_token_id
    return {"input_ids": ids, **pixels(config.vision_config, rows, tokens, generator)}


def images_in_text(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Rows of text that begin with an image."""
    text = torch.randint(5, config.image_token_id, (rows, tokens), generator=generator)
    ids = torch.cat((torch.full((rows, config.placeholders), config.image_token_id), text), dim=1)
    return {"input_ids": ids, **pixels(config.vision_config, rows, tokens, generator)}


def text_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes, or the text itself without its images."""
    if type(model).__name__.endswith("ForSequenceClassification"):
        return {"labels": torch.arange(len(inputs["input_ids"])) % 2}
    ids = inputs["input_ids"]
    return {"labels": ids.masked_fill(ids == model.config.image_token_id, -100)}


def prompts(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Images with two prompts of three points each."""
    points = torch.rand((rows, 2, 3, 2), generator=generator) * config.image_size
    kinds = torch.tensor([[1, 0, 0], [1, 1, -10]]).expand(rows, -1, -1)
    shape = (rows, 3, config.image_size, config.image_size)
    return {
        "pixel_values": torch.randn(shape, generator=generator),
        "input_points": points,
        "input_labels": kinds,
    }


def mask_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """A box for each prompt."""
    rows, side = len(inputs["pixel_values"]), model.config.image_size
    masks = torch.zeros(rows, inputs["input_points"].shape[1], side, side)
    masks[:, 0, 8:40, 16:30] = masks[:, 1:, 20:60, 30:60] = 1
    return {"labels": masks}


def table(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Rows of numbers, one of them missing, and of categories."""
    values = torch.randn(rows, config.num_numeric_columns, generator=generator)
    values[0, 1] = torch.nan
    draws = torch.rand(rows, len(config.category_sizes), generator=generator)
    return {"numeric_values": values, "category_ids": (draws * torch.tensor(config.category_sizes)).long()}


def table_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes."""
    if type(model).__name__.endswith("ForPreTraining"):
        return {}
    return {"labels": torch.arange(len(inputs["numeric_values"])) % 2}


def points(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Clouds of noise."""
    return {"points": torch.randn(rows, config.num_points, config.num_channels, generator=generator)}


def point_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes, or the tokens of groups."""
    rows = len(inputs["points"])
    if type(model).__name__.endswith("ForPreTraining"):
        return {"labels": (torch.arange(model.config.num_groups) % model.config.codebook_size).expand(rows, -1)}
    return {"labels": torch.arange(rows) % 2}


def sound(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Spectra of noise, three patches long."""
    return {"input_values": torch.randn(rows, 3 * config.patch_size, config.num_mel_bins, generator=generator)}


def sound_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes; pre-training makes its own."""
    if type(model).__name__.endswith("ForPreTraining"):
        return {}
    return {"labels": torch.arange(len(inputs["input_values"])) % 2}


def everything(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Noise of all modalities."""
    return noise(config.modalities, rows, generator)


def everything_labels(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Two classes, of rows or of all their tokens."""
    rows = len(inputs["input_ids"])
    if type(model).__name__.endswith("ForTokenClassification"):
        num_tokens = model.model.tokenisers(**inputs)[0].shape[1]
        return {"labels": torch.arange(rows * num_tokens).view(rows, -1) % 2}
    return {"labels": torch.arange(rows) % 2}


def speech(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Spectra of noise for the acoustic encoder, 10 steps long."""
    encoder = config.encoder_config
    return {"input_values": torch.randn(rows, 10 * encoder.patch_size, encoder.num_mel_bins, generator=generator)}


def transcripts(model: torch.nn.Module, inputs: Batch) -> Batch:
    """Three words, the last of which only the first row has."""
    labels = torch.tensor([7, 9, 8]).repeat(len(inputs["input_values"]), 1)
    labels[1:, 2] = -100
    return {"labels": labels}


def six_signals(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Noise of every kind, and texts."""
    names = {"vision": "pixel", "audio": "audio", "depth": "depth", "thermal": "thermal", "imu": "imu"}
    ids = torch.randint(5, config.text_config.vocab_size, (rows, tokens), generator=generator)
    ids[:, -1] = config.text_config.eos_token_id
    batch = {"input_ids": ids}
    for name, prefix in names.items():
        part = getattr(config, f"{name}_config")
        shape = (rows, part.num_channels, *part.input_shape)
        batch[f"{prefix}_values"] = torch.randn(shape, generator=generator)
    return batch


def concepts(config: Any, rows: int, tokens: int, generator: torch.Generator) -> Batch:
    """Vectors of sentences."""
    return {"concepts": torch.randn(rows, tokens, config.sentence_size, generator=generator)}


def next_concepts(model: torch.nn.Module, inputs: Batch) -> Batch:
    """The vectors themselves."""
    return {"labels": inputs["concepts"]}


MODALITIES = {
    "pixels": Modality(pixels, image_labels),
    "pairs": Modality(pairs, lambda model, inputs: {}),
    "images in text": Modality(images_in_text, text_labels),
    "masks": Modality(prompts, mask_labels),
    "table": Modality(table, table_labels),
    "points": Modality(points, point_labels),
    "sound": Modality(sound, sound_labels),
    "concepts": Modality(concepts, next_concepts),
    "everything": Modality(everything, everything_labels),
    "speech": Modality(speech, transcripts),
    "six signals": Modality(six_signals, lambda model, inputs: {}),
}
