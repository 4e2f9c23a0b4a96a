"""`ExpertLoad`: a Trainer callback for models with routed experts."""

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from hf_zoo.modeling.layers.routers import BiasBalancedRouter, Router
from hf_zoo.modeling.layers.routing import Routing

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments


def find_routers(model: "nn.Module") -> list[Router]:
    """The routers of a model, layer by layer; none for a model without routed experts."""
    return [module for module in model.modules() if isinstance(module, Router)]


class ExpertLoad(TrainerCallback):
    """Logs how evenly experts are used, and moves the biases of DeepSeek-V3's routers after each step.

    `expert_load_entropy` is the entropy of the load over log(experts), the mean over layers: 1 if all experts get as
    many tokens, 0 if one gets all. `dropped_tokens` is the share of pairs of token and expert that were refused.
    It works in any Trainer: `Trainer(..., callbacks=[ExpertLoad()])`; `hf-zoo train` brings it along.
    """

    def __init__(self) -> None:
        self.hooks: list[Any] = []
        self.loads: dict[Router, torch.Tensor] = {}
        self.dropped: dict[Router, torch.Tensor] = {}

    def on_train_begin(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: "nn.Module",
        **kwargs: Any,
    ) -> None:
        """Listen to the routers."""
        self.hooks = [router.register_forward_hook(self._count) for router in find_routers(model)]

    def _count(self, router: Router, inputs: tuple, routing: Routing) -> None:
        if routing.load is None:
            return
        # A checkpoint that recomputes a layer counts it twice: that changes no share
        self.loads[router] = self.loads.get(router, 0) + routing.load
        if routing.num_dropped is not None:
            self.dropped[router] = self.dropped.get(router, 0) + routing.num_dropped

    def on_optimizer_step(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        model: "nn.Module",
        **kwargs: Any,
    ) -> None:
        """Move the biases by the load of all processes in all accumulated batches."""
        for router in find_routers(model):
            if isinstance(router, BiasBalancedRouter):
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.all_reduce(router.pending_load)
                router.update_bias()

    def on_log(
        self,
        args: "TrainingArguments",
        state: "TrainerState",
        control: "TrainerControl",
        logs: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Add the figures since the last entry to an entry of training."""
        if "loss" not in logs or not self.loads:
            return
        total = sum(float(load.sum()) for load in self.loads.values())
        figures = {"expert_load_entropy": sum(map(load_entropy, self.loads.values())) / len(self.loads)}
        if self.dropped:
            figures["dropped_tokens"] = float(sum(self.dropped.values())) / max(total, 1.0)
        logs.update(figures)
        state.log_history[-1].update(figures)
        self.loads, self.dropped = {}, {}

    def on_train_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **kwargs: Any
    ) -> None:
        """Listen no more."""
        for hook in self.hooks:
            hook.remove()


def load_entropy(load: torch.Tensor) -> float:
    """Entropy of a load (E) over log E: 1 if it is equal, 0 if one expert has all."""
    share = load.double() / load.sum().clamp_min(1)
    return float(torch.special.entr(share).sum()) / math.log(len(load)) if len(load) > 1 else 1.0
