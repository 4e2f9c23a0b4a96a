"""What is special to next-concept prediction: four heads, the space of sentences, generation, words."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.concept_predictor.concept_heads import Context, Sampling
from hf_zoo.modeling.concept_predictor.denoiser import DenoiserBlock, earlier, with_nothing
from hf_zoo.modeling.concept_predictor.modeling_concept_predictor import (
    ZooConceptPredictorForConceptPrediction,
    ZooConceptPredictorForSentenceAutoencoding,
)
from hf_zoo.modeling.concept_predictor.sentence_space import SentenceSpace

FORMS = ("regression", "one_tower", "two_tower", "quantised")
PARTS = {
    "encoder_config": {"model_type": "zoo_mlm", **{"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1}}
    | {"num_attention_heads": 2, "intermediate_size": 48},
    "decoder_config": {"model_type": "zoo_llm", **{"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 1}}
    | {"num_attention_heads": 2, "intermediate_size": 48, "eos_token_id": 1, "pad_token_id": 0},
}


def built(form, **fields):
    """A model whose zeros have moved, in float64."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("concept-predictor-tiny", concept_head=form, **fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model = model.eval().double()
    if form == "quantised":
        model.fit_space(vectors(1, 60)[0])
    return model


def vectors(rows=2, count=5, seed=1):
    return torch.randn(rows, count, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(model, seed=3, **inputs):
    torch.manual_seed(seed)
    return model(**inputs).loss


@pytest.mark.parametrize("form", FORMS)
def test_a_prediction_depends_on_earlier_concepts_alone(form):
    """The loss of concept 3 alone, by the concepts that go in."""
    model, x = built(form), vectors()
    labels = torch.full_like(x, -100.0)
    labels[:, 3] = x[:, 3]
    given = x.clone().requires_grad_()
    loss(model, concepts=given, labels=labels).backward()
    seen = given.grad.abs().sum((0, 2)) > 0
    assert seen.tolist() == [True, True, True, False, False]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_what_is_generated(form, side):
    model, x = built(form), vectors(1, 4)
    other = torch.full((1, 2, 32), 7.0, dtype=torch.float64)
    ones, zeros = torch.ones(1, 4), torch.zeros(1, 2)
    pair, mask = ((other, x), (zeros, ones)) if side == "left" else ((x, other), (ones, zeros))
    options = {"max_new_concepts": 3}
    wanted = model.generate(x, **options, generator=torch.Generator().manual_seed(0))
    found = model.generate(
        torch.cat(pair, 1), torch.cat(mask, 1), **options, generator=torch.Generator().manual_seed(0)
    )
    assert_close(found.concepts, wanted.concepts)


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_generated_as_if_alone(form):
    model, x = built(form, guidance_scale=1.0), vectors(3, 4)
    model.config.stop_similarity = 1.1
    noise = Sampling.normal
    torch.manual_seed(0)
    fixed = torch.randn(32, dtype=torch.float64)
    Sampling.normal = lambda self, shape, like: fixed.expand(shape).to(like)
    try:
        together = model.generate(x, max_new_concepts=2).concepts
        alone = torch.cat([model.generate(row[None], max_new_concepts=2).concepts for row in x])
    finally:
        Sampling.normal = noise
    assert_close(together, alone)


@pytest.mark.parametrize("form", ["one_tower", "two_tower"])
def test_noised_vectors_in_training_are_those_of_generation(form):
    """What training computes for the last concept is what a step of sampling computes after those before it."""
    model, x = built(form), vectors(2, 5)
    head, trunk = model.head, model.model
    real = torch.ones(2, 5, dtype=torch.bool)
    z = trunk.space.normalise(x)
    noised, steps = torch.randn(2, 5, 32, dtype=torch.float64), torch.full((2, 5), 7)
    outputs = trunk(concepts=x)
    if form == "one_tower":
        y = trunk.encode_noised(z, noised, head.embed_step(steps), earlier(real)[..., 1:], real)
    else:
        y = head.denoiser(noised, steps, with_nothing(outputs.last_hidden_state), earlier(real))
    before = trunk(concepts=x[:, :4], use_cache=True)
    context = Context(before.last_hidden_state, real[:, :4], before.past_key_values)
    clean = head.clean(trunk, noised[:, 4], steps[:, 4], context, True)
    assert_close(clean, head.project(y)[:, 4])
    assert context.cache.get_seq_length() == 4  # as it was


@torch.no_grad()
def test_noised_vectors_count_real_concepts_alone():
    model, x = built("one_tower"), vectors(2, 5)
    head, trunk = model.head, model.model
    noised, steps = torch.randn(2, 5, 32, dtype=torch.float64), torch.full((2, 5), 7)
    results = []
    for places in ([0, 1, 2, 3, 4], [2, 3, 5, 6, 7]):  # with nothing before and among them
        real = torch.zeros(2, places[-1] + 1, dtype=torch.bool)
        z, y = (torch.ones(*real.shape, 32, dtype=torch.float64) for _ in range(2))
        z[:, places], y[:, places], real[:, places] = x, noised, True
        step = head.embed_step(steps[:, :1].expand(real.shape))
        results.append(trunk.encode_noised(z, y, step, earlier(real)[..., 1:], real)[:, places])
    assert_close(*results)


@pytest.mark.parametrize("form", ["one_tower", "two_tower"])
def test_without_its_context_a_prediction_is_that_of_an_empty_text(form):
    model, x = built(form), vectors(2, 4)
    head, trunk = model.head, model.model
    noised, step = torch.randn(2, 32, dtype=torch.float64), torch.full((2,), 5)
    results = []
    for given in (x, -x):
        before = trunk(concepts=given, use_cache=True)
        context = Context(before.last_hidden_state, torch.ones(2, 4, dtype=torch.bool), before.past_key_values)
        results.append(head.clean(trunk, noised, step, context, False))
        guided = head.clean(trunk, noised, step, context, True)
        assert (guided - results[-1]).abs().max() > 1e-3
    assert_close(*results)


@pytest.mark.parametrize("form", FORMS[1:])
def test_rows_without_their_context_learn_nothing_from_it(form):
    model, x = built(form), vectors()
    model.head.guidance_probability = 1.0
    for is_training in (True, False):
        given = x.clone().requires_grad_()
        loss(model.train(is_training), concepts=given, labels=x).backward()
        learns = given.grad is not None and given.grad.any().item()
        assert learns is not is_training


def test_every_step_of_diffusion_is_trained():
    torch.manual_seed(0)
    _, steps = built("two_tower").head.add_noise(torch.zeros(40, 50, 32))
    assert steps.unique().tolist() == list(range(20))


def test_guidance_trains_some_rows_without_context():
    model = built("two_tower", guidance_probability=0.5)
    model.train()
    torch.manual_seed(0)
    dropped = model.head.dropped(torch.ones(64, 3, dtype=torch.bool))
    assert 16 < dropped.sum() < 48
    seen = earlier(torch.ones(64, 3, dtype=torch.bool), dropped)
    assert seen[dropped][..., 1:].any().item() is False and seen[..., 0].all()
    assert seen[~dropped][:, 2, 1:].tolist() == [[True, True, False]] * int((~dropped).sum())
    assert model.eval().head.dropped(torch.ones(2, 3, dtype=torch.bool)) is None


def test_a_denoiser_block_starts_as_the_identity():
    torch.manual_seed(0)
    model = hf_zoo.create_model("concept-predictor-tiny")
    block = model.head.denoiser.layers[0]
    assert isinstance(block, DenoiserBlock)
    x, step, context = torch.randn(3, 2, 4, 64).unbind(0)
    mask = torch.zeros(2, 1, 4, 4)
    assert_close(block(x, step, context, mask), x, rtol=0, atol=0)


def test_a_denoiser_block_is_its_equation():
    block = built("two_tower").head.denoiser.layers[0]
    x, step, context = torch.randn(3, 2, 4, 64, dtype=torch.float64).unbind(0)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    numbers = block.modulation(step / (1 + (-step).exp())).split(64, -1)
    keys, values = block.cross_attn.project_context(context)
    y = x + numbers[2] * block.own_attn(block.own_norm(x) * (1 + numbers[1]) + numbers[0])
    crossed = block.cross_attn(block.cross_norm(y) * (1 + numbers[4]) + numbers[3], keys, values, mask)[0]
    y = y + numbers[5] * crossed
    y = y + numbers[8] * block.mlp(block.mlp_norm(y) * (1 + numbers[7]) + numbers[6])
    assert_close(block(x, step, context, mask), y)


def context_of(model, x):
    outputs = model.model(concepts=x, use_cache=True)
    return Context(outputs.last_hidden_state, torch.ones(x.shape[:2], dtype=torch.bool), outputs.past_key_values)


def test_diffusion_is_sampled_as_its_equations_say():
    """From noise alone, where only the prediction is known, to the clean vector, by a plain loop."""
    model, x = built("two_tower", num_sampling_steps=4), vectors(2, 3)
    head, context = model.head, context_of(model, x)
    options = {"guidance_scale": 2.5, "guidance_rescale": 0.4, "initial_noise": 0.6, "noise_scaling": 1.1}
    sampling = Sampling(4, **options, generator=torch.Generator().manual_seed(0))
    found = head.sample(model.model, context, sampling)
    y = 0.6 * torch.randn(2, 32, generator=torch.Generator().manual_seed(0)).double()
    steps = [19, 14, 9, 4]
    for step, later in zip(steps, [14, 9, 4, None], strict=True):
        numbers = torch.full((2,), step)
        clean, free = (head.clean(model.model, y, numbers, context, is_guided) for is_guided in (True, False))
        noise = y
        if step != 19:
            share = head.diffusion.shares[step]
            with_, without = ((y - share.sqrt() * c) / (1 - share).sqrt() for c in (clean, free))
            noise = without + 2.5 * (with_ - without)
            noise = noise * (0.4 * with_.std(-1, keepdim=True) / noise.std(-1, keepdim=True) + 0.6) / 1.1
            clean = (y - (1 - share).sqrt() * noise) / share.sqrt()
        kept = 1.0 if later is None else head.diffusion.shares[later]
        y = kept**0.5 * clean + (1 - kept) ** 0.5 * noise
    assert_close(found, y)


def test_codes_are_sampled_from_coarse_to_fine():
    model, x = built("quantised"), vectors(3, 3)
    with torch.no_grad():
        model.head.book_bias.normal_()
    head, context = model.head, context_of(model, x)
    hidden, books = with_nothing(context.hidden), head.quantiser.codebooks
    seen = torch.ones(3, 1, 4, dtype=torch.bool)
    nothing = seen & torch.tensor([True, False, False, False])
    for scale, temperature in ((1.0, 0.0), (40.0, 0.0), (2.0, 0.5)):
        sampling = Sampling(1, scale, 0, 1, 1, temperature, torch.Generator().manual_seed(0))
        found = head.sample(model.model, context, sampling)
        generator, known = torch.Generator().manual_seed(0), torch.zeros(3, 1, 32, dtype=torch.float64)
        for k in range(4):
            number = torch.full((3, 1), k)
            y = [
                head.project(head.denoiser(known, number, hidden, mask)) + head.book_bias[k]
                for mask in (seen, nothing)
            ]
            logits = y[1] + scale * (y[0] - y[1])
            if temperature:  # the largest of scores with Gumbel noise is a draw from their softmax
                uniform = torch.rand(logits.shape, generator=generator).double()
                logits = logits / temperature - (-uniform.log()).log()
            known = known + books[k][logits.argmax(-1)]
        assert_close(found, known[:, 0])


def test_regression_is_measured_at_the_concepts_after():
    model, x = built("regression"), vectors()
    model.fit_space(vectors(1, 60, seed=9)[0] * 2 + 1)
    outputs = model(concepts=x, labels=x)
    space = model.model.space
    expected = (space.normalise(outputs.predictions[:, :-1]) - space.normalise(x[:, 1:])).square().mean()
    assert_close(outputs.loss, expected.float())
    for pads in ((2, 0), (0, 2)):
        wide = torch.nn.functional.pad(x, (0, 0, *pads), value=7.0)
        mask = torch.nn.functional.pad(torch.ones(2, 5), pads)
        assert_close(model(concepts=wide, attention_mask=mask, labels=wide).loss, outputs.loss)


@torch.no_grad()
def test_what_is_generated_goes_by_the_condition():
    model, x = built("regression"), vectors()
    model.config.stop_similarity = 1.1
    condition = torch.randn(2, 5, model.config.hidden_size, dtype=torch.float64)
    made = model.generate(x, condition=condition, max_new_concepts=2).concepts
    assert_close(made[:, 0], model(concepts=x, condition=condition).predictions[:, -1])
    longer = torch.cat((x, made[:, :1]), 1)  # to which no condition is known
    condition = torch.nn.functional.pad(condition, (0, 0, 0, 1))
    assert_close(made[:, 1], model(concepts=longer, condition=condition).predictions[:, -1])


def test_code_books_are_those_of_normalised_vectors():
    model, x = built("quantised"), vectors(1, 60, seed=9)[0] * 3 + 5
    model.fit_space(x)
    books = model.head.quantiser.codebooks.clone()
    model.head.quantiser.fit(model.model.space.normalise(x))
    assert torch.equal(model.head.quantiser.codebooks, books)


def test_quantised_codes_are_learnt_book_by_book():
    """Its loss is the cross-entropy of the codes of all books in turn, computed plainly."""
    model, x = built("quantised"), vectors(2, 4)
    head, trunk = model.head, model.model
    z = trunk.space.normalise(x)
    hidden = trunk(concepts=x).last_hidden_state
    real = torch.ones(2, 4, dtype=torch.bool)
    codes = head.quantiser.encode(z)
    torch.manual_seed(5)
    books = torch.randint(4, (2, 4))
    torch.manual_seed(5)
    found = head.losses(trunk, hidden, z, z, real)
    for row in range(2):
        for n in range(4):
            k = int(books[row, n])
            known = head.quantiser.decode(codes[row, n, :k]) if k else torch.zeros(32, dtype=torch.float64)
            seen = torch.zeros(1, 1, 5, dtype=torch.bool)
            seen[..., : n + 1] = True  # nothing, and the n before
            context = with_nothing(hidden[row : row + 1])
            logits = head.scores(known[None, None], torch.tensor([[k]]), context, seen)[0, 0]
            assert_close(found[row, n], -logits.log_softmax(-1)[codes[row, n, k]])


def test_empty_code_books_are_refused():
    model = hf_zoo.create_model("concept-predictor-tiny", concept_head="quantised")
    x = vectors().float()
    with pytest.raises(ValueError, match="fit_space"):
        model(concepts=x, labels=x)
    with pytest.raises(ValueError, match="fit_space"):
        model.generate(x)


def test_the_space_is_that_of_medians_and_quartiles_and_is_saved(tmp_path):
    space = SentenceSpace(3)
    x = torch.randn(1001, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.1, 5.0, 0.0]) + 2
    x[0] = 1e6  # an outlier moves nothing
    space.fit(x)
    assert_close(space.centre, x.median(0).values)
    low, high = x.quantile(0.25, 0), x.quantile(0.75, 0)
    assert_close(space.spread[:2], ((high - low) / 1.349)[:2])
    assert space.spread[2] == 1  # a number that never changes
    z = space.normalise(x[1:])
    assert (z[:, :2].std(0) - 1).abs().max() < 0.1
    assert_close(space.denormalise(z), x[1:])
    with pytest.raises(ValueError, match=r"must be \(2 or more, 3\)"):
        space.fit(x[:, :2])

    model = built("two_tower")
    model.fit_space(vectors(1, 50)[0] * 3 + 1)
    model.model.space.set_end(vectors(1, 1)[0, 0])
    model.save_pretrained(tmp_path)
    again = ZooConceptPredictorForConceptPrediction.from_pretrained(tmp_path, dtype=torch.float64)
    assert_close(again.model.space.spread, model.model.space.spread)
    assert_close(again.model.space.end, model.model.space.end)


