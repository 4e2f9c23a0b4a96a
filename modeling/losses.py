"""Losses that transformers does not have, each with its equation."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .layers.gather import gather, process_rank


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


def replaced_token_loss(logits: Tensor, replaced: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over real tokens of whether each was replaced (Clark et al. 2020, "ELECTRA",
    https://arxiv.org/abs/2003.10555, section 2).

    Args:
        logits: (B, T), positive where a token looks replaced.
        replaced: (B, T), true where it was.
        mask: (B, T) with 1 on real tokens; None where all are.
    """
    losses = F.binary_cross_entropy_with_logits(logits.float(), replaced.float(), reduction="none")
    return losses.mean() if mask is None else (losses * mask).sum() / mask.sum().clamp_min(1)


def masked_pixel_loss(pixels: Tensor, target: Tensor, masked: Tensor, patch_size: int) -> Tensor:
    """Mean |pixels - target| over the pixels of masked patches (Xie et al. 2021, https://arxiv.org/abs/2111.09886).

    Args:
        pixels, target: (B, C, height, width).
        masked: (B, rows, columns) of patches, true where they were hidden.
        patch_size: side of a patch.
    """
    mask = masked.repeat_interleave(patch_size, 1).repeat_interleave(patch_size, 2)[:, None]
    errors = F.l1_loss(pixels, target.to(pixels.dtype), reduction="none") * mask
    return errors.sum() / (mask.sum() + 1e-5) / target.shape[1]


def image_text_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """How badly pairs of images and texts are told from all others of the batch, those of all processes.

    Without a bias, the mean of both cross-entropies of scale * images texts^T, with the pairs on its diagonal (Radford
    et al. 2021, https://arxiv.org/abs/2103.00020, figure 3). With one, every pair is a question of its own:
    -log sigmoid(z_ij (scale * image_i . text_j + bias)) with z = 1 for pairs and -1 for all others, summed over j and
    then the mean over i (Zhai et al. 2023, https://arxiv.org/abs/2303.15343, equation (1)).

    Args:
        images, texts: (B, D) of length one, the n-th of both a pair.
        scale, bias: scalars.
    """
    images, texts = images.float(), texts.float()
    first, all_texts = process_rank() * len(texts), gather(texts)
    labels = torch.arange(len(texts), device=texts.device) + first
    if bias is not None:
        scores = images @ all_texts.T * scale + bias
        signs = -torch.ones_like(scores).scatter(1, labels[:, None], -1.0)
        return -F.logsigmoid(signs * scores).sum(-1).mean()
    scores = images @ all_texts.T * scale, texts @ gather(images).T * scale
    return sum(F.cross_entropy(one, labels) for one in scores) / 2


def alignment_loss(pooled: list[Tensor], temperature: float) -> Tensor:
    """Contrastive loss between modalities of the same rows, in the latent space of each head (InfoNCE).

    For every pair of modalities and head: cross-entropy of cos(z_a, z_b) / temperature over the rows of the batch,
    whose own row is the right one, in both directions; then the mean. One modality, or one row, has nothing to
    compare with.

    Args:
        pooled: (B, H, r) for each modality.
        temperature: what cosines are divided by.
    """
    heads = [F.normalize(z.float(), dim=-1).transpose(0, 1) for z in pooled]  # (H, B, r)
    target = torch.arange(len(pooled[0]), device=pooled[0].device).expand(heads[0].shape[0], -1)
    losses = []
    for a in range(len(heads)):
        for b in range(a):
            scores = heads[a] @ heads[b].mT / temperature  # (H, B, B)
            losses += [F.cross_entropy(s.flatten(0, 1), target.flatten()) for s in (scores, scores.mT)]
    return torch.stack(losses).mean() if losses else heads[0].new_zeros(())


def similarity_of_heads(z: Tensor, mask: Tensor | None) -> Tensor:
    """Mean squared cosine between what any two heads make of a batch: of the Gram matrices Z_i Z_iᵀ over tokens.

    <Z_i Z_iᵀ, Z_j Z_jᵀ> = |Z_iᵀ Z_j|², so no matrix of tokens by tokens is made.

    Args:
        z: (B, T, H, r).
        mask: (B, T) with 1 on real tokens; None where all are.
    """
    z = z.float() if mask is None else z.float() * mask[..., None, None].to(torch.float32)
    heads = z.flatten(0, 1).transpose(0, 1)  # (H, B T, r)
    products = (heads.mT[:, None] @ heads[None]).square().sum((-1, -2))  # (H, H)
    norms = products.diagonal().clamp_min(1e-12).sqrt()
    cosines = products / torch.outer(norms, norms)
    others = ~torch.eye(len(cosines), dtype=torch.bool, device=z.device)
    return cosines[others].square().mean() if len(cosines) > 1 else cosines.new_zeros(())


def focal_loss(logits: Tensor, truth: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean over pixels of -a_t (1 - p_t)^gamma log p_t, in which pixels that are easy weigh little.

    p_t is the probability of what is true, a_t is alpha for pixels of the mask and 1 - alpha for the others (Lin et
    al. 2017, https://arxiv.org/abs/1708.02002, equation 5).

    Args:
        logits: (..., height, width).
        truth: the same shape, 1 on the mask.

    Returns:
        one number a mask (...).
    """
    errors = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")  # -log p_t
    weights = alpha * truth + (1 - alpha) * (1 - truth)
    return (weights * (-torch.expm1(-errors)).pow(gamma) * errors).mean((-2, -1))


def dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 sum p g + 1) / (sum p + sum g + 1) (Milletari et al. 2016, https://arxiv.org/abs/1606.04797, with one
    pixel more in both sums, as SAM's predecessors have it).

    Args:
        logits: (..., height, width), whose sigmoid is p.
        truth: the same shape, g, 1 on the mask.

    Returns:
        one number a mask (...).
    """
    p = logits.sigmoid()
    return 1 - (2 * (p * truth).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + truth.sum((-2, -1)) + 1)


def chamfer_loss(points: Tensor, target: Tensor) -> Tensor:
    """Mean over both sets of how far a point is from the nearest of the other, halved (Fan et al. 2016,
    https://arxiv.org/abs/1612.00603, section 3.1, with distances that are not squared).

    Args:
        points: (..., M, 3).
        target: (..., M', 3).
    """
    distances = (points.float()[..., :, None, :] - target.float()[..., None, :, :]).square().sum(-1)
    there, back = (distances.amin(axis).clamp_min(1e-12).sqrt().mean() for axis in (-1, -2))
    return (there + back) / 2


def code_usage_loss(logits: Tensor) -> Tensor:
    """KL(uniform || mean over the batch of softmax) over the codes of a codebook: small where all are in use.

    Args:
        logits: (..., codes).
    """
    used = logits.float().softmax(-1).flatten(0, -2).mean(0)
    return -(used * used.shape[-1]).clamp_min(1e-12).log().mean()
