"""The losses of acting, each with what it is weighed by.

    L = L_LM + w_p (CE_pointer + InfoNCE) + w_s (CE_mode + CE_start + CE_end + CE_choice + MSE_number + BCE_boolean)
      + w_g (CE_option + CE_act + BCE_end) + w_v MSE_value + L_search + L_distilled

each a mean over what has a label in the batch; -100, or no number, is none.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .binder import Binding
from .configuration_lam import ZooLamConfig


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


def tool_losses(
    found: dict[str, Any], retrieval_scores: Callable[[Tensor, Tensor], Tensor], labels: Tensor
) -> dict[str, Tensor]:
    """Of both stages of choosing a tool.

    Args:
        found: `tool_logits` (B, N + 1), `tool_query` (B, tool_dim) and `tool_vectors` (B, N, tool_dim).
        retrieval_scores: of queries and of all tools of the batch.
        labels: (B), place of the right tool, N for none, -100 where it does not matter.
    """
    tools = found["tool_vectors"]
    rows, count = tools.shape[:2]
    flat = tools.flatten(0, 1)
    has_tool = (labels >= 0) & (labels < count)
    places = torch.arange(rows, device=labels.device) * count + labels.clamp(0, count - 1)
    right = flat[places].detach()
    is_same = (right @ flat.detach().T > 1 - 1e-6) | (flat.detach().abs().sum(-1) == 0)  # tools that do not exist
    scores = retrieval_scores(found["tool_query"], flat)
    return {
        "pointer": labelled_cross_entropy(found["tool_logits"], labels),
        "retrieval": tool_retrieval_loss(scores, is_same, places.masked_fill(~has_tool, -100)),
    }


def planning_losses(
    found: dict[str, Any],
    option_labels: Tensor | None,
    kind_labels: Tensor | None,
    ending_labels: Tensor | None,
    value_labels: Tensor | None,
) -> dict[str, Tensor]:
    """Of what policy.py decides; every label is (B), values may be `nan` for none."""
    planned = (("option", option_labels), ("kind", kind_labels))
    losses = {name: labelled_cross_entropy(found[f"{name}_logits"], y) for name, y in planned if y is not None}
    if ending_labels is not None:
        truth = ending_labels.clamp_min(0).float()
        errors = F.binary_cross_entropy_with_logits(found["ending_logits"].float(), truth, reduction="none")
        losses["ending"] = labelled_mean(errors, ending_labels != -100)
    if value_labels is not None:
        errors = (found["value"].float() - value_labels.nan_to_num()).square()
        losses["value"] = labelled_mean(errors, ~value_labels.isnan())
    return losses


def distillation_loss(prior: Tensor, value: Tensor, visits: Tensor, values: Tensor) -> Tensor:
    """How far the heads are from what a search from the present found (Silver et al. 2017), mean over rows.

        L_distilled = -visits . log pi + (V - z)^2 / 4

    Args:
        prior: (B, A), log pi, see `act_prior`.
        value: (B), V.
        visits: (B, A), shares of the root, or all 0 where there was no search.
        values: (B), z, what came of it.
    """
    return (-(visits * prior).sum(-1) + (value.float() - values).square() / 4).mean()


def weighted_sum(
    losses: dict[str, Tensor], config: ZooLamConfig, labels: Tensor | None, num_items_in_batch: Tensor | int | None
) -> Tensor | None:
    """L; None without any loss.

    Args:
        losses: name -> each without its weight; that of language is already a share of all accumulated batches.
        labels: (B, T) of language.
        num_items_in_batch: labels of all accumulated batches, by which the other losses are shared, too.
    """
    if not losses:
        return None
    weights = {"pointer": config.pointer_weight, "retrieval": config.pointer_weight, "binding": config.span_weight}
    weights |= dict.fromkeys(("option", "kind", "ending"), config.subgoal_weight)
    weights |= {"value": config.value_weight, "search": 1.0, "distilled": 1.0}
    acting = [weights[name] * loss for name, loss in losses.items() if name != "language"]
    share = 1.0
    if labels is not None and num_items_in_batch is not None:  # of a batch that is one of several
        share = (labels[:, 1:] != -100).sum() / num_items_in_batch
    total = sum(acting) * share if acting else 0.0
    return total + losses["language"] if "language" in losses else total


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
