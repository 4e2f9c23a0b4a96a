"""Which tool: one of any set, described by their schemas, or none.

A tool is the text `name: description. parameter (type): description. ...` (`serialise_tool`), and its vectors depend
on nothing else, so they are made once. With h the state of the token that decides, c_t the context's states, e_t its
words, f_js the words of tool j, and N(x) = x / |x|:

    a = softmax_t(h A c_t),   x_t = N(W e_t),   y_js = N(W f_js)
    stage 1    r_j = N(W sum_t a_t N(e_t)) . tau_j exp(z),   tau_j = tower(text of tool j)   learnt by InfoNCE
    stage 2    s_j = exp(z') sum_t a_t max_s max(x_t . y_js, 0)^3    softmax with a learned score of NO_TOOL

Stage 1 finds the nearest of a large library by one product each. Stage 2 compares word by word (Khattab and Zaharia
2020, "ColBERT", https://arxiv.org/abs/2004.12832): a word that a tool has, too, counts 1 whatever W is, also one that
training never showed; one that all tools have says nothing; a likeness by chance is small, and smaller yet to the
power of three. a says which clause of a task it is about: the one whose turn it is.

Shapes: B batch, T tokens, N tools, S tokens of a tool, D hidden size, E tool_dim.
"""

import json
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .text_tower import TextTower, weights_of_words

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


class EncodedTools(NamedTuple):
    """What is known of tools, whatever the context: keep it.

    Args:
        vectors: (..., N, E), of whole texts.
        words: (..., N, S, E), of each word; 0 where there is none.
    """

    vectors: Tensor
    words: Tensor


class ToolQuery(NamedTuple):
    """What is looked for.

    Args:
        vector: (B, E).
        words: (B, T, E), of the context.
        weights: (B, T), how much each counts.
    """

    vector: Tensor
    words: Tensor
    weights: Tensor


class ToolPointer(nn.Module):
    """Scores of tools.

    Args:
        hidden_size: D.
        tool_dim: E.
    """

    def __init__(self, hidden_size: int, tool_dim: int) -> None:
        super().__init__()
        self.tower = TextTower(hidden_size, tool_dim)
        self.focus_query = nn.Linear(hidden_size, tool_dim, bias=False)
        self.focus_key = nn.Linear(hidden_size, tool_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.match_scale = nn.Parameter(torch.zeros(()))
        self.no_tool = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def initialise(self) -> None:
        """A cosine of 1 starts as a score of 10, a context whose words a tool all has as 40, and NO_TOOL as 2."""
        init.constant_(self.logit_scale, 2.3026)
        init.constant_(self.match_scale, 3.6889)
        init.constant_(self.no_tool, 2.0)

    def encode(self, embeddings: Tensor, mask: Tensor) -> EncodedTools:
        """embeddings (..., S, D) of tools' texts, mask (..., S)."""
        words = self.tower.project(embeddings) * mask[..., None].to(embeddings.dtype)
        return EncodedTools(self.tower(embeddings, mask), words)

    def query(self, state: Tensor, states: Tensor, embeddings: Tensor, mask: Tensor) -> ToolQuery:
        """What is looked for.

        Args:
            state: (B, D), of the token that decides.
            states, embeddings: (B, T, D), of the context.
            mask: (B, T), true where the deciding token sees.
        """
        keys = self.focus_key(states)
        scores = (keys @ self.focus_query(state)[..., None]).squeeze(-1) * keys.shape[-1] ** -0.5
        weights = weights_of_words(scores, mask).to(embeddings.dtype)
        mean = (weights[:, None] @ F.normalize(embeddings, dim=-1)).squeeze(1)
        return ToolQuery(self.tower.project(mean), self.tower.project(embeddings), weights)

    def retrieval_scores(self, query: Tensor, tools: Tensor) -> Tensor:
        """Stage 1: vectors of queries (B, E), of tools (B, N, E) or of all rows (N, E) -> (B, N)."""
        scores = query @ tools.T if tools.ndim == 2 else (tools @ query[..., None]).squeeze(-1)
        return scores * self.logit_scale.exp()

    def retrieve(self, query: Tensor, tools: Tensor, most: int) -> Tensor:
        """The `most` nearest tools of a library (N, E), nearest first: their numbers (B, min(most, N))."""
        return self.retrieval_scores(query, tools).topk(min(most, len(tools)), dim=-1).indices

    def forward(self, query: ToolQuery, words: Tensor, tools_mask: Tensor | None = None) -> Tensor:
        """Stage 2: words (B, N, S, E) of tools, mask (B, N) true on real tools -> (B, N + 1).

        The last score is that of NO_TOOL.
        """
        alike = query.words @ words.flatten(1, 2).transpose(1, 2)  # (B, T, N S)
        best = alike.unflatten(-1, words.shape[1:3]).amax(-1)
        scores = (query.weights[:, None] @ best.relu().pow(3)).squeeze(1) * self.match_scale.exp()
        if tools_mask is not None:
            scores = scores.masked_fill(~tools_mask.bool(), NEVER)
        return torch.cat((scores, self.no_tool.to(scores.dtype).expand(len(scores), 1)), dim=-1)
