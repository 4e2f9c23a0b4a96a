"""A decoder whose feed-forward networks are experts, of which a router gives each token a few.

Fedus et al. 2021, https://arxiv.org/abs/2101.03961 (Switch); Lepikhin et al. 2020, https://arxiv.org/abs/2006.16668
(GShard); Jiang et al. 2024, https://arxiv.org/abs/2401.04088 (Mixtral); Dai et al. 2024,
https://arxiv.org/abs/2401.06066 (DeepSeekMoE).

    x <- x + A(N1(x));  x <- x + M(N2(x)),   M(x) = sum over e in S(x) of  g_e(x) FFN_e(x)  +  FFN_shared(x)

Attention, norms, positions and layouts are those of the dense decoder (llm). The routers' equations are in
layers/routers.py, the experts' in layers/experts.py, whose `@use_experts_implementation` lets transformers choose the
function that multiplies by them.

Shapes: B batch, T tokens, D hidden size.
"""

from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.utils.output_capturing import OutputRecorder

from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..layers.attention import Attention
from ..layers.mlp import MLP
from ..layers.routers import Router
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from ..routed import RoutedBlock, RoutedCausalLMHead, RoutedPreTrainedModel, RoutedTrunk, make_feed_forward
from .configuration_moe import ZooMoeConfig


class MoeBlock(RoutedBlock, LlmBlock):
    """Attention, then experts, or one feed-forward network where the config says dense."""

    def make_feed_forward(self, config: ZooMoeConfig, layer_idx: int) -> nn.Module:
        """The kind of feed-forward layer the config asks for."""
        return make_feed_forward(config, layer_idx, config.is_gated_mlp, config.mlp_bias)

    def residual_projections(self) -> list[nn.Module]:
        """The layers whose output is added to the residual stream."""
        if isinstance(self.mlp, MLP):
            return super().residual_projections()
        shared = self.mlp.shared_experts
        return [self.self_attn.o_proj, self.mlp.experts] + ([] if shared is None else [shared.down_proj])

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        token_mask: Tensor | None = None,
        router_losses: bool = False,
        output_router_logits: bool | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor | None, ...]:
        """x (B, T, D), token_mask (B, T) with 1 on real tokens -> (B, T, D), and side outputs (see RoutedBlock)."""
        routing = None

        def feed_forward(x: Tensor) -> Tensor:
            nonlocal routing
            y, routing = self.route(x, token_mask)
            return self.drop(y)

        x = self.add_branches(x, self.attention_branch(mask, past_key_values, **kwargs), feed_forward)
        is_asked = router_losses if output_router_logits is None else output_router_logits
        return self.with_side_outputs(x, routing, token_mask, is_asked)


class ZooMoePreTrainedModel(RoutedPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooMoeConfig
    config: ZooMoeConfig
    _no_split_modules = ["MoeBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {
        "hidden_states": MoeBlock,
        "attentions": Attention,
        "router_logits": OutputRecorder(Router, index=0),
    }


class ZooMoeModel(RoutedTrunk, LlmTrunk, ZooMoePreTrainedModel):
    """The decoder without a head."""

    block_class = MoeBlock


class ZooMoeForCausalLM(RoutedCausalLMHead, ZooMoePreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooMoeModel


class ZooMoeForSequenceClassification(SequenceClassificationHead, ZooMoePreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooMoeModel
    score_has_bias = False


class ZooMoeForTokenClassification(TokenClassificationHead, ZooMoePreTrainedModel):
    """A label for every token."""

    backbone_class = ZooMoeModel


class ZooMoeForQuestionAnswering(QuestionAnsweringHead, ZooMoePreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooMoeModel
