"""From trajectories of tool calls (rows of `python-tools`) to what `zoo_lam` learns from: one example a decision.

A decision's labels are those of all heads: the tokens of the call in JSON, the tool among those offered, and for each
of its parameters how it is bound (a span of the context wherever the value stands there). The option that is followed
is the number of calls so far; the value is discount^(calls to come).
"""

import json
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..agents.lam_text import MARKS, ContextText, context_text, find_value, parse_value

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

KINDS = ("call", "think", "ask", "finish")


def decisions_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The decisions of a row of `python-tools`: one a call, and the end.

    Each has a `context`, the `tools` on offer as schemas, `call` (name and arguments; None at the end), `step`, and
    `remaining`, the calls to come.
    """
    tools = [json.loads(tool) for tool in row["tools"]]
    past, decisions = [], []
    for step in range(len(row["calls"]) + 1):
        call = row["calls"][step] if step < len(row["calls"]) else None
        arguments = None if call is None else json.loads(call["arguments"])
        decisions.append(
            {
                "context": context_text(row["task"], past),
                "tools": tools,
                "call": None if call is None else {"name": call["name"], "arguments": arguments},
                "step": step,
                "remaining": len(row["calls"]) - step,
            }
        )
        if call is not None:
            result = json.loads(call["result"])
            past.append((call["name"], result if isinstance(result, str) else json.dumps(result)))
    return decisions


class TrajectoryCollator:
    """Joins decisions (`decisions_of`) into a batch for `ZooLamForCausalLM`.

    Args:
        tokenizer: a fast one, which knows where in the text its tokens stand.
        config: the model's.
        max_length: tokens of a row; of a longer context the beginning is left out.
        with_labels: whether there are any; without them a row is what the model sees when it decides.
        writes: whether the language model learns to write the calls, too, which is most of the work of a step.
        renamed: the largest share of words that are exchanged for others; of each row it is drawn, from 0 on, and the
            words are the same in its context and its tools, so that what is learnt is to match words, also those that
            no tool of the training has.
        seed: of those words.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        config: Any,
        max_length: int = 512,
        with_labels: bool = True,
        writes: bool = True,
        renamed: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.tokenizer, self.config, self.max_length = tokenizer, config, max_length
        self.with_labels, self.writes = with_labels, writes and with_labels
        self.renamed = renamed
        self._draw = random.Random(seed)
        self._words = _alike(tokenizer) if renamed else []
        self._short: dict[str, list[int]] = {}

    def __call__(self, decisions: Sequence[dict[str, Any]]) -> dict[str, "Tensor"]:
        """The batch, padded on the right."""
        from hf_zoo.modeling.lam.tool_pointer import serialise_tool

        rows = [self.row(decision) for decision in decisions]
        pad = self.tokenizer.pad_token_id or 0
        batch = {
            "input_ids": _padded([row["ids"] for row in rows], pad),
            "attention_mask": _padded([[1] * len(row["ids"]) for row in rows], 0),
            "act_positions": _tensor([row["act"] for row in rows]),
        }
        texts = [[serialise_tool(tool) for tool in decision["tools"]] for decision in decisions]
        batch |= self.texts("tool", texts)
        parameters = [row["parameters"] for row in rows]
        if any(parameters):
            batch |= self.parameters(parameters)
        if self.with_labels:
            batch |= self.labels(decisions, rows)
        if self.renamed:
            self.rename(batch)
        return batch

    def rename(self, batch: dict[str, "Tensor"]) -> None:
        """Exchange the words of some rows, in place."""
        import torch

        plain = torch.arange(max(self.tokenizer.get_vocab().values()) + 1)
        for row in range(len(batch["input_ids"])):
            generator, table = torch.Generator().manual_seed(self._draw.getrandbits(32)), plain.clone()
            share = self.renamed * float(torch.rand((), generator=generator))
            for words in self._words:
                order = torch.randperm(len(words), generator=generator)[: round(share * len(words))]
                table[words[order]] = words[order.roll(1)]
            for name in ("input_ids", "tool_ids", "parameter_ids", "choice_ids"):
                if name in batch:
                    batch[name][row] = table[batch[name][row]]
            if "labels" in batch:
                labels = batch["labels"][row]
                batch["labels"][row] = torch.where(labels < 0, labels, table[labels.clamp_min(0)])

    def row(self, decision: dict[str, Any]) -> dict[str, Any]:
        """Tokens of one decision, the place of the deciding one, and the parameters of the right tool with labels."""
        context: ContextText = decision["context"]
        encoded = self.tokenizer(context.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        call, written, parameters = decision.get("call"), [], []
        if self.writes:
            text = " finish" if call is None else f" {json.dumps(call, ensure_ascii=False)}"
            written = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][
                : self.max_length // 2
            ]
            if self.tokenizer.eos_token_id is not None:
                written = [*written, self.tokenizer.eos_token_id]
        cut = max(len(ids) + len(written) - self.max_length, 0)
        ids, offsets = ids[cut:], offsets[cut:]
        if call is not None:
            tool = next(t["function"] for t in decision["tools"] if t["function"]["name"] == call["name"])
            arguments = call.get("arguments")
            parameters = [
                {**parameter, **({} if arguments is None else self.bind(context, offsets, parameter, arguments))}
                for parameter in parameters_of(tool)[: self.config.max_parameters]
            ]
        return {"ids": ids + written, "act": len(ids) - 1, "parameters": parameters, "offsets": offsets}

    def bind(
        self,
        context: ContextText,
        offsets: list[tuple[int, int]],
        parameter: dict[str, Any],
        arguments: dict[str, Any],
    ) -> dict[str, Any]:
        """The labels of one parameter: how its argument can be bound, the surest way first."""
        name, schema = parameter["name"], parameter["schema"]
        if name not in arguments:
            return {"mode": "omit"}
        value = arguments[name]
        is_result = isinstance(value, dict) and set(value) == {"$result"}
        if value in schema.get("enum", ()):
            return {"mode": "choice", "choice": schema["enum"].index(value)}
        if isinstance(value, bool):
            return {"mode": "value", "boolean": int(value)}
        for start, end in find_value(context, value):
            covering = [i for i, (first, last) in enumerate(offsets) if first < end and last > start]
            if not covering or len(covering) > self.config.max_span:
                continue
            text = context.text[offsets[covering[0]][0] : offsets[covering[-1]][1]]
            try:
                if is_result or parse_value(text, schema) == value:
                    return {"mode": "copy", "start": covering[0], "end": covering[-1]}
            except ValueError:
                continue
        if isinstance(value, (int, float)):
            return {"mode": "value", "number": float(value)}
        return {"mode": "generate"}

    def texts(self, name: str, texts: list[list[str]]) -> dict[str, "Tensor"]:
        """Short texts of each row as `<name>_ids` and `<name>_mask` (B, N, S)."""
        ids = [[self.short(text) for text in row] for row in texts]
        count = max((len(row) for row in ids), default=0)
        return {
            f"{name}_ids": _padded_twice(ids, count, 0),
            f"{name}_mask": _padded_twice([[[1] * len(text) for text in row] for row in ids], count, 0),
        }

    def short(self, text: str) -> list[int]:
        """Tokens of a tool, a parameter or a choice, kept: they come again and again.

        A word at the beginning reads as after a space, as it does inside a text.
        """
        if text not in self._short:
            self._short[text] = self.tokenizer(f" {text}", add_special_tokens=False, verbose=False)["input_ids"]
        return self._short[text]

    def parameters(self, rows: list[list[dict[str, Any]]]) -> dict[str, "Tensor"]:
        """Texts, types and choices of the parameters of each row (B, P, ...)."""
        batch = self.texts("parameter", [[parameter["text"] for parameter in row] for row in rows])
        batch["parameter_types"] = _padded([[parameter["type"] for parameter in row] for row in rows], 0)
        most = max(len(parameter["choices"]) for row in rows for parameter in row)
        if most:
            count = batch["parameter_ids"].shape[1]
            flat = [choice for row in rows for choice in ([p["choices"] for p in row] + [[]] * (count - len(row)))]
            choices = self.texts("choice", flat)
            batch |= {key: value.unflatten(0, (len(rows), count)) for key, value in choices.items()}
        return batch

    def labels(self, decisions: Sequence[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, "Tensor"]:
        """Labels of all heads."""
        from hf_zoo.modeling.lam.configuration_lam import MODES

        labels = {}
        if self.writes:
            labels["labels"] = _padded([[-100] * (r["act"] + 1) + r["ids"][r["act"] + 1 :] for r in rows], -100)
        offered = max(len(decision["tools"]) for decision in decisions)
        tools, kinds = [], []
        for decision in decisions:
            names, call = [tool["function"]["name"] for tool in decision["tools"]], decision["call"]
            tools.append(offered if call is None else names.index(call["name"]))
            kinds.append(KINDS.index("finish" if call is None else "call"))
        last = self.config.num_subgoals - 1
        labels |= {"tool_labels": _tensor(tools), "kind_labels": _tensor(kinds)}
        labels["option_labels"] = _tensor([min(decision["step"], last) for decision in decisions])
        labels["value_labels"] = _tensor([self.config.discount ** decision["remaining"] for decision in decisions])
        bound = [row["parameters"] for row in rows]
        if any(bound):
            places = {"start": -100, "end": -100, "choice": -100, "boolean": -100, "number": float("nan")}
            for name, none in places.items():
                labels[f"{name}_labels"] = _padded([[p.get(name, none) for p in row] for row in bound], none)
            modes = [[MODES.index(parameter["mode"]) for parameter in row] for row in bound]
            labels["mode_labels"] = _padded(modes, -100)
        return labels


def parameters_of(tool: dict[str, Any]) -> list[dict[str, Any]]:
    """What the binder is told of each parameter of a tool: `name`, `schema`, `text`, `type`, `choices`, `required`."""
    from hf_zoo.modeling.lam.binder import TYPES
    from hf_zoo.modeling.lam.tool_pointer import serialise_parameter

    found = tool.get("parameters", {})
    rows = []
    for name, schema in found.get("properties", {}).items():
        kind = schema.get("type", "string")
        rows.append(
            {
                "name": name,
                "schema": schema,
                "text": serialise_parameter(name, schema),
                "type": TYPES.index(kind) if kind in TYPES else 0,
                "choices": [str(choice) for choice in schema.get("enum", ())],
                "required": name in found.get("required", ()),
            }
        )
    return rows


def _alike(tokenizer: "PreTrainedTokenizerBase") -> list["Tensor"]:
    """Words that may stand for one another: those that the vocabulary has in the same forms, of which there are those
    with or without a space before them and in small letters or with a capital. One tensor (words, forms) for each."""
    forms: dict[str, dict[tuple[bool, str], int]] = {}
    for token, number in tokenizer.get_vocab().items():
        word = token.lstrip("\u0120\u2581")
        if word.isalpha() and word not in MARKS:
            kind = "small" if word.islower() else "capital" if word.istitle() else "other"
            forms.setdefault(word.lower(), {})[len(word) < len(token), kind] = number
    alike: dict[tuple, list[list[int]]] = {}
    for word in sorted(forms):
        kinds = tuple(sorted(forms[word]))
        alike.setdefault(kinds, []).append([forms[word][kind] for kind in kinds])
    return [_tensor(words) for _, words in sorted(alike.items())]


def _tensor(values: list) -> "Tensor":
    import torch

    return torch.tensor(values)


def _padded(rows: list[list], value: float) -> "Tensor":
    longest = max(len(row) for row in rows)
    return _tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def _padded_twice(rows: list[list[list[int]]], count: int, value: int) -> "Tensor":
    longest = max((len(text) for row in rows for text in row), default=1)
    blank = [value] * longest
    filled = [[[*text, *blank[len(text) :]] for text in row] + [blank] * (count - len(row)) for row in rows]
    return _tensor(filled)
