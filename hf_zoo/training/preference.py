"""Preference tuning: of two continuations of a prompt, the better one becomes likelier than under a fixed reference.

Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation (7), of any causal language model:

    L = -log sigmoid(beta [(log p(y_w | x) - log ref(y_w | x)) - (log p(y_l | x) - log ref(y_l | x))])

Shapes: B pairs, T tokens.
"""

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F
from transformers import Trainer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def completion_log_probs(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """log p of the labels that are not -100, summed over each row, in float32: (B, T, V), (B, T) -> (B)."""
    logits, labels = logits[:, :-1].float(), labels[:, 1:]
    scores = -F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return scores.sum(-1)


def preference_loss(
    better: "Tensor", worse: "Tensor", reference_better: "Tensor", reference_worse: "Tensor", beta: float = 0.1
) -> "Tensor":
    """The loss from log-probabilities (B) of both, under the model and under the reference."""
    return -F.logsigmoid(beta * ((better - reference_better) - (worse - reference_worse))).mean()


class PreferenceCollator:
    """Joins rows of `prompt`, `chosen` and `rejected` (texts): all better continuations, then all worse ones.

    Args:
        tokenizer: the model's; a continuation ends with its end token.
        max_length: tokens of a row; of a longer one the beginning is left out.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_length: int = 512) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, rows: list[dict[str, str]]) -> dict[str, "Tensor"]:
        """ids, mask and labels (2 B, T), -100 on prompts and padding."""
        pairs = [self._row(row["prompt"], row[side]) for side in ("chosen", "rejected") for row in rows]
        longest, pad = max(len(ids) for ids, _ in pairs), self.tokenizer.pad_token_id or 0

        def padded(lists: list[list[int]], value: int) -> "Tensor":
            return torch.tensor([[*one, *[value] * (longest - len(one))] for one in lists])

        return {
            "input_ids": padded([ids for ids, _ in pairs], pad),
            "attention_mask": padded([[1] * len(ids) for ids, _ in pairs], 0),
            "labels": padded([labels for _, labels in pairs], -100),
        }

    def _row(self, prompt: str, text: str) -> tuple[list[int], list[int]]:
        before = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.tokenizer.eos_token_id is not None:
            after = [*after, self.tokenizer.eos_token_id]
        ids, labels = before + after, [-100] * len(before) + after
        return ids[-self.max_length :], labels[-self.max_length :]


class PreferenceTrainer(Trainer):
    """`Trainer` with the loss of preferences, on batches of `PreferenceCollator`.

    Args:
        beta: how far the model may go from the reference: the larger, the less.
        reference: what it is compared with; a copy of the model as it is now without it, and with LoRA the model
            without its adapters.
    """

    def __init__(
        self, model: "PreTrainedModel", *args: Any, beta: float = 0.1, reference: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(model, *args, **kwargs)
        self.model_accepts_loss_kwargs = False  # a mean over pairs, not over tokens
        self.beta = beta
        has_adapters = hasattr(model, "disable_adapter")
        if reference is None and not has_adapters:
            reference = copy.deepcopy(model)
        self.reference = None if reference is None else reference.requires_grad_(False).eval()

    def compute_loss(
        self, model: Any, inputs: dict[str, "Tensor"], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """See `Trainer.compute_loss`."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        ours = completion_log_probs(outputs.logits, labels)
        with torch.no_grad():
            theirs = completion_log_probs(self._reference_logits(model, inputs), labels)
        half = len(labels) // 2
        loss = preference_loss(ours[:half], ours[half:], theirs[:half], theirs[half:], self.beta)
        return (loss, outputs) if return_outputs else loss

    def _reference_logits(self, model: Any, inputs: dict[str, "Tensor"]) -> "Tensor":
        if self.reference is not None:
            return self.reference.to(inputs["input_ids"].device)(**inputs).logits
        with self.accelerator.unwrap_model(model).disable_adapter():
            return model(**inputs).logits