def test_generation_stops_at_the_end_of_a_text_and_at_a_repetition():
    model, x = built("regression"), vectors(2, 3)
    model.config.stop_similarity = 0.999
    first = model(concepts=x).predictions[:, -1]
    model.model.space.set_end(first[0])
    made = model.generate(x, max_new_concepts=4)
    assert made.lengths[0] == 0 and made.lengths[1] > 0
    assert not made.concepts[0].any()
    repeated = torch.cat((x, first[:, None]), dim=1)  # the next one is then unlike this one, unless it repeats
    model.config.stop_similarity = -1.0
    assert model.generate(repeated, max_new_concepts=4).lengths.tolist() == [0, 0]


def test_a_row_that_has_ended_stays_so_and_what_is_repeated_is_what_was_said_last():
    model, one = built("regression"), torch.eye(32, dtype=torch.float64)
    model.config.stop_similarity = 0.99
    model.model.space.set_end(one[1])
    said = iter(torch.stack((one[[0, 3]], one[[1, 4]], one[[2, 4]], one[[6, 7]])))
    model.head.sample = lambda *_: next(said)
    made = model.generate(one[[5, 5]][:, None], max_new_concepts=4)
    assert made.lengths.tolist() == [1, 2]
    assert_close(made.concepts, torch.stack((torch.stack((one[0], 0 * one[0])), one[[3, 4]])))


