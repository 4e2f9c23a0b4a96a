"""JSON by construction: against `json.loads` and a validator, over random schemas and random cuts into tokens."""

import json
import random
import string

import jsonschema
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import hf_zoo
from hf_zoo.modeling.lam.json_schema import (
    JsonSchemaAutomaton,
    JsonSchemaLogitsProcessor,
    TokenAutomaton,
    token_texts,
)


def random_schema(draw, depth=0):
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "bounded"]
    kind = draw.choice(kinds + (["array", "object", "anyOf"] if depth < 3 else []))
    if kind == "enum":
        return {"enum": draw.sample(["red", 'a"b', "é\\", 3, 3.5, None, True, "red fox"], 3)}
    if kind == "const":
        return {"const": {"a": [1, "x"]}}
    if kind == "bounded":
        low = draw.randint(-150, 150)
        return {"type": "integer", "minimum": low, "maximum": low + draw.randint(0, 300)}
    if kind == "string" and draw.random() < 0.5:
        least = draw.randint(0, 3)
        return {"type": "string", "minLength": least, "maxLength": least + draw.randint(0, 4)}
    if kind == "array":
        least = draw.randint(0, 2)
        return {
            "type": "array",
            "items": random_schema(draw, depth + 1),
            "minItems": least,
            "maxItems": least + draw.randint(0, 2),
        }
    if kind == "object":
        properties = {f"p{i}": random_schema(draw, depth + 1) for i in range(draw.randint(0, 3))}
        required = [name for name in properties if draw.random() < 0.5]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "anyOf":
        return {"anyOf": [random_schema(draw, depth + 1) for _ in range(2)]}
    return {"type": kind}


def random_tokens(draw):
    """A vocabulary of single characters and of random pieces of JSON, most of them of several characters."""
    letters = string.ascii_letters + string.digits + ' {}[]":,.-+\\é'
    pieces = ['{"p0":', '": ', '"}', '",', "true", "12", "-1", "1.5", 'a"', '"p1": "', "],", "}}", "null", "[]"]
    return [*letters, *pieces, *("".join(draw.choices(letters, k=draw.randint(2, 4))) for _ in range(100)), None]


def write(automaton, draw, most=300):
    """A random text of a token automaton, which closes what it can when it grows long; None if it grew too long."""
    state, text = automaton.automaton.start, ""
    for step in range(most):
        ends = automaton.automaton.accepts(state)
        tokens = automaton.allowed(state)
        assert tokens or ends, f"nothing may follow {text!r}"
        if ends and (not tokens or draw.random() < 0.3 or step > 60):
            return text
        closing = [t for t in tokens if automaton.texts[t][-1:] in '"}]'] if step > 20 else []
        token = draw.choice(closing or tokens)
        state, text = automaton.advance(state, token), text + automaton.texts[token]
        assert state
    return None


def test_all_that_can_be_written_is_json_of_its_schema():
    written = 0
    for seed in range(300):
        draw = random.Random(seed)
        schema = random_schema(draw)
        text = write(TokenAutomaton(JsonSchemaAutomaton(schema), random_tokens(draw)), draw)
        if text is not None:
            jsonschema.validate(json.loads(text), schema)
            written += 1
    assert written > 250


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 1},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"enum": ["metric", "imperial"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
    },
    "required": ["city", "days"],
}


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ({"city": "Oslo", "days": 3}, True),
        ({"city": 'a "b" \\', "days": 14, "units": "metric", "tags": ["x", ""]}, True),
        ({"city": "", "days": 3}, False),
        ({"city": "Oslo", "days": 15}, False),
        ({"city": "Oslo", "days": 0}, False),
        ({"city": "Oslo"}, False),
        ({"city": "Oslo", "days": 3, "units": "kelvin"}, False),
        ({"city": "Oslo", "days": 3, "tags": ["a", "b", "c"]}, False),
        ({"city": "Oslo", "days": 3, "wrong": 1}, False),
        ([], False),
    ],
)
@pytest.mark.parametrize("separators", [None, (",", ":")])
def test_what_a_schema_says(value, right, separators):
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    assert JsonSchemaAutomaton(SCHEMA).matches(text) is right


