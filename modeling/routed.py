"""What all architectures with routed experts share: the feed-forward layers, the trunk, the losses of the router.

Shapes: B batch, T tokens, D hidden size, E experts.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from .base_model import ZooPreTrainedModel
from .decoder import DecoderTrunk
from .heads import CausalLMHead
from .layers.experts import Experts, GatedExperts, PlainExperts
from .layers.mixture_of_experts import MixtureOfExperts
from .layers.mlp import MLP, GatedMLP
from .layers.routers import (
    BiasBalancedRouter,
    DeepSeekRouter,
    ExpertChoiceRouter,
    GShardRouter,
    HierarchicalRouter,
    MixtralRouter,
    Router,
    SwitchRouter,
)
from .layers.routing import Routing
from .masks import recurrent_mask
from .outputs import RoutedCausalLMOutput, RoutedModelOutput
from .routed_config import RoutedConfig


def make_router(config: RoutedConfig) -> Router:
    """The kind of router the config asks for."""
    sizes = config.hidden_size, config.num_experts, config.num_experts_per_tok
    capacity_factor = config.capacity_factor if config.drop_tokens else None
    noise = {"jitter": config.router_jitter_noise, "capacity_factor": capacity_factor}
    groups = config.n_group, config.topk_group
    deepseek = {
        "scaling": config.routed_scaling_factor,
        "norm_topk_prob": config.norm_topk_prob,
        "per_sequence": config.seq_aux,
    }
    speed = config.router_bias_update_speed
    makers = {
        "switch": partial(SwitchRouter, **noise),
        "gshard": partial(GShardRouter, **noise),
        "mixtral": partial(MixtralRouter, jitter=config.router_jitter_noise),
        "expert_choice": partial(ExpertChoiceRouter, jitter=config.router_jitter_noise),
        "deepseek": lambda *args: DeepSeekRouter(*args, *groups, **deepseek),
        "deepseek_v3": lambda *args: BiasBalancedRouter(*args, *groups, **deepseek, bias_update_speed=speed),
        "hierarchical": lambda *args: HierarchicalRouter(*args, *groups, **noise),
    }
    return makers[config.router_type](*sizes)


def make_feed_forward(
    config: RoutedConfig, layer_idx: int, is_gated: bool = True, bias: bool = False
) -> MixtureOfExperts | MLP:
    """The feed-forward layer of a block: routed experts, or one network where the config says dense.

    Args:
        is_gated: whether networks have a gate.
        bias: whether dense and shared networks have biases.
    """
    mlp = GatedMLP if is_gated else MLP
    if not config.is_routed(layer_idx):
        return mlp(config.hidden_size, config.intermediate_size, config.hidden_act, bias)
    width = config.moe_intermediate_size
    experts = GatedExperts if is_gated else PlainExperts
    shared = None
    if config.n_shared_experts:
        shared = mlp(config.hidden_size, config.n_shared_experts * width, config.hidden_act, bias)
    return MixtureOfExperts(
        make_router(config),
        experts(config, config.hidden_size, width, config.num_experts, config.hidden_act),
        shared,
    )


class RoutedBlock:
    """Mixin for a Block whose `mlp` came from `make_feed_forward`."""

    def route(self, x: Tensor, token_mask: Tensor | None) -> tuple[Tensor, Routing | None]:
        """x (B, T, D), token_mask (B, T) with 1 on real tokens -> y (B, T, D), and the routing where there is one."""
        return self.mlp(x, token_mask) if isinstance(self.mlp, MixtureOfExperts) else (self.mlp(x), None)

    def with_side_outputs(
        self, x: Tensor, routing: Routing | None, token_mask: Tensor | None, is_asked: bool
    ) -> Tensor | tuple[Tensor | None, ...]:
        """x, and in training or where they are asked for the losses of its router and what that is to remember.

        They leave the block as outputs, so that a checkpoint that recomputes the block counts them once.
        """
        if routing is None or not (self.training or is_asked):
            return x
        return x, *self.mlp.side_outputs(routing, token_mask, len(x))


class RoutedTrunk(DecoderTrunk):
    """A decoder's trunk whose blocks are `RoutedBlock`s."""

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """What all layers share, among it which tokens are real (B, T): padding has no part in load and losses; and
        whether the losses are wanted in evaluation where the call does not say."""
        shared = super().attention_arguments(x, position_ids, attention_mask, past_key_values)
        is_asked = self.config.output_router_logits
        return {**shared, "token_mask": recurrent_mask(x, attention_mask), "router_losses": is_asked}

    def output(
        self, x: Tensor, past_key_values: Cache | None, side_outputs: list[tuple[Tensor | None, ...]]
    ) -> RoutedModelOutput:
        """x (B, T, D) and the means over layers of their losses; routers remember what they saw in training."""
        outputs = RoutedModelOutput(last_hidden_state=x, past_key_values=past_key_values)
        if not side_outputs:
            return outputs
        aux_losses, z_losses, observations = zip(*side_outputs, strict=True)
        if self.training:
            routers = (m for m in self.layers.modules() if isinstance(m, Router))
            for router, observation in zip(routers, observations, strict=True):
                if observation is not None:
                    router.observe(observation)
        outputs.aux_loss, outputs.z_loss = (
            torch.stack([loss.to(x.device) for loss in losses]).mean() for losses in (aux_losses, z_losses)
        )
        return outputs


