"""Gato: text, images, observations and actions are one sequence of tokens for one decoder.

Reed et al. 2022, https://arxiv.org/abs/2205.06175. A token that is no image patch is looked up in one table; a patch
is embedded (layers/residual_patches.py). Tokens of an observation know their place in its timestep, and all actions
share one such place. The decoder is pre-norm with GEGLU; in training whole residual branches are left out at random:

    x <- x + d A(N1(x)),  x <- x + d F(N2(x)),  d = 0 with probability p, else 1 / (1 - p), for each row
    L = - sum_t m_t log p(s_t | s_<t),  m_t = 1 for text and actions, 0 for observations

What makes tokens of episodes, and sets labels to -100 where m_t = 0, is the processor.

Shapes: B batch, T tokens, P patches a row, D hidden size, Z side of a patch in pixels.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens, where_token
from ..classifiers import QuestionAnsweringHead, SequenceClassificationHead, TokenClassificationHead
from ..heads import CausalLMHead
from ..layers.attention import Attention
from ..layers.residual_patches import PatchIntervals, ResidualPatchEmbedding
from ..llm.modeling_llm import LlmBlock, LlmTrunk
from .configuration_gato import ZooGatoConfig


class GatoBlock(LlmBlock):
    """The block of the dense decoder with stochastic depth."""

    def __init__(self, config: ZooGatoConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.stochastic_depth = config.stochastic_depth

    def drop(self, y: Tensor) -> Tensor:
        """A residual branch y (B, T, D), left out of some rows in training."""
        y = super().drop(y)
        if not self.training or not self.stochastic_depth:
            return y
        keep = 1.0 - self.stochastic_depth
        return y * (torch.rand(len(y), 1, 1, device=y.device) < keep).to(y.dtype) / keep


class ZooGatoPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the attention backends and loaders need to know."""

    config_class = ZooGatoConfig
    config: ZooGatoConfig
    _no_split_modules = ["GatoBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": GatoBlock, "attentions": Attention}

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch: 2 rows of 8 tokens, of which two are image patches."""
        config, generator = self.config, torch.Generator().manual_seed(0)
        ids = torch.randint(0, config.text_vocab_size, (2, 8), generator=generator)
        ids[:, 1:3] = config.image_token_id
        size, last = config.patch_size, config.num_patch_bins - 1
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "patches": torch.randn(2, 2, 3, size, size, generator=generator),
            "patch_intervals": torch.tensor([[0, last, 0, last // 2], [0, last, last // 2, last]]).expand(2, -1, -1),
            "local_positions": torch.tensor([[0, 2, 3, 4, 1, 1, 0, 0]]).expand(2, -1),
        }


class ZooGatoModel(LlmTrunk, ZooGatoPreTrainedModel):
    """The decoder without a head."""

    block_class = GatoBlock

    def __init__(self, config: ZooGatoConfig) -> None:
        super().__init__(config)
        self.embed_patches = ResidualPatchEmbedding(
            config.hidden_size, config.patch_size, config.patch_channels, config.patch_groups
        )
        self.embed_intervals = PatchIntervals(config.num_patch_bins, config.hidden_size)
        # Place 0 is "in no timestep" and has no embedding, place 1 is that of all actions
        self.embed_local = nn.Embedding(config.num_local_positions + 2, config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        patches: Tensor | None = None,
        patch_intervals: Tensor | None = None,
        local_positions: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Hidden states (B, T, D) of the last layer, normalised.

        Args:
            input_ids: (B, T); `image_token_id` stands where a patch is.
            attention_mask, position_ids, past_key_values, use_cache: see `DecoderTrunk`.
            inputs_embeds: (B, T, D), instead of input_ids; a placeholder is what has the embedding of one.
            patches: (B, P, 3, Z, Z), of each row those of its placeholders in their order, then anything. Without
                any, a placeholder is a token like others.
            patch_intervals: (B, P, 4), first and last bin of the rows and of the columns that a patch covers.
            local_positions: (B, T): 0 for text, 1 for actions, 2 + i for token i of an observation; all 0 without it.

        Raises:
            ValueError: a row has fewer patches than placeholders, or patches come without intervals.
        """
        x = embed_tokens(self.embed_tokens, input_ids, inputs_embeds)
        if patches is not None:
            is_patch = where_token(self.embed_tokens, self.config.image_token_id, input_ids, inputs_embeds)
            x = self.place_patches(x, is_patch, patches, patch_intervals)
        if local_positions is not None:
            x = x + self.embed_local(local_positions) * (local_positions > 0)[..., None].to(x.dtype)
        return super().forward(
            inputs_embeds=x,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )

    def place_patches(self, x: Tensor, is_patch: Tensor, patches: Tensor, patch_intervals: Tensor | None) -> Tensor:
        """x (B, T, D) with a row's patches where is_patch (B, T), in their order."""
        if x.device.type == "cpu" and not torch.compiler.is_compiling() and is_patch.numel():
            most = int(is_patch.sum(-1).max())
            if most > patches.shape[1]:
                raise ValueError(f"a row has {most} placeholders of image patches, but {patches.shape[1]} patches")
        if patch_intervals is None or patch_intervals.shape[:2] != patches.shape[:2]:
            shape = None if patch_intervals is None else tuple(patch_intervals.shape)
            raise ValueError(f"patch_intervals must be {(*patches.shape[:2], 4)} for these patches, got {shape}")
        y = self.embed_patches(patches) + self.embed_intervals(patch_intervals)
        number = (is_patch.long().cumsum(-1) - 1).clamp_min(0)  # of the patch that stands at or before each token
        y = y.gather(1, number[..., None].expand_as(x))
        return torch.where(is_patch[..., None], y.to(x.dtype), x)


