"""A `zoo_lam` checkpoint as the policy of an agent: the heads decide, and what they point at becomes a call."""

import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from ..training.trajectories import TrajectoryCollator, parameters_of
from .decisions import Ask, Decision, Finish, Think, ToolCall
from .lam_text import ContextText, context_text, copied_value, fits
from .planner import Planner
from .policy import Context

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SPANS = 256  # the likeliest, of which the first that is a value of the parameter's type is taken
_COPIES, _WAYS = 12, 128  # of a parameter, and of all together, that are weighed against each other
_TOOLS, _FAR = 3, 6.0  # the likeliest, whose arguments are bound before one is chosen, and how near they have to be
_WHOLE = 0.25  # how much the likeness of whole texts counts beside that of words
_UNUSED = 2.0  # by how much a call is less likely, as a logarithm, for each value that was said and has no part in it
_MOST_WRITTEN = 64  # tokens of an argument or of a thought that the model writes itself


class Copy(NamedTuple):
    """A value that stands in a context: how likely it is meant, its characters, and what it reads."""

    score: float
    span: tuple[int, int]
    value: Any


def assign(copies: dict[int, list[Copy]]) -> dict[int, Copy]:
    """A value for each parameter, each from a place of its own: as many as can be, and the likeliest together.

    A parameter alone may take all from its own place to that of another ("1950-01-01 to 1960-01-01"), or what only
    another can be; together they cannot.

    Args:
        copies: of each parameter, likeliest first.
    """
    ways: list[tuple[float, dict[int, Copy]]] = [(0.0, {})]
    for place, found in sorted(copies.items(), key=lambda item: len(item[1])):  # who has no choice first
        longer = list(ways)
        for score, taken in ways:
            free = (copy for copy in found if not any(_overlap(copy, other) for other in taken.values()))
            longer += [(score + copy.score, {**taken, place: copy}) for copy in itertools.islice(free, _COPIES)]
        ways = sorted(longer, key=lambda way: (len(way[1]), way[0]), reverse=True)[:_WAYS]
    return ways[0][1]


def _overlap(first: Copy, second: Copy) -> bool:
    return first.span[0] < second.span[1] and second.span[0] < first.span[1]


