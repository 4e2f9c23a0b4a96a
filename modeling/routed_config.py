"""Configuration that all architectures with routed experts share."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from .base_config import ZooConfig

RouterType = Literal["switch", "gshard", "mixtral", "expert_choice", "deepseek", "deepseek_v3", "hierarchical"]
# What each paper trains with; a field that is left out takes it. Mixtral's coefficient is that of its release.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "switch": {"aux": 0.01, "z": 0.001, "jitter": 0.01, "capacity": 1.25},
    "gshard": {"aux": 0.01, "z": 0.001, "jitter": 0.01, "capacity": 1.0},
    "mixtral": {"aux": 0.02},
    "expert_choice": {},
    "deepseek": {"aux": 0.001},
    "deepseek_v3": {"aux": 0.0001, "per_row": True, "normalised": True},
    "hierarchical": {"aux": 0.01, "z": 0.001, "jitter": 0.01},
}
_WITH_GROUPS = ("deepseek", "deepseek_v3", "hierarchical")


@strict
class RoutedConfig(ZooConfig):
    """Fields of the router and its experts.

    Args:
        router_type: how experts are chosen, see layers/routers.py.
        num_experts: routed experts a layer.
        num_experts_per_tok: experts a token; with "expert_choice" their mean number.
        moe_intermediate_size: width of an expert, `intermediate_size` without it.
        n_shared_experts: experts that every token passes through, as one network of so many times the width.
        first_k_dense_replace: so many of the first layers have an ordinary feed-forward network,
        moe_layer_freq: and of the others every so manieth has experts: the last of each run of that length, where
            it is more than 1.
        capacity_factor: an expert takes this times its fair share of tokens in training and refuses the rest; the
            paper's without it, None where the method refuses none. Nothing is refused in evaluation.
        drop_tokens: whether tokens beyond the capacity are refused.
        router_aux_loss_coef: weight of the balance loss, averaged over layers; the paper's without it.
        router_z_loss_coef: weight of the z-loss, averaged over layers; the paper's without it.
        router_jitter_noise: relative noise on the router's input in training; the paper's without it.
        n_group, topk_group: experts are in so many groups, of which a token may use so many.
        norm_topk_prob: whether the weights of the chosen experts are renormalised ("deepseek", and by default
            "deepseek_v3").
        routed_scaling_factor: factor on the weights ("deepseek", "deepseek_v3").
        seq_aux: whether load is balanced in each row rather than in the batch ("deepseek", and by default
            "deepseek_v3").
        router_bias_update_speed: step of the balancing bias ("deepseek_v3").
        allow_noncausal_routing: "expert_choice" chooses by looking at later tokens, so that a language model's loss
            in training is too low; this says that it is meant.
        output_router_logits: whether the output has the router's logits and the losses in evaluation too.
    """

    attribute_map = {"num_local_experts": "num_experts"}
    attention_tp_plan: ClassVar[dict[str, str]] = {}

    router_type: Literal["switch", "gshard", "mixtral", "expert_choice", "deepseek", "deepseek_v3", "hierarchical"] = (
        "mixtral"
    )
    num_experts: int = 8
    num_experts_per_tok: int = 2
    moe_intermediate_size: int | None = None
    n_shared_experts: int = 0
    first_k_dense_replace: int = 0
    moe_layer_freq: int = 1
    capacity_factor: float | None = None
    drop_tokens: bool = True
    router_aux_loss_coef: float | None = None
    router_z_loss_coef: float | None = None
    router_jitter_noise: float | None = None
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool | None = None
    routed_scaling_factor: float = 1.0
    seq_aux: bool | None = None
    router_bias_update_speed: float = 0.001
    allow_noncausal_routing: bool = False
    output_router_logits: bool = False

    def __post_init__(self, **kwargs) -> None:
        published = _PUBLISHED.get(self.router_type, {})
        if self.router_aux_loss_coef is None:
            self.router_aux_loss_coef = published.get("aux", 0.0)
        if self.router_z_loss_coef is None:
            self.router_z_loss_coef = published.get("z", 0.0)
        if self.router_jitter_noise is None:
            self.router_jitter_noise = published.get("jitter", 0.0)
        if self.capacity_factor is None:
            self.capacity_factor = published.get("capacity")
        if self.norm_topk_prob is None:
            self.norm_topk_prob = published.get("normalised", False)
        if self.seq_aux is None:
            self.seq_aux = published.get("per_row", False)
        if self.moe_intermediate_size is None:
            self.moe_intermediate_size = self.intermediate_size
        self.base_model_tp_plan = self.split_by_width()  # before transformers adds the tied embeddings to it
        super().__post_init__(**kwargs)

    def split_by_width(self) -> dict[str, str]:
        """How a layer is split over devices, experts by their width; of what the config has, as transformers asks."""
        is_gated = getattr(self, "is_gated_mlp", True)
        network = {"up_proj": "colwise", "down_proj": "rowwise", **({"gate_proj": "colwise"} if is_gated else {})}
        plan, routed = dict(self.attention_tp_plan), [self.is_routed(i) for i in range(self.num_hidden_layers)]
        if not all(routed):
            plan |= {f"layers.*.mlp.{name}": how for name, how in network.items()}
        if any(routed):
            up = {"gate_up_proj": "packed_colwise"} if is_gated else {"up_proj": "colwise"}
            plan |= {f"layers.*.mlp.experts.{name}": how for name, how in {**up, "down_proj": "rowwise"}.items()}
            plan["layers.*.mlp.experts"] = "moe_tp_experts"
            if self.n_shared_experts:
                plan |= {f"layers.*.mlp.shared_experts.{name}": how for name, how in network.items()}
        return plan

    @property
    def base_model_ep_plan(self) -> dict[str, str]:
        """How whole experts are spread over devices."""
        names = ("gate_up_proj" if getattr(self, "is_gated_mlp", True) else "up_proj", "down_proj")
        plan = {f"layers.*.mlp.experts.{name}": "grouped_gemm" for name in names}
        return {**plan, "layers.*.mlp.experts": "ep_dispatch_experts"}

    def is_routed(self, layer_idx: int) -> bool:
        """Whether a layer has experts rather than one feed-forward network."""
        run = max(self.moe_layer_freq, 1)  # asked before it is validated
        return layer_idx >= self.first_k_dense_replace and (layer_idx + 1) % run == 0

    def validate_routing(self) -> None:
        """How the router's numbers fit together."""
        if not 1 <= self.num_experts_per_tok <= self.num_experts:
            raise ValueError(
                f"num_experts_per_tok must be from 1 to num_experts={self.num_experts}, got {self.num_experts_per_tok}"
            )
        for field in ("n_shared_experts", "first_k_dense_replace"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must not be negative, got {getattr(self, field)}")
        for field in ("moe_layer_freq", "n_group", "topk_group"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.router_type == "switch" and self.num_experts_per_tok != 1:
            raise ValueError(f"num_experts_per_tok must be 1 for the switch router, got {self.num_experts_per_tok}")
        if self.router_type == "gshard" and self.num_experts_per_tok != 2:
            raise ValueError(f"num_experts_per_tok must be 2 for the gshard router, got {self.num_experts_per_tok}")
        if self.capacity_factor is not None and self.router_type not in ("switch", "gshard", "hierarchical"):
            raise ValueError(
                f"capacity_factor is for the switch, gshard and hierarchical routers; {self.router_type} refuses no "
                f"token, so it must be None, got {self.capacity_factor}"
            )
        if self.capacity_factor is not None and self.capacity_factor <= 0:
            raise ValueError(f"capacity_factor must be positive, got {self.capacity_factor}")
        if not 0 <= self.router_jitter_noise < 1:
            raise ValueError(f"router_jitter_noise must be at least 0 and below 1, got {self.router_jitter_noise}")
        refuse_unmeant_foresight(self)
        self._validate_groups()

    def _validate_groups(self) -> None:
        if self.n_group > 1 and self.router_type not in _WITH_GROUPS:
            raise ValueError(f"n_group must be 1 for the {self.router_type} router, got {self.n_group}")
        if self.num_experts % self.n_group:
            raise ValueError(f"num_experts must be a multiple of n_group: {self.num_experts} is not of {self.n_group}")
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group must be at most n_group={self.n_group}, got {self.topk_group}")
        group_size = self.num_experts // self.n_group
        if self.router_type == "hierarchical" and self.num_experts_per_tok % self.topk_group:
            raise ValueError(
                f"num_experts_per_tok must be a multiple of topk_group for the hierarchical router: "
                f"{self.num_experts_per_tok} is not of {self.topk_group}"
            )
        if self.num_experts_per_tok > group_size * self.topk_group:
            raise ValueError(
                f"num_experts_per_tok={self.num_experts_per_tok} does not fit into topk_group={self.topk_group} "
                f"groups of {group_size} experts"
            )
        if self.router_type == "deepseek_v3" and self.n_group > 1 and group_size < 2:
            raise ValueError(f"n_group={self.n_group} leaves groups of one expert; deepseek_v3 adds up two of each")


def refuse_unmeant_foresight(config: RoutedConfig) -> None:
    """Raise for a causal model whose experts choose tokens, unless the config says that it is meant."""
    is_causal = getattr(config, "is_causal", True)
    if config.router_type == "expert_choice" and is_causal and not config.allow_noncausal_routing:
        raise ValueError(
            "router_type 'expert_choice' lets an expert choose among later tokens too: in training a causal model "
            "sees a little of the future, and in evaluation it works with thresholds instead. Set "
            "allow_noncausal_routing=True if that is meant"
        )
