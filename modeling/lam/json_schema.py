"""Text that is JSON of a given schema, by construction: an automaton over characters, lifted to tokens.

A schema becomes a grammar whose symbols are sets of characters and what they may stand for. A state is the set of all
stacks of symbols that the text so far can have left; a character removes the stacks that cannot take it. A token, of
however many characters, is allowed if all of them can follow: the vocabulary is walked as a tree beside the automaton,
and what was found for a state is kept.

Written are objects with their properties in the schema's order, without other properties; one space may follow a comma
or colon. Known words of JSON schema: type, enum, const, anyOf, oneOf, properties, required, items, minItems, maxItems,
minLength, maxLength, and minimum and maximum of integers; others that only describe are read over, and one that would
be broken is an error.
"""

import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerBase

Symbol = tuple  # ("set", characters, is_negated) or ("rule", name, ...), which `Grammar.expand` knows
State = frozenset[tuple[Symbol, ...]]

DIGITS = "0123456789"
MOST_DIGITS = 15  # of an integer part, which every reader of JSON keeps exactly
DESCRIBES = {"description", "title", "default", "examples", "format", "$schema", "nullable", "additionalProperties"}
KNOWN = {
    *("type", "enum", "const", "anyOf", "oneOf", "properties", "required", "items", "minItems", "maxItems"),
    *("minLength", "maxLength", "minimum", "maximum", "return"),
}


def characters(text: str, is_negated: bool = False) -> Symbol:
    """One character of a set, or one outside it."""
    return ("set", frozenset(text), is_negated)


def literal(text: str) -> tuple[Symbol, ...]:
    """These characters in this order."""
    return tuple(characters(c) for c in text)


QUOTE = characters('"')
PLAIN = ("set", frozenset('"\\' + "".join(map(chr, range(32))) + "\x7f\ufffd"), True)
SPACE = ("rule", "space")


class JsonSchemaAutomaton:
    """States of text that is JSON of a schema.

    Args:
        schema: as above.

    Raises:
        ValueError: the schema has a word that this automaton would not keep.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schemas: list[dict[str, Any]] = []
        self.parts: dict[tuple[int, str, Any], Symbol] = {}
        self.start = self._closed([(self._add(schema),)])

    def advance(self, state: State, character: str) -> State:
        """The state after a character; empty where it may not follow."""
        rest = [s[1:] for s in state if s and (character in s[0][1]) != s[0][2]]
        return self._closed(rest)

    def accepts(self, state: State) -> bool:
        """Whether the text may end here."""
        return () in state

    def matches(self, text: str) -> bool:
        """Whether a whole text is what may be written."""
        state = self.start
        for character in text:
            state = self.advance(state, character)
        return self.accepts(state)

    def _add(self, schema: dict[str, Any]) -> Symbol:
        unknown = set(schema) - KNOWN - DESCRIBES
        if unknown:
            raise ValueError(f"JSON schema with {sorted(unknown)[0]!r} is not supported: {json.dumps(schema)}")
        has_bound = "minimum" in schema or "maximum" in schema
        if has_bound and schema.get("type") != "integer":
            raise ValueError(f"minimum and maximum are supported of integers alone: {json.dumps(schema)}")
        self.schemas.append(schema)
        return ("rule", "value", len(self.schemas) - 1)

    def _closed(self, stacks: Iterable[tuple[Symbol, ...]]) -> State:
        """All stacks whose first symbol is a set of characters, or that are empty."""
        done, waiting, seen = set(), list(stacks), set()
        while waiting:
            stack = waiting.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if not stack or stack[0][0] == "set":
                done.add(stack)
            else:
                waiting += [expansion + stack[1:] for expansion in self._expand(stack[0])]
        return frozenset(done)

    def _expand(self, symbol: Symbol) -> list[tuple[Symbol, ...]]:
        return getattr(self, f"_{symbol[1]}")(*symbol[2:])

    def _space(self) -> list[tuple[Symbol, ...]]:
        return [(), literal(" ")]

    def _value(self, number: int) -> list[tuple[Symbol, ...]]:
        schema = self.schemas[number]
        if "const" in schema:
            return [literal(json.dumps(schema["const"], ensure_ascii=False))]
        if "enum" in schema:
            return [literal(json.dumps(value, ensure_ascii=False)) for value in schema["enum"]]
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return [(self._part(number, word, i),) for i in range(len(schema[word]))]
        kinds = schema.get("type", ["string", "number", "boolean", "null"])
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if schema.get("nullable"):
            kinds.append("null")
        return [expansion for kind in kinds for expansion in self._of_type(kind, number)]

    def _of_type(self, kind: str, number: int) -> list[tuple[Symbol, ...]]:
        schema = self.schemas[number]
        if kind == "string":
            return [(QUOTE, ("rule", "rest", schema.get("minLength", 0), schema.get("maxLength", -1)))]
        if kind == "integer":
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is None and high is None:
                return [(("rule", "sign"), ("rule", "whole"))]
            return [(("rule", "bounded", "", number),)]
        if kind == "number":
            return [(("rule", "sign"), ("rule", "whole"), ("rule", "fraction"), ("rule", "exponent"))]
        if kind == "boolean":
            return [literal("true"), literal("false")]
        if kind == "null":
            return [literal("null")]
        if kind == "array":
            item = self._part(number, "items")
            least, most = schema.get("minItems", 0), schema.get("maxItems", -1)
            expansions = [] if least else [literal("[]")]
            if most != 0:
                more = ("rule", "more", item, max(least - 1, 0), most - 1 if most > 0 else -1)
                expansions.append((characters("["), item, more))
            return expansions
        if kind == "object":
            return [(characters("{"), ("rule", "member", number, 0, True))]
        raise ValueError(f"JSON schema has type {kind!r}, which is none")

    def _part(self, number: int, word: str, key: Any = None) -> Symbol:
        """A schema inside a schema."""
        where = (number, word, key)
        if where not in self.parts:
            part = self.schemas[number].get(word, {})
            self.parts[where] = self._add(part if key is None else part[key])
        return self.parts[where]

    def _more(self, item: Symbol, least: int, most: int) -> list[tuple[Symbol, ...]]:
        """What may follow an item of an array of at least and at most so many more (-1: any number)."""
        expansions = [] if least else [literal("]")]
        if most != 0:
            rest = ("rule", "more", item, max(least - 1, 0), most - 1 if most > 0 else -1)
            expansions.append((characters(","), SPACE, item, rest))
        return expansions

    def _member(self, number: int, place: int, is_first: bool) -> list[tuple[Symbol, ...]]:
        """What may follow in an object from the property at `place` on."""
        schema = self.schemas[number]
        names = list(schema.get("properties", {}))
        if place == len(names):
            return [literal("}")]
        name, expansions = names[place], []
        if name not in schema.get("required", ()):
            expansions.append((("rule", "member", number, place + 1, is_first),))
        comma = () if is_first else (characters(","), SPACE)
        key = (*comma, *literal(json.dumps(name, ensure_ascii=False)), characters(":"), SPACE)
        return [
            *expansions,
            (*key, self._part(number, "properties", name), ("rule", "member", number, place + 1, False)),
        ]

    def _rest(self, least: int, most: int) -> list[tuple[Symbol, ...]]:
        """The rest of a string of at least and at most so many more characters (-1: any number)."""
        expansions = [] if least else [(QUOTE,)]
        if most != 0:
            rest = ("rule", "rest", max(least - 1, 0), most - 1 if most > 0 else -1)
            expansions += [(PLAIN, rest), (characters("\\"), characters('"\\/bfnrt'), rest)]
        return expansions

    def _sign(self) -> list[tuple[Symbol, ...]]:
        return [(), literal("-")]

    def _whole(self) -> list[tuple[Symbol, ...]]:
        return [literal("0"), (characters(DIGITS[1:]), ("rule", "digits", MOST_DIGITS - 1))]

    def _digits(self, most: int) -> list[tuple[Symbol, ...]]:
        return [(), (characters(DIGITS), ("rule", "digits", most - 1))] if most else [()]

    def _fraction(self) -> list[tuple[Symbol, ...]]:
        return [(), (characters("."), characters(DIGITS), ("rule", "digits", MOST_DIGITS))]

    def _exponent(self) -> list[tuple[Symbol, ...]]:
        signed = (characters("eE"), ("rule", "exponent_sign"), characters(DIGITS), ("rule", "digits", 1))
        return [(), signed]

    def _exponent_sign(self) -> list[tuple[Symbol, ...]]:
        return [(), (characters("+-"),)]

    def _bounded(self, written: str, number: int) -> list[tuple[Symbol, ...]]:
        """The rest of an integer between bounds, after what was written of it."""
        schema = self.schemas[number]
        low = schema.get("minimum", -(10**MOST_DIGITS) + 1)
        high = schema.get("maximum", 10**MOST_DIGITS - 1)
        expansions = []
        if written not in ("", "-") and low <= int(written) <= high:
            expansions.append(())
        following = DIGITS if written not in ("", "0", "-0") else ("-" + DIGITS if not written else "")
        for character in following:
            if _can_reach(written + character, low, high):
                expansions.append((characters(character), ("rule", "bounded", written + character, number)))
        return expansions


def _can_reach(written: str, low: float, high: float) -> bool:
    """Whether an integer that begins so lies in [low, high]."""
    if written == "-":
        return low < 0
    value, sign = int(written), -1 if written[0] == "-" else 1
    if value == 0:
        return sign > 0 and low <= 0 <= high  # "-0" is no way to begin
    digits = len(written.lstrip("-"))
    for more in range(MOST_DIGITS - digits + 1):
        first, last = value * 10**more, value * 10**more + sign * (10**more - 1)
        if max(min(first, last), low) <= min(max(first, last), high):
            return True
    return False


def token_texts(tokenizer: PreTrainedTokenizerBase) -> list[str | None]:
    """What each token adds to a text; None for special tokens and for parts of characters."""
    before = tokenizer.encode("0", add_special_tokens=False)
    start = len(tokenizer.decode(before, clean_up_tokenization_spaces=False))
    special, texts = set(tokenizer.all_special_ids), []
    for token in range(len(tokenizer)):
        if token in special:
            texts.append(None)
            continue
        text = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)[start:]
        texts.append(None if "\ufffd" in text or not text else text)
    return texts


class TokenAutomaton:
    """The same automaton over tokens.

    Args:
        automaton: over characters.
        texts: what each token adds, see `token_texts`.
    """

    def __init__(self, automaton: JsonSchemaAutomaton, texts: list[str | None]) -> None:
        self.automaton, self.texts = automaton, texts
        self.root: dict = {}
        for token, text in enumerate(texts):
            node = self.root
            for character in text or ():
                node = node.setdefault(character, {})
            if text:
                node.setdefault("", []).append(token)
        self._allowed: dict[State, list[int]] = {}

    def advance(self, state: State, token: int) -> State:
        """The state after a token; empty where it may not follow."""
        text = self.texts[token] if token < len(self.texts) else None
        if text is None:
            return frozenset()
        for character in text:
            state = self.automaton.advance(state, character)
        return state

    def allowed(self, state: State) -> list[int]:
        """The tokens that may follow."""
        if state not in self._allowed:
            found, waiting, steps = [], [(self.root, state)], {}
            while waiting:
                node, here = waiting.pop()
                found += node.get("", ())
                for character, child in node.items():
                    if not character:
                        continue
                    if (here, character) not in steps:
                        steps[here, character] = self.automaton.advance(here, character)
                    if after := steps[here, character]:
                        waiting.append((child, after))
            self._allowed[state] = sorted(found)
        return self._allowed[state]


class JsonSchemaLogitsProcessor(LogitsProcessor):
    """For `generate(..., logits_processor=[...])` of any causal language model: it can write nothing else.

    Args:
        schema: see this module.
        tokenizer: the model's; or `texts`, what each of its tokens adds to a text.
        prompt_length: tokens of the prompt, which the schema has no part in.
        eos_token_id: what ends the text, the tokenizer's without it.
        texts: see `token_texts`, which is worth keeping for several schemas.
    """

    def __init__(
        self,
        schema: dict[str, Any],
        tokenizer: PreTrainedTokenizerBase | None,
        prompt_length: int,
        eos_token_id: int | None = None,
        texts: list[str | None] | None = None,
    ) -> None:
        self.eos_token_id = tokenizer.eos_token_id if eos_token_id is None else eos_token_id
        texts = token_texts(tokenizer) if texts is None else texts
        texts = [None if token == self.eos_token_id else text for token, text in enumerate(texts)]  # not in strings
        self.tokens = TokenAutomaton(JsonSchemaAutomaton(schema), texts)
        self.prompt_length = prompt_length
        self._states: dict[tuple[int, ...], State] = {(): self.tokens.automaton.start}

    def state(self, written: tuple[int, ...]) -> State:
        """After these tokens."""
        if written not in self._states:
            self._states[written] = self.tokens.advance(self.state(written[:-1]), written[-1])
        return self._states[written]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, vocab_size) with minus infinity on what may not follow; a text that has ended goes on ending."""
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        for row, written in enumerate(input_ids[:, self.prompt_length :].tolist()):
            state = self.state(tuple(written))  # none after the end
            tokens = self.tokens.allowed(state) if state else []
            allowed[row, torch.tensor(tokens, dtype=torch.long, device=scores.device)] = True
            if self.tokens.automaton.accepts(state) or not tokens:
                allowed[row, self.eos_token_id] = True
        return scores.masked_fill(~allowed, -torch.inf)
