"""From trajectories to decisions: texts, spans, batches, the policy, search of texts, preferences."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList, Trainer, TrainingArguments

import hf_zoo
from hf_zoo.agents.decisions import Ask, Finish, ToolCall
from hf_zoo.agents.lam_policy import Copy, LamPolicy, assign
from hf_zoo.agents.lam_text import context_text, copied_value, find_value, parse_value, sentences
from hf_zoo.agents.planner import Planner
from hf_zoo.agents.policy import Context, Observation, Step
from hf_zoo.agents.tree_search import Continuations, tree_search
from hf_zoo.modeling.lam.json_schema import JsonSchemaLogitsProcessor
from hf_zoo.training.preference import PreferenceCollator, PreferenceTrainer, completion_log_probs, preference_loss
from hf_zoo.training.trajectories import TrajectoryCollator, decisions_of

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
    },
}
ROUND = {
    "type": "function",
    "function": {
        "name": "round_to",
        "description": "Round a number up or down.",
        "parameters": {
            "type": "object",
            "properties": {
                "number": {"type": "number"},
                "way": {"type": "string", "enum": ["up", "down"]},
                "exact": {"type": "boolean"},
                "digits": {"type": "integer"},
            },
            "required": ["number", "way", "exact"],
        },
    },
}
ROW = {
    "task": "Add 4.5 and 12, then round that result down.",
    "tools": [json.dumps(ADD), json.dumps(ROUND)],
    "calls": [
        {"name": "add", "arguments": '{"a": 4.5, "b": 12}', "result": "16.5"},
        {"name": "round_to", "arguments": '{"number": {"$result": 0}, "way": "down", "exact": true}', "result": "16"},
    ],
    "answer": "16",
}


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = hf_zoo.create_processor("lam-tiny")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture
def model():
    torch.manual_seed(0)
    return hf_zoo.create_model("lam-tiny")


def test_values_are_read_from_what_is_copied():
    for text, kind, value in (
        (" 12.", "number", 12),
        ("-3.5,", "number", -3.5),
        (" 12", "integer", 12),
        ("12.0", "integer", 12),
        (' "a b"', "string", "a b"),
        (" 'it", "string", "it"),
        ("it'", "string", "it"),
        ("'it is'?", "string", "it is"),
        (" rivers.", "string", "rivers"),
        ("[1, 2.5].", "array", [1, 2.5]),
        ("'{\"a\": 1}'", "string", '{"a": 1}'),
        ('{"a": 1}?', "object", {"a": 1}),
    ):
        assert parse_value(text, {"type": kind}) == value, text
    for text, kind in (("red", "number"), ("1.5", "integer"), ("[1", "array"), ("true", "number")):
        with pytest.raises(ValueError, match="is no"):
            parse_value(text, {"type": kind})


def test_a_span_has_all_of_what_it_has_a_part_of():
    context = context_text("put 'a & b' of [1, 2] at 12:30 on 2012-08-11, 50% of it's -4.5.", [("add", "16.5")])
    text = context.text
    for part, whole in (
        ("& b", "'a & b'"),
        ("1, ", "[1, 2]"),
        ("30", "12:30"),
        ("012-0", "2012-08-11"),
        ("50", "50"),
        (".5.\n", "-4.5.\n"),
        ("put", "put"),
        (" of [", "of [1, 2]"),
        ("it'", "it's"),
        ("result 0", "result 0"),
    ):
        start, end = context.whole(text.index(part), text.index(part) + len(part))
        assert text[start:end] == whole.rstrip(), part
    for part, may_be in (("'a & b'", True), ("put 'a & b'", False), ("of [1, 2] at", True), ("-4.5.\ncall", False)):
        start = text.index(part)
        assert context.may_be_value(start, start + len(part)) == may_be, part


def test_a_part_of_a_value_is_none():
    context = context_text("in 2012-08-11 take 3.25 and 7.", [("add", "16.5")])
    text, number = context.text, {"type": "number"}

    def copied(part, schema=number, results=1):
        start = text.index(part)
        return copied_value(context, start, start + len(part), schema, results)

    assert copied(" 3.25") == 3.25
    assert copied("7") == 7
    assert copied("2012") is None
    assert copied("25 and") is None
    assert copied("25") is None
    assert copied("result 0") == {"$result": 0}
    assert copied("result 0", results=0) is None
    assert find_value(context, 3.25) == [(text.index("3.25"), text.index("3.25") + 4)]
    assert find_value(context, 25) == []
    assert find_value(context, {"$result": 0}) == [(text.index("result 0"), text.index("result 0") + 8)]


def test_labels_point_at_the_values(tokenizer, model):
    collate = TrajectoryCollator(tokenizer, model.config)
    decisions = decisions_of(ROW)
    assert [decision["remaining"] for decision in decisions] == [2, 1, 0]
    batch = collate(decisions)
    rows = [collate.row(decision) for decision in decisions]
    for row, decision in zip(rows[:2], decisions[:2], strict=True):
        for parameter in row["parameters"]:
            value = decision["call"]["arguments"].get(parameter["name"])
            if parameter["mode"] == "copy":
                start, end = row["offsets"][parameter["start"]][0], row["offsets"][parameter["end"]][1]
                assert copied_value(decision["context"], start, end, parameter["schema"], 1) == value
    assert [p["mode"] for p in rows[0]["parameters"]] == ["copy", "copy"]
    assert [p["mode"] for p in rows[1]["parameters"]] == ["copy", "choice", "value", "omit"]
    assert batch["tool_labels"].tolist() == [0, 1, 2]
    assert batch["kind_labels"].tolist() == [0, 0, 3]
    assert batch["choice_labels"][1].tolist() == [-100, 1, -100, -100]
    assert batch["boolean_labels"][1].tolist() == [-100, -100, 1, -100]
    assert_close(batch["value_labels"], torch.tensor([0.99**2, 0.99, 1.0]))
    for row, labels in enumerate(batch["labels"]):
        written = tokenizer.decode(labels[labels >= 0], skip_special_tokens=True).strip()
        call = decisions[row]["call"]
        assert written == ("finish" if call is None else json.dumps(call))
        assert tokenizer.decode(batch["input_ids"][row, : batch["act_positions"][row] + 1]).endswith("act:")
    assert "labels" not in TrajectoryCollator(tokenizer, model.config, writes=False)(decisions)


def test_a_long_context_keeps_its_end(tokenizer, model):
    row = {**ROW, "task": "word " * 300 + ROW["task"]}
    batch = TrajectoryCollator(tokenizer, model.config, max_length=100)(decisions_of(row))
    assert batch["input_ids"].shape[1] <= 100
    text = tokenizer.decode(batch["input_ids"][0, : batch["act_positions"][0] + 1])
    assert text.endswith("round that result down.\nact:")
    start = batch["input_ids"][0, batch["start_labels"][0, 0]]
    assert "4" in tokenizer.decode(start)


def test_renamed_words_are_the_same_in_a_row(tokenizer, model):
    plain = TrajectoryCollator(tokenizer, model.config)(decisions_of(ROW))
    renamed = TrajectoryCollator(tokenizer, model.config, renamed=1.0)(decisions_of(ROW))
    assert not torch.equal(plain["input_ids"], renamed["input_ids"])
    collator = TrajectoryCollator(tokenizer, model.config, renamed=0.5)
    vocabulary = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    batch = {"input_ids": torch.arange(len(tokenizer))[None]}
    collator.rename(batch)
    new = [vocabulary[i] for i in batch["input_ids"][0].tolist()]
    kind = lambda token: (token[:1] == "\u0120", token.strip("\u0120")[:1].isupper())  # noqa: E731
    moved = {old: token for old, token in zip(vocabulary, new, strict=True) if old != token}
    assert moved and all(kind(old) == kind(token) for old, token in moved.items())
    pairs = [(old, f"\u0120{old}") for old in moved if f"\u0120{old}" in vocabulary]
    assert pairs and all(moved[spaced] == f"\u0120{moved[old]}" for old, spaced in pairs)  # forms of a word stay so
    assert not {"\u0120now", "now", "call", "result"} & moved.keys()
    few = TrajectoryCollator(tokenizer, model.config, renamed=0.2)(decisions_of(ROW))["tool_ids"]
    assert 0.6 < (few == plain["tool_ids"]).float().mean() < 0.98
    for row in range(3):
        seen = {}
        for name in ("input_ids", "tool_ids", "parameter_ids"):
            for old, new in zip(
                plain[name][row].flatten().tolist(), renamed[name][row].flatten().tolist(), strict=True
            ):
                assert seen.setdefault(old, new) == new
        assert len(set(seen.values())) == len(seen)
    numbers = tokenizer("4.5 12", add_special_tokens=False)["input_ids"]
    assert all(int(seen.get(i, i)) == i for i in numbers)


@pytest.mark.slow
def test_a_policy_learns_a_trajectory_and_repeats_it(tokenizer, model, tmp_path):
    collate = TrajectoryCollator(tokenizer, model.config)
    arguments = TrainingArguments(
        tmp_path,
        max_steps=150,
        learning_rate=5e-3,
        per_device_train_batch_size=3,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    Trainer(model, arguments, data_collator=collate, train_dataset=decisions_of(ROW)).train()
    policy = LamPolicy(model, tokenizer, "react")
    tools = (ADD, ROUND)
    context = Context(ROW["task"], tools)
    first = policy.decide(context)
    assert first == ToolCall("add", {"a": 4.5, "b": 12})
    steps = (Step(first, Observation("add", "OK", "json", 16.5, "16.5")),)
    second = policy.decide(Context(ROW["task"], tools, steps))
    assert second == ToolCall("round_to", {"number": {"$result": 0}, "way": "down", "exact": True})
    steps += (Step(second, Observation("round_to", "OK", "json", 16, "16")),)
    assert policy.decide(Context(ROW["task"], tools, steps)) == Finish("16")


def test_each_argument_has_a_place_of_its_own():
    def assigned(copies):
        return {place: copy.value for place, copy in assign(copies).items()}

    both = [Copy(5.0, (0, 4), "first"), Copy(4.0, (5, 9), "second")]
    assert assigned({0: both, 1: [Copy(9.0, (0, 4), "first")]}) == {0: "second", 1: "first"}  # the other has no choice
    sure = [Copy(5.0, (2, 4), "inside"), Copy(1.0, (5, 9), "second")]
    assert assigned({0: both, 1: sure}) == {0: "second", 1: "inside"}
    assert assigned({0: both, 1: both[:1], 2: both[:1], 3: []}).keys() < {0, 1, 2}
    unlikely = [Copy(-9.0, (0, 4), "first")], [Copy(1.0, (2, 6), "across"), Copy(-3.0, (5, 9), "second")]
    assert assigned(dict(enumerate(unlikely))) == {0: "first", 1: "second"}  # rather all than the likeliest
    # Each alone would take all from its own place to that of the other, or what belongs to the other
    first = [Copy(6.0, (0, 9), "both"), Copy(5.0, (0, 4), "first"), Copy(1.0, (5, 9), "second")]
    second = [Copy(6.0, (0, 9), "both"), Copy(5.5, (0, 4), "first"), Copy(5.0, (5, 9), "second")]
    assert assigned({0: first, 1: second}) == {0: "first", 1: "second"}


def test_what_is_said_to_do_now_is_known(tokenizer):
    task = "add 1 and 2. Then put 'a 1', [1, 2] and {\"b\": 3} at -4.5 on 2012-08-11, the 29th, with SHA-256."
    context = context_text(task, [("add", "3")])
    said = [context.text[start:end] for start, end in context.values()]
    assert said == ["'a 1'", "[1, 2]", '{"b": 3}', "-4.5", "2012-08-11"]


def test_a_call_uses_what_is_said(tokenizer, model, monkeypatch):
    policy = LamPolicy(model, tokenizer)
    context = context_text("join 'a b' by '-'.")
    text, quoted = context.text, context.values()
    assert [text[start:end] for start, end in quoted] == ["'a b'", "'-'"]
    row = {"context": context, "tools": [ADD, ROUND, ADD]}
    one, both, asks = (ToolCall("one", {}), quoted[:1]), (ToolCall("both", {}), quoted), (Ask("what?"), [])

    def called(calls, scores):
        monkeypatch.setattr(policy, "_bind", lambda *_: calls)
        return policy._call(row, list(enumerate(scores)), 0)

    assert called([one, both], [-0.5, -1.5]) == both[0]  # nearly as likely, and nothing is left over
    assert called([one, both], [-0.1, -6.0]) == one[0]
    assert called([asks, one], [-0.1, -6.0]) == one[0]  # what can be done at all comes first
    assert called([asks, asks], [-0.1, -6.0]) == asks[0]


def test_the_likeness_of_whole_texts_counts_beside_words(tokenizer, model):
    policy = LamPolicy(model, tokenizer)
    vectors = torch.eye(3, model.config.tool_dim)[None]
    same = {"tool_logits": torch.tensor([[1.0, 1.0, 1.0, 9.0]]), "tool_vectors": vectors}
    with torch.no_grad():
        likely = policy._likely(SimpleNamespace(tool_query=vectors[:, 2], **same), 0, 3)
    scale = model.tool_pointer.logit_scale.exp().item()
    assert [tool for tool, _ in likely[:2]] == [0, 2]
    assert_close(likely[1][1] - likely[0][1], scale / 4)


def test_sentences_end_outside_of_values():
    text = "Put 'a. B' and 4.5 at [1, 2]? After that, sort. Do it"
    assert sentences(text) == ["Put 'a. B' and 4.5 at [1, 2]?", "After that, sort.", "Do it"]
    context = context_text(text, [("sort", "x")])
    head = "done: Put 'a. B' and 4.5 at [1, 2]?\ncall 0: sort\nresult 0: x\nlater: Do it\n"
    assert context.text == f"{head}now: After that, sort.\nact:" and context.now == len(head)
    assert context_text("a", [("b", "x")]).text == "done: a\ncall 0: b\nresult 0: x\nact:"


def test_a_value_is_looked_for_where_its_turn_is():
    context = context_text("Take 7 of '7 a'. Add 7 to '7'.", [("take", "7")])
    found = [context.text[start - 4 : start] for start, _ in find_value(context, "7")]
    assert found == ["Add ", "to '", "ake ", "of '"]


def test_a_policy_asks_for_what_it_cannot_bind(tokenizer):
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny", binder_modes=["omit"])
    with torch.no_grad():
        model.policy.kind.bias.copy_(torch.tensor([50.0, 0.0, 0.0, 0.0]))
    decision = LamPolicy(model, tokenizer, "react").decide(Context("add 3", (ADD,)))
    assert isinstance(decision, Ask)
    assert "add" in decision.text


def test_what_failed_is_left_out_replanned_and_reported(tokenizer, model):
    with torch.no_grad():
        model.policy.kind.bias[0] = model.binder.mode.bias[0] = 100.0
    policy = LamPolicy(model, tokenizer, "react")
    other = {"type": "function", "function": {**ADD["function"], "name": "total"}}
    tools, steps = (ADD, other), ()
    names = []
    for _ in tools:
        call = policy.decide(Context("add 4.5 and 12", tools, steps))
        names.append(call.name)
        steps += (Step(call, Observation(call.name, "ERROR", "error", None, f"{call.name} broke")),)
    assert sorted(names) == ["add", "total"]
    end = policy.decide(Context("add 4.5 and 12", tools, steps))
    assert end == Finish("; ".join(f"{name} failed: {name} broke" for name in names))
    ok = Step(ToolCall("add", {"a": 1, "b": 1}), Observation("add", "OK", "json", 2, "2"))
    assert policy.failed(Context("add 4.5 and 12", tools, (*steps, ok))) == {}
    assert isinstance(policy.decide(Context("add 4.5 and 12", tools, (*steps, ok))), ToolCall)


def test_an_untrained_policy_decides_something(tokenizer, model):
    for planner in ("react", "hierarchical", "mcts", "mcts+hierarchical"):
        policy = LamPolicy(model, tokenizer, planner, seed=3)
        first = policy.decide(Context(ROW["task"], (ADD, ROUND)))
        assert policy.decide(Context(ROW["task"], (ADD, ROUND))) == first
    assert not isinstance(LamPolicy(model, tokenizer).decide(Context("say something")), ToolCall)
    with pytest.raises(ValueError, match="mcts"):
        Planner(model, "mtcs")


@torch.no_grad()
def test_a_planner_follows_its_option_until_a_new_run(model):
    model.policy.ending.bias.fill_(-100.0)  # no option ends
    inputs = model.dummy_inputs
    first, second = (model(**{name: x[row : row + 1] for name, x in inputs.items()}) for row in range(2))
    second.option_logits = None  # what it is chosen by is the state
    second.state = -first.state
    planner = Planner(model, "hierarchical")
    planner.choose(first)
    option = planner.option
    planner.choose(second)
    assert planner.option == option
    planner.begin()
    planner.choose(second)
    assert planner.option != option


@torch.no_grad()
def test_a_planner_draws_by_its_seed(model):
    outputs = model(**{name: x[:1] for name, x in model.dummy_inputs.items()})

    def chosen(seed):
        planner = Planner(model, "mcts", seed, temperature=1.0, noise=0.5, simulations=8)
        acts = [planner.choose(outputs) for _ in range(20)]
        planner.begin()
        assert [planner.choose(outputs) for _ in range(20)] == acts
        return acts

    assert chosen(1) == chosen(1) != chosen(2)


def test_what_a_policy_remembers_comes_back_in_its_context(tokenizer, model):
    policy = LamPolicy(model, tokenizer)
    policy.remember("the code of the shed is 4711", importance=1.0)
    assert "4711" in policy.read(Context("open the shed with its code")).text
    model.config.use_episodic_memory = False
    assert "4711" not in policy.read(Context("open the shed with its code")).text


# search of texts


def llama(size=40):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=size, **sizes, pad_token_id=0, eos_token_id=39)).eval()


def count_of_seven(ids, mask):
    return ((ids == 7) & mask.bool()).sum(-1).float()


@pytest.mark.parametrize("make", [llama, lambda: hf_zoo.create_model("llm-tiny", vocab_size=40, eos_token_id=39)])
def test_any_model_is_searched_by_any_value(make):
    model = make().eval()
    ids = torch.tensor([[5, 6, 3], [9, 1, 4]])
    options = {"max_new_tokens": 5, "eos_token_id": 39, "pad_token_id": 0}
    plain = model.generate(ids, do_sample=False, **options)
    search = {"custom_generate": tree_search, "value_function": count_of_seven, "max_actions": 40}
    found = model.generate(ids, simulations=120, **search, **options)
    assert found.shape[1] == 8
    assert count_of_seven(found, torch.ones_like(found)).min() > count_of_seven(plain, torch.ones_like(plain)).max()
    again = model.generate(ids, simulations=120, **search, **options)
    assert torch.equal(found, again)


def test_searched_texts_do_not_depend_on_padding_or_other_rows():
    model, ids = llama(), torch.tensor([[5, 6, 3], [9, 1, 4]])
    options = {
        "custom_generate": tree_search,
        "value_function": count_of_seven,
        "simulations": 12,
        "max_new_tokens": 4,
    }
    together = model.generate(ids, **options)
    wide = torch.cat((torch.full((2, 2), 11), ids), dim=1)
    mask = (torch.arange(5) > 1).long().expand(2, -1)
    assert torch.equal(model.generate(wide, attention_mask=mask, **options)[:, 2:], together)
    for row in range(2):
        assert torch.equal(model.generate(ids[row : row + 1], **options)[0], together[row])


def test_processors_are_shown_texts_as_they_were_given():
    model, shown = llama(), []

    def sees(ids, scores):
        shown.append(ids[0].tolist())
        return scores

    ids, mask = torch.tensor([[11, 11, 5, 6], [2, 3, 9, 1]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    options = {"custom_generate": tree_search, "value_function": count_of_seven, "simulations": 3}
    model.generate(ids, attention_mask=mask, logits_processor=LogitsProcessorList([sees]), max_new_tokens=2, **options)
    assert {tuple(text[:4]) for text in shown} == {tuple(row) for row in ids.tolist()}


def test_a_searched_text_ends_where_it_says_or_is_full():
    model, ids = llama(), torch.tensor([[5, 6, 3], [9, 1, 4]])

    def ends(ids, mask):
        at = (ids == 39).float().argmax(-1)
        is_over = (ids == 39).any(-1)
        assert (mask.sum(-1) == at + 1)[is_over].all()  # nothing is asked of what comes after the end
        return is_over.float()

    search = {"custom_generate": tree_search, "value_function": ends, "max_actions": 40, "simulations": 60}
    found = model.generate(ids, max_new_tokens=4, search_discount=0.9, **search)
    assert found[:, 3:].tolist() == [[39]] * 2  # as early as can be
    texts = Continuations(model, list(ids), [ids[0, :0]] * 2, ends, LogitsProcessorList(), 40, [5, 4], {39})
    texts.judge(texts.roots)
    first = int((texts.candidates[0] != 39).nonzero()[0])
    one = texts.step(torch.tensor([0]), torch.tensor([first]))
    assert one.done.tolist() == [False]
    act = int((texts.candidates[-1] != 39).nonzero()[0])
    assert texts.step(one.state, torch.tensor([act])).done.tolist() == [True]  # five tokens


def test_a_searched_text_keeps_to_a_schema(tokenizer):
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    ids = torch.tensor([[50, 60], [70, 80]])
    schema = {"enum": ["red", "green", "blue"]}
    keeps = LogitsProcessorList([JsonSchemaLogitsProcessor(schema, tokenizer, 2)])
    out = model.generate(
        ids,
        custom_generate=tree_search,  # with the model's own value head
        logits_processor=keeps,
        simulations=6,
        max_new_tokens=20,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    for row in out[:, 2:]:
        assert json.loads(tokenizer.decode(row, skip_special_tokens=True)) in schema["enum"]
    with pytest.raises(ValueError, match="value_function"):
        llama().generate(ids % 30, custom_generate=tree_search, max_new_tokens=2)


# preferences


def test_preference_loss_is_its_equation():
    numbers = [torch.randn(5, dtype=torch.float64) for _ in range(4)]
    got = preference_loss(*numbers, beta=0.3)
    better, worse = numbers[:2]
    margins = [float((w - rw) - (l - rl)) for w, l, rw, rl in zip(*numbers, strict=True)]  # noqa: E741
    rows = [-math.log(1 / (1 + math.exp(-0.3 * margin))) for margin in margins]
    assert_close(float(got), sum(rows) / 5)
    assert_close(float(preference_loss(better, worse, better, worse)), math.log(2))  # at first, whatever the model is


def test_log_probs_count_completions_alone():
    logits, labels = torch.randn(2, 4, 6), torch.tensor([[-100, 3, 2, -100], [-100, -100, -100, 5]])
    scores = logits.log_softmax(-1)
    got = completion_log_probs(logits, labels)
    assert_close(got, torch.stack((scores[0, 0, 3] + scores[0, 1, 2], scores[1, 2, 5])))


@pytest.mark.slow
def test_preferred_texts_become_likelier(tokenizer, model, tmp_path):
    rows = [{"prompt": "act:", "chosen": " call add", "rejected": " finish now"}] * 4
    arguments = TrainingArguments(
        tmp_path,
        max_steps=20,
        learning_rate=1e-3,
        remove_unused_columns=False,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
    )
    trainer = PreferenceTrainer(model, arguments, data_collator=PreferenceCollator(tokenizer), train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert_close(float(losses[0]), math.log(2), atol=1e-3, rtol=1e-3)
    assert float(losses[-1]) < 0.3
