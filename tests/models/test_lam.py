"""What is special to the large action model: the decoder inside it, tools, arguments, memories, plans."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import hf_zoo
from hf_zoo.modeling.lam.binder import best_spans
from hf_zoo.modeling.lam.episodic_memory import EpisodicMemory
from hf_zoo.modeling.lam.losses_lam import labelled_cross_entropy, tool_retrieval_loss
from hf_zoo.modeling.lam.modeling_lam import ZooLamForCausalLM
from hf_zoo.modeling.lam.planning import act_prior, plan, search_acts
from hf_zoo.modeling.lam.policy import option_critic_loss
from hf_zoo.modeling.lam.search import SearchOptions
from hf_zoo.modeling.lam.tool_pointer import ToolPointer, serialise_tool
from hf_zoo.modeling.lam.working_memory import WorkingMemory
from hf_zoo.modeling.lam.world_model import WorldModel

SIZES = {"num_profile_vectors": 3, "tool_dim": 16, "binder_dim": 16, "episodic_dim": 16, "episodic_capacity": 6}


def shaken(model):
    """Weights far from their first values, so that no gate is closed."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return shaken(hf_zoo.create_model("lam-tiny"))


def ids(rows=2, tokens=9, seed=2):
    return torch.randint(5, 500, (rows, tokens), generator=torch.Generator().manual_seed(seed))


# the decoder


def llama():
    config = LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    return LlamaForCausalLM(config)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def mamba():
    return hf_zoo.create_model("mamba-tiny")


@pytest.mark.parametrize("make", [llama, gpt2, mamba])
@torch.no_grad()
def test_without_heads_it_is_the_decoder(make):
    torch.manual_seed(0)
    core = make().eval()
    model = ZooLamForCausalLM.from_parts(core, **SIZES).eval()
    inputs = ids() % 55
    assert torch.equal(model(inputs).logits, core(inputs).logits)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    assert torch.equal(model.generate(inputs, **options), core.generate(inputs, **options))
    mask = torch.ones_like(inputs)
    mask[0, :4] = 0
    given = {"input_ids": inputs, "attention_mask": mask, **options}
    assert torch.equal(model.generate(**given), core.generate(**given))


@torch.no_grad()
def test_closed_gates_leave_the_logits_alone():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    given = {name: model.dummy_inputs[name] for name in ("input_ids", "memory_ids", "memory_mask", "slots")}
    assert torch.equal(model(**given).logits, model(given["input_ids"]).logits)


# profile


@torch.no_grad()
def test_a_profile_is_a_prefix_that_may_change(model):
    inputs = ids()
    plain = model(inputs).logits
    model.model.set_profile(ids(1, 4, seed=7), values=torch.tensor([[1.0, 0.0, 0.5, 0.0]]))
    first = model(inputs).logits
    model.model.set_profile(ids(1, 4, seed=8))
    second = model(inputs).logits
    assert first.shape == plain.shape
    assert (first - plain).abs().max() > 1e-3
    assert (second - first).abs().max() > 1e-3
    vectors = model.model.profile.stored.expand(2, -1, -1)
    embedded = torch.cat((vectors, model.get_input_embeddings()(inputs)), dim=1)
    model.model.set_profile(None)
    assert_close(model(inputs_embeds=embedded).logits[:, vectors.shape[1] :], second)
    assert torch.equal(model(inputs).logits, plain)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_profile_before_padding(model, side):
    inputs, pads = ids(), torch.full((2, 3), 4)
    model.model.set_profile(ids(1, 4, seed=7))
    expected = model(inputs).logits
    parts = ((pads, inputs), (pads * 0, torch.ones_like(inputs)))
    wide, mask = (torch.cat(pair if side == "left" else pair[::-1], dim=1) for pair in parts)
    got = model(wide, attention_mask=mask).logits
    assert_close(got[:, 3:] if side == "left" else got[:, :-3], expected, atol=2e-5, rtol=1e-4)
    if side == "left":
        options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
        written = model.generate(wide, attention_mask=mask, **options)[:, 3:]
        assert torch.equal(written, model.generate(inputs, **options))
        assert torch.equal(written, model.generate(inputs, **options, use_cache=False))


