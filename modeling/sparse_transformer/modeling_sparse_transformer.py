"""The Sparse Transformer: a decoder whose heads see about sqrt(T) tokens each, by a strided or a fixed pattern.

Child et al. 2019, "Generating Long Sequences with Sparse Transformers", https://arxiv.org/abs/1904.10509:

    x <- x + A(N1(x));  x <- x + F(N2(x));  N_f at the end;  embeddings of row and column of a position are added

The patterns are in layers/sparse_patterns.py, how they are computed in layers/sparse_attention.py.

Shapes: B batch, T tokens, S keys, D hidden size, H heads.
"""

import math
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer

from ..base_model import ZooPreTrainedModel
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..decoder import DecoderTrunk
from ..heads import CausalLMHead
from ..layers.mlp import MLP
from ..layers.positions import FactorisedPositions
from ..layers.sparse_attention import Remembered, SparseAttention, find_real
from ..layers.sparse_patterns import Pattern, fixed_pattern, strided_pattern
from .configuration_sparse_transformer import ZooSparseTransformerConfig
from .evicting_cache import FixedPatternLayer


def make_pattern(config: ZooSparseTransformerConfig, layer_idx: int) -> Pattern:
    """What each head of a layer sees."""
    heads = {"heads": config.head_assignment, "layer_idx": layer_idx}
    if config.pattern == "strided":
        return strided_pattern(config.stride, config.num_attention_heads, **heads)
    groups = {"num_groups": config.num_summary_groups}
    return fixed_pattern(config.stride, config.summary_size, config.num_attention_heads, **heads, **groups)


def make_attention(config: ZooSparseTransformerConfig, layer_idx: int) -> SparseAttention:
    """The attention of a layer."""
    pattern, dropout = make_pattern(config, layer_idx), config.attention_dropout
    return SparseAttention(config.hidden_size, pattern, config.head_dim, config.value_head_dim, dropout=dropout)


class SparseTransformerBlock(GradientCheckpointingLayer):
    """Attention with a sparse pattern, then a feed-forward network, each with its norm and residual."""

    layer_type = "full_attention"  # to caches; `pattern` says what is seen

    def __init__(self, config: ZooSparseTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.dropout = config.residual_dropout
        D = config.hidden_size
        self.mixer_norm = nn.LayerNorm(D, config.norm_eps)
        self.self_attn = make_attention(config, layer_idx)
        self.mlp_norm = nn.LayerNorm(D, config.norm_eps)
        self.mlp = MLP(D, config.intermediate_size, config.hidden_act, bias=True)
        for name, linear in self.named_modules():
            if isinstance(linear, nn.Linear):
                onto_residual = name.endswith(("o_proj", "down_proj"))
                depth = math.sqrt(2 * config.num_hidden_layers) if onto_residual else 1.0
                linear.init_scale = linear.in_features**-0.5 / depth

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        past_key_values: Cache | None = None,
        packed_positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """x (B, T, D), mask (B, S) with 1 on real tokens, of which the last T are those of x -> (B, T, D)."""
        remember = None
        if past_key_values is not None:
            position_ids = position_ids.expand(len(x), -1)
            remember = partial(self.remember, past_key_values, mask, position_ids)
        y = self.self_attn(self.mixer_norm(x), mask, remember, position_ids, packed_positions)
        x = x + F.dropout(y, self.dropout, self.training)
        return x + F.dropout(self.mlp(self.mlp_norm(x)), self.dropout, self.training)

    def remember(
        self, cache: Cache, mask: Tensor | None, positions: Tensor, k: Tensor, v: Tensor
    ) -> Remembered | None:
        """Put new keys and values (B, H, T, K) into the cache -> all of them, or None if there were none before."""
        num_seen, layer, T = cache.get_seq_length(self.layer_idx), cache.layers[self.layer_idx], k.shape[2]
        if not isinstance(layer, FixedPatternLayer):
            k, v = cache.update(k, v, self.layer_idx)
            return (k, v, find_real(mask)) if num_seen else None
        num_kept = layer.keys.shape[2] if num_seen else 0
        k, v = cache.update(k, v, self.layer_idx, positions, None if mask is None else mask[:, -T:])
        find = partial(layer.find, first_new=positions[:, :1, None], num_kept=num_kept, num_new=T)
        return (k, v, find) if num_seen else None


class ZooSparseTransformerPreTrainedModel(ZooPreTrainedModel):
    """Base class: what loaders and generation need to know."""

    config_class = ZooSparseTransformerConfig
    config: ZooSparseTransformerConfig
    _no_split_modules = ["SparseTransformerBlock"]
    _can_record_outputs = {"hidden_states": SparseTransformerBlock}

    @property
    def _is_stateful(self) -> bool:
        """Whether assisted decoding is out of question: what a fixed pattern evicted does not come back."""
        return self.config.pattern == "fixed"

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the trunk makes its own, which evicts

    @staticmethod
    def create_masks_for_generate(attention_mask: Tensor | None, **_: Any) -> Tensor | None:
        """The mask (B, S) as it is: `generate` would make one of T x S for a static cache."""
        return attention_mask


class ZooSparseTransformerModel(DecoderTrunk, ZooSparseTransformerPreTrainedModel):
    """The decoder without a head."""

    def __init__(self, config: ZooSparseTransformerConfig) -> None:
        super().__init__(config, SparseTransformerBlock, nn.LayerNorm(config.hidden_size, config.norm_eps))
        self.embed_positions = FactorisedPositions(config.position_shape, config.hidden_size)
        self.embed_tokens.init_scale = config.hidden_size**-0.5
        for table in self.embed_positions.tables:
            table.init_scale = (config.hidden_size * len(config.position_shape)) ** -0.5
        self.post_init()

    def place(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """x (B, T, D) with the embeddings of rows and columns added."""
        return x + self.embed_positions(position_ids)

    def make_masks(
        self, x: Tensor, attention_mask: Tensor | None, past_key_values: Cache | None, position_ids: Tensor | None
    ) -> dict[str, Tensor | None]:
        """The mask (B, S) itself: what a pattern leaves to see is worked out block by block."""
        return {"full_attention": attention_mask}

    def make_cache(self) -> Cache:
        """An empty cache; that of a fixed pattern evicts what is never read again."""
        config = self.config
        if config.pattern == "strided":
            return DynamicCache(config=config)
        columns = config.summary_size * config.num_summary_groups
        cache = DynamicCache(config=config)
        cache.layers = [FixedPatternLayer(config.stride, columns) for _ in self.layers]
        return cache


class ZooSparseTransformerForCausalLM(CausalLMHead, ZooSparseTransformerPreTrainedModel, GenerationMixin):
    """The language model, whose scores start at zero."""

    backbone_class = ZooSparseTransformerModel

    def __init__(self, config: ZooSparseTransformerConfig) -> None:
        super().__init__(config)
        if not config.tie_word_embeddings:
            self.lm_head.init_scale = 0.0
            nn.init.zeros_(self.lm_head.weight)


class ZooSparseTransformerForSequenceClassification(SequenceClassificationHead, ZooSparseTransformerPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooSparseTransformerModel
    score_has_bias = False


class ZooSparseTransformerForTokenClassification(TokenClassificationHead, ZooSparseTransformerPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooSparseTransformerModel


class ZooSparseTransformerForQuestionAnswering(QuestionAnsweringHead, ZooSparseTransformerPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooSparseTransformerModel
