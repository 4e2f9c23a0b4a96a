"""DeepSeek-V2 and V3 as `zoo_mla`."""

from typing import Any

from .llm import llama_weights
from .table import Upstream

NAMES = {"norm_eps": "rms_norm_eps", "num_experts": "n_routed_experts"}
# One key and value a head, which is what upstream's other numbers come to
WRITTEN = {"num_key_value_heads": lambda config: config.num_attention_heads}


def has_groups(config: Any) -> bool:
    """Whether upstream's DeepSeek-V2 limits a token to some groups of experts; else it ignores their numbers."""
    return config.topk_method == "group_limited_greedy"


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
        renamed=NAMES,
        # Upstream leaves the weights of further tokens in the file
        fixed={"router_type": "deepseek_v3", "num_nextn_predict_layers": 0},
        written=WRITTEN,
    ),
]