def test_regression_says_the_mean_of_two_continuations_and_diffusion_says_both():
    torch.manual_seed(0)
    start, one, other = vectors(3, 1, seed=4).float()[:, 0]
    texts = torch.stack([torch.stack((start, end)) for end in (one, other)]).repeat(16, 1, 1)
    models = {}
    for form in ("regression", "two_tower"):
        model = hf_zoo.create_model("concept-predictor-tiny", concept_head=form).train()
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(250):
            loss = model(concepts=texts, labels=texts).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        models[form] = model.eval()
    middle = (one + other) / 2
    apart = (one - other).norm() / 2
    said = models["regression"].generate(start[None, None], max_new_concepts=1).concepts[0, 0]
    assert (said - middle).norm() < 0.2 * apart
    start = start.expand(64, 1, -1)
    options = {"max_new_concepts": 1, "initial_noise": 1.0, "guidance_scale": 1.0}
    drawn = models["two_tower"].generate(start, **options, generator=torch.Generator().manual_seed(0)).concepts[:, 0]
    to_one, to_other = (drawn - one).norm(dim=-1), (drawn - other).norm(dim=-1)
    is_near = torch.minimum(to_one, to_other) < 0.5 * apart
    assert is_near.float().mean() > 0.8
    assert 0.2 < (to_one < to_other).float().mean() < 0.8


