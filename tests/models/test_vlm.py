"""What is special to vision-language models: where images and text meet, several images a row, stages of training."""

import pytest
import torch
import transformers
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.vlm.configuration_vlm import STAGES, ZooVlmConfig
from hf_zoo.modeling.vlm.media import make_media
from hf_zoo.modeling.vlm.modeling_vlm import (
    ZooVlmForConditionalGeneration,
    ZooVlmForSequenceClassification,
    ZooVlmModel,
)

IMAGE = 480
DEEP = {**hf_zoo.create_config("vlm-tiny").text_config.to_dict(), "num_hidden_layers": 4, "layer_types": None}
FUSIONS = {
    "early": {"fusion": "early"},
    "late": {"fusion": "late"},
    "late cross": {"fusion": "late", "num_fusion_layers": 2, "text_config": DEEP},
    "interleaved": {"fusion": "interleaved", "cross_attention_every": 2, "text_config": DEEP},
}


def make(kind="late", model_class=ZooVlmForConditionalGeneration, **options):
    torch.manual_seed(0)
    options = {**FUSIONS.get(kind, {"fusion": kind}), **options}
    model = model_class(hf_zoo.create_config("vlm-tiny", **options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def rows_with(model, *counts, tokens=4, seed=1):
    """Rows of text with as many images as said, each before a few words, and their pixels, row by row."""
    generator = torch.Generator().manual_seed(seed)
    place = [IMAGE] * model.config.placeholders

    def words(n):
        return torch.randint(5, IMAGE, (n,), generator=generator).tolist()

    rows = [sum((words(2) + place for _ in range(count)), []) + words(tokens) for count in counts]
    pixels = torch.randn(sum(counts), 3, 32, 32, generator=generator)
    return [torch.tensor([row]) for row in rows], list(pixels.split(list(counts)))


def padded(rows, side="left"):
    """Rows of different lengths as a batch, and its mask."""
    width = max(row.shape[1] for row in rows)
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    for i, row in enumerate(rows):
        part = slice(width - row.shape[1], None) if side == "left" else slice(row.shape[1])
        ids[i, part], mask[i, part] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


# where they meet


def reached(model, ids, pixels):
    """For the embeddings and each layer of the language model: whether its last token depends on the pixels."""
    pixels = pixels.clone().requires_grad_()
    states = model(ids, pixels, output_hidden_states=True).hidden_states
    grads = (torch.autograd.grad(x[0, -1].sum(), pixels, retain_graph=True, allow_unused=True)[0] for x in states)
    return [g is not None and bool(g.abs().max() > 0) for g in grads]


@pytest.mark.parametrize(
    "kind, options, expected",
    [
        ("early", {"text_config": DEEP}, [0, 1, 1, 1, 1]),
        ("late", {"text_config": DEEP}, [0, 1, 1, 1, 1]),
        ("late cross", {}, [0, 0, 0, 1, 1]),
        ("late cross", {"num_fusion_layers": 1}, [0, 0, 0, 0, 1]),
        ("interleaved", {}, [0, 0, 1, 1, 1]),
        ("interleaved", {"cross_attention_every": 3}, [0, 0, 0, 1, 1]),
    ],
)
def test_text_depends_on_pixels_from_the_layer_of_the_fusion_on(kind, options, expected):
    model = make(kind, **options)
    rows, pixels = rows_with(model, 1)
    assert reached(model, rows[0], pixels[0]) == [bool(one) for one in expected]


def test_interleaved_looks_again_at_every_kth_layer():
    model = make("interleaved")
    assert list(model.model.cross_attention) == ["1", "3"]
    rows, pixels = rows_with(model, 1)
    with torch.no_grad():
        model.model.cross_attention["1"].attention_gate.zero_()
    assert reached(model, rows[0], pixels[0]) == [False, False, False, False, True]


def test_joint_couples_in_the_loss_alone():
    model = make("joint", ZooVlmModel)
    pixels = torch.randn(3, 3, 32, 32, requires_grad=True)
    out = model(torch.randint(5, IMAGE, (3, 6)), pixels)
    assert torch.autograd.grad(out.text_embeds.sum(), pixels, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(out.loss, pixels)[0].abs().max() > 0
    with pytest.raises(ValueError, match="no model that writes"):
        make("joint")


@torch.no_grad()
def test_gates_of_a_new_model_leave_the_language_model_as_it_is():
    config = hf_zoo.create_config("vlm-tiny", **FUSIONS["interleaved"])
    model = ZooVlmModel(config).eval()
    rows, pixels = rows_with(model, 1)
    expected = model.language_model(rows[0]).last_hidden_state
    assert torch.equal(model(rows[0], pixels[0]).last_hidden_state, expected)


@torch.no_grad()
def test_splicing_is_what_the_equation_says():
    model = make("late").model
    rows, pixels = rows_with(model, 2)
    x = model.language_model.embed_tokens(rows[0])
    vision = model.vision_tower(pixels[0], output_hidden_states=True).hidden_states[-1][:, 1:]
    first, second = model.projector.linears
    features = torch.nn.functional.gelu(vision @ first.weight.T + first.bias) @ second.weight.T + second.bias
    places = (rows[0][0] == IMAGE).nonzero()[:, 0]
    x[0, places] = features.flatten(0, 1)
    expected = model.language_model(inputs_embeds=x).last_hidden_state
    assert_close(model(rows[0], pixels[0]).last_hidden_state, expected)


@torch.no_grad()
def test_a_block_after_the_features_does_not_matter():
    model = make("late", vision_feature_layer=-2)
    rows, pixels = rows_with(model, 1)
    before = model(rows[0], pixels[0]).logits
    for parameter in model.model.vision_tower.layers[-1].parameters():
        parameter.add_(1.0)
    assert torch.equal(model(rows[0], pixels[0]).logits, before)
    for parameter in model.model.vision_tower.layers[-2].parameters():
        parameter.add_(0.1)
    assert (model(rows[0], pixels[0]).logits - before).abs().max() > 1e-3


@torch.no_grad()
def test_the_layer_of_the_features_is_counted_as_in_hidden_states():
    for layer in (0, 1, 2, -1, -3):
        model = make("late", vision_feature_layer=layer).model
        _, pixels = rows_with(model, 2)
        states = model.vision_tower(pixels[0], output_hidden_states=True).hidden_states
        expected = model.projector(states[layer][:, 1:])
        assert_close(model.get_image_features(pixels[0]).pooler_output, expected)
    model = make("late", vision_feature_layer=[0, -1], vision_feature_select_strategy="full")
    assert model.config.num_image_tokens == 17
    assert model.get_image_features(pixels[0]).pooler_output.shape == (2, 17, 64)


# several images, none, batches


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", FUSIONS)
@torch.no_grad()
def test_rows_with_no_image_one_or_several_make_a_batch(kind, side):
    model = make(kind)
    rows, pixels = rows_with(model, 2, 0, 1)
    batch = padded(rows, side)
    got = model(**batch, pixel_values=torch.cat(pixels)).logits
    for i, (row, own) in enumerate(zip(rows, pixels, strict=True)):
        expected = model(row, own if len(own) else None).logits[0]
        assert_close(got[i][batch["attention_mask"][i].bool()], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_images_is_that_of_their_places():
    for kind in FUSIONS:
        model = make(kind)
        rows, pixels = rows_with(model, 2)
        before = model(rows[0], pixels[0]).logits
        assert (model(rows[0], pixels[0].flip(0)).logits - before).abs().max() > 1e-3


@pytest.mark.parametrize("only_last", [True, False])
def test_which_images_a_token_attends_to(only_last):
    """The last before it in Flamingo's form; all before it in the late one. Nothing shows what comes later."""
    places = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 1, 0, 0]]).bool()
    media = make_media(torch.tensor([1.0, 2, 3]).expand(2, -1).T[..., None], places, None, False, only_last)
    assert media.features[..., 0].tolist() == [[1, 1, 2, 2], [3, 3, 0, 0]]
    first = [1, 1, 0, 0]
    after = [0, 0, 1, 1] if only_last else [1, 1, 1, 1]
    assert media.seen[0].int().tolist() == [[0] * 4, first, first, after, after]
    assert media.seen[1].int().tolist() == [[0] * 4, [0] * 4, first, first, first]


@pytest.mark.parametrize("kind", FUSIONS)
@torch.no_grad()
def test_steps_from_a_cache_equal_one_forward(kind):
    model = make(kind)
    rows, pixels = rows_with(model, 2, 1, tokens=6)
    batch = padded(rows)
    pixels = torch.cat(pixels)
    expected = model(**batch, pixel_values=pixels).logits
    ids, mask = batch["input_ids"], batch["attention_mask"]
    out = model(ids[:, :-4], pixels, mask[:, :-4], use_cache=True)
    steps = [out.logits]
    for t in range(-4, 0):
        end = None if t == -1 else t + 1
        out = model(ids[:, t:end], attention_mask=mask[:, :end], past_key_values=out.past_key_values, use_cache=True)
        steps.append(out.logits)
    real = mask.bool()
    assert_close(torch.cat(steps, 1)[real], expected[real], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FUSIONS)
@torch.no_grad()
def test_an_image_may_come_later_in_a_conversation(kind):
    model = make(kind)
    rows, pixels = rows_with(model, 2)
    first = model.config.placeholders + 4  # two words, an image, two words
    expected = model(rows[0], pixels[0]).logits
    out = model(rows[0][:, :first], pixels[0][:1], use_cache=True)
    rest = model(rows[0][:, first:], pixels[0][1:], past_key_values=out.past_key_values, use_cache=True)
    assert_close(torch.cat((out.logits, rest.logits), 1), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["interleaved", "late cross"])
@torch.no_grad()
def test_a_later_image_is_not_one_that_a_row_never_had(kind):
    """A row with fewer images than its batch has room for more in the cache; its next image is no such room."""
    model = make(kind)
    words, place = [5, 6, 7], [IMAGE]
    ids = torch.tensor([place + words + place + words, words + words + place + [8]])
    more = torch.tensor([place + words, place + words])
    pixels = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    out = model(ids, pixels[:3], use_cache=True)
    later = model(more, pixels[3:], past_key_values=out.past_key_values, use_cache=True).logits
    whole = torch.cat((ids, more), 1)
    for row, own in enumerate(([0, 1, 3], [2, 4])):
        expected = model(whole[row : row + 1], pixels[own]).logits[0, -4:]
        assert_close(later[row], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FUSIONS)
@torch.no_grad()
def test_generation_sees_images_once_and_writes_what_whole_forwards_would(kind):
    model = make(kind)
    rows, pixels = rows_with(model, 2, 0, 1)
    batch, pixels = padded(rows), torch.cat(pixels)
    calls = []
    eye = model.model.patch_embed or model.model.vision_tower
    eye.register_forward_hook(lambda *_: calls.append(1))
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    got = model.generate(**batch, pixel_values=pixels, **options)
    assert len(calls) == 1
    assert torch.equal(got, model.generate(**batch, pixel_values=pixels, use_cache=False, **options))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    for _ in range(5):
        best = model(ids, pixels, mask).logits[:, -1:].argmax(-1)
        ids, mask = torch.cat((ids, best), 1), torch.cat((mask, torch.ones_like(best)), 1)
    assert torch.equal(got, ids)
    beams = model.generate(**batch, pixel_values=pixels, num_beams=3, **options)
    assert torch.equal(beams, model.generate(**batch, pixel_values=pixels, num_beams=3, use_cache=False, **options))
    alone = model.generate(input_ids=rows[2], pixel_values=pixels[2:], num_beams=3, **options)
    assert torch.equal(beams[2, -5:], alone[0, -5:])


def test_as_many_places_as_features_or_an_error_with_both_numbers():
    model = make()
    rows, pixels = rows_with(model, 1)
    with pytest.raises(ValueError, match="16 placeholders of id 480 for 32 features.* needs 16 for each"):
        model(rows[0], pixels[0].repeat(2, 1, 1, 1))
    model = make("interleaved")
    rows, pixels = rows_with(model, 2)
    with pytest.raises(ValueError, match="2 placeholders of id 480 for 1 images"):
        model(rows[0], pixels[0][:1])


@torch.no_grad()
def test_embeddings_with_that_of_the_placeholder_are_filled_too():
    model = make()
    rows, pixels = rows_with(model, 1)
    embedded = model.get_input_embeddings()(rows[0])
    assert_close(model(inputs_embeds=embedded, pixel_values=pixels[0]).logits, model(rows[0], pixels[0]).logits)


# parts of all kinds

VISION = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {**VISION, "vocab_size": 512, "pad_token_id": 0}
PARTS = {
    "llama and siglip": {
        "vision_config": {"model_type": "siglip_vision_model", **VISION, "image_size": 32, "patch_size": 8},
        "text_config": {"model_type": "llama", **WORDS},
        "vision_feature_select_strategy": "full",
    },
    "gpt2 and clip": {
        "vision_config": {"model_type": "clip_vision_model", **VISION, "image_size": 32, "patch_size": 8},
        "text_config": {"model_type": "gpt2", "n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 512},
    },
    "mamba": {"text_config": {**hf_zoo.create_config("mamba-tiny").to_dict(), "vocab_size": 512}},
    "moe": {"text_config": {**hf_zoo.create_config("moe-tiny").to_dict(), "vocab_size": 512}},
    "nfnet": {
        "vision_config": {"model_type": "zoo_nfnet", **hf_zoo.create_config("nfnet-tiny").to_diff_dict()},
        "vision_feature_layer": None,
        "vision_feature_select_strategy": "full",
        "num_image_tokens": 1,
    },
}


@pytest.mark.parametrize("fusion", ["late", "interleaved"])
@pytest.mark.parametrize("name", PARTS)
def test_any_parts_learn_write_save_and_load(name, fusion, tmp_path):
    if fusion == "interleaved" and name == "mamba":
        pytest.skip("a scan has no heads to count")
    model = make(fusion, cross_attention_every=2, **PARTS[name]).train()
    rows, pixels = rows_with(model, 1, 1)
    ids, pixels = torch.cat(rows), torch.cat(pixels)
    model(ids, pixels, labels=ids.masked_fill(ids == IMAGE, -100)).loss.backward()
    for part in (model.model.vision_tower, model.model.language_model):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    written = model.eval().generate(input_ids=ids, pixel_values=pixels, **options)
    assert torch.equal(written, model.generate(input_ids=ids, pixel_values=pixels, use_cache=False, **options))
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert_close(again(ids, pixels).logits, model(ids, pixels).logits)


@pytest.mark.parametrize("kind", [*FUSIONS, "joint"])
def test_classifiers_over_encoders_and_decoders(kind, tmp_path):
    texts = [DEEP, {"model_type": "zoo_mlm", **hf_zoo.create_config("mlm-tiny", vocab_size=512).to_diff_dict()}]
    for text, pooling in zip(texts, ("last", "cls"), strict=True):
        options = {"text_config": text, "text_pooling": pooling, "num_labels": 3}
        if kind in ("late cross", "interleaved") and pooling == "cls":
            options |= {"cross_attention_every": 1}
        model = make(kind, ZooVlmForSequenceClassification, **options)
        rows, pixels = rows_with(model, 1, 1)
        inputs = {"input_ids": torch.cat(rows), "pixel_values": torch.cat(pixels)}
        out = model(**inputs, labels=torch.tensor([0, 2]))
        assert out.logits.shape == (2, 3) and out.loss > 0
        other = model(**{**inputs, "pixel_values": -inputs["pixel_values"]}).logits
        assert (other - out.logits).abs().max() > 1e-4


@torch.no_grad()
def test_pretrained_parts_make_a_model():
    vision = hf_zoo.create_model("vit-tiny", "feature-extraction").eval()
    language = hf_zoo.create_model("llm-tiny").eval()
    options = {"image_token_id": 480, "vision_feature_layer": -1}
    model = ZooVlmForConditionalGeneration.from_parts(vision, language, **options).eval()
    ids = torch.randint(5, IMAGE, (2, 7))
    assert torch.equal(model(ids).logits, language(ids).logits)
    pixels = torch.randn(1, 3, vision.config.image_size, vision.config.image_size)
    expected = vision(pixels, output_hidden_states=True).hidden_states[-1]
    assert torch.equal(model.model._see(pixels)[1], expected[:, 1:])
    assert (model.config.schedule, model.config.stage) == ("pretrained_then_joined", "align")


# stages of training

FIRST = {
    "all": {"vision_tower", "projector", "language_model", "lm_head"},
    "align": {"projector"},
    "tune": {"projector", "language_model", "lm_head"},
    "perceive": {"vision_tower", "projector"},
}


def learning(model):
    return {name.removeprefix("model.").split(".")[0] for name in model.trainable_parameter_names()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_trains_its_parts_and_leaves_the_others_bit_for_bit(stage, tmp_path):
    text = {**DEEP, "residual_dropout": 0.5}
    vision = {**hf_zoo.create_config("vlm-tiny").vision_config.to_dict(), "hidden_dropout": 0.5}
    model = make(text_config=text, vision_config=vision, stage=stage).train()
    assert learning(model) == FIRST[stage]
    assert model.model.vision_tower.layers[0].training == ("vision_tower" in FIRST[stage])
    assert model.model.language_model.layers[0].training == ("language_model" in FIRST[stage])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows, pixels = rows_with(model, 1)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    model(rows[0], pixels[0], labels=rows[0].masked_fill(rows[0] == IMAGE, -100)).loss.backward()
    optimizer.step()
    changed = {n.removeprefix("model.").split(".")[0] for n, v in model.state_dict().items() if not v.equal(before[n])}
    assert changed == FIRST[stage]
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert again.trainable_parameter_names() == model.trainable_parameter_names()
    again.train_stage("all")
    assert learning(again) == FIRST["all"]


def test_stages_follow_from_the_schedule_and_are_named():
    assert hf_zoo.create_config("vlm-tiny").stage == "all"
    assert hf_zoo.create_config("vlm-tiny", schedule="pretrained_then_joined").stage == "align"
    with pytest.raises(ValueError, match="stage must be one of all, align, tune, perceive, got 'later'"):
        make().train_stage("later")
    model = make("interleaved", stage="align")
    assert learning(model) == {"media_norm", "cross_attention"}
    head = make(model_class=ZooVlmForSequenceClassification, stage="align")
    assert learning(head) == {"projector", "score"}


def test_checkpointing_reaches_both_parts():
    for kind in FUSIONS:
        model = make(kind).train()
        rows, pixels = rows_with(model, 1)
        grads = []
        for is_on in (False, True):
            if is_on:
                model.gradient_checkpointing_enable()
                parts = [model.model.language_model, *filter(None, [model.model.vision_tower])]
                assert all(part.is_gradient_checkpointing for part in parts)
            model.zero_grad()
            model(rows[0], pixels[0], labels=rows[0]).loss.backward()
            grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# configuration


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_token_id": 512}, "image_token_id=512 must be below the vocab_size=512"),
        ({"num_fusion_layers": 3}, "num_fusion_layers=3 is for fusion='late' and at most the 2 layers"),
        ({"fusion": "early", "num_fusion_layers": 1}, "fusion is 'early'"),
        ({"fusion": "interleaved", "cross_attention_every": 3}, "cross_attention_every=3 must be from 1 to the 2"),
        ({"projector_hidden_act": "nothing"}, "'nothing' is not an activation"),
        ({"vision_config": PARTS["nfnet"]["vision_config"]}, "num_image_tokens must be set: zoo_nfnet"),
        (
            {"fusion": "early", "vision_config": PARTS["nfnet"]["vision_config"], "num_image_tokens": 4},
            "takes patches",
        ),
        ({"text_config": {"model_type": "t5", "vocab_size": 512}}, "t5 is both"),
        ({"vision_config": {"hidden_size": 3}}, "vision_config needs a model_type"),
    ],
)
def test_configs_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("vlm-tiny", **options)


def test_defaults_are_llava_15():
    config = ZooVlmConfig()
    assert (config.num_image_tokens, config.placeholders, config.image_token_id) == (576, 576, 32000)
    with torch.device("meta"):
        assert ZooVlmForConditionalGeneration(config).num_parameters() == 7_063_427_072
    assert sum(p.numel() for p in ZooVlmForConditionalGeneration(hf_zoo.create_config("vlm-tiny")).parameters())


def test_projectors_have_the_published_sizes():
    counts = {}
    for name in ("llava-v1-7b", "llava-1.5-7b"):
        with torch.device("meta"):
            model = ZooVlmModel(hf_zoo.create_config(name))
        counts[name] = sum(p.numel() for p in model.projector.parameters())
    assert counts == {"llava-v1-7b": 4_198_400, "llava-1.5-7b": 20_979_712}


def test_labels_on_the_last_place_say_the_first_word():
    """The loss is shifted: what stands at an image's last place is learnt to be followed by the first word."""
    model = make()
    rows, pixels = rows_with(model, 1)
    labels = torch.full_like(rows[0], -100)
    first = 2 + model.config.placeholders
    labels[0, first] = rows[0][0, first]
    out = model(rows[0], pixels[0], labels=labels)
    expected = -out.logits[0, first - 1].log_softmax(-1)[rows[0][0, first]]
    assert_close(out.loss, expected)
