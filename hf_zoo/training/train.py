"""`train`: one call from names to a trained model, with exact resumption. `hf-zoo train` is this function."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import unknown_name
from ..presets import longest_row
from ..registration import register
from ..registry import ARCHITECTURES, TASKS
from .rows import Labels, check_task, load_splits, make_collator, make_rows, read_labels
from .run_folder import finish_run, open_run

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments


def train(
    model: "str | PreTrainedModel",
    dataset: "str | Dataset | DatasetDict",
    task: str | None = None,
    tokenizer: "str | PreTrainedTokenizerBase | None" = None,
    *,
    lora: "LoraConfig | dict[str, Any] | None" = None,
    block_size: int = 256,
    overwrite_output_dir: bool = False,
    **training_arguments: Any,
) -> "Trainer":
    """Train a model and save it, its tokenizer and its loss curve in `output_dir`.

    The same call after a kill goes on from the last whole checkpoint, to the same weights bit for bit. A folder with a
    finished or a different run is refused.

    Args:
        model: a preset (fresh weights), a folder or a name on the Hub (its weights), or a model.
        dataset: a built-in name, a local file or folder, a name on the Hub, or a dataset. The loss is also taken on
            its validation split if it has one.
        task: see `rows.TRAINABLE_TASKS`; without it what the model was made for.
        tokenizer: a folder, a name on the Hub or a tokenizer; without it the model's own.
        lora: train an adapter instead: a peft config, or fields of `LoraConfig` that replace the defaults for the
            architecture.
        block_size: most tokens a row.
        overwrite_output_dir: start anew where another run is.
        training_arguments: fields of `TrainingArguments`. Defaults that differ from its own: `bf16` where the
            hardware computes in it, a log entry every 10 steps, evaluation whenever it saves.

    Returns:
        The Trainer after training.

    Raises:
        ValueError: a name that is unknown, parts that do not fit together, or a folder that is taken. All of it is
            found before the first step.
    """
    register()
    if isinstance(model, str):
        _check_name(model)
    task = find_task(model) if task is None else task
    check_task(task)
    from transformers import Trainer, set_seed

    from .expert_load import ExpertLoad, find_routers
    from .loss_curve import LossCurve
    from .momentum_target import FollowTarget, find_followed

    _check_takes_text(model)
    train_split, validation = load_splits(dataset)
    args = _training_arguments(training_arguments, has_validation=validation is not None)
    asked = {
        **{"model": _describe(model), "dataset": _describe(dataset), "task": task, "tokenizer": _describe(tokenizer)},
        **{"lora": _describe(lora), "block_size": block_size, "processes": args.world_size},
        **{name: value for name, value in training_arguments.items() if name not in _NOT_THE_RESULT},
    }
    with args.main_process_first(local=False):
        named = args.resume_from_checkpoint if isinstance(args.resume_from_checkpoint, str) else None
        is_main_process = args.process_index == 0
        checkpoint = open_run(args.output_dir, asked, named, overwrite_output_dir, is_main_process)

    set_seed(args.seed)  # fresh weights and new heads are part of the run
    labels = read_labels(train_split, task)
    tokenizer = load_tokenizer(model, tokenizer)
    model = load_model(model, task, tokenizer, labels)
    _check_sizes(model, tokenizer, block_size)
    followed = find_followed(model)
    with args.main_process_first():
        rows = [
            make_rows(split, "masked-lm" if followed else task, tokenizer, block_size, labels, seed=args.seed)
            for split in (train_split, validation)
            if split is not None
        ]
    if followed:  # two views of plain rows: nothing is masked beforehand
        task, rows = "views", [split.remove_columns("word_ids") for split in rows]
    if task == "next-sentence-prediction":
        rows = [split.rename_column("next_sentence_label", "labels").remove_columns("word_ids") for split in rows]
    if lora is not None:
        model = _add_adapter(model, lora, is_main_process)

    curve = LossCurve()
    trainer = Trainer(
        model,
        args,
        data_collator=make_collator(task, tokenizer, seed=args.seed),
        train_dataset=rows[0],
        eval_dataset=rows[1] if validation is not None else None,
        processing_class=tokenizer,
        callbacks=[
            *([ExpertLoad()] if find_routers(model) else []),
            *([FollowTarget()] if followed else []),
            curve,
        ],
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    if validation is not None and not _is_evaluated(trainer):
        trainer.evaluate()
        curve.write(args.output_dir, trainer.state)
    trainer.save_model()
    if trainer.is_world_process_zero():
        finish_run(args.output_dir)
    return trainer


# Training arguments that the record of a run leaves out
_NOT_THE_RESULT = ("output_dir", "resume_from_checkpoint", "disable_tqdm", "local_rank")


def _describe(value: Any) -> Any:
    """What the record of a run says of an argument: names and settings themselves, of an object its class."""
    if value is None or isinstance(value, (str, dict)):
        return value
    return str(value) if isinstance(value, Path) else type(value).__name__


def _training_arguments(given: dict[str, Any], has_validation: bool) -> "TrainingArguments":
    import torch
    from transformers import TrainingArguments

    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    for name in given:
        if name not in known:
            raise unknown_name("training argument", name, known)
    arguments = {
        # Otherwise Trainer drops what the collators read and the model does not, such as word_ids
        "remove_unused_columns": False,
        "logging_steps": 10,
        "use_cpu": not torch.accelerator.is_available(),
        **given,
    }
    arguments.setdefault("bf16", not arguments.get("fp16") and has_native_bf16(arguments["use_cpu"]))
    if has_validation:
        arguments.setdefault("eval_strategy", "steps")
        arguments.setdefault("eval_steps", arguments.get("save_steps", 500))
    return TrainingArguments(**arguments)


def has_native_bf16(use_cpu: bool = False) -> bool:
    """Whether this machine computes in bfloat16 rather than emulating it, which would cost time and precision."""
    import torch

    if not use_cpu and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not use_cpu and torch.accelerator.is_available():
        return False  # torch does not say
    return torch.cpu._is_avx512_bf16_supported()  # no public name before torch 2.10; CPUs with AMX have it too


def find_task(model: "str | PreTrainedModel") -> str:
    """What a model was made for: the main task of a preset, else the head of the saved class.

    Raises:
        ValueError: no task has this head.
    """
    import transformers

    if isinstance(model, str):
        architecture = _preset_architecture(model)
        if architecture is not None:
            return architecture.tasks[0]
        config = _from_pretrained(transformers.AutoConfig, model)
        name = (config.architectures or ["no class"])[0]
    else:
        config, name = model.config, type(model).__name__
    # Pre-training last: there transformers lists many classes a second time
    for task in sorted(
        TASKS, key=lambda task: (TASKS[task][0] == "AutoModelForPreTraining", TASKS[task][1] not in name)
    ):
        model_class = getattr(transformers, TASKS[task][0])._model_mapping.get(type(config), None)
        if getattr(model_class, "__name__", None) == name:
            return task
    raise ValueError(f"what {name} is trained for is not known: say it with --task, one of {', '.join(TASKS)}.")


def _preset_architecture(name: str) -> Any:
    from ..presets import list_models

    if name not in list_models():
        return None
    from ..presets import find_preset

    return find_preset(name)[0]


def _check_name(model: str) -> None:
    """A name without a slash that is neither a preset nor a folder is more likely a slip than an old name on the Hub
    when a preset is near."""
    import difflib

    from ..presets import list_models

    presets = list_models()
    if "/" in model or model in presets or Path(model).exists():
        return
    if difflib.get_close_matches(model, presets, n=1, cutoff=0.75):
        raise unknown_name("model", model, presets, "`hf-zoo list` shows every preset.")


def _from_pretrained(auto_class: Any, name: str, **kwargs: Any) -> Any:
    try:
        return auto_class.from_pretrained(name, **kwargs)
    except OSError as error:
        raise ValueError(f"{name!r} cannot be loaded: {str(error).splitlines()[0]}") from error


def load_tokenizer(
    model: "str | PreTrainedModel", tokenizer: "str | PreTrainedTokenizerBase | None" = None
) -> "PreTrainedTokenizerBase":
    """The tokenizer that is named, else the model's own; it pads with its end token if it has no other."""
    from transformers import AutoTokenizer

    if tokenizer is None and isinstance(model, str) and _preset_architecture(model) is not None:
        from ..presets import create_processor

        processor = create_processor(model)
        tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer is None:
        tokenizer = model if isinstance(model, str) else model.config.name_or_path
        if not tokenizer:
            raise ValueError("a model that was not loaded brings no tokenizer: pass tokenizer=.")
    if isinstance(tokenizer, str):
        tokenizer = _from_pretrained(AutoTokenizer, tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    model: "str | PreTrainedModel", task: str, tokenizer: "PreTrainedTokenizerBase", labels: Labels | None = None
) -> "PreTrainedModel":
    """A preset with fresh weights, or a saved model, with the head of a task and room for its labels."""
    import transformers

    if isinstance(model, str):
        config = labels.config if labels is not None else {}
        if _preset_architecture(model) is not None:
            from ..presets import create_model

            num_labels = config.get("num_labels", len(config.get("id2label", ())))
            model = create_model(model, task, **({"num_labels": num_labels} if config else {}))
            model.config.update(config)
        else:
            # A head for other labels than the saved one is left behind for a new one; nothing else may differ
            auto_class = getattr(transformers, TASKS[task][0])
            model = _from_pretrained(auto_class, model, ignore_mismatched_sizes=labels is not None, **config)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model


