"""What is special about the concept model: its sentences, what is made of them, and gates."""

import pytest
import torch
from concept_models import DOT, ENDS, IDS, heard, tiny
from torch.testing import assert_close
from transformers import StaticCache

import hf_zoo
from hf_zoo.modeling.lcm.concept_memory import EntityLinker
from hf_zoo.modeling.lcm.hierarchy import ConceptHierarchy, SpanPooling

# sentences


def reached(model, source, through_concepts):
    """Positions whose output feels the embedding at `source`, with attention between tokens or without."""
    x = model.get_input_embeddings()(IDS).detach().requires_grad_()
    if through_concepts:
        for block in model.layers:
            block.self_attn.o_proj.weight.data.zero_()
    outputs = model(inputs_embeds=x).last_hidden_state
    felt = []
    for t in range(IDS.shape[1]):
        (gradient,) = torch.autograd.grad(outputs[0, t].square().sum(), x, retain_graph=True)
        if gradient[0, source].abs().max() > 1e-9:
            felt.append(t)
    return felt


@pytest.mark.parametrize("source", [0, 4, 6, 9])
def test_concepts_reach_the_sentences_after_theirs(source):
    """Alone, a token reaches itself and, through concepts, all tokens after the end of its sentence."""
    end = next(end for end in ENDS if source <= end)
    expected = [source, *range(end + 1, IDS.shape[1])]
    assert reached(tiny("feature-extraction"), source, through_concepts=True) == expected
    assert min(reached(tiny("feature-extraction"), source, through_concepts=False)) == source


def test_closed_gates_are_the_dense_decoder():
    """At first concepts neither say anything nor learn from the text, but for their gates."""
    model = tiny("feature-extraction", gates=0.0)
    shared = {
        name: value
        for name, value in model.state_dict().items()
        if name.split(".")[0] in ("embed_tokens", "norm", "layers")
    }
    dense = hf_zoo.create_model("llm-tiny", "feature-extraction").eval()
    dense.load_state_dict(
        {name: value for name, value in shared.items() if ".reader." not in name and ".writer." not in name}
    )
    outputs = model(IDS).last_hidden_state
    assert_close(outputs, dense(IDS).last_hidden_state)
    outputs[0, -1].sum().backward()
    assert model.layers[0].reader.attention_gate.grad.abs() > 0
    assert not model.memory.free_slots.grad.any() and not model.knowledge.entities.grad.any()
    model = tiny("feature-extraction", gates=0.1)
    model(IDS).last_hidden_state[0, -1].sum().backward()
    assert model.memory.free_slots.grad.any() and model.knowledge.entities.grad.any()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_have_the_gradients_of_all(reentrant):
    model = tiny("causal-lm").train()
    given = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}

    def gradients():
        model.zero_grad()
        torch.manual_seed(0)
        model(**given).loss.backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    assert expected["model.knowledge.entities"].abs().max() > 0
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    got = gradients()
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(got[name], value, msg=name)


@torch.no_grad()
def test_given_sentences_are_those_that_tokens_end():
    model = tiny("feature-extraction")
    plain = IDS.masked_fill(IDS == DOT, 20)
    sentences = torch.tensor([[0] * 4 + [1] * 3 + [2] * 4 + [3]])
    got = model(plain, sentence_ids=sentences).last_hidden_state
    assert (got - model(plain).last_hidden_state)[:, 4:].abs().max() > 1e-3
    same = model(IDS, sentence_ids=sentences, use_cache=True)
    assert_close(same.last_hidden_state, model(IDS).last_hidden_state)
    more = torch.tensor([[16, DOT, 17]])
    steps = model(more, past_key_values=same.past_key_values).last_hidden_state
    assert_close(steps, model(torch.cat((IDS, more), 1)).last_hidden_state[:, -3:], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_after_given_sentences_ends_none():
    model = tiny("feature-extraction")
    sentences = torch.tensor([[0] * 4 + [1] * 3 + [2] * 4 + [3]])
    ids, mask = torch.cat((IDS, torch.tensor([[16, 17]])), 1), torch.ones(1, 14)
    mask[0, 12] = 0
    past = model(IDS, sentence_ids=sentences, use_cache=True).past_key_values
    for t in (13, 14):
        given = {"sentence_ids": torch.tensor([[3]])} if t == 13 else {}
        got = model(ids[:, t - 1 : t], mask[:, :t], past_key_values=past, **given).last_hidden_state
    assert_close(got, model(ids, mask).last_hidden_state[:, -1:], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_rows_whose_sentences_end_at_different_steps():
    """Token by token, on keys and values that are made anew only when a sentence ends; with a static cache too."""
    model = tiny()
    ids = torch.cat((IDS, IDS.roll(2, 1), IDS.masked_fill(IDS == DOT, 20)))
    mentions = torch.full_like(ids, -1)
    mentions[:, 1], mentions[0, 5], mentions[1, 8] = 3, 4, 5
    whole = model(ids, mention_ids=mentions).logits
    assert (whole - model(ids).logits).abs().max() > 1e-3
    for cache in (None, StaticCache(model.config, max_cache_len=16)):
        steps, given = [], slice(0, 2)
        for t in range(2, ids.shape[1] + 1):
            outputs = model(ids[:, given], mention_ids=mentions[:, given], past_key_values=cache, use_cache=True)
            cache, given = outputs.past_key_values, slice(t, t + 1)
            steps.append(outputs.logits)
        assert_close(torch.cat(steps, 1), whole, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_numbers_of_sentences_may_have_gaps():
    """A number that no token has is a sentence that nobody sees."""
    model = tiny("feature-extraction")
    close, apart = (torch.tensor([[0] * 4 + [k] * 3 + [2 * k] * 4 + [2 * k + 1]]) for k in (1, 2))
    got = model(IDS, sentence_ids=apart).last_hidden_state
    assert_close(got, model(IDS, sentence_ids=close).last_hidden_state)


@torch.no_grad()
def test_documents_of_a_row_do_not_see_the_concepts_of_each_other():
    """The first ends in the middle of a sentence, the second with one, and the third begins anew."""
    model = tiny("feature-extraction")
    documents = IDS[:, :6], IDS[:, [0, 3, 4, 5, 6]], IDS[:, 1:]
    position_ids = torch.cat([torch.arange(ids.shape[1]) for ids in documents])[None]
    packed = model(torch.cat(documents, 1), position_ids=position_ids, use_cache=False).last_hidden_state
    alone = torch.cat([model(ids).last_hidden_state for ids in documents], 1)
    assert_close(packed, alone, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_mentions_may_come_with_later_tokens():
    model = tiny("feature-extraction")
    mentions = torch.full_like(IDS, -1)
    mentions[:, 2] = 7
    cache = model(IDS[:, :2], use_cache=True).past_key_values
    got = model(IDS[:, 2:], mention_ids=mentions[:, 2:], past_key_values=cache).last_hidden_state
    whole = model(IDS, mention_ids=mentions).last_hidden_state
    assert_close(got, whole[:, 2:], atol=2e-5, rtol=1e-4)
    cache = model(IDS[:, :4], mention_ids=mentions[:, :4], use_cache=True).past_key_values
    got = model(IDS[:, 4:], past_key_values=cache).last_hidden_state  # which mention nothing
    assert_close(got, whole[:, 4:], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_concepts_are_made_anew_when_a_sentence_ends_and_not_between():
    model, made, cache = tiny("feature-extraction"), [], None
    said = heard(model.memory)
    for t in range(IDS.shape[1]):
        cache = model(IDS[:, t : t + 1], past_key_values=cache, use_cache=True).past_key_values
        made += [t] if said else []
        said.clear()
    assert made == ENDS


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda cache: cache.reorder_cache(torch.tensor([1, 0])), [1, 0]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1]),
        (lambda cache: cache.batch_select_indices(torch.tensor([1])), [1]),
    ],
)
@torch.no_grad()
def test_rows_of_a_cache_are_changed_with_all_that_they_remember(change, rows):
    model = tiny("feature-extraction")
    ids = torch.cat((IDS, IDS.roll(2, 1)))
    mentions = torch.full_like(ids, -1)
    mentions[0, 8], mentions[1, 4] = 4, 5
    options = {"mention_ids": mentions[rows], "use_cache": True}
    expected = model(ids[rows], **options).past_key_values
    cache = model(ids, mention_ids=mentions, use_cache=True).past_key_values
    change(cache)
    for more in (torch.tensor([[16]]), torch.tensor([[DOT]]), torch.tensor([[17]])):
        more = more.expand(len(rows), -1)
        found, wanted = (model(more, past_key_values=past).last_hidden_state for past in (cache, expected))
        assert_close(found, wanted, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_generation_keeps_the_mentions_of_the_prompt():
    model = tiny()
    mentions = torch.full_like(IDS, -1)
    mentions[0, 1] = 7
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    got = model.generate(IDS, mention_ids=mentions, **options)
    expected = IDS
    for _ in range(5):
        given = torch.nn.functional.pad(mentions, (0, expected.shape[1] - IDS.shape[1]), value=-1)
        step = model(expected, mention_ids=given).logits[:, -1:].argmax(-1)
        expected = torch.cat((expected, step), 1)
    assert torch.equal(got, expected)


def test_what_was_read_cannot_be_taken_back():
    model = tiny()
    cache = model(IDS, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cannot be taken back"):
        cache.crop(-1)


# what is made of a sentence


def test_pooling_and_levels_are_their_equations():
    torch.manual_seed(0)
    pooling = SpanPooling(6, 8, 2, 1e-6)
    pooling.score.weight.data.normal_()
    x = torch.randn(1, 5, 6)
    members = torch.tensor([[[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]]).bool()
    got, y = pooling(x, members), pooling.norm(x)[0]
    for span in (slice(0, 2), slice(2, 5)):
        weights = (y[span] @ pooling.score.weight.T).softmax(0)  # (tokens, heads)
        values = (y[span] @ pooling.v_proj.weight.T).view(-1, 2, 4)
        expected = (weights[..., None] * values).sum(0).flatten()
        assert_close(got[0, 0 if span.start == 0 else 1], expected)
    assert not got[0, 2].any()

    levels = ConceptHierarchy(8, 2, [3, 2], 1e-6)
    with torch.no_grad():
        for name, parameter in levels.named_parameters():
            parameter.zero_() if "o_proj" in name or "down_proj" in name else parameter.normal_()
    seen = torch.ones(1, 3, 3).tril().bool()
    c = torch.randn(1, 3, 8)
    (low, middle, high), entropy = levels(c, seen)  # blocks and what comes down add nothing
    assert_close(low, c)
    p = (c[0] @ levels.assign[0].weight.T).softmax(-1)
    unclear = [[-(row * row.log()).sum() for row in p], []]
    for s in range(3):
        mean = p[: s + 1].T @ c[0, : s + 1] / p[: s + 1].sum(0)[:, None]
        assert_close(middle[0, s], mean)
        q = (mean @ levels.assign[1].weight.T).softmax(-1)
        assert_close(high[0, s], q.T @ mean / q.sum(0)[:, None])
        unclear[1] += [-(row * row.log()).sum() for row in q]
    assert_close(entropy, torch.stack([torch.stack(level).mean() for level in unclear]).mean())
    fewer = torch.nn.functional.pad(seen, (0, 2, 0, 2))  # two sentences that are empty
    wide = torch.nn.functional.pad(c, (0, 0, 0, 2))
    (again, *_), same = levels(wide, fewer)
    assert_close(again[:, :3], low)
    assert_close(same, entropy)


def test_assignments_to_levels_differ_from_the_start():
    """Logits of a vector of unit variance have about unit variance themselves."""
    torch.manual_seed(0)
    for assign in hf_zoo.create_model("lcm-tiny", "feature-extraction", level_sizes=[64, 64]).memory.hierarchy.assign:
        assert 0.8 < assign.weight.std() * assign.in_features**0.5 < 1.2


def test_levels_read_those_above_from_the_highest_down():
    torch.manual_seed(0)
    levels = ConceptHierarchy(8, 2, [3, 2], 1e-6)
    with torch.no_grad():
        for parameter in levels.parameters():
            parameter.normal_(0, 0.5)

    def read(number, x, context):
        down, seen = levels.down[number], torch.ones(1, len(x), len(context), dtype=torch.bool)
        return down(x[None], *down.project_context(context[None]), seen)[0]

    c = torch.randn(1, 3, 8, requires_grad=True)
    seen = torch.ones(1, 3, 3).tril().bool()
    found, _ = levels(c, seen)
    first = levels.blocks[0](c, seen)[0]
    p = (first @ levels.assign[0].weight.T).softmax(-1)
    for s in range(3):
        middle = p[: s + 1].T @ first[: s + 1] / p[: s + 1].sum(0)[:, None]
        middle = levels.blocks[1](middle[None])[0]
        q = (middle @ levels.assign[1].weight.T).softmax(-1)
        high = levels.blocks[2]((q.T @ middle / q.sum(0)[:, None])[None])[0]
        middle = read(1, middle, high)
        low = read(0, first[s : s + 1], middle)[0]
        assert_close(found[2][0, s], high, atol=1e-4, rtol=1e-4)
        assert_close(found[1][0, s], middle, atol=1e-4, rtol=1e-4)
        assert_close(found[0][0, s], low, atol=1e-4, rtol=1e-4)
        gradients = (torch.autograd.grad(y.sum(), c, retain_graph=True)[0] for y in (found[0][0, s], low))
        assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_levels_do_not_see_later_sentences():
    torch.manual_seed(0)
    levels = ConceptHierarchy(8, 2, [3], 1e-6)
    with torch.no_grad():
        for parameter in levels.parameters():
            parameter.normal_(0, 0.5)
    x = torch.randn(1, 4, 8, requires_grad=True)
    seen = torch.ones(1, 4, 4).tril().bool()
    for s in range(4):
        (gradient,) = torch.autograd.grad(sum(level[0, s].sum() for level in levels(x, seen)[0]), x)
        assert [t for t in range(4) if gradient[0, t].any()] == list(range(s + 1))


def test_linking_takes_what_is_mentioned_or_what_fits_best():
    torch.manual_seed(0)
    linker, concepts, x = EntityLinker(6, 6, 2).eval(), torch.randn(9, 6), torch.randn(1, 4, 6)
    linker.mention_proj.weight.data.copy_(torch.eye(6) * 5)
    members = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0]]]).bool()
    scores = x[0] @ concepts.T * 5 / 6**0.5
    best = scores[:2].amax(0).topk(2)
    links = linker(x, members, concepts, None)
    assert_close(links.numbers[0, 0], best.indices)
    assert_close(links.weights[0, 0], best.values.softmax(0))
    alone = linker(x, members[:, :1], concepts, None)
    assert torch.equal(alone.numbers[0, 0], links.numbers[0, 0])
    assert_close(alone.weights[0, 0], links.weights[0, 0])
    links = linker(x, members, concepts, torch.tensor([[4, 7, -1, 2]]))
    assert set(links.numbers[0, 0].tolist()) == {4, 7}
    assert_close(links.weights[0], torch.tensor([[0.5, 0.5], [0.0, 0.0]]))  # the last token is of no span
    spread = links.spread(9)
    assert_close(spread[0, 0, [4, 7]], torch.tensor([0.5, 0.5]))
    assert not spread[0, 1].any()
    known = linker.train()(x, members, concepts, torch.tensor([[4, -1, -1, 2]])).loss
    assert_close(known, torch.nn.functional.cross_entropy(scores[:1], torch.tensor([4])))


@torch.no_grad()
def test_a_sentence_holds_the_concepts_of_what_it_mentions_and_of_nothing_else():
    model = tiny("feature-extraction")
    said, mentions = heard(model.memory), torch.full_like(IDS, -1)
    mentions[0, [1, 2]], mentions[0, 5] = 7, 3
    model(IDS, mention_ids=mentions)
    for sentence, entity in enumerate((7, 3, None)):
        linked = said[0].concepts[0, sentence, : model.config.num_linked]
        if entity is not None:
            assert_close(linked[0], model.graph()[entity])
        assert not linked[entity is not None :].any()


def test_links_pass_gradients_to_what_was_chosen():
    """Though their vectors are taken as they are; hops would bring gradients of their own."""
    model = tiny("feature-extraction", num_hops=0)
    model(IDS).last_hidden_state[0, -1].sum().backward()
    assert model.memory.linker.mention_proj.weight.grad.abs().max() > 0


# configuration


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cross_every": 3}, "cross_every must be from 1 to num_hidden_layers=2, got 3"),
        ({"concept_size": 30}, "concept_size must be a multiple of num_attention_heads"),
        ({"num_linked": 50}, "num_linked=50 is more than num_entities=48"),
        ({"level_sizes": [4, 0]}, "level_sizes must be at least 1"),
        ({"taxonomy_relations": [6]}, "taxonomy_relations holds 6, and relations are 0 to 5"),
        ({"entity_names": ["a"]}, "entity_names must be 48 different names, got 1"),
        ({"graph_score": "complex", "concept_size": 12, "num_attention_heads": 4, "num_key_value_heads": 4}, None),
    ],
)
def test_configurations_that_do_not_fit_are_named(wrong, message):
    if message is None:
        hf_zoo.create_config("lcm-tiny", **wrong)
    else:
        with pytest.raises(ValueError, match=message):
            hf_zoo.create_config("lcm-tiny", **wrong)


