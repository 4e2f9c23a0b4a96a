"""`FollowTarget`: a Trainer callback for models that learn from a slowly following copy of themselves."""

import math
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments


def find_followed(model: "nn.Module") -> "list[nn.Module]":
    """The parts of a model that have a target network."""
    return [module for module in model.modules() if hasattr(module, "update_target")]


class FollowTarget(TrainerCallback):
    """Moves target networks once after each step of the optimiser, whatever is accumulated or computed again.

    The share that stays rises from `config.target_decay` to 1 along half a period of a cosine (Grill et al. 2020,
    section 3.2): 1 - (1 - tau) (cos(pi step / steps) + 1) / 2. It works in any Trainer:
    `Trainer(..., callbacks=[FollowTarget()])`; `hf-zoo train` brings it along.
    """

    def on_optimizer_step(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: "nn.Module",
        **kwargs: Any,
    ) -> None:
        """One step of each target network."""
        progress = state.global_step / max(state.max_steps, 1)
        for followed in find_followed(model):
            left = (1 - followed.config.target_decay) * (math.cos(math.pi * progress) + 1) / 2
            followed.update_target(1 - left)
