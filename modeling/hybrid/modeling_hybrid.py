"""The hybrid: a decoder in which every layer has the token mixer and the channel mixer that its config names.

Lieber et al. 2024 (Jamba), https://arxiv.org/abs/2403.19887, is one: attention in one layer of eight, Mamba in the
others, experts in every second.

    x <- x + Mixer_l(N1(x));  x <- x + ChannelMixer_l(N2(x));  N_f at the end

Where a layer has attention it is the dense decoder's (llm), with every option of that; the other parts come from their
own architectures, see parts.py. One cache holds keys and values where there is attention, and states elsewhere.

Shapes: B batch, T tokens, S keys, D hidden size.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.utils.output_capturing import OutputRecorder

from ..cache import RECURRENT_LAYERS, read_state, write_state
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..layers.attention import Attention
from ..layers.gaps import across_gaps
from ..layers.latent_attention import LatentAttention
from ..layers.latent_spaces import LatentSpaceAttention
from ..layers.positions import RotaryPositions
from ..layers.routers import Router
from ..layers.routing import Routing
from ..layers.sparse_attention import Remembered, SparseAttention, find_real
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from ..masks import recurrent_mask
from ..routed import (
    RoutedBlock,
    RoutedCausalLMHead,
    RoutedPreTrainedModel,
    RoutedTrunk,
    exact_router_weights,
)
from .configuration_hybrid import ZooHybridConfig
from .parts import ATTENTION, CHANNEL_MIXERS, MIXERS, make_part, part_config


class HybridBlock(RoutedBlock, LlmBlock):
    """A token mixer and a channel mixer, each with its norm and residual."""

    def __init__(self, config: ZooHybridConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.keeps_state = config.mlp_types[layer_idx] in CHANNEL_MIXERS and (
            CHANNEL_MIXERS[config.mlp_types[layer_idx]].has_state
        )
        if self.mlp is None:
            self.mlp_norm = None

    def add_mixer(self, config: ZooHybridConfig, layer_idx: int) -> None:
        """Make what mixes tokens: `self_attn` where it has keys, `mixer` where it has a state."""
        kind = config.mixer_types[layer_idx]
        if kind in ATTENTION:
            self.sliding_window = config.sliding_window if kind == "sliding_attention" else None
            super().add_mixer(config, layer_idx)
            return
        mixer = make_part(config, MIXERS, config.mixer_types, layer_idx)
        if MIXERS[kind].layer_type in RECURRENT_LAYERS:
            self.mixer = mixer
        else:
            self.self_attn = mixer
        if isinstance(mixer, LatentAttention):  # turns other dimensions than the dense decoder's heads
            self.rotary_emb = RotaryPositions(part_config(config, kind, MIXERS[kind], config.mixer_types.count(kind)))

    def make_feed_forward(self, config: ZooHybridConfig, layer_idx: int) -> nn.Module | None:
        """Make what mixes channels; nothing for "none"."""
        kind = config.mlp_types[layer_idx]
        if kind in CHANNEL_MIXERS:
            return make_part(config, CHANNEL_MIXERS, config.mlp_types, layer_idx)
        return super().make_feed_forward(config, layer_idx) if kind == "mlp" else None

    def residual_projections(self) -> list[nn.Module]:
        """The linear layers whose output is added to the residual stream; parts of others start in their own way."""
        found = (getattr(part, name, None) for part, name in self._ends())
        return [projection for projection in found if isinstance(projection, nn.Linear)]

    def _ends(self) -> list[tuple[nn.Module | None, str]]:
        return [(getattr(self, "self_attn", None), "o_proj"), (self.mlp, "down_proj")]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        packed_positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        token_mask: Tensor | None = None,
        padding: Tensor | None = None,
        router_losses: bool = False,
        output_router_logits: bool | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor | None, ...]:
        """x (B, T, D) -> (B, T, D), and the side outputs of routed experts.

        Args:
            mask: what the token mixer wants: a backend's mask for attention, else `token_mask`.
            token_mask: (B, T) with 1 on real tokens, None where all are.
            padding: (B, S), the same for all that is remembered too.
        """
        routing: Routing | None = None

        def feed(x: Tensor) -> Tensor:
            nonlocal routing
            if self.keeps_state:
                state = read_state(past_key_values, self.layer_idx, part=1)
                y, state = across_gaps(self.mlp, x, token_mask, state, packed_positions)
                write_state(past_key_values, self.layer_idx, state, part=1)
                return self.drop(y)
            y, routing = self.route(x, token_mask)
            return self.drop(y)

        mix = self.mixing_branch(mask, past_key_values, packed_positions, position_ids, padding, **kwargs)
        x = x + mix(self.mixer_norm(x)) if self.mlp is None else self.add_branches(x, mix, feed)
        is_asked = router_losses if output_router_logits is None else output_router_logits
        return self.with_side_outputs(x, routing, token_mask, is_asked)

    def mixing_branch(
        self,
        mask: Tensor | None,
        cache: Cache | None,
        packed_positions: Tensor | None,
        position_ids: Tensor | None,
        padding: Tensor | None,
        **kwargs: Any,
    ) -> Callable[[Tensor], Tensor]:
        """The residual branch of the token mixer, x (B, T, D) -> (B, T, D), all but its input given."""
        if hasattr(self, "mixer"):
            return partial(self.recur, mask=mask, cache=cache, packed_positions=packed_positions)
        attention = self.self_attn
        if isinstance(attention, SparseAttention):
            real = recurrent_mask(position_ids[..., None], padding) if padding is not None else None
            remember = None if cache is None else partial(self.remember_keys, cache, padding)
            return lambda x: self.drop(attention(x, real, remember, position_ids.expand(len(x), -1), packed_positions))
        if isinstance(attention, LatentSpaceAttention):
            remember = None if cache is None else partial(self.remember_latents, cache)
            return lambda x: self.drop(attention(x, mask, remember)[0])
        if isinstance(attention, LatentAttention):
            remember = None if cache is None else partial(cache.update, layer_idx=self.layer_idx)
            return lambda x: self.drop(attention(x, mask, remember, self.rotary_emb(x, position_ids))[0])
        return self.attention_branch(mask, cache, **kwargs)

    def recur(self, x: Tensor, mask: Tensor | None, cache: Cache | None, packed_positions: Tensor | None) -> Tensor:
        """A token mixer with a state, x (B, T, D) -> (B, T, D)."""
        y, state = across_gaps(self.mixer, x, mask, read_state(cache, self.layer_idx), packed_positions)
        write_state(cache, self.layer_idx, state)
        return self.drop(y)

    def remember_keys(self, cache: Cache, padding: Tensor | None, k: Tensor, v: Tensor) -> Remembered | None:
        """New keys and values (B, H, T, K) into the cache -> all of them, None if there were none before."""
        num_seen = cache.get_seq_length(self.layer_idx)
        k, v = cache.update(k, v, self.layer_idx)
        return (k, v, find_real(padding)) if num_seen else None

    def remember_latents(self, cache: Cache, z: Tensor) -> Tensor:
        """Latents (B, H, T, r) into the cache -> all of them (B, H, S, r)."""
        return cache.update(z, z[..., :0], self.layer_idx)[0]


class ZooHybridPreTrainedModel(RoutedPreTrainedModel):
    """Base class: what the attention backends, generation and loaders need to know."""

    config_class = ZooHybridConfig
    config: ZooHybridConfig
    _no_split_modules = ["HybridBlock"]
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_record_outputs = {
        "hidden_states": HybridBlock,
        "attentions": Attention,
        "router_logits": OutputRecorder(Router, index=0),
    }

    def exact_weights(self) -> list[str]:
        """What stays in float32: all that does in the parts' own architectures."""
        names = {name for kind in self.config.mixer_types if kind in MIXERS for name in MIXERS[kind].exact}
        routing = self.config.routing
        return sorted(names) + ([] if routing is None else exact_router_weights(routing))

    @property
    def _is_stateful(self) -> bool:
        """Whether assisted decoding is out of question: a state cannot be rolled back."""
        return any(kind not in ATTENTION for kind in self.config.layer_types)

    def _supports_default_dynamic_cache(self) -> bool:
        return any(kind not in RECURRENT_LAYERS for kind in self.config.layer_types)

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None, **_: Any) -> Tensor | None:
        """The mask (B, S) as it is: each kind of layer makes of it what it wants."""
        return attention_mask


class ZooHybridModel(RoutedTrunk, LlmTrunk, ZooHybridPreTrainedModel):
    """The decoder without a head."""

    block_class = HybridBlock

    def attention_arguments(
        self, x: Tensor, position_ids: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None
    ) -> dict[str, Any]:
        """What all layers share, among it the mask (B, S) of all that is remembered."""
        shared = super().attention_arguments(x, position_ids, attention_mask, past_key_values)
        return {**shared, "padding": attention_mask}


class ZooHybridForCausalLM(RoutedCausalLMHead, ZooHybridPreTrainedModel, GenerationMixin):
    """The language model."""

    backbone_class = ZooHybridModel


class ZooHybridForSequenceClassification(SequenceClassificationHead, ZooHybridPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooHybridModel
    score_has_bias = False


class ZooHybridForTokenClassification(TokenClassificationHead, ZooHybridPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooHybridModel


class ZooHybridForQuestionAnswering(QuestionAnsweringHead, ZooHybridPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooHybridModel
