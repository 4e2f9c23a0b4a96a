"""Configuration of the decoder with routed experts."""

from huggingface_hub.dataclasses import strict

from ..llm.configuration_llm import ZooLlmConfig
from ..routed_config import RoutedConfig


@strict
class ZooMoeConfig(RoutedConfig, ZooLlmConfig):
    """The fields of the dense decoder (llm), and those of a router and its experts; the defaults are Mixtral's.

    Args:
        intermediate_size: width of a dense feed-forward network, and of an expert where `moe_intermediate_size` does
            not say another.
    """

    model_type = "zoo_moe"
    attention_tp_plan = {n: how for n, how in ZooLlmConfig.base_model_tp_plan.items() if "self_attn" in n}

    intermediate_size: int = 14336
    num_key_value_heads: int | None = 8
    max_position_embeddings: int = 32768
    norm_eps: float = 1e-5

    def validate_architecture(self) -> None:
        """How the sizes fit together."""
        super().validate_architecture()
        self.validate_routing()
