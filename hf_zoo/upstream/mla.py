"""DeepSeek-V2 and V3 as `zoo_mla`."""

from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers.core_model_loading import WeightConverter, WeightRenaming, WeightTransform

from .llm import llama_weights
from .operations import SwapHalves
from .table import Upstream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES = {"norm_eps": "rms_norm_eps", "num_experts": "n_routed_experts"}
# One key and value a head, which is what upstream's other numbers come to
WRITTEN = {"num_key_value_heads": lambda config: config.num_attention_heads}


def has_groups(config: Any) -> bool:
    """Whether upstream's DeepSeek-V2 limits a token to some groups of experts; else it ignores their numbers."""
    return config.topk_method == "group_limited_greedy"


def further_weights(config: Any) -> list[WeightTransform]:
    """Modules of further tokens: in files the layers after the last, whose projection has the embedding first."""
    names: list[WeightTransform] = []
    for depth in range(config.num_nextn_predict_layers):
        module, block = rf"mtp\.{depth}\.", rf"mtp\.{depth}\.block\."
        names += [
            WeightRenaming(rf"model\.layers\.{config.num_hidden_layers + depth}\.", block),
            *(WeightRenaming(rf"{block}{part}\.", rf"{module}{part}\.") for part in ("hnorm", "enorm", "eh_proj")),
            WeightRenaming(rf"{block}shared_head\.norm\.", rf"{module}norm\."),
        ]
    return [*names, WeightConverter("eh_proj.weight", "eh_proj.weight", [SwapHalves()])] if names else []


def further_layers(model: "PreTrainedModel") -> range:
    """Upstream's numbers of the modules of further tokens, which only a language model has."""
    first = model.config.num_hidden_layers
    return range(first, first + (model.config.num_mtp_layers if hasattr(model, "lm_head") else 0))


def add_further_layers(model: "PreTrainedModel") -> None:
    """Upstream's model runs its `num_hidden_layers` and leaves those after them alone."""
    config, width = model.config, model.config.hidden_size
    for index in further_layers(model):
        norm = partial(type(model.model.norm), width, config.rms_norm_eps)
        layer = type(model.model.layers[0])(config, index)
        layer.enorm, layer.hnorm, layer.eh_proj = norm(), norm(), nn.Linear(2 * width, width, bias=False)
        layer.embed_tokens = nn.Embedding(config.vocab_size, width)
        head = nn.Linear(width, config.vocab_size, bias=False)
        layer.shared_head = nn.ModuleDict({"norm": norm(), "head": head})
        model.model.layers.append(layer)


def shared_by_further_layers(model: "PreTrainedModel") -> dict[str, str]:
    """Every such layer is published with the embedding and the head of the model."""
    copies = {}
    for index in further_layers(model):
        copies[f"model.layers.{index}.embed_tokens.weight"] = "model.embed_tokens.weight"
        copies[f"model.layers.{index}.shared_head.head.weight"] = "lm_head.weight"
    return copies


def count_further_layers(config: Any, names: set[str]) -> int:
    """How many of those that the config counts are in the files; transformers saves a model without them."""
    numbers = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    return sum(f"model.layers.{number}.eh_proj.weight" in names for number in numbers)


UPSTREAM = [
    Upstream(
        "deepseek_v2",
        llama_weights,
        renamed=NAMES,
        fixed={"router_type": "deepseek", "norm_topk_prob": False},
        derived={
            "n_group": ("n_group", lambda config: config.n_group if has_groups(config) else 1),
            "topk_group": ("topk_group", lambda config: config.topk_group if has_groups(config) else 1),
        },
        written={
            **WRITTEN,
            "topk_method": lambda config: "group_limited_greedy" if config.n_group > 1 else "greedy",
        },
    ),
    Upstream(
        "deepseek_v3",
        llama_weights,
        renamed={**NAMES, "num_nextn_predict_layers": "num_nextn_predict_layers"},
        fixed={"router_type": "deepseek_v3"},
        written=WRITTEN,
        sized_weights=further_weights,
        counted={"num_nextn_predict_layers": count_further_layers},
        extend=add_further_layers,
        copies=shared_by_further_layers,
    ),
]
