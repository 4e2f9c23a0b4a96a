"""What every model of the zoo shares: loading that never leaves random weights in silence, and a dummy batch."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput


class ZooPreTrainedModel(PreTrainedModel):
    """Base of all models.

    `load_hooks` are context managers around loading, filled in by the installed package (they teach transformers to
    read another architecture's weights) and empty in exported code.
    """

    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # Weights of the trunk that a checkpoint may lack, because only some heads train them
    may_be_missing: ClassVar[tuple[str, ...]] = ()
    load_hooks: ClassVar[list[Callable[..., AbstractContextManager]]] = []

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights; a checkpoint that lacks some of its own or of the trunk is an error, a new head is not.

        With `output_loading_info=True` nothing is raised, and the caller is told what is missing.

        Raises:
            ValueError: weights are missing from the file that would start at random without a word.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        with ExitStack() as stack:
            for hook in cls.load_hooks:
                stack.enter_context(hook(cls, pretrained_model_name_or_path, kwargs))
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        missing = model.lost_weights(info["missing_keys"])
        if missing and not wants_info and pretrained_model_name_or_path is not None:
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__}, the first being "
                f"{missing[0]!r}: the file is cut short or belongs to another configuration"
            )
        return (model, info) if wants_info else model

    def lost_weights(self, missing: list[str]) -> list[str]:
        """Those missing weights that no checkpoint may lack: of the trunk, and all if this class wrote it."""
        if type(self).__name__ in (self.config.architectures or ()):
            return sorted(missing)
        prefix = f"{self.base_model_prefix}." if hasattr(self, self.base_model_prefix) else ""
        trunk = (name for name in missing if name.startswith(prefix))
        return sorted(name for name in trunk if not any(part in name for part in self.may_be_missing))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Standard weights; a layer that starts in its own way has an `initialise` method.

        transformers calls this for modules of custom code that have parameters or buffers of their own, and not for
        a block that only holds others: a linear layer that starts smaller says so by its `init_scale`.
        """
        super()._init_weights(module)
        if hasattr(module, "init_scale"):
            init.normal_(module.weight, std=self.config.initializer_range * module.init_scale)
        if hasattr(module, "initialise"):
            module.initialise()

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Write weights, configuration and code; in this module's own names, whatever folder they came from.

        transformers would write the names of the folder that was opened, which a Trainer cannot resume from.
        """
        kwargs.setdefault("save_original_format", False)
        for name in self.config.sub_configs:  # as transformers notes in them when it reads them
            if (part := getattr(self.config, name)) is not None:
                part.dtype = self.dtype
        super().save_pretrained(*args, **kwargs)

    def complete_loss(
        self,
        loss: Tensor | None,
        outputs: ModelOutput,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Tensor | None,
    ) -> Tensor | None:
        """What a head returns as its loss: the task's, and what the architecture adds to it.

        Args:
            loss: of the task; None without labels.
            outputs: of the trunk.
            labels: those that the loss counts, -100 where it does not.
            num_items_in_batch: labels of all accumulated batches.
            inputs: from a language model's head, what the trunk was given.
        """
        return loss

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch for this configuration and head: 2 rows of 8 tokens, without labels."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, self.config.get_text_config().vocab_size, (2, 8), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def embedding_size(config: PreTrainedConfig) -> int:
    """How many numbers an embedding has: as many as a hidden state, unless the config says otherwise."""
    return getattr(config, "embedding_size", None) or config.hidden_size


def embed_tokens(embedding: nn.Embedding, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """Token embeddings (B, T, D) from exactly one of the two.

    Raises:
        ValueError: both or neither are given, there is no token, or an id lies outside the vocabulary.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give exactly one of input_ids and inputs_embeds")
    if inputs_embeds is not None:
        return inputs_embeds
    if input_ids.ndim != 2 or not input_ids.shape[1]:
        raise ValueError(f"input_ids must be (rows, tokens) with at least one token, got {tuple(input_ids.shape)}")
    # Only on a CPU is looking at the values free of waiting; an accelerator checks in its own kernel.
    if input_ids.device.type == "cpu" and input_ids.numel() and not torch.compiler.is_compiling():
        low, high = torch.aminmax(input_ids)
        if low < 0 or high >= embedding.num_embeddings:
            wrong = int(low) if low < 0 else int(high)
            raise ValueError(f"token id {wrong} is outside the vocabulary: vocab_size is {embedding.num_embeddings}")
    return embedding(input_ids)


def where_token(
    embedding: nn.Embedding, token_id: int, input_ids: Tensor | None, inputs_embeds: Tensor | None
) -> Tensor:
    """Where one token stands (B, T), among ids (B, T) or, without them, among embeddings (B, T, D)."""
    if input_ids is not None:
        return input_ids == token_id
    token = torch.tensor(token_id, device=inputs_embeds.device)
    return (inputs_embeds == embedding(token)).all(-1)