@torch.no_grad()
def test_profile_and_memories_are_saved(model, tmp_path):
    model.model.set_profile(ids(1, 4, seed=7))
    for seed in range(3):
        model.model.remember(ids(1, 5, seed=seed)[0], importance=0.1 * seed, outcome=float(seed))
    hf_zoo.export_standalone(model, tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert_close(again(ids()).logits, model(ids()).logits)
    recalled, before = again.model.recall(ids(1, 5, seed=1)), model.model.recall(ids(1, 5, seed=1))
    for one, other in zip(recalled, before, strict=True):
        assert_close(one, other)  # a product rounds by where in memory a file was mapped to
    assert len(again.model.episodic_memory) == 3
    other = hf_zoo.create_model("lam-tiny").eval()
    other(ids())
    other.load_state_dict(model.state_dict())  # the profile, too, of a model that had none
    assert_close(other(ids()).logits, model(ids()).logits)
    half = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert torch.equal(half.model.episodic_memory.times, model.model.episodic_memory.times)


# tools


def test_a_tool_is_serialised_by_its_words():
    schema = {
        "type": "function",
        "function": {
            "name": "days_in_month",
            "description": "How many days a month has.",
            "parameters": {
                "type": "object",
                "properties": {
                    "year": {"type": "integer", "description": "The year"},
                    "n": {"type": ["string", "null"]},
                },
                "required": ["year"],
            },
        },
    }
    expected = "days in month: How many days a month has. year (integer): The year. n (string/null): ."
    assert serialise_tool(schema) == serialise_tool(schema["function"]) == expected


@torch.no_grad()
def test_more_tools_and_padding_change_no_score(model):
    given = model.dummy_inputs
    expected = model(**given)
    wide = {**given, "tool_ids": F.pad(given["tool_ids"], (0, 2, 0, 3), value=9)}
    wide["tool_mask"] = F.pad(given["tool_mask"], (0, 2, 0, 3))
    got = model(**wide)
    assert_close(got.tool_logits[:, :3], expected.tool_logits[:, :3])
    assert_close(got.tool_logits[:, -1], expected.tool_logits[:, -1])
    assert (got.tool_logits[:, 3:-1] < -1e4).all()
    assert (got.tool_logits[1, 2] < -1e4).all()
    vectors, words = model.encode_tools(given["tool_ids"], given["tool_mask"])
    kept = {name: value for name, value in given.items() if name not in ("tool_ids", "tool_mask")}
    tools = {"tool_vectors": vectors, "tool_mask": given["tool_mask"].any(-1)}
    again = model(**kept, **tools, tool_words=words)
    assert_close(again.tool_logits, expected.tool_logits)
    assert_close(again.tool_query, expected.tool_query)
    with pytest.raises(ValueError, match="tool_words"):
        model(**kept, **tools)
    model.train()  # where each text is encoded once
    trained = model(**given)
    assert_close(trained.tool_logits, expected.tool_logits)
    assert_close(trained.tool_vectors, expected.tool_vectors)


def test_tools_are_compared_word_by_word():
    """The pointer against loops over words, in float64."""
    torch.manual_seed(0)
    pointer = shaken(ToolPointer(6, 5)).double()
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    state, states, words, tools = draw(2, 6), draw(2, 7, 6), draw(2, 7, 6), draw(2, 3, 4, 6)
    mask, tool_mask = torch.ones(2, 7), torch.ones(2, 3, 4)
    mask[0, 5:], tool_mask[0, 1, 2:], tool_mask[1, 2] = 0, 0, 0
    unit = lambda x: x / x.norm()  # noqa: E731
    encoded = pointer.encode(tools, tool_mask)
    query = pointer.query(state, states, words, mask)
    got = pointer(query, encoded.words, tool_mask.any(-1))
    project, scale = pointer.tower.word_proj, pointer.match_scale.exp()
    for row in range(2):
        seen = int(mask[row].sum())
        keys = [pointer.focus_key(states[row, t]) @ pointer.focus_query(state[row]) / 5**0.5 for t in range(seen)]
        weights = torch.stack(keys).softmax(0)
        mean = sum(weights[t] * unit(words[row, t]) for t in range(seen))
        assert_close(query.vector[row], unit(project(mean)), atol=1e-6, rtol=1e-6)
        for tool in range(3):
            there = [tools[row, tool, s] for s in range(4) if tool_mask[row, tool, s]]
            if not there:
                assert got[row, tool] < -1e4
                continue
            alike = [max(unit(project(words[row, t])) @ unit(project(f)) for f in there) for t in range(seen)]
            expected = scale * sum(weights[t] * max(alike[t], 0) ** 3 for t in range(seen))
            assert_close(got[row, tool], expected, atol=1e-6, rtol=1e-6)
    assert_close(got[:, -1], pointer.no_tool.expand(2))


@torch.no_grad()
def test_retrieval_finds_the_nearest_of_a_library(model):
    pointer = model.tool_pointer
    query = F.normalize(torch.randn(3, pointer.tower.word_proj.out_features), dim=-1)
    library = F.normalize(torch.randn(50, query.shape[1]), dim=-1)
    found = pointer.retrieve(query, library, 5)
    for row in range(3):
        assert found[row].tolist() == sorted(range(50), key=lambda j: -float(query[row] @ library[j]))[:5]
    assert pointer.retrieve(query, library[:2], 5).shape == (3, 2)


@torch.no_grad()
def test_shared_words_are_found_before_anything_is_learnt():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    words = ids(4, 6, seed=5)
    tools = model.encode_tools(words, torch.ones_like(words))
    for j in range(4):
        context = torch.cat((ids(1, 3, seed=j), words[j : j + 1].flip(1)), dim=1)
        tensors = {"tool_vectors": tools.vectors[None], "tool_words": tools.words[None]}
        outputs = model(context, act_positions=torch.tensor([8]), **tensors)
        assert outputs.tool_logits[0, :4].argmax() == j
        assert model.tool_pointer.retrieve(outputs.tool_query, tools.vectors, 1)[0] == j


@torch.no_grad()
def test_decisions_do_not_see_what_comes_after_them(model):
    given = model.dummy_inputs
    changed = {**given, "input_ids": given["input_ids"].clone()}
    changed["input_ids"][:, 6:] = 7
    one, other = model(**given), model(**changed)
    for name in ("state", "option_logits", "kind_logits", "value", "tool_logits", "slots"):
        assert_close(one[name], other[name])
    assert_close(one.binding.start_logits, other.binding.start_logits)
    assert_close(one.binding.choice_logits, other.binding.choice_logits)
    assert (one.binding.start_logits[0, :, 5:] < -1e4).all()


def test_decisions_of_one_row_and_of_many_are_the_same(model):
    given = model.dummy_inputs
    together = model(**given)
    for row in range(2):
        alone = model(**{name: value[row : row + 1] for name, value in given.items()})
        for name in ("state", "tool_logits", "kind_logits", "value", "slots"):
            assert_close(alone[name][0], together[name][row], atol=2e-5, rtol=1e-4)
        assert_close(alone.binding.end_logits[0], together.binding.end_logits[row], atol=2e-5, rtol=1e-4)


def test_best_spans_are_those_of_a_loop():
    starts, ends = torch.randn(2, 5, 11), torch.randn(2, 5, 11)
    found = best_spans(starts, ends, 4, 3)
    for i in range(2):
        for j in range(5):
            pairs = [(s, e) for s in range(11) for e in range(s, min(s + 4, 11))]
            pairs.sort(key=lambda p: -float(starts[i, j, p[0]] + ends[i, j, p[1]]))
            assert [tuple(pair) for pair in found[i, j].tolist()] == pairs[:3]
    assert best_spans(starts[..., :1], ends[..., :1], 4, 8).shape == (2, 5, 1, 2)


def test_modes_that_are_switched_off_are_never_likeliest(model):
    torch.manual_seed(0)
    few = shaken(hf_zoo.create_model("lam-tiny", binder_modes=["copy", "omit"]))
    modes = few(**few.dummy_inputs).binding.mode_logits
    assert (modes[..., [1, 2, 3]] < -1e4).all()
    assert (modes[..., [0, 4]] > -1e4).all()


# losses


def test_retrieval_loss_is_info_nce_without_equal_tools():
    scores = torch.randn(2, 6, dtype=torch.float64).float()
    is_same = torch.zeros(2, 6, dtype=torch.bool)
    is_same[0, [1, 4]] = True
    is_same[1, 3] = True
    got = tool_retrieval_loss(scores, is_same, torch.tensor([1, 3]))
    first = -(scores[0, 1] - scores[0, [0, 1, 2, 3, 5]].logsumexp(0))
    second = -(scores[1, 3] - scores[1].logsumexp(0))
    assert_close(got, (first + second) / 2)
    assert tool_retrieval_loss(scores, is_same, torch.tensor([-100, -100])) == 0


def test_losses_without_a_label_are_zero_and_have_gradients():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = labelled_cross_entropy(logits, torch.full((3,), -100))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_unrolled_loss_is_that_of_a_loop():
    torch.manual_seed(0)
    world = WorldModel(6, 5, 4).double()
    acts, exists = world.acts(torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([[1, 1, 1], [1, 1, 0]]))
    latent = world.start(torch.randn(2, 6, dtype=torch.float64))
    taken = torch.tensor([[0, 4], [5, 1]])
    visits = torch.rand(2, 3, 6, dtype=torch.float64) * exists[:, None]
    visits = visits / visits.sum(-1, keepdim=True)
    values, rewards = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    done = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    total = count = 0.0
    for row in range(2):
        s = latent[row : row + 1]
        for k in range(3):
            if k:
                s, reward, ends = world(s, acts[row, taken[row, k - 1]][None])
                total += (reward[0] - rewards[row, k - 1]) ** 2
                total += F.binary_cross_entropy_with_logits(ends[0], done[row, k - 1])
                count += 1
                if done[row, k - 1]:
                    break
            scores, value = world.judge(s, acts[row : row + 1], exists[row : row + 1])
            total += -(visits[row, k] * scores[0].log_softmax(-1)).sum() + (value[0] - values[row, k]) ** 2 / 4
        count += 1
    got = world.unrolled_loss(latent, acts, exists, taken, visits, values, rewards, done)
    assert_close(got, total / count)


def test_option_critic_raises_good_acts_and_ends_bad_options():
    log_act, ending = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    option_critic_loss(log_act, ending, torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0])).backward()
    assert log_act.grad[0] < 0 < log_act.grad[1]
    assert ending.grad[0] > 0 > ending.grad[1]
    numbers = torch.randn(4, 5, dtype=torch.float64)
    log_act, ending, advantage, worth = numbers
    expected = (-log_act * advantage + ending.sigmoid() * (worth + 0.3)).mean()
    assert_close(option_critic_loss(*numbers, deliberation_cost=0.3), expected)