class ZooGatoForCausalLM(CausalLMHead, ZooGatoPreTrainedModel, GenerationMixin):
    """Writes text and acts."""

    backbone_class = ZooGatoModel

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        patches: Tensor | None = None,
        patch_intervals: Tensor | None = None,
        local_positions: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Logits (B, T, vocab_size) and, with labels, the mean cross-entropy of the next token.

        Args:
            labels: (B, T), -100 on observations, which the processor writes.
            patches, patch_intervals, local_positions: see `ZooGatoModel.forward`; `generate` takes them too.
            kwargs: see `CausalLMHead.forward`, as for the rest.
        """
        return super().forward(
            input_ids,
            attention_mask,
            position_ids,
            past_key_values,
            inputs_embeds,
            labels,
            use_cache,
            logits_to_keep,
            patches=patches,
            patch_intervals=patch_intervals,
            local_positions=local_positions,
            return_dict=True,
            **kwargs,
        )

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """What one step is given: patches where placeholders are, and places of what was written since as of text."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        given = inputs.get("input_ids")
        if given is None:
            return inputs
        if not (given == self.config.image_token_id).any():
            inputs["patches"] = inputs["patch_intervals"] = None
        if inputs.get("local_positions") is not None:
            places = inputs["local_positions"]
            inputs["local_positions"] = F.pad(places, (0, input_ids.shape[1] - places.shape[1]))[:, -given.shape[1] :]
        return inputs


class ZooGatoForSequenceClassification(SequenceClassificationHead, ZooGatoPreTrainedModel):
    """A label for the row, read from its last real token."""

    backbone_class = ZooGatoModel
    score_has_bias = False


class ZooGatoForTokenClassification(TokenClassificationHead, ZooGatoPreTrainedModel):
    """A label for every token."""

    backbone_class = ZooGatoModel


class ZooGatoForQuestionAnswering(QuestionAnsweringHead, ZooGatoPreTrainedModel):
    """Start and end of an answer in the row."""

    backbone_class = ZooGatoModel