def test_answers_need_hops():
    with pytest.raises(ValueError, match="num_hops must be at least 1"):
        tiny("graph-question-answering", num_hops=0)
    tiny(num_hops=0)(IDS)


def test_concepts_of_a_text_are_predicted_with_what_its_decoder_has_read():
    torch.manual_seed(0)
    model = hf_zoo.create_model("lcm-tiny", "concept-prediction").eval().double()
    alone = model.predictor
    ids = torch.randint(6, 512, (2, 11), generator=torch.Generator().manual_seed(1))
    ids[0, [2, 6]] = ids[1, [4, 7, 8]] = 5  # ends of sentences: 3, 4, 4 tokens; 5, 3, 1, 2
    cuts = [[ids[0, :3], ids[0, 3:7], ids[0, 7:]], [ids[1, :5], ids[1, 5:8], ids[1, 8:9], ids[1, 9:]]]
    vectors = [torch.cat([alone.sentences.encode(cut[None, None])[0] for cut in row]) for row in cuts]
    found = model(ids)
    for row, x in enumerate(vectors):  # the condition starts at zero: what the predictor says by itself
        assert_close(found.last_hidden_state[row, : len(x)], alone(concepts=x[None]).last_hidden_state[0])

    with torch.no_grad():
        model.condition.weight.normal_()
    embeds = []
    model.model.embed_tokens.register_forward_hook(lambda module, inputs, y: embeds.append(y.requires_grad_()) or y)
    torch.manual_seed(0)
    labels = torch.full_like(ids, -100)
    labels[0, 8] = 1  # only the third sentence is learnt, by one of its tokens
    vectors = torch.randn(2, 4, 32, dtype=torch.float64)
    loss = model(ids, concepts=vectors, labels=labels).loss
    gradient = torch.autograd.grad(loss, embeds[-1])[0].abs().sum(-1) > 0
    assert gradient[0].tolist() == [True] * 7 + [False] * 4 and not gradient[1].any()

    made = model.generate(ids, concepts=vectors, max_new_concepts=2)
    condition = model._read(
        ids, model.model(ids).last_hidden_state, model._numbers(ids, None, None), vectors
    ).condition
    for row, count in enumerate((3, 4)):
        x = vectors[row : row + 1, :count]
        wanted = alone.generate(x, condition=condition[row : row + 1, :count], max_new_concepts=2)
        assert_close(made.concepts[row], wanted.concepts[0])
    sentences = torch.tensor([[0] * 5 + [1] * 6, [0] * 4 + [1] * 7])
    close, apart = (model(ids, sentence_ids=sentences * k) for k in (1, 2))  # nobody is in sentence 1 of the second
    assert_close(apart.last_hidden_state[:, [0, 2]], close.last_hidden_state)
    wide, longer, mask = (torch.nn.functional.pad(x, (0, 2), value=1) for x in (ids, sentences, torch.ones_like(ids)))
    mask[:, -2:] = 0
    padded = model(wide, attention_mask=mask, sentence_ids=longer)
    assert_close(padded.last_hidden_state, close.last_hidden_state)
    with pytest.raises(ValueError, match=r"\(2, 3\) \(rows, sentences\), and the text has \(2, 4\)"):
        model(ids, concepts=vectors[:, :3])
    with pytest.raises(ValueError, match="predictor_config must be set"):
        hf_zoo.create_model("lcm-tiny", "concept-prediction", predictor_config=None)
