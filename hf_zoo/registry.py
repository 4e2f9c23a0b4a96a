"""The table of architectures, one line each, and their registration with transformers and peft.

Everything that must know all architectures reads this table: registration, LoRA defaults, presets, conversion,
tests, the README's tables. Class and file names follow from the name, so a line holds only what cannot be derived.
"""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .errors import unknown_name

# task -> (Auto class of transformers, what its class is called after the architecture)
TASKS = {
    "feature-extraction": ("AutoModel", "Model"),
    "pre-training": ("AutoModelForPreTraining", "ForPreTraining"),
    "causal-lm": ("AutoModelForCausalLM", "ForCausalLM"),
    "masked-lm": ("AutoModelForMaskedLM", "ForMaskedLM"),
    "next-sentence-prediction": ("AutoModelForNextSentencePrediction", "ForNextSentencePrediction"),
    "sequence-classification": ("AutoModelForSequenceClassification", "ForSequenceClassification"),
    "token-classification": ("AutoModelForTokenClassification", "ForTokenClassification"),
    "question-answering": ("AutoModelForQuestionAnswering", "ForQuestionAnswering"),
    "multiple-choice": ("AutoModelForMultipleChoice", "ForMultipleChoice"),
}
DECODER_TASKS = ("causal-lm", "sequence-classification", "token-classification", "question-answering")
ENCODER_TASKS = (
    *("masked-lm", "pre-training", "next-sentence-prediction", "sequence-classification"),
    *("token-classification", "question-answering", "multiple-choice"),
)


@dataclass(frozen=True)
class Architecture:
    """One line of the table.

    Args:
        name: folder in `modeling/`; `model_type` is `zoo_<name>`, classes are `Zoo<Name>...`.
        title: what it is, for tables.
        paper: (short citation, address).
        tasks: names of `TASKS` beside feature-extraction, the main one first.
        lora_targets: linear layers that LoRA-like methods adapt when the user names none.
        feedforward_targets: linear layers whose input IA3 scales, where it scales the output of the others.
        norm_targets: layers that LN-tuning trains.
        counted_task: the task whose model the published parameter counts are of; the main one without it.
        processor: how `create_processor` feeds it: "tokenizer", or a class name of `hf_zoo.tokenization`.
    """

    name: str
    title: str
    paper: tuple[str, str]
    tasks: tuple[str, ...]
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    feedforward_targets: tuple[str, ...] = ("down_proj",)
    norm_targets: tuple[str, ...] = ("mixer_norm", "mlp_norm", "norm")
    counted_task: str | None = None
    processor: str = "tokenizer"

    @property
    def model_type(self) -> str:
        """`zoo_` and the folder's name: bare names are transformers' own."""
        return f"zoo_{self.name}"

    @property
    def class_prefix(self) -> str:
        """`ZooLlm` of `llm`, `ZooMmLlm` of `mm_llm`."""
        return "Zoo" + "".join(part.capitalize() for part in self.name.split("_"))

    @property
    def tiny_preset(self) -> str:
        """The preset that tests and first steps use."""
        return f"{self.name.replace('_', '-')}-tiny"

    def module(self, kind: str) -> ModuleType:
        """Import `configuration_<name>` or `modeling_<name>`, by its first word."""
        return importlib.import_module(f"hf_zoo.modeling.{self.name}.{kind}_{self.name}")

    @property
    def config_class(self) -> type:
        """The configuration class. Imports torch."""
        return getattr(self.module("configuration"), f"{self.class_prefix}Config")

    def model_class(self, task: str | None = None) -> type:
        """The class for a task, by default the main one. Imports the model.

        Raises:
            ValueError: the architecture has no head for the task.
        """
        task = self.tasks[0] if task is None else task
        known = ("feature-extraction", *self.tasks)
        if task not in known:
            raise unknown_name(f"task of {self.model_type}", task, known, f"It has {', '.join(known)}.")
        return getattr(self.module("modeling"), self.class_prefix + TASKS[task][1])


ARCHITECTURES = {
    architecture.model_type: architecture
    for architecture in (
        Architecture(
            "llm",
            "dense decoder: GPT-2, LLaMA, LLaMA-2, Mistral, OLMo, Amber, CrystalCoder, BloombergGPT, StarCoder",
            ("Touvron et al. 2023", "https://arxiv.org/abs/2302.13971"),
            DECODER_TASKS,
        ),
        Architecture(
            "mamba",
            "selective state-space model",
            ("Gu and Dao 2023", "https://arxiv.org/abs/2312.00752"),
            DECODER_TASKS,
            lora_targets=("in_proj", "x_proj", "out_proj"),
            feedforward_targets=("out_proj",),
        ),
        Architecture(
            "mlm",
            "masked language model: BERT, BioBERT",
            ("Devlin et al. 2018", "https://arxiv.org/abs/1810.04805"),
            ENCODER_TASKS,
            counted_task="feature-extraction",
        ),
    )
}


def list_architectures() -> list[str]:
    """Every `model_type` of the zoo, sorted."""
    return sorted(ARCHITECTURES)


def find_architecture(model_type: str) -> Architecture:
    """The line of the table for a `model_type`; the prefix `zoo_` may be left out.

    Raises:
        ValueError: there is none; the nearest is named.
    """
    for name in (model_type, f"zoo_{model_type}"):
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    raise unknown_name("architecture", model_type, ARCHITECTURES)


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
            _register_architecture(architecture)
            _registered[architecture.model_type] = architecture.config_class
    from . import export, lora, upstream

    lora.register_peft_defaults()
    upstream.install()
    export.install()


def _register_architecture(architecture: Architecture) -> None:
    import transformers

    config_class = architecture.config_class
    _refuse_taken(architecture.model_type, config_class)
    transformers.AutoConfig.register(architecture.model_type, config_class, exist_ok=True)
    for task in ("feature-extraction", *architecture.tasks):
        auto_class = getattr(transformers, TASKS[task][0])
        _register_checked(auto_class, config_class, architecture.model_class(task))
    if architecture.processor == "tokenizer":
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        AutoTokenizer.register(config_class, fast_tokenizer_class=PreTrainedTokenizerFast, exist_ok=True)


def _refuse_taken(model_type: str, config_class: type) -> None:
    """A model_type that somebody else holds is never overridden: whoever has it could no longer load theirs."""
    from transformers import CONFIG_MAPPING

    if model_type in CONFIG_MAPPING and CONFIG_MAPPING[model_type] is not config_class:
        holder = CONFIG_MAPPING[model_type]
        raise RuntimeError(
            f"model_type {model_type!r} is already registered by {holder.__module__}.{holder.__qualname__}; "
            "hf_zoo does not override it. Import hf_zoo without that package, or rename its model_type."
        )


def _register_checked(auto_class: Any, config_class: type, model_class: type) -> None:
    auto_class.register(config_class, model_class, exist_ok=True)
    # transformers drops some registrations without a word (configs it takes for its own, for one)
    if auto_class._model_mapping.get(config_class, None) is not model_class:
        raise RuntimeError(f"transformers ignored {auto_class.__name__}.register of {model_class.__name__}")