def _check_takes_text(model: "str | PreTrainedModel") -> None:
    if isinstance(model, str):
        architecture = _preset_architecture(model)
        if architecture is None:  # a folder or a name on the Hub, which is not opened yet
            return
        taken = architecture.model_class().main_input_name
    else:
        taken = model.main_input_name
    if taken != "input_ids":
        raise ValueError(
            f"{_describe(model)} takes {taken}, and this trains on text: give it to transformers' Trainer, with rows "
            "that its own processor makes"
        )


def _check_sizes(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", block_size: int) -> None:
    vocab_size = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > vocab_size:
        raise ValueError(
            f"tokenizer {tokenizer.name_or_path!r} has {len(tokenizer)} tokens, the model {vocab_size}: they do not "
            "belong together. Pass the model's own --tokenizer."
        )
    longest = longest_row(model.config) or block_size
    if block_size > longest:
        raise ValueError(f"--block_size {block_size} is more than the {longest} tokens that the model can take.")


def _add_adapter(
    model: "PreTrainedModel", lora: "LoraConfig | dict[str, Any]", is_main_process: bool
) -> "PreTrainedModel":
    from peft import LoraConfig, TaskType, get_peft_model

    from ..lora import lora_config

    if isinstance(lora, dict):
        if model.config.model_type in ARCHITECTURES:
            lora = lora_config(model, **lora)
        else:
            peft_tasks = {"ForCausalLM": TaskType.CAUSAL_LM, "ForSequenceClassification": TaskType.SEQ_CLS}
            peft_tasks["ForTokenClassification"] = TaskType.TOKEN_CLS
            names = (peft_tasks[ending] for ending in peft_tasks if type(model).__name__.endswith(ending))
            lora = LoraConfig(**{"task_type": next(names, None), **lora})
    model = get_peft_model(model, lora)
    if is_main_process:
        model.print_trainable_parameters()
    return model


def _is_evaluated(trainer: "Trainer") -> bool:
    """Whether the log has the loss on the validation split after the last step."""
    history = trainer.state.log_history
    return any("eval_loss" in entry and entry["step"] == trainer.state.global_step for entry in history)
