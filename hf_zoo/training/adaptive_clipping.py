"""`AdaptiveClipping`: a Trainer callback that keeps each unit's gradient small beside its weights.

Brock et al. 2021, https://arxiv.org/abs/2102.06171, section 4: networks without norms train at large batches and
learning rates if, for each unit i of each layer,

    G_i <- lambda ||W_i||* / ||G_i|| G_i   where ||G_i|| / ||W_i||* > lambda,   ||W_i||* = max(||W_i||, eps)

A unit is a row of a matrix or a filter of a convolution; a vector (a bias, gains) is one unit.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class AdaptiveClipping(TrainerCallback):
    """Clips before each step of the optimiser, after all batches of the step are accumulated.

    It works in any Trainer: `Trainer(..., callbacks=[AdaptiveClipping()])`; with `max_grad_norm=0` it is all the
    clipping there is.

    Args:
        clip: lambda, the largest gradient of a unit as a share of its weights; less for larger batches.
        eps: norm that is taken for units with less, so that those that start at zero can move.
        final_layers: names of modules that are left alone, as the paper leaves the last linear layer.
    """

    def __init__(
        self, clip: float = 0.01, eps: float = 1e-3, final_layers: tuple[str, ...] = ("score", "lm_head")
    ) -> None:
        if clip <= 0 or eps <= 0:
            raise ValueError(f"clip and eps must be above 0, got {clip} and {eps}")
        self.clip, self.eps, self.final_layers = clip, eps, final_layers

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Refuse gradients that are a multiple of themselves."""
        if args.fp16 and not args.max_grad_norm:
            raise ValueError(
                "with fp16=True gradients stay scaled if max_grad_norm=0: set max_grad_norm=float('inf'), which clips "
                "nothing, or use bf16"
            )

    def on_pre_optimizer_step(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: nn.Module,
        **kwargs: Any,
    ) -> None:
        """Clip the gradients of all layers but the final ones."""
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and not set(self.final_layers) & set(name.split(".")):
                clip_units(parameter.detach(), parameter.grad, self.clip, self.eps)


@torch.no_grad()
def clip_units(weight: Tensor, grad: Tensor, clip: float, eps: float) -> None:
    """Scale down, in place, the gradient of each unit that is larger than `clip` times its weights.

    Args:
        weight: (units, ...), or a vector or a number, which is one unit.
        grad: shaped as the weight.
        clip, eps: see `AdaptiveClipping`.
    """
    largest = clip * unit_norms(weight).clamp_min(eps)
    grad.mul_((largest / unit_norms(grad)).clamp_max(1).to(grad.dtype))  # of no gradient the share is infinite


def unit_norms(x: Tensor) -> Tensor:
    """Norm of each unit, in float32 at least, such that it broadcasts against x."""
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=axes, keepdim=axes is not None, dtype=dtype)
