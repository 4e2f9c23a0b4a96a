"""Mixtral and DeepSeekMoE as `zoo_moe`."""

from typing import Any

from transformers.core_model_loading import Concatenate, MergeModulelist, WeightConverter, WeightTransform

from .llm import llama_weights
from .table import Upstream


def deepseek_weights() -> list[WeightTransform]:
    """Every expert has weights of its own."""
    experts = "mlp.experts.*"
    return [
        *llama_weights(),
        WeightConverter(
            [f"{experts}.gate_proj.weight", f"{experts}.up_proj.weight"],
            "mlp.experts.gate_up_proj",
            [MergeModulelist(dim=0), Concatenate(dim=1)],
        ),
        WeightConverter(f"{experts}.down_proj.weight", "mlp.experts.down_proj", [MergeModulelist(dim=0)]),
    ]


def deepseek_positions(config: Any) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` as one dictionary."""
    scaling = getattr(config, "rope_scaling", None) or {"rope_type": "default"}
    rope_type = scaling.get("rope_type", scaling.get("type"))
    return {**scaling, "rope_type": rope_type, "rope_theta": getattr(config, "rope_theta", 10000.0)}


UPSTREAM = [
    Upstream(
        "mixtral",
        llama_weights,
        renamed={"norm_eps": "rms_norm_eps", "num_experts": "num_local_experts"},
        fixed={"router_type": "mixtral"},
        derived={"moe_intermediate_size": (None, lambda config: config.intermediate_size)},
    ),
    # The published DeepSeekMoE is code from the Hub; transformers has no class of this name
    Upstream(
        "deepseek",
        deepseek_weights,
        renamed={
            "norm_eps": "rms_norm_eps",
            "num_experts": "n_routed_experts",
            "router_aux_loss_coef": "aux_loss_alpha",
        },
        fixed={"router_type": "deepseek"},
        derived={"rope_parameters": (None, deepseek_positions)},
        required={"scoring_func": "softmax"},
        is_remote=True,
    ),
]
