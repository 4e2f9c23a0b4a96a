"""Gato's sequences: values against the worked table, what is learnt and what is not, patches, prompts, padding."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import hf_zoo
from hf_zoo.tokenization.gato_processor import ZooGatoProcessor, join

# x, F(x), id, value at the centre of its bin; worked out by hand
WORKED = [
    (-256, -1.0, 32000, -253.47),
    (-1, -0.45467, 32279, -0.9941),
    (-0.01, -0.06829, 32477, -0.0098),
    (0, 0.0, 32512, 0.0001),
    (0.5, 0.38736, 32710, 0.5018),
    (1, 0.45467, 32744, 0.9941),
    (10, 0.68064, 32860, 10.0025),
    (256, 1.0, 33023, 253.47),
]


@pytest.fixture(scope="module")
def processor():
    return hf_zoo.create_processor("gato-tiny")


@pytest.fixture(scope="module")
def published(processor):
    """With the ids of the published vocabulary."""
    return ZooGatoProcessor(processor.tokenizer)


@pytest.mark.parametrize(("x", "companded", "token", "back"), WORKED)
def test_continuous_values(published, x, companded, token, back):
    processor = published
    assert processor.compand(np.float64(x)) == pytest.approx(companded, abs=1e-5)
    assert processor.encode(float(x)) == [token]
    assert processor.decode_values([token])[0] == pytest.approx(back, rel=1e-4, abs=6e-5)


def test_values_come_back_within_half_a_bin(published):
    processor = published
    x = np.random.default_rng(0).normal(size=2000) * 30
    again = processor.decode_values(processor.encode(x))
    assert np.abs(processor.compand(again) - processor.compand(x)).max() <= 1 / 1024 + 1e-12
    assert np.allclose(processor.expand(processor.compand(x)), x)
    actions = np.random.default_rng(1).uniform(-1, 1, size=2000)
    again = processor.decode_values(processor.encode(actions, is_action=True), is_action=True)
    assert np.abs(again - actions).max() <= 1 / 1024 + 1e-12
    assert processor.encode(np.array([1e6, -1e6])) == [33023, 32000]  # beyond the range is its end
    assert processor.encode(np.array([2.0]), is_action=True) == [33023]


def test_discrete_values(published):
    processor = published
    assert processor.encode(np.array([[0, 5], [1023, 1]])) == [33024, 33029, 34047, 33025]
    assert processor.encode(True) == [33025]
    assert processor.decode_values([33024, 34047]).tolist() == [0, 1023]
    assert processor.action_ids(3) == range(33024, 33027) and processor.action_ids() == range(32000, 33024)
    for wrong in (1024, -1):
        with pytest.raises(ValueError, match=f"from 0 to 1023, got {wrong}"):
            processor.encode(wrong)
    with pytest.raises(ValueError, match="value 1 of 2 is not a number"):
        processor.encode(np.array([0.0, np.nan]))
    for mixed in ([32000, 33024], [5], [34048]):
        with pytest.raises(ValueError, match="not all discrete or all continuous"):
            processor.decode_values(mixed)


def test_a_timestep(processor):
    words = processor.tokenizer("go", add_special_tokens=False).input_ids
    step = processor.timestep({"speed": np.array([0.0, 1.0]), "button": 3, "order": "go"}, np.array([0.0, -1.0]))
    first, buttons = 512, 512 + 1024
    text = processor.text("go")["input_ids"]
    assert text[: len(words)] == words
    seen = [buttons + 3, *text, first + 512, first + 744, processor.separator_token_id]  # by name: b, o, s
    assert step["input_ids"] == [*seen, first + 512, first]  # actions are not companded
    assert step["labels"] == [-100] * len(seen) + [first + 512, first]
    assert step["local_positions"] == [*range(2, 2 + len(seen)), 1, 1]
    opened = processor.timestep({"speed": np.array([0.0, 1.0]), "button": 3, "order": "go"})
    assert opened["input_ids"] == seen


def test_patches_are_in_raster_order(processor):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    piece = processor.image(pixels)
    assert piece["input_ids"] == [processor.image_token_id] * 6 and set(piece["labels"]) == {-100}
    for number, patch in enumerate(piece["patches"]):
        row, column = divmod(number, 3)
        part = pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].transpose(2, 0, 1)
        assert np.allclose(patch, (part / 255 * 2 - 1) / 4, atol=1e-6)
    assert np.array(piece["patch_intervals"]).tolist()[:4] == [
        [0, 63, 0, 42],
        [0, 63, 42, 85],
        [0, 63, 85, 127],
        [64, 127, 0, 42],
    ]
    assert len(processor.image(Image.new("L", (30, 20)))["patches"]) == 2  # to the nearest multiple of a patch
    with_image = processor.timestep(pixels, 1)
    assert with_image["local_positions"] == [*range(2, 9), 1]


def test_captions_are_learnt_and_images_are_not(processor):
    batch = processor(["a", "a longer caption"], [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)])
    is_patch = batch["input_ids"] == processor.image_token_id
    assert is_patch.sum(1).tolist() == [4, 1]
    assert batch["patches"].shape == (2, 4, 3, 16, 16) and not batch["patches"][1, 1:].any()
    learnt = batch["labels"] != -100
    assert torch.equal(learnt, batch["attention_mask"].bool() & ~is_patch)
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    assert "patches" not in processor("text alone")
    assert processor("text alone " * 20, max_length=7)["input_ids"].shape == (1, 7)


def test_rows_of_every_kind_make_one_batch(processor):
    model = hf_zoo.create_model("gato-tiny").eval()
    parts = [processor.text("a"), processor.image(np.ones((16, 32, 3), np.uint8)), processor.timestep(np.zeros(2), 1)]
    batch = processor.batch(parts)
    assert not batch["patches"][[0, 2]].any() and batch["patches"].shape[:2] == (3, 2)
    batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
        for row, piece in enumerate(parts):
            alone = processor.batch([piece])
            alone.pop("labels")
            got = logits[row, : len(piece["input_ids"])]
            torch.testing.assert_close(got, model(**alone).logits[0], atol=2e-5, rtol=1e-4)


def test_a_quarter_begins_with_a_demonstration(processor):
    steps = [(np.array([0.5]), 1)] * 2
    demonstration = [(np.array([float(i)]), i % 16) for i in range(10)]
    random = np.random.default_rng(0)
    pieces = [processor.prompted(steps, demonstration, 3, random) for _ in range(2000)]
    own = processor.episode(steps)
    prompts = [piece["input_ids"][: -len(own["input_ids"])] for piece in pieces]
    with_prompt = [prompt for prompt in prompts if prompt]
    assert 0.22 < len(with_prompt) / 2000 < 0.28
    starts = {tuple(processor.episode(demonstration[i : i + 3])["input_ids"]): i for i in range(8)}
    counts = np.bincount([starts[tuple(prompt)] for prompt in with_prompt], minlength=8) / len(with_prompt)
    assert 0.5 < counts[7] < 0.63  # half, and an eighth of the other half
    assert counts[:7].min() > 0.03
    for piece in pieces[:20]:
        assert piece["labels"][-len(own["labels"]) :] == own["labels"]
        assert set(piece["labels"][: -len(own["labels"])]) <= {-100}


def test_what_is_refused(processor):
    with pytest.raises(ValueError, match="either episodes, or text"):
        processor()
    with pytest.raises(ValueError, match="either episodes, or text"):
        processor("a", episodes=[])
    with pytest.raises(ValueError, match="1 captions of 2 images"):
        processor(["a"], [np.zeros((16, 16, 3), np.uint8)] * 2)


def test_auto_processor_gives_it_back(processor, tmp_path):
    model = hf_zoo.create_model("gato-tiny").eval()
    hf_zoo.export_standalone(model, tmp_path, processor)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ZooGatoProcessor
    batch = processor(episodes=[[({"x": np.array([0.3])}, 1)]])
    for name, value in again(episodes=[[({"x": np.array([0.3])}, 1)]]).items():
        assert torch.equal(value, batch[name])
    assert again.separator_token_id == model.config.separator_token_id
    assert (tmp_path / "gato_processor.py").is_file()


def test_pieces_join_in_order(processor):
    one, other = processor.text("a"), processor.image(np.zeros((16, 16, 3), np.uint8))
    joined = join(one, other, one)
    assert joined["input_ids"] == one["input_ids"] + other["input_ids"] + one["input_ids"]
    assert len(joined["patches"]) == 1
