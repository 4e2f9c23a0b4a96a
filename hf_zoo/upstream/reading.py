"""Loading hooks: they translate config and weights while an upstream folder is being opened.

transformers looks up renamings and conversions of weights by the class that is loaded, so they are registered under
that class for as long as the loading lasts, and only one load at a time may do that.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..registry import ARCHITECTURES, Architecture
from .table import find_upstream, prefixes

_one_at_a_time = threading.RLock()
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "proxies")


def install() -> None:
    """Give the hooks to the base classes of `hf_zoo.modeling`; a second call changes nothing."""
    from hf_zoo.modeling.base_config import ZooConfig
    from hf_zoo.modeling.base_model import ZooPreTrainedModel

    if translate_config not in ZooConfig.read_hooks:
        ZooConfig.read_hooks.append(translate_config)
        ZooPreTrainedModel.load_hooks.append(translate_weights)


def _weight_names(folder: Any, hub: dict[str, Any]) -> set[str]:
    """The names of a folder's weights; of those in safetensors only."""
    from safetensors import safe_open
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

    for file in (SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME):
        path = cached_file(folder, file, **hub, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            break
    else:
        return set()
    if path.endswith(".json"):
        return set(json.loads(Path(path).read_text())["weight_map"])
    with safe_open(path, framework="pt") as weights:
        return set(weights.keys())


def _architecture_of(config_class: type) -> Architecture | None:
    return ARCHITECTURES.get(config_class.model_type)


def translate_config(config_class: type, config_dict: dict[str, Any]) -> dict[str, Any]:
    """A config hook: the dictionary as the zoo config wants it, unchanged where it is one already."""
    architecture, model_type = _architecture_of(config_class), config_dict.get("model_type")
    if architecture is None or model_type in (None, config_class.model_type):
        return config_dict
    return find_upstream(architecture, model_type).read_config(config_class, config_dict)


@contextmanager
def translate_weights(model_class: type, folder: Any, arguments: dict[str, Any]) -> Iterator[None]:
    """A loading hook: while it is open, weights of an upstream folder are read under the zoo's names."""
    from transformers import PreTrainedConfig
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    architecture = _architecture_of(model_class.config_class)
    config, model_type = {}, None
    if architecture is not None and folder is not None:
        hub = {name: arguments[name] for name in _HUB_ARGUMENTS if name in arguments}
        config, _ = PreTrainedConfig.get_config_dict(folder, **hub)
        model_type = config.get("model_type")
    if model_type in (None, model_class.config_class.model_type):
        yield
        return
    # Files may have older names than upstream's own modules, which it translates first: an expert's weights alone, say
    names = (MODEL_MAPPING_NAMES.get(model_type), model_type)  # those of a part of a model come first
    older = {repr(one): one for name in names for one in get_checkpoint_conversion_mapping(name) or ()}.values()
    upstream, config_class = find_upstream(architecture, model_type), model_class.config_class
    zoo_config = config_class(**upstream.read_config(config_class, config))
    if upstream.counted and "config" not in arguments:
        found = _weight_names(folder, hub)
        for name, count in upstream.counted.items():
            arguments.setdefault(name, count(zoo_config, found))
    weights = [*older, *upstream.weights_of(zoo_config, architecture.task_of(model_class))]
    for trunk in ("transformer", "backbone", "bert", "albert", "roberta", "longformer", "deberta", "rwkv", "vit"):
        weights = [*prefixes(trunk, "classifier"), *weights]
    with _one_at_a_time:
        register_checkpoint_conversion_mapping(model_class.__name__, weights, overwrite=True)
        try:
            yield
        finally:
            register_checkpoint_conversion_mapping(model_class.__name__, [], overwrite=True)