@pytest.mark.parametrize("low", [-120, -10, -1, 0, 1, 7, 95])
def test_bounds_of_integers_are_exact(low):
    for high in (low, low + 3, low + 120):
        automaton = JsonSchemaAutomaton({"type": "integer", "minimum": low, "maximum": high})
        for value in range(-300, 301):
            assert automaton.matches(str(value)) is (low <= value <= high), (value, low, high)
        assert not automaton.matches("007")


@pytest.mark.parametrize("value", [10**14, -(10**14), 10**15 - 1])
def test_bounds_may_have_as_many_digits_as_integers(value):
    automaton = JsonSchemaAutomaton({"type": "integer", "minimum": value, "maximum": value})
    assert [n for n in (value - 1, value, value + 1, value // 10) if automaton.matches(str(n))] == [value]


def test_allowed_tokens_are_those_whose_every_character_may_follow():
    draw = random.Random(3)
    automaton = TokenAutomaton(JsonSchemaAutomaton(SCHEMA), random_tokens(draw))
    for text in ("", '{"ci', '{"city": "O', '{"city": "O", "days": 1', '{"city":"O","days":2'):
        state = automaton.automaton.start
        for character in text:
            state = automaton.automaton.advance(state, character)
        expected = [i for i, t in enumerate(automaton.texts) if t is not None and automaton.advance(state, i)]
        assert automaton.allowed(state) == expected
        assert expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [("", '"'), ('"', 'a"'), ('"a', 'a"'), ('"a"', "$"), ('"a"$', "$"), ('"a"$a', "$")],
)
def test_what_ends_a_text_is_no_part_of_it(written, expected):
    """Also where it has letters, as a token that a tokenizer does not know as special."""
    texts = ['"', "a", "$"]
    keeps = JsonSchemaLogitsProcessor({"type": "string"}, None, 0, eos_token_id=2, texts=texts)
    ids = torch.tensor([[texts.index(letter) for letter in written]], dtype=torch.long)
    scores = keeps(ids, torch.zeros(1, 3))
    assert {texts[i] for i in scores[0].isfinite().nonzero()[:, 0].tolist()} == set(expected)


def test_a_vocabulary_that_cannot_go_on_ends():
    keeps = JsonSchemaLogitsProcessor({"const": "ab"}, None, 0, eos_token_id=2, texts=['"', "a", None])
    assert keeps(torch.tensor([[0, 1]]), torch.zeros(1, 3)).isfinite().tolist() == [[False, False, True]]


def test_schemas_that_would_not_be_kept_are_refused():
    for schema, word in (
        ({"type": "string", "pattern": "a+"}, "pattern"),
        ({"type": "number", "minimum": 1}, "minimum"),
        ({"type": "object", "properties": {"a": {"$ref": "#/b"}}, "required": ["a"]}, "ref"),
        ({"type": "tuple"}, "tuple"),
    ):
        with pytest.raises(ValueError, match=word):
            automaton = JsonSchemaAutomaton(schema)
            automaton.matches('{"a":1')


@pytest.mark.parametrize("beams", [1, 3])
@torch.no_grad()
def test_any_language_model_writes_json(beams):
    """A model of random weights, of transformers' own, with the tokenizer of another."""
    tokenizer = hf_zoo.create_processor("llm-tiny")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer) + 7, **sizes)).eval()
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "city": {"type": "string", "maxLength": 8}}}
    schema["properties"]["tags"] = {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2}
    ids = tokenizer(["weather in", "a"], return_tensors="pt", padding=True, padding_side="left")
    length = ids["input_ids"].shape[1]
    keeps = JsonSchemaLogitsProcessor(schema, tokenizer, length)
    options = {"do_sample": beams == 1, "num_beams": beams, "max_new_tokens": 100, "pad_token_id": 0}
    torch.manual_seed(1)
    out = model.generate(**ids, logits_processor=[keeps], **options, eos_token_id=tokenizer.eos_token_id)
    for row in out[:, length:].tolist():
        text = tokenizer.decode(row[: row.index(tokenizer.eos_token_id)])
        jsonschema.validate(json.loads(text), schema)


def test_texts_of_tokens_add_up():
    tokenizer = hf_zoo.create_processor("llm-tiny")
    texts, text = token_texts(tokenizer), 'def f(x): return {"a": [1, 2.5]}'
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(texts[i] for i in ids) == text
    assert texts[tokenizer.eos_token_id] is None
