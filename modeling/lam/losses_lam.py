"""The losses of acting, each with what it is weighed by.

    L = L_LM + w_p (CE_pointer + InfoNCE) + w_s (CE_mode + CE_start + CE_end + CE_choice + MSE_number + BCE_boolean)
      + w_g (CE_option + CE_act + BCE_end) + w_v MSE_value + L_search

each a mean over what has a label in the batch; -100, or no number, is none.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .binder import Binding


def labelled_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the labels that are not -100: logits (..., N), labels (...). 0 without any."""
    losses = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), ignore_index=-100, reduction="sum")
    return losses / (labels != -100).sum().clamp_min(1)


def labelled_mean(losses: Tensor, has_label: Tensor) -> Tensor:
    """Mean of losses where there is a label; 0 where there is none."""
    return losses.masked_fill(~has_label, 0.0).sum() / has_label.sum().clamp_min(1)


def tool_retrieval_loss(scores: Tensor, is_same: Tensor, labels: Tensor) -> Tensor:
    """InfoNCE of stage 1 against every tool of the batch, equal tools of other rows left out.

    Args:
        scores: (B, M), of all tools of all rows.
        is_same: (B, M), true on tools equal to the row's right one, itself among them.
        labels: (B), place of the right tool among the M, or -100.
    """
    own = F.one_hot(labels.clamp_min(0), scores.shape[1]).bool()
    return labelled_cross_entropy(scores.float().masked_fill(is_same & ~own, -torch.inf), labels)


def binder_loss(
    binding: Binding,
    mode_labels: Tensor | None = None,
    start_labels: Tensor | None = None,
    end_labels: Tensor | None = None,
    choice_labels: Tensor | None = None,
    number_labels: Tensor | None = None,
    boolean_labels: Tensor | None = None,
) -> Tensor:
    """The sum over ways to bind; every label is (B, P), numbers may be `nan` for none."""
    pairs = [(binding.mode_logits, mode_labels), (binding.start_logits, start_labels)]
    pairs += [(binding.end_logits, end_labels), (binding.choice_logits, choice_labels)]
    total = sum(labelled_cross_entropy(x, y) for x, y in pairs if x is not None and y is not None)
    if number_labels is not None:
        has_label = ~number_labels.isnan()
        errors = (binding.number.float() - number_labels.nan_to_num()).square()
        total = total + labelled_mean(errors, has_label)
    if boolean_labels is not None:
        truth = boolean_labels.clamp_min(0).float()
        errors = F.binary_cross_entropy_with_logits(binding.boolean_logits.float(), truth, reduction="none")
        total = total + labelled_mean(errors, boolean_labels != -100)
    return total
