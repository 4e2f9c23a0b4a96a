"""The language model with a profile before its first token and memories behind its last layer.

    x = [profile; embeddings]
    h = LM(x);  h <- h + tanh(a) attention(h, [slots; memories])        a is 0 at first, and nothing changes

Shapes: B batch, T tokens, D hidden size, M slots of working memory, k memories, S tokens of a short text.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens
from ..layers.gated_cross_attention import GatedCrossAttention
from ..parts import part_model
from .configuration_lam import ZooLamConfig
from .episodic_memory import EpisodicMemory, Recalled
from .outputs_lam import LamModelOutput
from .profile import Profile
from .working_memory import WorkingMemory


class ZooLamPreTrainedModel(ZooPreTrainedModel):
    """Base class: what the loaders need to know."""

    config_class = ZooLamConfig
    config: ZooLamConfig
    _no_split_modules = ["GatedCrossAttention"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """A complete, valid batch for the trunk: 2 rows of 8 tokens, a profile, working memory and 3 memories."""
        generator, config = torch.Generator().manual_seed(0), self.config
        draw = lambda *shape: torch.randint(0, config.vocab_size, shape, generator=generator)  # noqa: E731
        memory_mask = torch.ones(2, 3, 5, dtype=torch.long)
        memory_mask[1, 2] = 0  # one row remembers less
        return {
            **super().dummy_inputs,
            "profile_ids": draw(2, 4),
            "profile_values": torch.rand(2, config.num_profile_values, generator=generator),
            "memory_ids": draw(2, 3, 5),
            "memory_mask": memory_mask,
            "slots": torch.randn(2, config.working_slots, config.hidden_size, generator=generator),
        }


class ZooLamModel(ZooLamPreTrainedModel):
    """The language model with a profile before it and memories behind it."""

    def __init__(self, config: ZooLamConfig) -> None:
        super().__init__(config)
        size, text = config.hidden_size, config.text_config
        self.language_model = part_model(text, "AutoModel")
        self.profile = Profile(size, config.num_profile_vectors, config.num_profile_values)
        self.working_memory = WorkingMemory(size, config.working_slots)
        self.episodic_memory = EpisodicMemory(
            size, config.episodic_dim, config.episodic_capacity, config.episodic_tokens, config.recall_time
        )
        self.memory_proj = nn.Linear(config.episodic_dim, size, bias=False)
        heads = getattr(text, "num_attention_heads", 1)
        self.memory_reader = GatedCrossAttention(size, size, heads, size // heads)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace those of the language model."""
        self.language_model.set_input_embeddings(value)

    @classmethod
    def from_parts(cls, language: PreTrainedModel, **options: Any) -> "ZooLamPreTrainedModel":
        """A model around a pretrained language model, whose weights are copied; the rest is new.

        Args:
            language: a decoder; its head, if it has one, becomes this one's.
            options: other fields of the config.
        """
        tied = getattr(language.config, "tie_word_embeddings", False)
        model = cls(cls.config_class(text_config=language.config, **{"tie_word_embeddings": tied, **options}))
        trunk = getattr(model, "model", model)
        trunk.language_model.load_state_dict(language.base_model.state_dict())
        scores = language.get_output_embeddings()
        if scores is not None and model.get_output_embeddings() is not None:
            model.get_output_embeddings().load_state_dict(scores.state_dict())
        return model

    @torch.no_grad()
    def set_profile(self, input_ids: Tensor | None, mask: Tensor | None = None, values: Tensor | None = None) -> None:
        """Who the agent is from now on, kept with the weights; None for nobody.

        Args:
            input_ids: (1, S), mask (1, S), values (1, num_profile_values).
        """
        x = None if input_ids is None else self.profile(self.get_input_embeddings()(input_ids), mask, values)[0]
        self.profile.store(x)

    def remember(self, input_ids: Tensor, **kwargs: Any) -> int:
        """Keep a text (T) in episodic memory; see `EpisodicMemory.write`."""
        return self.episodic_memory.write(self.get_input_embeddings()(input_ids), input_ids, **kwargs)

    @torch.no_grad()
    def recall(self, input_ids: Tensor, mask: Tensor | None = None) -> Recalled | None:
        """The `recall_k` memories that fit a text (B, T) best; None where episodic memory is switched off."""
        if not self.config.use_episodic_memory:
            return None
        mask = torch.ones_like(input_ids) if mask is None else mask
        query = self.episodic_memory.tower(self.get_input_embeddings()(input_ids), mask)
        return self.episodic_memory.recall(query, self.config.recall_k)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        profile_ids: Tensor | None = None,
        profile_mask: Tensor | None = None,
        profile_values: Tensor | None = None,
        memory_ids: Tensor | None = None,
        memory_mask: Tensor | None = None,
        slots: Tensor | None = None,
        act_positions: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LamModelOutput:
        """Hidden states (B, T, D) of the last layer.

        Args:
            input_ids, position_ids, inputs_embeds, use_cache: see the language model.
            attention_mask: (B, past + T), of tokens: the profile has no part in it.
            past_key_values: the profile is in it, so it must be given at the first step, and then again.
            profile_ids, profile_mask, profile_values: (B, S), (B, S), (B, num_profile_values); instead of the one that
                is set.
            memory_ids, memory_mask: (B, k, S), summaries of memories that were recalled.
            slots: (B, M, D), working memory; tokens see it as it is given, and write to it.
            act_positions: (B), the last token that may write to it; all may without it.
        """
        x = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
        profile = self._profile(len(x), profile_ids, profile_mask, profile_values)
        words, past = x, 0 if past_key_values is None else past_key_values.get_seq_length()
        mask = attention_mask
        if profile is not None:
            x, mask, position_ids = _after_profile(x, profile, mask, position_ids, past)
        outputs = self.language_model(
            inputs_embeds=x,
            **_given(attention_mask=mask, position_ids=position_ids, past_key_values=past_key_values),
            **_given(use_cache=use_cache),
            **kwargs,
        )
        h = outputs.last_hidden_state[:, x.shape[1] - words.shape[1] :]
        memories = self.memories(slots, memory_ids, memory_mask)
        h = self.look_back(h, memories)
        if slots is not None:
            slots = self.working_memory(slots, h, visible(h, attention_mask, act_positions))
        return LamModelOutput(
            last_hidden_state=h,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            slots=slots,
        )

    def _profile(self, rows: int, ids: Tensor | None, mask: Tensor | None, values: Tensor | None) -> Tensor | None:
        if ids is None:
            return self.profile.current(rows)
        return self.profile(self.get_input_embeddings()(ids), mask, values)

    def memories(
        self, slots: Tensor | None, memory_ids: Tensor | None, memory_mask: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """What there is to look back at (B, S, D), and which of it exists (B, S); None without any."""
        parts, masks = [], []
        if slots is not None:
            parts.append(slots)
            masks.append(slots.new_ones(slots.shape[:2], dtype=torch.bool))
        if memory_ids is not None:
            given = torch.ones_like(memory_ids) if memory_mask is None else memory_mask
            x = self.episodic_memory.tower(self.get_input_embeddings()(memory_ids), given)
            parts.append(self.memory_proj(x))
            masks.append(given.bool().any(-1))
        return (torch.cat(parts, dim=1), torch.cat(masks, dim=1)) if parts else None

    def look_back(self, h: Tensor, memories: tuple[Tensor, Tensor] | None) -> Tensor:
        """States h (B, T, D) after attention to memories; a row without any keeps its own."""
        if memories is None:
            return h
        vectors, exists = memories
        seen = exists[:, None].expand(-1, h.shape[1], -1)
        y = self.memory_reader(h, *self.memory_reader.project_context(vectors), seen)
        return torch.where(exists.any(-1)[:, None, None], y, h)


def visible(x: Tensor, attention_mask: Tensor | None, act_positions: Tensor | None) -> Tensor:
    """Real tokens up to the deciding one: x (B, T, ...) -> (B, T)."""
    mask = x.new_ones(x.shape[:2], dtype=torch.bool)
    if attention_mask is not None:
        mask = attention_mask[:, -x.shape[1] :].bool()
    if act_positions is not None:
        mask = mask & (torch.arange(x.shape[1], device=x.device) <= act_positions[:, None])
    return mask


def _after_profile(
    x: Tensor, profile: Tensor, mask: Tensor | None, position_ids: Tensor | None, past: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Embeddings, mask and positions with the profile before the first token; in a cache it is there already."""
    rows, length, size = len(x), x.shape[1], profile.shape[1]
    if mask is not None:
        if mask.ndim != 2:
            raise ValueError("a profile needs an attention_mask of (rows, tokens): static caches bring another")
        mask = torch.cat((mask.new_ones(rows, size), mask), dim=1)
    if position_ids is not None:
        position_ids = position_ids + size
        if not past:
            first = torch.arange(size, device=x.device).expand(rows, -1)
            position_ids = torch.cat((first, position_ids.expand(rows, -1)), dim=1)
    elif mask is not None:
        total = length if past else length + size
        position_ids = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -total:]
    return x if past else torch.cat((profile.to(x.dtype), x), dim=1), mask, position_ids


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
