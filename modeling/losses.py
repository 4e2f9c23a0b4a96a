"""Losses that transformers does not have, each with its equation."""

import torch
from torch import Tensor
from torch.nn import functional as F


def z_loss(logits: Tensor, labels: Tensor, coefficient: float) -> Tensor:
    """coefficient * mean of (log sum exp logits)^2 over the tokens whose label counts.

    Keeps the softmax normaliser near 1, so that logits do not drift (Chowdhery et al. 2022, section 5).

    Args:
        logits: (B, T, vocab_size); position t predicts label t + 1.
        labels: (B, T), -100 where nothing is to be learnt.
    """
    counts = labels[:, 1:] != -100
    normaliser = torch.logsumexp(logits[:, :-1].float(), dim=-1)[counts]
    return coefficient * normaliser.square().sum() / counts.sum().clamp_min(1)


def l2_wrap(
    logits: Tensor, labels: Tensor, coefficient: float, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Zero, with the gradient coefficient * max_j logit_j / N on the largest logit of each of the N tokens that count.

    Pulls the largest logit towards 0, so that half precision never meets a large one; it is the gradient of
    coefficient / 2N * max^2 and does not show in the loss (RWKV-LM's `L2Wrap`, with 1e-4). The authors count all
    tokens of a batch, which has no padding; here those whose label is to be learnt.

    Args:
        logits: (B, T, vocab_size); position t predicts label t + 1.
        labels: (B, T), -100 where nothing is to be learnt.
        num_items_in_batch: N of all accumulated batches, that of this one without it.
    """
    counts = labels[:, 1:] != -100
    largest = logits[:, :-1].amax(-1).float()
    total = counts.sum().clamp_min(1) if num_items_in_batch is None else num_items_in_batch
    pull = (largest.square() * counts).sum() * (coefficient / 2) / total
    return pull - pull.detach()


def classification_loss(
    logits: Tensor, labels: Tensor, problem_type: str | None = None, num_items_in_batch: Tensor | int | None = None
) -> Tensor:
    """Loss of a classifier of whole sequences, by the kind of its labels.

    single_label_classification: cross-entropy; multi_label_classification: binary cross-entropy a label;
    regression: mean squared error. Without a name the labels tell: one logit is regression, integers name a class.

    Args:
        logits: (B, num_labels).
        labels: (B) of class numbers or values, or (B, num_labels).
        problem_type: one of the three names.
        num_items_in_batch: rows of all accumulated batches; the mean is then over those.
    """
    if problem_type is None:
        one_class = not labels.is_floating_point() and labels.ndim == 1
        problem_type = "single_label_classification" if one_class else "multi_label_classification"
        problem_type = "regression" if logits.shape[-1] == 1 else problem_type
    logits = logits.float()
    if problem_type == "single_label_classification":
        loss = F.cross_entropy(logits, labels)
    elif problem_type == "regression":
        loss = F.mse_loss(logits.view_as(labels), labels.float())
    else:
        loss = F.binary_cross_entropy_with_logits(logits, labels.float())
    return loss if num_items_in_batch is None else loss * (labels.numel() / num_items_in_batch)
