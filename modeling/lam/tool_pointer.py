"""Which tool: one of any set, described by their schemas, or none.

A tool is the text `name: description. parameter (type): description. ...` (`serialise_tool`), and its vector depends
on nothing else, so it is made once. With h the state of the token that decides and e_t the context's words:

    q = W_tower sum_t softmax_t(h A c_t + g' rarity_t) e_t,   tau_j = tower(text of tool j)
    stage 1    r_j = cos(q, tau_j) exp(z)                   learnt by InfoNCE against all tools of the batch
    stage 2    s_j = r_j + (W h) . tau_j / sqrt(E)          softmax with a learned score of NO_TOOL

c_t is the context's state: what a clause is about decides whether its words count. Both sides go through one
projection, so that shared words match before anything is learnt, and tools that training never saw are found.

Shapes: B batch, T tokens, N tools, S tokens of a tool, D hidden size, E tool_dim.
"""

import json
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .text_tower import TextTower, WordRarity, weighted_words

NEVER = torch.finfo(torch.float16).min  # a score of what may not be chosen, in any dtype


def serialise_tool(schema: dict[str, Any] | str) -> str:
    """The text that a tool is found by.

    Args:
        schema: as `transformers.utils.get_json_schema` makes it, whole or its "function" alone, or that as JSON.
    """
    schema = json.loads(schema) if isinstance(schema, str) else schema
    function = schema.get("function", schema)
    parts = [f"{_words(function['name'])}: {function.get('description', '').strip()}"]
    for name, parameter in function.get("parameters", {}).get("properties", {}).items():
        parts.append(serialise_parameter(name, parameter))
    return " ".join(part if part.endswith(".") else f"{part}." for part in parts)


def serialise_parameter(name: str, schema: dict[str, Any]) -> str:
    """The text that an argument is looked for by."""
    kind = schema.get("type", "any")
    kind = "/".join(kind) if isinstance(kind, list) else kind
    return f"{_words(name)} ({kind}): {schema.get('description', '').strip()}"


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


class ToolPointer(nn.Module):
    """Scores of tools.

    Args:
        hidden_size: D.
        tool_dim: E.
        vocab_size: tokens whose rarity is counted, in tools and in contexts apart.
    """

    def __init__(self, hidden_size: int, tool_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.rarity_in_tools = WordRarity(vocab_size)
        self.rarity_in_contexts = WordRarity(vocab_size)
        self.tower = TextTower(hidden_size, tool_dim)
        self.focus_query = nn.Linear(hidden_size, tool_dim, bias=False)
        self.focus_key = nn.Linear(hidden_size, tool_dim, bias=False)
        self.state_query = nn.Linear(hidden_size, tool_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.no_tool = nn.Parameter(torch.zeros(()))
        self.rarity_scales = nn.Parameter(torch.zeros(2))

    @torch.no_grad()
    def initialise(self) -> None:
        """A cosine of 1 starts as a score of 10, NO_TOOL as one of 2, and rare words weigh more."""
        init.constant_(self.rarity_scales, 3.0)
        init.constant_(self.logit_scale, 2.3026)
        init.constant_(self.no_tool, 2.0)

    def encode(self, embeddings: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        """embeddings (..., S, D) of tools' texts, mask and ids (..., S) -> vectors (..., E), to be kept."""
        if self.training:
            self.rarity_in_tools.count(ids, mask)
        return self.tower(embeddings, mask, self.rarity_scales[0] * self.rarity_in_tools(ids))

    def query(
        self, state: Tensor, states: Tensor, embeddings: Tensor, mask: Tensor, ids: Tensor | None = None
    ) -> Tensor:
        """What is looked for (B, E).

        Args:
            state: (B, D), of the token that decides.
            states, embeddings: (B, T, D), of the context.
            mask: (B, T), true where the deciding token sees.
            ids: (B, T), of the context; without them no word counts as rare.
        """
        keys = self.focus_key(states)
        scores = (keys @ self.focus_query(state)[..., None]).squeeze(-1) * keys.shape[-1] ** -0.5
        if ids is not None:
            if self.training:
                self.rarity_in_contexts.count(ids, mask)
            scores = scores + self.rarity_scales[1] * self.rarity_in_contexts(ids)
        words = F.normalize(embeddings, dim=-1)
        return self.tower.project(weighted_words(words, scores, mask))

    def retrieval_scores(self, query: Tensor, tools: Tensor) -> Tensor:
        """Stage 1: query (B, E), tools (B, N, E) or of all rows (N, E) -> (B, N)."""
        scores = query @ tools.T if tools.ndim == 2 else (tools @ query[..., None]).squeeze(-1)
        return scores * self.logit_scale.exp()

    def retrieve(self, query: Tensor, tools: Tensor, most: int) -> Tensor:
        """The `most` nearest tools of a library (N, E), nearest first: their numbers (B, min(most, N))."""
        return self.retrieval_scores(query, tools).topk(min(most, len(tools)), dim=-1).indices

    def forward(self, query: Tensor, state: Tensor, tools: Tensor, tools_mask: Tensor | None = None) -> Tensor:
        """Stage 2: query (B, E), state (B, D), tools (B, N, E), mask (B, N) true on real tools -> (B, N + 1).

        The last score is that of NO_TOOL.
        """
        in_state = (tools @ self.state_query(state)[..., None]).squeeze(-1) * tools.shape[-1] ** -0.5
        scores = self.retrieval_scores(query, tools) + in_state
        if tools_mask is not None:
            scores = scores.masked_fill(~tools_mask.bool(), NEVER)
        return torch.cat((scores, self.no_tool.to(scores.dtype).expand(len(scores), 1)), dim=-1)