class LamPolicy:
    """Decides with a model's pointer, binder and planner.

    Args:
        model: a `ZooLamForCausalLM`.
        tokenizer: the model's, a fast one.
        planner: "react", "hierarchical", "mcts" or "mcts+hierarchical"; the config's without it.
        seed: of the search.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        planner: str | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.planner = Planner(model, planner, seed)
        longest = getattr(model.config.text_config, "max_position_embeddings", None) or 2048
        longest -= model.config.num_profile_vectors + _MOST_WRITTEN
        self.collator = TrajectoryCollator(tokenizer, model.config, longest, with_labels=False)
        self._texts: list[str | None] | None = None

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> "LamPolicy":
        """The policy of a saved model.

        Args:
            name: a folder or a name on the Hub, with the tokenizer.
            options: of `LamPolicy`.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        return cls(AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name), **options)

    def decide(self, context: Context) -> Decision:
        """The next decision: a call, a thought, a question about what cannot be bound, or the end.

        A tool that failed is left out until another has succeeded, so that the next best is tried; where none is left,
        or nothing more is to be done, the end says what failed.
        """
        import torch

        if not context.steps:
            self.planner.begin()
        seen = self.read(context)
        failed = self.failed(context)
        row = {"context": seen, "tools": [t for t in context.tools if t["function"]["name"] not in failed]}
        report = "; ".join(f"{name} failed: {text}" for name, text in failed.items())
        if failed and not row["tools"]:
            return Finish(report)
        with torch.no_grad():
            batch = self._batch([row])
            outputs = self.model(**batch)
            kind, tool = self.planner.choose(outputs, batch["tool_mask"].any(-1) if row["tools"] else None)
            if kind == "finish":
                return Finish(report or self._answer(context))
            if kind == "think":
                return Think(self._write(seen.text + " think:"))
            if kind == "ask":
                return Ask(self._write(seen.text + " ask:"))
            return self._call(row, self._likely(outputs, tool, len(row["tools"])), len(context.results))

    def failed(self, context: Context) -> dict[str, str]:
        """The tools that failed since a call last succeeded, and with what words."""
        failed: dict[str, str] = {}
        for step in context.steps:
            if isinstance(step.decision, ToolCall) and step.observation is not None:
                if step.observation.status == "OK":
                    failed.clear()
                else:
                    failed[step.decision.name] = step.observation.text
        return failed

    def read(self, context: Context) -> ContextText:
        """The text that the model is given for a context, with what it recalls itself where nothing else did."""
        calls = [
            (step.decision.name, step.observation.text)
            for step in context.steps
            if isinstance(step.decision, ToolCall) and step.observation is not None and step.observation.status == "OK"
        ]
        memories = context.memories or self.recall(context.task)
        task = context.task
        for step in context.steps:  # what the user said since
            if step.observation is not None and step.observation.source == "user":
                task += f" {step.observation.text}"
        return context_text(task, calls, memories)

    def remember(self, text: str, importance: float = 0.0, outcome: float = 0.0) -> None:
        """Keep a text in the model's episodic memory, which is saved with it."""
        import torch

        ids = torch.tensor(self.collator.short(text), device=self.model.device)
        self.model.model.remember(ids, importance=importance, outcome=outcome)

    def recall(self, text: str) -> list[str]:
        """What episodic memory has for a text, best first."""
        import torch

        found = self.model.model.recall(torch.tensor([self.collator.short(text)], device=self.model.device))
        if found is None:
            return []
        rows = zip(found.tokens[0].tolist(), found.mask[0].sum(-1).tolist(), strict=True)
        return [self.tokenizer.decode(tokens[:length]).strip() for tokens, length in rows if length]

    def _batch(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        if not rows[0]["tools"]:
            batch = {name: value for name, value in batch.items() if not name.startswith("tool_")}
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _likely(self, outputs: Any, chosen: int, offered: int) -> list[tuple[int, float]]:
        """The tool that was chosen and those that come near, with logarithms of how likely they are.

        The nearness of whole texts is added a little to that of words: of words that training did not have each alone
        is less sure.
        """
        near = self.model.tool_pointer.retrieval_scores(outputs.tool_query, outputs.tool_vectors)
        scores = (outputs.tool_logits[0, :offered] + _WHOLE * near[0, :offered]).float().log_softmax(-1)
        order = [chosen, *(tool for tool in scores.argsort(descending=True).tolist() if tool != chosen)]
        best = float(scores.max())
        return [(i, float(scores[i])) for i in order[:_TOOLS] if i == chosen or float(scores[i]) > best - _FAR]

    def _call(self, row: dict[str, Any], likely: list[tuple[int, float]], num_results: int) -> Decision:
        """The likeliest call: of a tool that what is said to do now can be bound to, all of it if possible."""
        functions = [row["tools"][tool]["function"] for tool, _ in likely]
        calls = self._bind(row, functions, num_results)
        said = row["context"].values()

        def worth(place: int) -> tuple[bool, float]:
            call, used = calls[place]
            unused = sum(not any(start < last and first < end for first, last in used) for start, end in said)
            return isinstance(call, ToolCall), likely[place][1] - _UNUSED * unused

        return calls[max(range(len(calls)), key=worth)][0]

    def _bind(
        self, row: dict[str, Any], functions: list[dict[str, Any]], num_results: int
    ) -> list[tuple[Decision, list[tuple[int, int]]]]:
        """For each tool its call, or a question about what cannot be bound; and the places that were copied from."""
        rows = [{**row, "call": {"name": function["name"]}} for function in functions]
        binding = None
        if any(parameters_of(function) for function in functions):
            binding = self.model(**self._batch(rows)).binding
        offsets = self.collator.row(row)["offsets"]
        return [self._bound(row, f, binding, i, offsets, num_results) for i, f in enumerate(functions)]

    def _bound(
        self,
        row: dict[str, Any],
        function: dict[str, Any],
        binding: Any,
        number: int,
        offsets: list[tuple[int, int]],
        num_results: int,
    ) -> tuple[Decision, list[tuple[int, int]]]:
        from hf_zoo.modeling.lam.configuration_lam import MODES

        parameters = parameters_of(function)[: self.model.config.max_parameters]
        if not parameters:
            return ToolCall(function["name"], {}), []
        binding = type(binding)(**{name: value[number : number + 1] for name, value in binding.items()})
        ways = {}
        for place, parameter in enumerate(parameters):
            modes = [MODES[i] for i in binding.mode_logits[0, place].argsort(descending=True).tolist()]
            if modes[0] != "omit":
                ways[place] = [mode for mode in modes if mode != "omit"]
            elif parameter["required"]:
                ways[place] = []
        copied = assign(
            {
                place: self._copies(row["context"], offsets, binding, place, parameters[place]["schema"], num_results)
                for place, modes in ways.items()
                if modes and "enum" not in parameters[place]["schema"]
            }
        )
        arguments: dict[str, Any] = {}
        for place, modes in ways.items():
            parameter = parameters[place]
            values = (self._value(mode, row["context"], binding, place, parameter, copied) for mode in modes)
            value = next((value for value in values if value is not None), None)
            if value is None and parameter["required"]:
                said = parameter["schema"].get("description", "").rstrip(".")
                return Ask(f"What is {parameter['name']} of {function['name']}? {said}".strip()), []
            if value is not None:
                arguments[parameter["name"]] = value
        return ToolCall(function["name"], arguments), [copy.span for copy in copied.values()]

    def _copies(
        self,
        context: ContextText,
        offsets: list[tuple[int, int]],
        binding: Any,
        place: int,
        schema: dict[str, Any],
        num_results: int,
    ) -> list["Copy"]:
        """The values of a parameter's type that the context has, likeliest first."""
        from hf_zoo.modeling.lam.binder import best_spans

        starts, ends = binding.start_logits[0, place], binding.end_logits[0, place]
        found: dict[tuple[int, int], Copy] = {}
        said = set(context.values())
        for first, last in best_spans(starts, ends, self.model.config.max_span, _SPANS).tolist():
            span = context.whole(offsets[first][0], offsets[last][1])
            if span not in found and context.may_be_value(*span):
                value = copied_value(context, *span, schema, num_results)
                score = float(starts[first] + ends[last]) + _UNUSED * (span in said)
                found[span] = Copy(score, span, value)
        return [copy for copy in found.values() if copy.value is not None]

    def _value(
        self,
        mode: str,
        context: ContextText,
        binding: Any,
        place: int,
        parameter: dict[str, Any],
        copied: dict[int, Copy],
    ) -> Any:
        """What a parameter is bound to one way; None where that way does not bind it."""
        schema, kind = parameter["schema"], parameter["schema"].get("type", "string")
        choices = schema.get("enum")
        if mode == "choice" and choices:
            return choices[int(binding.choice_logits[0, place, : len(choices)].argmax())]
        if choices:
            return None
        if mode == "copy":
            return copied[place].value if place in copied else None
        if mode == "value" and kind == "boolean":
            return bool(binding.boolean_logits[0, place] > 0)
        if mode == "value" and kind in ("integer", "number"):
            value = float(binding.number[0, place])
            return round(value) if kind == "integer" else value
        if mode == "generate":
            return self._written(context, parameter)
        return None

    def _written(self, context: ContextText, parameter: dict[str, Any]) -> Any:
        """An argument that the language model writes, under its schema; None where it comes to no end."""
        from hf_zoo.modeling.lam.json_schema import JsonSchemaLogitsProcessor, token_texts

        if self._texts is None:
            self._texts = token_texts(self.tokenizer)
        prompt = f"{context.text} {parameter['name']}: "
        try:
            processor = JsonSchemaLogitsProcessor(
                parameter["schema"], self.tokenizer, self._length(prompt), texts=self._texts
            )
            value = json.loads(self._write(prompt, [processor]))
        except ValueError:
            return None
        return value if fits(value, parameter["schema"].get("type", "string")) else None

    def _length(self, prompt: str) -> int:
        return len(self.tokenizer(prompt, add_special_tokens=False)["input_ids"])

    def _write(self, prompt: str, processors: list | None = None) -> str:
        import torch

        ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        written = self.model.generate(
            torch.tensor([ids], device=self.model.device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=self.model.device),
            max_new_tokens=_MOST_WRITTEN,
            do_sample=False,
            logits_processor=processors,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return self.tokenizer.decode(written[0, len(ids) :], skip_special_tokens=True).strip()

    def _answer(self, context: Context) -> str:
        """The last result in words, which is what a chain of calls was for."""
        if not context.results:
            return self._write(self.read(context).text + " finish:")
        last = context.results[-1]
        return last if isinstance(last, str) else json.dumps(last)
