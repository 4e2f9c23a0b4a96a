"""A language model that acts: it finds tools, binds their arguments, plans, and remembers.

The language model may be of any architecture. Around it stand the parts of an agent that the literature names (Zhang
et al. 2024, "xLAM", https://arxiv.org/abs/2409.03215, for what such a model is trained on):

    x   = [profile; embeddings]                      profile.py: soft vectors before the first token
    h   = LM(x);  h <- h + gated attention to memory  episodic_memory.py and working_memory.py
    at the token that decides:
      option, act, end, value                        policy.py
      one of the tools that are given, or none       tool_pointer.py
      the arguments of a tool                        binder.py
      what would happen                              world_model.py, searched by search.py

What a model of language alone does is not changed by any of this: without a profile and memories the logits are those
of the language model.

Shapes: B batch, T tokens, D hidden size, N tools, S tokens of a short text, P parameters, k memories.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import ZooPreTrainedModel, embed_tokens
from ..cache import RECURRENT_LAYERS
from ..heads import CausalLMHead
from ..layers.gated_cross_attention import GatedCrossAttention
from ..parts import part_model
from .binder import Binding, ParameterBinder
from .configuration_lam import ZooLamConfig
from .episodic_memory import EpisodicMemory, Recalled
from .losses_lam import binder_loss, distillation_loss, planning_losses, tool_losses, weighted_sum
from .policy import HierarchicalPolicy, act_prior
from .profile import Profile
from .tool_pointer import EncodedTools, ToolPointer
from .working_memory import WorkingMemory
from .world_model import WorldModel


@dataclass
class LamModelOutput(BaseModelOutputWithPast):
    """Of the trunk.

    Args:
        slots: (B, M, D), the working memory after these tokens, where it was given.
    """

    slots: Tensor | None = None


@dataclass
class LamOutput(CausalLMOutputWithPast):
    """Of the whole; all but the first lines only where `act_positions` says which token decides.

    Args:
        loss, logits, past_key_values, hidden_states, attentions: as of any causal language model.
        slots: (B, M, D), the working memory after these tokens, where it was given.
        state: (B, D), what decisions are made from.
        option_logits: (B, num_subgoals); kind_logits: (B, 4) over call, think, ask, finish.
        ending_logits, value: (B), under the option.
        tool_query: (B, tool_dim); tool_vectors: (B, N, tool_dim), to be kept.
        tool_logits: (B, N + 1), the last of NO_TOOL.
        binding: see `Binding`.
        losses: name -> each loss without its weight.
    """

    slots: Tensor | None = None
    state: Tensor | None = None
    option_logits: Tensor | None = None
    kind_logits: Tensor | None = None
    ending_logits: Tensor | None = None
    value: Tensor | None = None
    tool_query: Tensor | None = None
    tool_vectors: Tensor | None = None
    tool_logits: Tensor | None = None
    binding: Binding | None = None
    losses: dict[str, Tensor] | None = None


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


class ZooLamForCausalLM(CausalLMHead, ZooLamPreTrainedModel, GenerationMixin):
    """Writes, and acts."""

    backbone_class = ZooLamModel
    from_parts = classmethod(ZooLamModel.from_parts.__func__)

    def __init__(self, config: ZooLamConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.tool_pointer = ToolPointer(size, config.tool_dim)
        self.binder = ParameterBinder(size, config.binder_dim, config.max_parameters, config.binder_modes)
        self.policy = HierarchicalPolicy(size, config.num_subgoals, config.subgoal_dim)
        self.world_model = WorldModel(size + config.subgoal_dim, config.latent_dim, config.tool_dim)
        self.post_init()

    def post_init(self) -> None:
        """As for all models, with scores that are tied to the embeddings of whatever language model there is."""
        names = {id(module): name for name, module in self.named_modules()}
        self._tied_weights_keys = {"lm_head.weight": f"{names[id(self.get_input_embeddings())]}.weight"}
        super().post_init()

    def _supports_default_dynamic_cache(self) -> bool:
        kinds = self.config.layer_types
        return not all(kind in RECURRENT_LAYERS for kind in kinds)  # such a language model makes a cache of its own

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """The trunk's, with a deciding token, 3 tools (one row has 2) and 2 parameters, of which one is enumerated."""
        inputs, generator = super().dummy_inputs, torch.Generator().manual_seed(1)
        draw = lambda *shape: torch.randint(0, self.config.vocab_size, shape, generator=generator)  # noqa: E731
        tool_mask, choice_mask = torch.ones(2, 3, 6, dtype=torch.long), torch.ones(2, 2, 3, 2, dtype=torch.long)
        tool_mask[1, 2] = 0
        choice_mask[:, 0] = 0
        return {
            **inputs,
            "act_positions": torch.tensor([4, 5]),
            "tool_ids": draw(2, 3, 6),
            "tool_mask": tool_mask,
            "parameter_ids": draw(2, 2, 4),
            "parameter_mask": torch.ones(2, 2, 4, dtype=torch.long),
            "parameter_types": torch.tensor([[1, 0], [2, 0]]),
            "choice_ids": draw(2, 2, 3, 2),
            "choice_mask": choice_mask,
        }

    @torch.no_grad()
    def encode_tools(self, tool_ids: Tensor, tool_mask: Tensor) -> EncodedTools:
        """Tokens (..., S) of tools' texts -> what is known of them, which no context changes: keep it."""
        return self.tool_pointer.encode(self.get_input_embeddings()(tool_ids), tool_mask)

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
        profile_ids: Tensor | None = None,
        profile_mask: Tensor | None = None,
        profile_values: Tensor | None = None,
        memory_ids: Tensor | None = None,
        memory_mask: Tensor | None = None,
        slots: Tensor | None = None,
        act_positions: Tensor | None = None,
        options: Tensor | None = None,
        tool_ids: Tensor | None = None,
        tool_mask: Tensor | None = None,
        tool_vectors: Tensor | None = None,
        tool_words: Tensor | None = None,
        parameter_ids: Tensor | None = None,
        parameter_mask: Tensor | None = None,
        parameter_types: Tensor | None = None,
        choice_ids: Tensor | None = None,
        choice_mask: Tensor | None = None,
        tool_labels: Tensor | None = None,
        option_labels: Tensor | None = None,
        kind_labels: Tensor | None = None,
        ending_labels: Tensor | None = None,
        value_labels: Tensor | None = None,
        mode_labels: Tensor | None = None,
        start_labels: Tensor | None = None,
        end_labels: Tensor | None = None,
        choice_labels: Tensor | None = None,
        number_labels: Tensor | None = None,
        boolean_labels: Tensor | None = None,
        search_acts: Tensor | None = None,
        search_visits: Tensor | None = None,
        search_values: Tensor | None = None,
        search_rewards: Tensor | None = None,
        search_done: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> LamOutput:
        """Logits (B, T, vocab_size); with `act_positions` also what to do.

        Args:
            labels: (B, T), -100 on what others said. Shifted here.
            profile_ids, profile_mask, profile_values, memory_ids, memory_mask, slots: see `ZooLamModel.forward`.
            act_positions: (B), the token that decides, and sees nothing after it; without it nothing is decided.
            options: (B), the option that is followed; without it the labelled one, or the best.
            tool_ids, tool_mask: (B, N, S), texts of tools (`serialise_tool`); a tool without tokens does not exist.
            tool_vectors, tool_words: (B, N, tool_dim), (B, N, S, tool_dim) from `encode_tools`, instead of tool_ids;
                tool_mask is then (B, N).
            parameter_ids, parameter_mask: (B, P, S), texts of one tool's parameters (`serialise_parameter`).
            parameter_types: (B, P), places in `TYPES` of binder.py.
            choice_ids, choice_mask: (B, P, C, S), texts of enumerated values.
            tool_labels: (B), place of the tool, N for none, -100 where it does not matter, as in all labels.
            option_labels, kind_labels, ending_labels, value_labels: (B), see policy.py; numbers may be `nan`.
            mode_labels, start_labels, end_labels, choice_labels, number_labels, boolean_labels: (B, P), see binder.py.
            search_acts, search_visits, search_values, search_rewards, search_done: see `WorldModel.unrolled_loss`;
                acts are the row's tools, then think, ask and finish. The heads learn from the first step.
            kwargs: see `CausalLMHead.forward`, as for the rest.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            profile_ids=profile_ids,
            profile_mask=profile_mask,
            profile_values=profile_values,
            memory_ids=memory_ids,
            memory_mask=memory_mask,
            slots=slots,
            act_positions=act_positions,
            return_dict=True,
            **kwargs,
        )
        h = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(h[:, kept])
        losses, found = {}, {}
        if labels is not None:
            losses["language"] = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs
            )
        if act_positions is not None:
            words = embed_tokens(self.get_input_embeddings(), input_ids, inputs_embeds)
            memories = self.model.memories(outputs.slots, memory_ids, memory_mask)
            context = h, words, visible(h, attention_mask, act_positions)
            state = self.model.look_back(h[torch.arange(len(h), device=h.device), act_positions][:, None], memories)
            state = state[:, 0]
            found = {"state": state, "option_logits": self.policy.option_logits(state)}
            option = _option(options, option_labels, found["option_logits"])
            found |= dict(
                zip(("kind_logits", "ending_logits", "value"), self.policy(state, option), strict=True),
                **self._point(state, context, tool_ids, tool_mask, tool_vectors, tool_words),
            )
            if parameter_ids is not None:
                found["binding"] = self.binder(
                    state,
                    *context,
                    *self._short(parameter_ids, parameter_mask),
                    parameter_types,
                    *(self._short(choice_ids, choice_mask) if choice_ids is not None else ()),
                )
            losses |= planning_losses(found, option_labels, kind_labels, ending_labels, value_labels)
            if tool_labels is not None:
                losses |= tool_losses(found, self.tool_pointer.retrieval_scores, tool_labels)
            bound = (mode_labels, start_labels, end_labels, choice_labels, number_labels, boolean_labels)
            if mode_labels is not None:
                losses["binding"] = binder_loss(found["binding"], *bound)
            if search_visits is not None:
                exists = None if tool_mask is None else tool_mask.bool()
                exists = exists.any(-1) if exists is not None and exists.ndim == 3 else exists
                losses["search"] = self.world_model.unrolled_loss(
                    self.latent(state, option),
                    *self.world_model.acts(found["tool_vectors"], exists),
                    *(search_acts, search_visits, search_values, search_rewards, search_done),
                )
                prior = act_prior(found["kind_logits"], found["tool_logits"])
                losses["distilled"] = distillation_loss(
                    prior, found["value"], search_visits[:, 0], search_values[:, 0]
                )
        return LamOutput(
            loss=weighted_sum(losses, self.config, labels, kwargs.get("num_items_in_batch")),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            slots=outputs.slots,
            losses=losses or None,
            **found,
        )

    def latent(self, state: Tensor, option: Tensor) -> Tensor:
        """Where the world model starts: state (B, D) under an option (B) -> (B, latent_dim)."""
        return self.world_model.start(torch.cat((state, self.policy.options(option)), dim=-1))

    def _short(self, ids: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.get_input_embeddings()(ids), torch.ones_like(ids) if mask is None else mask

    def _point(
        self,
        state: Tensor,
        context: tuple[Tensor, Tensor, Tensor],
        tool_ids: Tensor | None,
        tool_mask: Tensor | None,
        tool_vectors: Tensor | None,
        tool_words: Tensor | None,
    ) -> dict[str, Tensor]:
        query = self.tool_pointer.query(state, *context)
        found = {"tool_query": query.vector}
        if tool_ids is not None:
            tool_mask = torch.ones_like(tool_ids) if tool_mask is None else tool_mask
            tool_vectors, tool_words = self._encode(tool_ids, tool_mask)
            tool_mask = tool_mask.bool().any(-1)
        if tool_vectors is None:
            return found
        if tool_words is None:
            raise ValueError("tool_vectors and tool_words belong together: both come from `encode_tools`")
        return {**found, "tool_vectors": tool_vectors, "tool_logits": self.tool_pointer(query, tool_words, tool_mask)}

    def _encode(self, ids: Tensor, mask: Tensor) -> EncodedTools:
        """Vectors of tools (B, N, S); in training a tool that many rows have is encoded once."""
        if not self.training:
            return self.tool_pointer.encode(self.get_input_embeddings()(ids), mask)
        texts, places = torch.unique(torch.cat((ids, mask), dim=-1).flatten(0, 1), dim=0, return_inverse=True)
        ids_once, mask_once = texts.chunk(2, dim=-1)
        tools = self.tool_pointer.encode(self.get_input_embeddings()(ids_once), mask_once)
        return EncodedTools(*(x[places].unflatten(0, ids.shape[:2]) for x in tools))


def _option(options: Tensor | None, labels: Tensor | None, logits: Tensor) -> Tensor:
    """The option that is followed (B)."""
    best = logits.argmax(-1)
    if options is None and labels is not None:
        options = torch.where(labels < 0, best, labels)
    return best if options is None else options
