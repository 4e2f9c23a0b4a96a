"""What is special about Fusion-in-Decoder: passages apart in the encoder, together in the decoder."""

import pytest
import torch
from torch.testing import assert_close

import hf_zoo
from hf_zoo.claims import train
from hf_zoo.registry import ARCHITECTURES
from hf_zoo.training.passages import PassageCollator

OPTIONS = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}


def make(name="fid-tiny", task=None, **options):
    torch.manual_seed(0)
    model = hf_zoo.create_model(name, task, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def passages(rows=2, count=3, tokens=7):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 512, (rows, count, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 1, 4:] = 0
    mask[1, 2] = 0  # one passage fewer
    return {"input_ids": ids, "attention_mask": mask}


def target():
    return torch.randint(5, 512, (2, 5), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_one_passage_is_the_encoder_decoder(tmp_path):
    model, plain = make(), make("seq2seq-tiny")
    ids = passages()["input_ids"][:, 0]
    expected = plain(ids, decoder_input_ids=target()).logits
    assert_close(model(ids, decoder_input_ids=target()).logits, expected)
    assert_close(model(ids[:, None], decoder_input_ids=target()).logits, expected)
    assert torch.equal(model.generate(ids[:, None], **OPTIONS), plain.generate(ids, **OPTIONS))


@torch.no_grad()
def test_passages_are_fused_as_if_by_hand():
    """Encoder outputs laid end to end, given to the encoder-decoder with the mask of all."""
    model, plain, inputs = make(), make("seq2seq-tiny"), passages()
    ids, mask = inputs.values()
    encoded = [plain.get_encoder()(ids[:, i], mask[:, i]).last_hidden_state for i in range(3)]
    beside = {"encoder_outputs": (torch.cat(encoded, 1),), "attention_mask": torch.cat(mask.unbind(1), 1)}
    expected = plain(**beside, decoder_input_ids=target()).logits
    got = model(**inputs, decoder_input_ids=target())
    assert_close(got.logits, expected)
    assert got.encoder_last_hidden_state.shape == (2, 21, 64)
    embedded = model.get_input_embeddings()(ids)
    assert_close(model(inputs_embeds=embedded, attention_mask=mask, decoder_input_ids=target()).logits, expected)


@torch.no_grad()
def test_the_order_of_passages_does_not_matter():
    model, inputs = make(), passages()
    order = torch.tensor([2, 0, 1])
    turned = {name: value[:, order] for name, value in inputs.items()}
    expected = model(**inputs, decoder_input_ids=target()).logits
    assert_close(model(**turned, decoder_input_ids=target()).logits, expected, atol=2e-5, rtol=1e-4)
    scores = model.passage_scores(**inputs)
    assert_close(model.passage_scores(**turned), scores[:, order], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_passages_of_padding_change_nothing():
    model, inputs = make(), passages()
    whole = {name: value[1:, :2] for name, value in inputs.items()}
    expected = model(**whole, decoder_input_ids=target()[1:]).logits
    got = model(**inputs, decoder_input_ids=target()).logits[1:]
    assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_no_gradient_crosses_passages_in_the_encoder():
    model, inputs = make(), passages()
    x = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    hidden = model.get_encoder()(inputs_embeds=x).last_hidden_state.view(2, 3, 7, 64)
    (gradient,) = torch.autograd.grad(hidden[0, 1].square().sum(), x)
    reach = gradient.abs().amax((-1, -2)) > 0
    assert reach.tolist() == [[False, True, False], [False, False, False]]


def test_the_decoder_uses_every_passage():
    model, inputs = make(), passages()
    x = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=x, attention_mask=inputs["attention_mask"], decoder_input_ids=target()).logits
    (gradient,) = torch.autograd.grad(logits[:, 0].square().sum(), x)
    assert torch.equal(gradient.abs().amax(-1) > 1e-9, inputs["attention_mask"].bool())


@pytest.mark.parametrize("how", ["greedy", "beams", "static cache"])
@torch.no_grad()
def test_generation_reads_passages_once(how):
    model, inputs = make(), passages()
    written = torch.zeros(2, 1, dtype=torch.long)
    for _ in range(6):
        logits = model(**inputs, decoder_input_ids=written).logits
        written = torch.cat((written, logits[:, -1:].argmax(-1)), dim=1)
    calls = []
    hook = model.get_encoder().layers[0].register_forward_hook(lambda *_: calls.append(1))
    if how == "beams":
        got = model.generate(**inputs, **OPTIONS, num_beams=3)
        written = model.generate(**inputs, **OPTIONS, num_beams=3, use_cache=False)
    elif how == "static cache":
        got = model.generate(**inputs, **OPTIONS, cache_implementation="static", disable_compile=True)
    else:
        got = model.generate(**inputs, **OPTIONS)
    hook.remove()
    assert torch.equal(got, written)
    assert len(calls) == (2 if how == "beams" else 1)


@torch.no_grad()
def test_scores_are_those_of_the_first_token():
    """From the log of eager attention's weights, which differ from scores by one number a row and head."""
    model, inputs = make(num_hidden_layers=1), passages()
    model.set_attn_implementation("eager")
    scores = model.passage_scores(**inputs)
    start = torch.zeros(2, 1, dtype=torch.long)
    weights = model(**inputs, decoder_input_ids=start, output_attentions=True).cross_attentions[0][:, :, 0]
    mask = inputs["attention_mask"]
    logs = weights.clamp_min(1e-30).log().mean(1).view(mask.shape)
    expected = (logs * mask).sum(-1) / mask.sum(-1)
    assert scores[1, 2] == -torch.inf
    assert_close(scores[0] - scores[0, 0], expected[0] - expected[0, 0], atol=1e-4, rtol=1e-4)
    assert_close(scores[1, :2] - scores[1, 0], expected[1, :2] - expected[1, 0], atol=1e-4, rtol=1e-4)


def test_more_than_one_passage_needs_a_target():
    with pytest.raises(ValueError, match="decoder_input_ids"):
        make()(**passages())


@torch.no_grad()
def test_folders_of_the_encoder_decoder_open(tmp_path):
    plain = make("seq2seq-tiny")
    plain.save_pretrained(tmp_path)
    weights = ARCHITECTURES["zoo_fid"].model_class()(hf_zoo.create_config("fid-tiny"))
    weights.load_state_dict(plain.state_dict())
    ids = passages()["input_ids"][:, 0]
    assert_close(weights.eval()(ids, decoder_input_ids=target()).logits, plain(ids, decoder_input_ids=target()).logits)


def test_rows_of_questions_become_passages():
    tokenizer = hf_zoo.create_processor("fid-tiny")
    rows = [
        {"question": "who?", "passages": [{"title": "a", "text": "b c"}, {"text": "d"}], "answer": "b"},
        {"question": "what is it?", "passages": [{"title": "", "text": "e " * 99}], "answer": "e e"},
    ]
    batch = PassageCollator(tokenizer, max_length=30)(rows)
    assert batch["input_ids"].shape == (2, 2, 30)
    read = [
        [tokenizer.decode(p[m.bool()]) for p, m in zip(*r, strict=True)]
        for r in zip(*list(batch.values())[:2], strict=True)
    ]
    end = tokenizer.eos_token
    assert read[0] == [f"question: who? title: a context: b c{end}", f"question: who? context: d{end}"]
    assert read[1][0].startswith("question: what is it? context: e e") and read[1][0].endswith(end)
    assert read[1][1] == "" and batch["attention_mask"][1, 1].sum() == 0
    assert tokenizer.decode(batch["labels"][1][batch["labels"][1] != -100]) == f"e e{end}"
    assert PassageCollator(tokenizer, max_passages=1)(rows)["input_ids"].shape[1] == 1
    assert make()(**batch).loss.isfinite()
    with pytest.raises(ValueError, match="'who\\?' has no passage"):
        PassageCollator(tokenizer)([{**rows[0], "passages": []}])


@pytest.mark.slow
def test_evidence_of_two_passages_is_joined():
    """Each of two passages holds half of the answer: with both it is written, with either alone it is not."""
    torch.manual_seed(0)
    dry = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    model = hf_zoo.create_model("fid-tiny", vocab_size=40, initializer_range=0.3, **dry)

    def two_halves(generator):
        """Passage 0 tells the first symbol of the answer, passage 1 the second; which is which, its first token."""
        answer = torch.randint(10, 40, (2,), generator=generator)
        noise = torch.randint(10, 40, (2, 3), generator=generator)
        ids = torch.cat((torch.tensor([[5], [6]]), answer[:, None], noise), dim=1)
        order = torch.randperm(2, generator=generator)
        return {"input_ids": ids[order], "labels": answer}

    train(model, two_halves, steps=500, learning_rate=3e-3)
    rows = [two_halves(torch.Generator().manual_seed(10_000 + i)) for i in range(64)]
    ids, answers = (torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels"))
    with torch.no_grad():
        both = model.generate(ids, max_new_tokens=2, do_sample=False, eos_token_id=None)[:, 1:]
        one = model.generate(ids[:, :1], max_new_tokens=2, do_sample=False, eos_token_id=None)[:, 1:]
    assert (both == answers).all(-1).float().mean() > 0.9
    assert (one == answers).all(-1).float().mean() < 0.3
