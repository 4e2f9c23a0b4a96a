"""A language model that acts: it finds tools, binds their arguments, plans, and remembers.

The language model may be of any architecture. Around it stand the parts of an agent that the literature names (Zhang
et al. 2024, "xLAM", https://arxiv.org/abs/2409.03215, for what such a model is trained on):

    h = LM(profile, tokens), and gated attention to memory    trunk_lam.py
    at the token that decides:
      option, act, end, value                                 policy.py
      one of the tools that are given, or none                tool_pointer.py
      the arguments of a tool                                 binder.py
      what would happen                                       world_model.py, searched by search.py

What a model of language alone does is not changed by any of this: without a profile and memories the logits are those
of the language model.

Shapes: B batch, T tokens, D hidden size, N tools, S tokens of a short text, P parameters, k memories.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import can_return_tuple

from ..base_model import embed_tokens
from ..cache import RECURRENT_LAYERS
from ..heads import CausalLMHead
from .binder import ParameterBinder
from .configuration_lam import ZooLamConfig
from .losses_lam import binder_loss, distillation_loss, planning_losses, tool_losses, weighted_sum
from .outputs_lam import LamOutput
from .policy import HierarchicalPolicy, act_prior
from .tool_pointer import EncodedTools, ToolPointer
from .trunk_lam import ZooLamModel, ZooLamPreTrainedModel, visible
from .world_model import WorldModel

_DECIDING = {
    *("act_positions", "options", "tool_ids", "tool_mask", "tool_vectors", "tool_words"),
    *("parameter_ids", "parameter_mask", "parameter_types", "choice_ids", "choice_mask"),
}


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

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """Inputs of a step of writing, which decides nothing: what only decisions need is left out."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)
        return {name: value for name, value in inputs.items() if name not in _DECIDING}

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