def exact_router_weights(config: RoutedConfig) -> list[str]:
    """Weights that decide between experts, which may not be rounded; a bias moves in steps that bfloat16 lacks."""
    of_kind = {
        "deepseek_v3": "e_score_correction_bias",
        "expert_choice": "threshold",
        "hierarchical": "group_weight",
    }
    names = ["weight", *([of_kind[config.router_type]] if config.router_type in of_kind else [])]
    return [f"mlp.gate.{name}" for name in names]


class RoutedPreTrainedModel(ZooPreTrainedModel):
    """Base of models with routed experts: how their weights start, which function multiplies, what the loss adds."""

    def __init__(self, config: RoutedConfig, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self._keep_in_fp32_modules_strict = self.exact_weights() or None

    def exact_weights(self) -> list[str]:
        """What stays in float32: of a router, where there is one."""
        is_routed = any(map(self.config.is_routed, range(self.config.num_hidden_layers)))
        return exact_router_weights(self.config) if is_routed else []

    @classmethod
    def _can_set_experts_implementation(cls) -> bool:
        return True  # transformers looks for the decorator in the source of this class, but it is in the layer's

    def get_correct_experts_implementation(self, requested_experts: str | None) -> str:
        """The function that multiplies by the experts; "zoo_sorted" where none is asked for."""
        return super().get_correct_experts_implementation(requested_experts or "zoo_sorted")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (Router, Experts)):
            module.start(self.config.initializer_range)
        if not isinstance(module, Experts):
            super()._init_weights(module)

    def update_router_biases(self) -> None:
        """Move the biases that balance the load ("deepseek_v3"): to be called after each `optimizer.step()`.

        In a Trainer, `ExpertLoad` of the package does it.
        """
        for module in self.modules():
            if isinstance(module, BiasBalancedRouter):
                module.update_bias()

    def complete_loss(
        self,
        loss: Tensor | None,
        outputs: ModelOutput,
        labels: Tensor | None,
        num_items_in_batch: Tensor | int | None = None,
        **inputs: Tensor | None,
    ) -> Tensor | None:
        """The loss of the task, and in training the router's: evaluation compares with models that have none.

        Of several accumulated batches, each adds its share of the labels, so that together they add one mean.
        """
        if loss is None or not self.training or outputs.aux_loss is None:
            return loss
        side = self.config.router_aux_loss_coef * outputs.aux_loss + self.config.router_z_loss_coef * outputs.z_loss
        if num_items_in_batch is not None:
            side = side * ((labels != -100).sum() / num_items_in_batch)
        return loss + side.to(loss.device)


class RoutedCausalLMHead(CausalLMHead):
    """Next-token prediction; the output has the router's losses and logits."""

    def report(self, loss: Tensor | None, logits: Tensor, outputs: ModelOutput) -> RoutedCausalLMOutput:
        """The output of the head, from that of the trunk."""
        return RoutedCausalLMOutput(
            loss=loss,
            aux_loss=outputs.aux_loss,
            z_loss=outputs.z_loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            router_logits=outputs.router_logits,
        )
