"""Presets: published sizes by name, as data in the architecture's folder, read here.

A preset is `{"config": overrides of the config's defaults, "parameters": exact count, "source": where the
numbers come from, "tokenizer": kind of its tokenizer, "bpe" without it, "sentinels": how many of its tokens stand for
lost spans, "image_processor": "vit" or "clip", whose colours it wants, "task": its main head, the architecture's
without it}`.
"""

import dataclasses
import fnmatch
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import unknown_name
from .registry import ARCHITECTURES, Architecture

if TYPE_CHECKING:
    from transformers import (
        BaseImageProcessor,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )


def read_presets(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """All presets of one architecture, tiny first."""
    return presets_module(architecture).PRESETS


def presets_module(architecture: Architecture) -> ModuleType:
    """An architecture's `presets.py`, executed alone: no model, no torch."""
    root = importlib.util.find_spec("hf_zoo.modeling").submodule_search_locations[0]
    path = Path(root, architecture.name, "presets.py")
    spec = importlib.util.spec_from_file_location(f"_hf_zoo_presets_{architecture.name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def list_models(pattern: str = "*") -> list[str]:
    """Names of the presets that match a glob, sorted."""
    names = (name for architecture in ARCHITECTURES.values() for name in read_presets(architecture))
    return sorted(fnmatch.filter(names, pattern))


def find_preset(name: str) -> tuple[Architecture, dict[str, Any]]:
    """The architecture and the data of a preset.

    Raises:
        ValueError: no preset has this name; the nearest is named.
    """
    for architecture in ARCHITECTURES.values():
        presets = read_presets(architecture)
        if name in presets:
            return architecture, presets[name]
    raise unknown_name("preset", name, list_models(), "`hf-zoo list` shows them all.")


def create_config(name: str, **overrides: Any) -> "PretrainedConfig":
    """The configuration of a preset, with fields replaced.

    Raises:
        ValueError: unknown preset or field (the nearest is named), or numbers that do not fit together.
    """
    architecture, preset = find_preset(name)
    config_class = architecture.config_class
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    known |= {"num_labels"}  # transformers derives id2label from it
    for field in overrides:
        if field not in known:
            raise unknown_name(f"field of {config_class.__name__}", field, known)
    return config_class(**{**preset["config"], **overrides})


def create_model(name: str, task: str | None = None, **overrides: Any) -> "PreTrainedModel":
    """A freshly initialised model of a preset.

    Args:
        name: a preset, see `list_models`.
        task: a name such as "causal-lm" or "sequence-classification"; the preset's main head without it.
        overrides: config fields, for instance `num_hidden_layers=2` or `num_labels=3`.
    """
    architecture, preset = find_preset(name)
    model_class = architecture.model_class(task or preset.get("task"))
    return model_class._from_config(create_config(name, **overrides))


def create_processor(name: str) -> "PreTrainedTokenizerBase | BaseImageProcessor | ProcessorMixin":
    """What feeds a preset: the tokenizer, of at most its `vocab_size` ids, trained on first use and then cached; an
    image processor for its size of images; or the architecture's own processor, for what else it takes."""
    architecture, preset = find_preset(name)
    config = create_config(name)
    text, images = config.get_text_config(), image_config(config)
    placeholder = getattr(config, "image_token_id", None)
    tokenizer = _tokenizer(name, text, preset, placeholder) if hasattr(text, "vocab_size") else None
    classes = architecture.processor_classes()
    own = classes.get("AutoProcessor", classes.get("AutoFeatureExtractor"))
    if hasattr(own, "from_model_config"):
        return own.from_model_config(config) if tokenizer is None else own.from_model_config(config, tokenizer)
    if images is None:
        return tokenizer
    from .data.images import build_image_processor, build_pair_processor

    image_processor = build_image_processor(preset.get("image_processor", "vit"), images.image_size)
    return image_processor if tokenizer is None else build_pair_processor(image_processor, tokenizer)


def _tokenizer(
    name: str, config: "PretrainedConfig", preset: dict[str, Any], image_token_id: int | None
) -> "PreTrainedTokenizerBase":
    from .data.recipes import build_tokenizer

    sentinels = preset.get("sentinels", 0)
    vocab_size = getattr(config, "text_vocab_size", config.vocab_size) - sentinels
    if image_token_id is not None:
        vocab_size = min(vocab_size, image_token_id)
    tokenizer = build_tokenizer(preset.get("tokenizer", "bpe"), vocab_size, name)
    if sentinels:
        from .training.seq2seq_collators import add_sentinels

        add_sentinels(tokenizer, sentinels)
    if max_length := longest_row(config):
        tokenizer.model_max_length = max_length
    return tokenizer


def image_config(config: "PretrainedConfig") -> "PretrainedConfig | None":
    """The config of what reads images, which may be the whole; None where nothing does."""
    config = getattr(config, "vision_config", config)
    return config if hasattr(config, "image_size") else None


def longest_row(config: "PretrainedConfig") -> int | None:
    """Most tokens that a row may have: its positions, unless those count something else; None where any number may."""
    return getattr(config, "max_row_length" if hasattr(config, "max_row_length") else "max_position_embeddings", None)
