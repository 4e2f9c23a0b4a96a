"""The arguments of a call: for each parameter of a tool, a way to bind it and what it is bound to.

With d_p the words of parameter p (its name, type and description), h the state of the token that decides, and c_t and
e_t states and words of the context:

    u_p = N(W_d d_p + W_h h + type_p + place_p)
    way      softmax(M u_p) over copy, choice, value, generate, omit
    copy     start_t = (A u_p) . (K c_t) / sqrt(E) + (k * cos(V d_p, V e))_t,   end alike: a span of the context
    choice   exp(z) tower(value) . (V' u_p + words of the context that u_p looks at): one of the enumerated values
    value    a number, and the score of a boolean
    generate the language model writes it, under the parameter's JSON schema (json_schema.py)
    omit     the parameter keeps its default; one that is required is asked for

k is a kernel along the text: a value stands near the words that its parameter is described by, also words that
training never showed.

Shapes: B batch, P parameters, T tokens, C choices, D hidden size, E binder_dim.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import ModelOutput

from .configuration_lam import MODES
from .text_tower import TextTower, weighted_words
from .tool_pointer import NEVER

TYPES = ("string", "integer", "number", "boolean", "array", "object")  # of JSON schema; others count as "string"
BEFORE, AFTER = 6, 2  # tokens around a value whose words are compared with the parameter's


@dataclass
class Binding(ModelOutput):
    """What the binder says of each parameter.

    Args:
        mode_logits: (B, P, 5), in the order of `MODES`.
        start_logits, end_logits: (B, P, T).
        choice_logits: (B, P, C); None where nothing is enumerated.
        number: (B, P).
        boolean_logits: (B, P).
    """

    mode_logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    choice_logits: Tensor | None = None
    number: Tensor | None = None
    boolean_logits: Tensor | None = None


class ParameterBinder(nn.Module):
    """Binds the parameters of one tool a row.

    Args:
        hidden_size: D.
        size: E.
        max_parameters: how many places a parameter may have.
        modes: which ways there are.
    """

    def __init__(self, hidden_size: int, size: int, max_parameters: int, modes: list[str]) -> None:
        super().__init__()
        self.tower = TextTower(hidden_size, size)
        self.description = nn.Linear(size, size, bias=False)
        self.state = nn.Linear(hidden_size, size, bias=False)
        self.type_embed = nn.Embedding(len(TYPES), size)
        self.place_embed = nn.Embedding(max_parameters, size)
        self.norm = nn.LayerNorm(size)
        self.mode = nn.Linear(size, len(MODES))
        self.span_query = nn.Linear(size, 2 * size, bias=False)
        self.span_key = nn.Linear(hidden_size, 2 * size, bias=False)
        self.near = nn.Conv1d(1, 2, BEFORE + 1 + AFTER, bias=False)
        self.choice_focus = nn.Linear(size, hidden_size, bias=False)
        self.choice_query = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, 2)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.disabled = [i for i, mode in enumerate(MODES) if mode not in modes]

    @torch.no_grad()
    def initialise(self) -> None:
        """A cosine of 1 starts as a score of 10."""
        init.constant_(self.logit_scale, 2.3026)

    def forward(
        self,
        state: Tensor,
        states: Tensor,
        embeddings: Tensor,
        mask: Tensor,
        parameters: Tensor,
        parameters_mask: Tensor,
        types: Tensor,
        choices: Tensor | None = None,
        choices_mask: Tensor | None = None,
    ) -> Binding:
        """Scores of everything that a parameter may be bound to.

        Args:
            state: (B, D), of the token that decides.
            states, embeddings: (B, T, D), of the context.
            mask: (B, T), true where the deciding token sees.
            parameters: (B, P, S, D), embeddings of the parameters' texts.
            parameters_mask: (B, P, S), 1 on real tokens.
            types: (B, P), places in `TYPES`.
            choices: (B, P, C, S, D), embeddings of enumerated values.
            choices_mask: (B, P, C, S).
        """
        mask = mask.bool()
        d = self.tower(parameters, parameters_mask)  # (B, P, E)
        places = self.place_embed.weight[: d.shape[1]]
        u = self.norm(self.description(d) + self.state(state)[:, None] + self.type_embed(types) + places)
        query, key = self.span_query(u).unflatten(-1, (2, -1)), self.span_key(states).unflatten(-1, (2, -1))
        spans = torch.einsum("bpje,btje->jbpt", query, key) * query.shape[-1] ** -0.5
        spans = spans + self._near(d, embeddings, mask)
        spans = spans.masked_fill(~mask[None, :, None], NEVER)
        modes = self.mode(u)
        if self.disabled:
            modes = modes.index_fill(-1, torch.tensor(self.disabled, device=modes.device), NEVER)
        number, boolean = self.value(u).unbind(-1)
        scores = None if choices is None else self._choose(u, states, embeddings, mask, choices, choices_mask)
        return Binding(modes, spans[0], spans[1], scores, number, boolean)

    def _near(self, d: Tensor, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Likeness of the words around each token to a parameter's: (2, B, P, T)."""
        words = self.tower.project(F.normalize(embeddings, dim=-1))  # (B, T, E)
        alike = (d @ words.mT) * mask[:, None].to(d.dtype)
        around = self.near(F.pad(alike.flatten(0, 1)[:, None], (BEFORE, AFTER)))
        return (around * self.logit_scale.exp()).unflatten(0, alike.shape[:2]).movedim(2, 0)

    def _choose(
        self, u: Tensor, states: Tensor, embeddings: Tensor, mask: Tensor, choices: Tensor, choices_mask: Tensor
    ) -> Tensor:
        looked = (self.choice_focus(u) @ states.mT) * states.shape[-1] ** -0.5  # (B, P, T)
        words = F.normalize(embeddings, dim=-1)[:, None]
        said = self.tower.project(weighted_words(words, looked, mask[:, None].expand_as(looked)))
        query = said + self.choice_query(u)
        scores = (self.tower(choices, choices_mask) @ query[..., None]).squeeze(-1) * self.logit_scale.exp()
        return scores.masked_fill(~choices_mask.any(-1), NEVER)


def best_spans(start_logits: Tensor, end_logits: Tensor, max_span: int, count: int = 1) -> Tensor:
    """The spans with the largest sums of both scores, best first.

    Args:
        start_logits, end_logits: (..., T).
        max_span: tokens of the longest.
        count: how many, or as many as there are.

    Returns:
        first and last token (..., count, 2).
    """
    length = start_logits.shape[-1]
    scores = start_logits[..., :, None] + end_logits[..., None, :]
    ones = torch.ones(length, length, dtype=torch.bool, device=scores.device)
    allowed = ones.triu() & ones.tril(max_span - 1)
    best = scores.masked_fill(~allowed, -torch.inf).flatten(-2)
    best = best.topk(min(count, int(allowed.sum())), dim=-1).indices
    return torch.stack((best // length, best % length), dim=-1)
