"""What the models of this folder return.

Shapes: B batch, T tokens, D hidden size, M slots of working memory, N tools.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .binder import Binding


@dataclass
class LamModelOutput(BaseModelOutputWithPast):
    """Of the trunk.

    Args:
        hidden_states, attentions: of the language model, which has the profile's vectors before the tokens.
        slots: (B, M, D), the working memory after these tokens, where it was given.
    """

    slots: Tensor | None = None


@dataclass
class LamOutput(CausalLMOutputWithPast):
    """Of the whole; all but the first lines only where `act_positions` says which token decides.

    Args:
        loss, logits, past_key_values: as of any causal language model.
        hidden_states, attentions: see `LamModelOutput`.
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
