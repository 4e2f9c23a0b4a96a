"""Decoding by tree search: `generate` of any causal language model looks ahead before it writes a token.

    model.generate(ids, custom_generate=tree_search, value_function=judge, simulations=16, max_new_tokens=20)

transformers hands such a function the model, the prompt and all that `generate` prepared. Each token is chosen by a
search (`hf_zoo.modeling.lam.search`) over the likeliest tokens, whose priors are the model's probabilities after all
logits processors, so that a JSON schema and a search go together. What a text is worth says the value function; a text
that has ended gets it as its reward.

Shapes: B rows, T tokens, A tokens that are considered at a time.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel, StoppingCriteriaList

ValueFunction = Callable[["Tensor", "Tensor"], "Tensor"]  # ids (B, T), mask (B, T), padded on the right -> (B)


class Continuations:
    """Texts of a language model as something to search (`hf_zoo.modeling.lam.search.Searchable`).

    A state is the number of a text; an act is one of the A likeliest tokens after it.

    Args:
        model: any causal language model.
        texts: tokens of each root, without padding.
        pads: what stood before them in the prompt, which only the processors are shown.
        value_function: what texts are worth.
        processors: on the scores, as in `generate`.
        max_actions: A.
        max_length: tokens of a text that has ended.
        ends: tokens that end it.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        texts: "list[Tensor]",
        pads: "list[Tensor]",
        value_function: ValueFunction,
        processors: "LogitsProcessorList",
        max_actions: int,
        max_length: list[int],
        ends: set[int],
    ) -> None:
        self.model, self.value_function, self.processors = model, value_function, processors
        self.max_actions, self.ends = max_actions, ends
        self.texts, self.pads, self.longest = list(texts), list(pads), list(max_length)
        self.candidates: list[Tensor] = []

    @property
    def roots(self) -> "Tensor":
        """States of the texts that were given (B)."""
        return torch.arange(len(self.texts))

    def judge(self, states: "Tensor") -> Any:
        """Priors and values of texts; what may follow is noted."""
        from hf_zoo.modeling.lam.search import Judged

        texts = [self.texts[i] for i in states.tolist()]
        ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        lengths = torch.tensor([len(text) for text in texts], device=ids.device)
        mask = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        logits = self.model(input_ids=ids, attention_mask=mask).logits
        last = logits[torch.arange(len(ids), device=ids.device), lengths - 1].float()
        if self.processors:  # they count tokens of the prompt, so that each text is shown to them as it was given
            shown = [torch.cat((self.pads[i], self.texts[i])) for i in states.tolist()]
            last = torch.cat([self.processors(t[None], s[None]) for t, s in zip(shown, last, strict=True)])
        found = last.log_softmax(-1).topk(min(self.max_actions, last.shape[-1]), dim=-1)
        self.candidates += list(found.indices)
        return Judged(found.values.clamp_min(-1e9), self.value_function(ids, mask).float())

    def step(self, states: "Tensor", acts: "Tensor") -> Any:
        """Each text with one of its tokens added."""
        from hf_zoo.modeling.lam.search import Step

        done = []
        first = len(self.texts)
        for state, act in zip(states.tolist(), acts.tolist(), strict=True):
            token = self.candidates[state][act : act + 1]
            self.texts.append(torch.cat((self.texts[state], token)))
            self.longest.append(self.longest[state])
            self.pads.append(self.pads[state])
            done.append(int(token) in self.ends or len(self.texts[-1]) >= self.longest[-1])
        states = torch.arange(first, len(self.texts))
        judged = self.judge(states)
        is_end = torch.tensor(done, device=judged.value.device)
        return Step(states, judged.value * is_end, is_end, judged)


@torch.no_grad()
def tree_search(
    model: "PreTrainedModel",
    input_ids: "Tensor",
    logits_processor: "LogitsProcessorList",
    stopping_criteria: "StoppingCriteriaList",
    generation_config: "GenerationConfig",
    value_function: ValueFunction | None = None,
    simulations: int = 16,
    max_actions: int = 8,
    seed: int = 0,
    search_discount: float = 1.0,
    **model_kwargs: Any,
) -> "Tensor":
    """For `generate(..., custom_generate=tree_search)`: the ids (B, T) with what was written, padded on the right.

    Args:
        value_function: ids and mask (B, T) -> how good each text is, (B), finished or not; a `zoo_lam` model has its
            own, which is used without one.
        simulations: continuations that are tried for each token.
        max_actions: tokens that are considered at a time, 16 at most as a rule.
        seed: of what is drawn where the generation config samples; the most visited token is taken otherwise.
        search_discount: of a text's worth for each of its tokens.

    Raises:
        ValueError: the model cannot judge texts, and no value function was given.
    """
    from hf_zoo.modeling.lam.search import SearchOptions
    from hf_zoo.modeling.lam.search import tree_search as search

    if value_function is None:
        value_function = own_value(model)
    mask = model_kwargs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    texts = [row[kept.bool()] for row, kept in zip(input_ids, mask, strict=True)]
    pads = [row[~kept.bool()] for row, kept in zip(input_ids, mask, strict=True)]
    new = generation_config.max_length - input_ids.shape[1]
    longest = [len(text) + new for text in texts]
    ends = generation_config.eos_token_id
    ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    pad = generation_config.pad_token_id
    pad = next(iter(sorted(ends)), 0) if pad is None else pad
    temperature = 1.0 if generation_config.do_sample else 0.0
    options = SearchOptions(simulations, discount=search_discount, temperature=temperature)
    generator = torch.Generator().manual_seed(seed)
    open_rows, written = list(range(len(texts))), input_ids
    while open_rows:
        tree = Continuations(
            model,
            [texts[i] for i in open_rows],
            [pads[i] for i in open_rows],
            value_function,
            logits_processor,
            max_actions,
            [longest[i] for i in open_rows],
            ends,
        )
        policy = search(tree, tree.roots, options, generator).policy.cpu()
        choices = torch.multinomial(policy, 1, generator=generator)[:, 0] if temperature else policy.argmax(-1)
        column = torch.full_like(written[:, :1], pad)
        for place, (row, choice) in enumerate(zip(open_rows, choices.tolist(), strict=True)):
            token = tree.candidates[place][choice : choice + 1]
            texts[row], column[row] = torch.cat((texts[row], token)), token
        written = torch.cat((written, column), dim=1)
        stops = stopping_criteria(written, None).tolist()
        open_rows = [
            i for i in open_rows if not stops[i] and int(column[i, 0]) not in ends and len(texts[i]) < longest[i]
        ]
    return written


def own_value(model: "PreTrainedModel") -> ValueFunction:
    """The value head of a `zoo_lam` model, at the last token of each text.

    Raises:
        ValueError: the model has none.
    """
    if not hasattr(model, "policy") or not hasattr(model, "world_model"):
        raise ValueError(f"{type(model).__name__} does not judge texts: pass value_function=, of ids and mask")

    def value(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return model(input_ids=ids, attention_mask=mask, act_positions=mask.sum(-1) - 1, logits_to_keep=1).value

    return value
