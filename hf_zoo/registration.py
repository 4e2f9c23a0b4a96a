"""Registration of the table's architectures with transformers and peft, through their public `register()` calls."""

from typing import Any

from . import export, lora, upstream
from .registry import ARCHITECTURES, TASKS, Architecture

_registered: dict[str, type] = {}  # model_type -> the config class this process registered


def register() -> None:
    """Make every architecture known to transformers' Auto classes and to peft's defaults.

    Runs once a process, however often it is called. Worker processes that unpickle a zoo object import hf_zoo and
    so register by themselves.

    Raises:
        RuntimeError: a name is taken by transformers or another plugin, or transformers ignored a registration.
    """
    for architecture in ARCHITECTURES.values():
        if architecture.model_type not in _registered:
            register_architecture(architecture)
            _registered[architecture.model_type] = architecture.config_class
    from hf_zoo.modeling.attention_interface import register_attentions

    register_attentions()
    lora.register_peft_defaults()
    upstream.install()
    export.install()


def register_architecture(architecture: Architecture) -> None:
    """Register the config, every head, and whatever feeds the model; checked after the fact.

    Raises:
        RuntimeError: see `register`.
    """
    import transformers

    config_class = architecture.config_class
    _refuse_taken(architecture.model_type, config_class)
    transformers.AutoConfig.register(architecture.model_type, config_class, exist_ok=True)
    for task in architecture.all_tasks:
        auto_class = getattr(transformers, TASKS[task][0])
        model_class = architecture.model_class(task)
        auto_class.register(config_class, model_class, exist_ok=True)
        _assert_held(auto_class.__name__, auto_class._model_mapping, config_class, model_class)
    _register_processors(architecture, config_class)


def _register_processors(architecture: Architecture, config_class: type) -> None:
    import transformers
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, processing_auto

    # A tokenizer's folder names its class; `fast` is for folders that hold a tokenizer.json alone
    fast, classes = transformers.PreTrainedTokenizerFast, architecture.processor_classes()
    own = classes.pop("AutoTokenizer", None)
    transformers.AutoTokenizer.register(config_class, tokenizer_class=fast, slow_tokenizer_class=own, exist_ok=True)
    # From their own modules: without torchvision older versions of transformers have a dummy at the top
    autos = {
        "AutoProcessor": (processing_auto.AutoProcessor, processing_auto.PROCESSOR_MAPPING),
        "AutoFeatureExtractor": (
            feature_extraction_auto.AutoFeatureExtractor,
            feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING,
        ),
        "AutoImageProcessor": (
            image_processing_auto.AutoImageProcessor,
            image_processing_auto.IMAGE_PROCESSOR_MAPPING,
        ),
    }
    for name, processor_class in classes.items():
        (auto_class, mapping), held = autos[name], processor_class
        if name == "AutoImageProcessor":  # one class a backend; ours need neither torchvision nor a GPU
            held = {"pil": processor_class}
            auto_class.register(config_class, image_processor_classes=held, exist_ok=True)
        else:
            auto_class.register(config_class, processor_class, exist_ok=True)
        _assert_held(name, mapping, config_class, held)


def _refuse_taken(model_type: str, config_class: type) -> None:
    """A model_type that somebody else holds is never overridden: whoever has it could no longer load theirs."""
    from transformers import CONFIG_MAPPING

    if model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type] is not config_class:
        holder = CONFIG_MAPPING[model_type]
        raise RuntimeError(
            f"model_type {model_type!r} is already registered by {holder.__module__}.{holder.__qualname__}; "
            "hf_zoo does not override it. Import hf_zoo without that package, or rename its model_type."
        )


def _assert_held(name: str, mapping: Any, config_class: type, expected: Any) -> None:
    """transformers drops some registrations without a word (of configs that it takes for its own, for one)."""
    if mapping.get(config_class, None) != expected:
        raise RuntimeError(f"transformers ignored {name}.register for {config_class.__name__}")
