"""What is special to CLIP: its losses, where texts are read, its towers, several processes, the pipeline."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.clip.configuration_clip import ZooClipConfig
from hf_zoo.modeling.clip.modeling_clip import ZooClipModel
from hf_zoo.modeling.layers.pooler import pool_at
from hf_zoo.modeling.losses import image_text_loss


def make(**options):
    torch.manual_seed(0)
    return ZooClipModel(hf_zoo.create_config("clip-tiny", **options)).eval()


def pairs(rows=4, tokens=9):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 512, (rows, tokens), generator=generator)
    ids[:, -1] = 2
    return {"input_ids": ids, "pixel_values": torch.randn(rows, 3, 32, 32, generator=generator)}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_the_loss_is_its_equation(kind):
    model, inputs = make(loss_type=kind), pairs()
    if kind == "siglip":
        model.logit_bias.fill_(-1.5)
    out = model(**inputs)
    images = model.get_image_features(inputs["pixel_values"]).pooler_output
    texts = model.get_text_features(inputs["input_ids"]).pooler_output
    total = 0.0
    scores = torch.zeros(4, 4)
    for i in range(4):
        for j in range(4):
            cosine = images[i] @ texts[j] / images[i].norm() / texts[j].norm()
            scores[i, j] = model.logit_scale.exp() * cosine + (-1.5 if kind == "siglip" else 0.0)
    for i in range(4):
        if kind == "clip":
            total -= scores[i].log_softmax(0)[i] / 8 + scores[:, i].log_softmax(0)[i] / 8
        else:
            total -= sum(F.logsigmoid(scores[i, j] if i == j else -scores[i, j]) for j in range(4)) / 4
    assert_close(out.loss, total)
    assert_close(out.logits_per_image, scores)
    assert_close(out.logits_per_text, scores.T)


@torch.no_grad()
def test_equal_vectors_are_told_apart_by_chance():
    x = F.normalize(torch.ones(32, 8), dim=-1)
    assert_close(image_text_loss(x, x, torch.tensor(14.3)), torch.tensor(math.log(32)))
    assert math.log(32) == pytest.approx(3.4657, abs=1e-4)


@torch.no_grad()
def test_the_order_of_pairs_does_not_matter_and_who_is_whose_does():
    model, inputs = make(logit_scale_init_value=3.0), pairs()
    order = torch.tensor([2, 0, 3, 1])
    loss = model(**inputs).loss
    assert_close(model(**{name: value[order] for name, value in inputs.items()}).loss, loss)
    fitting = ZooClipModel(model.config)
    images = F.normalize(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    scale = torch.tensor(14.3)
    for bias in (None, torch.tensor(-10.0)):
        right = image_text_loss(images, images, scale, bias)
        assert right < image_text_loss(images, images.roll(1, 0), scale, bias)
    assert_close(fitting.logit_scale, torch.tensor(3.0))


@torch.no_grad()
def test_lengths_of_vectors_do_not_matter():
    model, inputs = make(), pairs()
    before = model(**inputs).logits_per_image
    model.visual_projection.weight.mul_(5)
    assert_close(model(**inputs).logits_per_image, before)


@torch.no_grad()
def test_the_scale_starts_as_published_and_is_held_below_a_hundred():
    model = make()
    assert model.logit_scale.item() == pytest.approx(2.6592)
    assert make(loss_type="siglip").logit_scale.item() == pytest.approx(math.log(10))
    assert make(loss_type="siglip").logit_bias.item() == -10
    model.logit_scale.fill_(7.0)
    out = model(**pairs())
    assert_close(out.logits_per_image, 100 * out.image_embeds @ out.text_embeds.T, atol=1e-3, rtol=1e-4)


def test_texts_are_read_at_their_end_token():
    x = torch.randn(4, 5, 3)
    ids = torch.tensor([[5, 6, 2, 0, 0], [5, 2, 7, 2, 0], [5, 6, 7, 8, 9], [0, 0, 5, 9, 2]])
    mask = (ids != 0).long()
    assert torch.equal(pool_at(x, ids, 2, mask), x[torch.arange(4), torch.tensor([2, 1, 4, 4])])
    assert torch.equal(pool_at(x, ids, None, None), x[torch.arange(4), torch.tensor([1, 2, 4, 3])])
    same = torch.tensor([[2, 2, 5, 6, 2]])  # padding has the end token's id
    padded = torch.tensor([[0, 0, 1, 1, 1]])
    assert torch.equal(pool_at(x[:1], same, 2, padded), x[:1, 4])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_of_texts_changes_nothing(side):
    model, inputs = make(), pairs()
    pads = torch.zeros(4, 3, dtype=torch.long)
    ids, mask = (pads, inputs["input_ids"]), (pads, torch.ones_like(inputs["input_ids"]))
    ids, mask = (torch.cat(pair if side == "left" else pair[::-1], 1) for pair in (ids, mask))
    expected = model.get_text_features(inputs["input_ids"]).pooler_output
    assert_close(model.get_text_features(ids, mask).pooler_output, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_later_tokens_do_not_change_a_text_after_its_end():
    model, ids = make(), pairs()["input_ids"]
    longer = torch.cat((ids, torch.full((4, 2), 7)), 1)
    assert_close(
        model.get_text_features(longer).pooler_output,
        model.get_text_features(ids).pooler_output,
        atol=2e-5,
        rtol=1e-4,
    )


TEXT = {
    "vocab_size": 512,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
TOWERS = {
    "nfnet": {"vision_config": {"model_type": "zoo_nfnet", **hf_zoo.create_config("nfnet-tiny").to_diff_dict()}},
    "siglip": {
        "vision_config": {"model_type": "siglip_vision_model", **TEXT, "image_size": 32, "patch_size": 8},
        "text_config": {"model_type": "zoo_mlm", **TEXT},
        "text_pooling": "cls",
        "projection_dim": 0,
        "loss_type": "siglip",
    },
    "bert": {"text_config": {"model_type": "bert", **TEXT}, "text_pooling": "pooler"},
    "mamba": {"text_config": {"model_type": "zoo_mamba", **hf_zoo.create_config("mamba-tiny").to_diff_dict()}},
    "resnet": {
        "vision_config": {
            **{"model_type": "convnext", "hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "image_size": 32},
            "hidden_size": 16,
        }
    },
}


@pytest.mark.parametrize("name", TOWERS)
def test_any_towers_learn_save_and_load(name, tmp_path):
    model, inputs = make(**TOWERS[name]).train(), pairs()
    loss = model(**inputs).loss
    loss.backward()
    for tower in (model.vision_model, model.text_model):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in tower.parameters())
    model.eval().save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert_close(again(**inputs).logits_per_image, model(**inputs).logits_per_image)


@torch.no_grad()
def test_pretrained_towers_make_a_model():
    vision, text = (
        hf_zoo.create_model("vit-tiny", "feature-extraction"),
        hf_zoo.create_model("mlm-tiny", "feature-extraction"),
    )
    model = ZooClipModel.from_towers(vision.eval(), text.eval(), text_pooling="mean", projection_dim=0).eval()
    inputs = pairs()
    expected = F.normalize(vision(inputs["pixel_values"]).pooler_output, dim=-1)
    assert_close(model(**inputs).image_embeds, expected)
    expected = F.normalize(text(inputs["input_ids"]).last_hidden_state.mean(1), dim=-1)
    assert_close(model(**inputs).text_embeds, expected)


@torch.no_grad()
def test_other_numbers_of_images_and_texts_give_scores_without_a_loss():
    model, inputs = make(), pairs()
    out = model(inputs["input_ids"], inputs["pixel_values"][:1], output_hidden_states=True)
    assert out.loss is None and out.logits_per_image.shape == (1, 4)
    assert len(out.vision_model_output.hidden_states) == len(out.text_model_output.hidden_states) == 3
    assert model(**inputs, return_loss=False).loss is None


@pytest.mark.parametrize(
    "options, message",
    [
        ({"projection_dim": 0, "text_config": {"model_type": "zoo_mlm", **TEXT}, "text_pooling": "cls"}, "64 and 32"),
        ({"text_config": {"model_type": "zoo_mlm", **TEXT}}, "eos_token_id=None"),
        ({"vision_config": {"hidden_size": 3}}, "vision_config needs a model_type"),
    ],
)
def test_configs_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("clip-tiny", **options)


def test_defaults_are_the_published_base_model():
    with torch.device("meta"):
        assert ZooClipModel(ZooClipConfig()).num_parameters() == 151_277_313


@pytest.mark.slow
def test_a_batch_is_learnt(tmp_path):
    inputs = pairs(8)
    rows = [{name: value[i] for name, value in inputs.items()} for i in range(8)]
    model = make()
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=30, learning_rate=1e-3, per_device_train_batch_size=8, report_to=[], use_cpu=True
    )
    trainer = transformers.Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    assert "eval_loss" in trainer.evaluate()
    trainer.train()
    assert model.eval()(**inputs).loss < 0.1


def test_the_pipeline_runs_and_texts_end(tmp_path):
    processor = hf_zoo.create_processor("clip-tiny")
    make().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
    again = transformers.AutoProcessor.from_pretrained(tmp_path)
    batches = [
        p(images=[image], text=["alpha", "beta with dot"], padding=True, return_tensors="pt")
        for p in (processor, again)
    ]
    for name, value in batches[0].items():
        assert torch.equal(value, batches[1][name])
    ids, mask = batches[0]["input_ids"], batches[0]["attention_mask"]
    assert torch.equal(ids[torch.arange(2), mask.sum(1) - 1], torch.tensor([2, 2]))
    assert (ids == 2).sum() == 2 and batches[0]["pixel_values"].shape == (1, 3, 32, 32)
    say = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path))
    answers = say(image, candidate_labels=["alpha", "beta", "gamma"])
    assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-4)


SCRIPT = """
import sys, torch, hf_zoo
from hf_zoo.modeling.losses import image_text_loss