# memories


def test_working_memory_is_its_equation():
    torch.manual_seed(0)
    memory = WorkingMemory(6, 3).double()
    torch.nn.init.normal_(memory.slot_embed)
    slots, states = torch.randn(2, 3, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    got = memory(slots, states, mask)
    for m in range(3):
        q = memory.query(slots[0, m] + memory.slot_embed[m])
        weights = (memory.key(states[0, :3]) @ q / math.sqrt(6)).softmax(0)
        c = weights @ memory.value(states[0, :3])
        z = memory.gate(torch.cat((slots[0, m], c))).sigmoid()
        assert_close(got[0, m], (1 - z) * slots[0, m] + z * c)
    assert torch.equal(got[1], slots[1])  # nothing to write


def filled(capacity=4, tau=10.0):
    torch.manual_seed(0)
    memory = EpisodicMemory(8, 6, capacity, 3, tau).double()
    table = torch.randn(40, 8, dtype=torch.float64)
    return memory, table


def test_the_score_of_a_memory_is_its_equation():
    memory, table = filled()
    told = [(torch.tensor([1, 2, 3, 4]), 0.2, 3), (torch.tensor([5, 6]), 0.9, 9), (torch.tensor([7]), 0.0, 14)]
    for tokens, importance, time in told:
        memory.write(table[tokens], tokens, importance, time=time)
    query = torch.randn(1, 6, dtype=torch.float64)
    scores = memory.scores(query)[0]
    for place, (tokens, importance, time) in enumerate(told):
        key = memory.tower(table[tokens], torch.ones(len(tokens)))
        cosine = F.cosine_similarity(key, query[0], dim=0).item()
        expected = cosine + 0.5 * math.exp(-(14 - time) / 10) + 0.5 * importance
        assert_close(float(scores[place]), expected, atol=1e-6, rtol=1e-6)
    assert scores[3] == -math.inf
    found = memory.recall(query, 4)
    assert found.mask[0].sum(-1).tolist()[-1] == 0  # there are three
    assert found.tokens[0, 0, 0] == told[int(scores.argmax())][0][0]


def test_a_memory_that_makes_room_leaves_nothing_behind():
    memory, table = filled(capacity=1)
    for tokens, outcome in ((torch.tensor([1, 2, 3]), 0.5), (torch.tensor([4]), -2.0)):
        memory.write(table[tokens], tokens, outcome=outcome)
    found = memory.recall(torch.randn(1, 6, dtype=torch.float64), 1)
    assert (found.tokens.tolist(), found.mask.tolist()) == ([[[4, 0, 0]]], [[[1, 0, 0]]])
    assert found.outcomes.tolist() == [[-2.0]] and found.numbers.tolist() == [[0]]


@torch.no_grad()
def test_memories_that_do_not_exist_are_not_seen(model):
    inputs, memories, mask = ids(), ids(6, 5, seed=3).view(2, 3, 5), torch.ones(2, 3, 5, dtype=torch.long)
    mask[0, 2], mask[1] = 0, 0
    found = model(inputs, memory_ids=memories, memory_mask=mask).logits
    assert_close(found[0], model(inputs[:1], memory_ids=memories[:1, :2]).logits[0])
    assert_close(found[1], model(inputs[1:]).logits[0])
    assert (found[0] - model(inputs[:1]).logits[0]).abs().max() > 1e-3


@torch.no_grad()
def test_padding_is_not_written_to_working_memory(model):
    inputs, slots = ids(), torch.randn(2, model.config.working_slots, model.config.hidden_size)
    wide, mask = F.pad(inputs, (0, 3), value=4), F.pad(torch.ones_like(inputs), (0, 3))
    assert_close(model(wide, attention_mask=mask, slots=slots).slots, model(inputs, slots=slots).slots)


def test_a_full_store_gives_up_what_matters_least():
    memory, table = filled()
    for time, importance in enumerate((0.9, 0.0, 0.1, 0.8)):
        memory.write(table[time : time + 1], torch.tensor([time]), importance)
    expected = int(memory.lasting().argmin())
    assert expected == 1
    assert memory.write(table[9:10], torch.tensor([9]), 0.5) == expected
    assert sorted(memory.tokens[:, 0].tolist()) == [0, 2, 3, 9]
    memory.forget()
    assert len(memory) == 0


@torch.no_grad()
def test_what_was_told_fifty_episodes_ago_is_recalled():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    fact = ids(1, 6, seed=99)[0]
    model.model.remember(fact)
    for episode in range(50):
        model.model.remember(ids(1, 6, seed=episode)[0])
    question = torch.cat((ids(1, 2, seed=200), fact[None, :4]), dim=1)
    found = model.model.recall(question)
    assert torch.equal(found.tokens[0, 0, :6], fact)
    model.config.use_episodic_memory = False
    assert model.model.recall(question) is None


# plans


def test_shares_of_acts_are_a_distribution():
    tools = torch.randn(3, 5)
    tools[:, 2] = -1e9
    shares = act_prior(torch.randn(3, 4), tools).exp()
    assert_close(shares.sum(-1), torch.ones(3))
    assert not shares[:, 2].any()
    assert shares.shape == (3, 4 + 3)
    assert_close(act_prior(torch.randn(3, 4), None).exp().sum(-1), torch.ones(3))


@pytest.mark.parametrize("planner", ["react", "hierarchical", "mcts", "mcts+hierarchical"])
@torch.no_grad()
def test_plans_do_not_depend_on_other_rows_and_repeat(model, planner):
    given = model.dummy_inputs
    exists = given["tool_mask"].any(-1)
    outputs = model(**given)
    option = torch.tensor([3, 4]) if "hierarchical" in planner else None

    def planned(rows, noise=0.0, seed=0):
        found = model(**{name: value[rows] for name, value in given.items()})
        generator = torch.Generator().manual_seed(seed)
        old = None if option is None else option[rows]
        return plan(model, found, exists[rows], old, generator, planner=planner, noise=noise)

    together = planned(slice(0, 2))
    assert together.shares.shape == (2, outputs.tool_logits.shape[1] + 2)
    assert not together.shares[1, 2].any()  # a tool that does not exist
    for row in range(2):
        alone = planned(slice(row, row + 1))
        assert alone.act == together.act[row]
        assert_close(alone.shares[0], together.shares[row], atol=1e-4, rtol=1e-4)
    assert torch.equal(planned(slice(0, 2), 0.25, 5).shares, planned(slice(0, 2), 0.25, 5).shares)


@torch.no_grad()
def test_a_search_begins_with_what_the_heads_find_likeliest(model):
    world, latent = model.world_model, torch.randn(1, model.config.latent_dim)
    tools, exists = torch.randn(1, 4, model.config.tool_dim), torch.tensor([[True, False, True, True]])
    for act, most in itertools.product(range(7), (1, 3)):
        prior = (F.one_hot(torch.tensor([act]), 7) * 5.0 - torch.arange(7) * 0.1).log_softmax(-1)
        found = search_acts(world, latent, prior, tools, exists, SearchOptions(simulations=1), most)
        assert found.visits[0].nonzero().tolist() == [[act if act != 1 else 0]]  # a tool that does not exist is none


@torch.no_grad()
def test_acts_are_drawn_where_a_search_has_a_temperature(model):
    given = {name: value[:1] for name, value in model.dummy_inputs.items()}
    outputs, generator = model(**given), torch.Generator().manual_seed(0)
    options = {"planner": "mcts", "simulations": 12, "generator": generator}
    found = [plan(model, outputs, temperature=1.0, **options) for _ in range(300)]
    drawn = torch.bincount(torch.cat([one.act for one in found]), minlength=6) / 300
    assert_close(drawn, found[0].shares[0], atol=0.1, rtol=0)
    assert drawn.max() < 0.9
    assert {int(plan(model, outputs, **options).act) for _ in range(99)} == {int(found[0].shares.argmax())}


@torch.no_grad()
def test_an_option_is_kept_by_hierarchical_planners_alone(model):
    outputs = model(**model.dummy_inputs)
    best = outputs.option_logits.argmax(-1)
    model.policy.ending.bias.fill_(-100.0)  # no option ends
    for number in range(model.config.num_subgoals):
        old = torch.full((2,), number)
        assert torch.equal(plan(model, outputs, option=old, planner="react").option, best)
        assert torch.equal(plan(model, outputs, option=old, planner="hierarchical").option, old)


@torch.no_grad()
def test_an_option_lasts_until_it_ends(model):
    policy, state = model.policy, torch.randn(6, model.config.hidden_size)
    current = torch.arange(6)
    _, ending, _ = policy(state, current)
    best = policy.option_logits(state).argmax(-1)
    assert torch.equal(policy.next_option(state, current), torch.where(ending > 0, best, current))
    assert torch.equal(policy.next_option(state), best)


def test_fields_that_do_not_fit_are_named():
    for wrong, match in (
        ({"binder_modes": ["copy", "guess"]}, "guess"),
        ({"recall_k": 500}, "recall_k=500"),
        ({"discount": 1.5}, "discount"),
        ({"tool_dim": 0}, "tool_dim"),
        ({"planner": "dream"}, "planner"),
    ):
        with pytest.raises(ValueError, match=match):
            hf_zoo.create_config("lam-tiny", **wrong)
    core = {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}
    assert hf_zoo.create_config("lam-tiny", core_config=core).text_config.model_type == "llama"


def test_losses_of_acting_are_shared_by_the_batches_that_are_accumulated():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lam-tiny").eval()
    ids = torch.randint(5, 512, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "act_positions": torch.tensor([4, 6])}
    batch |= {"kind_labels": torch.tensor([0, 2]), "value_labels": torch.tensor([0.3, -0.8])}
    rows = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(2)]
    parts = [model(**row, num_items_in_batch=torch.tensor(14)).loss for row in rows]  # 7 of each row are predicted
    assert_close(sum(parts), model(**batch).loss)


def test_what_is_written_is_the_same_beside_inputs_of_decisions():
    model = hf_zoo.create_model("lam-tiny").eval()
    inputs = model.dummy_inputs
    plain = {name: inputs[name] for name in ("input_ids", "attention_mask") if name in inputs}
    deciding = plain | {name: inputs[name] for name in ("act_positions", "tool_ids", "tool_mask")}
    options = {"max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(**deciding, **options), model.generate(**plain, **options))