def test_sentences_are_learnt_read_and_said(tmp_path):
    """Vectors are learnt by saying sentences again; the predictor keeps them, frozen, and speaks."""
    torch.manual_seed(0)
    config = hf_zoo.create_config("concept-predictor-tiny", **PARTS)
    learner = ZooConceptPredictorForSentenceAutoencoding(config).train()
    ids = torch.randint(5, 60, (12, 4))
    ids[:, -1] = 1
    optimizer = torch.optim.AdamW(learner.parameters(), 5e-3)
    for _ in range(150):
        loss = learner(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.3
    learner.save_pretrained(tmp_path)

    model = ZooConceptPredictorForConceptPrediction.from_pretrained(tmp_path)
    assert not any(p.requires_grad for p in model.sentences.parameters())
    assert all(p.requires_grad for p in model.head.parameters())
    learner.eval()
    vectors = learner(input_ids=ids).last_hidden_state[:, 0]
    assert_close(model.sentences.encode(ids.view(3, 4, 4)).flatten(0, 1), vectors)
    said = model.sentences.decode(vectors, max_new_tokens=4, do_sample=False)
    assert (said[:, :3] == ids[:, :3]).float().mean() > 0.9

    token_mask = torch.ones(3, 4, 4, dtype=torch.long)
    token_mask[1, 2:] = 0  # a text of two sentences
    made = model.generate(input_ids=ids.view(3, 4, 4), token_mask=token_mask, max_new_concepts=2)
    assert made.sequences.shape[:2] == made.concepts.shape[:2]
    assert model.train()(input_ids=ids.view(3, 4, 4), token_mask=token_mask).loss.isfinite()


@torch.no_grad()
def test_padding_changes_no_sentence():
    model = hf_zoo.create_model("concept-predictor-tiny", **PARTS).eval()
    ids = torch.randint(5, 60, (2, 3, 4), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    wide, mask = (torch.nn.functional.pad(part, (0, 2), value=value) for part, value in ((ids, 7), (mask, 0)))
    mask[1, 0] = 0
    found, expected = model.sentences.encode(wide, mask), model.sentences.encode(ids)
    expected[1, 0] = 0.0
    assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert model(input_ids=wide, token_mask=mask).loss is None  # nothing is asked for outside training
    shown = model(input_ids=wide, token_mask=mask).last_hidden_state[1, 1:]
    alone = model(input_ids=ids[1:, 1:]).last_hidden_state[0]
    assert_close(shown, alone, atol=2e-5, rtol=1e-4)
    spoken = model.sentences.decoding_loss(found[0], ids[0])
    silent = torch.nn.functional.pad(ids[0], (0, 2), value=-100)
    assert_close(model.sentences.decoding_loss(found[0], silent), spoken)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "exactly one of concepts and input_ids"),
        ({"concepts": torch.zeros(2, 3, 31)}, "sentence_size=32"),
        ({"concepts": torch.zeros(2, 0, 32)}, "one or more"),
        ({"concepts": torch.zeros(2, 3, 32), "labels": torch.zeros(2, 2, 32)}, "shape of concepts"),
        ({"input_ids": torch.zeros(2, 3, 4, dtype=torch.long)}, "encoder_config"),
    ],
)
def test_wrong_input_is_one_clear_error(inputs, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_model("concept-predictor-tiny")(**inputs)


def test_wrong_options_are_one_clear_error():
    model = hf_zoo.create_model("concept-predictor-tiny")
    with pytest.raises(ValueError, match="no option 'temprature'"):
        model.generate(torch.zeros(1, 1, 32), temprature=1.0)
    with pytest.raises(ValueError, match="max_new_concepts must be at least 1, got 0"):
        model.generate(torch.zeros(1, 1, 32), max_new_concepts=0)
    with pytest.raises(ValueError, match="num_sampling_steps=40 is more than num_diffusion_steps=20"):
        hf_zoo.create_config("concept-predictor-tiny", num_sampling_steps=40)
    with pytest.raises(ValueError, match="hidden_size=24, which must be sentence_size=32"):
        hf_zoo.create_config("concept-predictor-tiny", encoder_config={"model_type": "zoo_mlm", "hidden_size": 24})