torch.distributed.init_process_group("gloo")
rank, bias = torch.distributed.get_rank(), torch.tensor(-2.0) if sys.argv[1] == "siglip" else None
generator = torch.Generator().manual_seed(0)
draw = torch.randn(2, 6, 5, generator=generator, dtype=torch.float64)
images, texts = (torch.nn.functional.normalize(x, dim=-1) for x in draw)
mine = [x[3 * rank : 3 * rank + 3].float().requires_grad_() for x in (images, texts)]
loss = image_text_loss(*mine, torch.tensor(3.0), bias)
(loss / 2).backward()  # as data-parallel training takes the mean of processes
torch.distributed.all_reduce(loss.data)
torch.save([loss.detach() / 2, *(x.grad for x in mine)], f"{sys.argv[2]}/{rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_two_processes_have_the_loss_and_gradients_of_one(kind, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, script, kind, tmp_path], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    draw = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = [F.normalize(x, dim=-1).float().requires_grad_() for x in draw]
    loss = image_text_loss(*one, torch.tensor(3.0), torch.tensor(-2.0) if kind == "siglip" else None)
    loss.backward()
    for part in parts:
        assert_close(part[0], loss.detach())
    for i, x in enumerate(one, start=1):
        assert_close(torch.cat([part[i] for part in parts]), x.grad)
