"""Any of six kinds of signals, clips of films and sounds, settings that are saved."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import needs_image_processors
from transformers import AutoProcessor

import hf_zoo
from hf_zoo.tokenization.imagebind_processor import ZooImagebindProcessor


@pytest.fixture(scope="module")
def processor():
    return hf_zoo.create_processor("imagebind-tiny")


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8))


def test_everything_at_once_feeds_the_model(processor):
    noise = np.random.default_rng(0)
    batch = processor(
        images=[picture(), picture(1)],
        text=["a dog", "the sound of the sea"],
        audio=[noise.normal(size=9_000), noise.normal(size=40_000)],
        depth=noise.random((2, 20, 30)),
        thermal=[noise.random((20, 30)), noise.random((64, 64))],
        imu=noise.normal(size=(2, 6, 90)),
    )
    assert batch["audio_values"].shape == (2, 3, 1, 32, 50)
    assert (batch["depth_values"].shape, batch["imu_values"].shape) == ((2, 1, 32, 32), (2, 6, 64))
    assert set(batch) == set(processor.model_input_names)
    ends = batch["attention_mask"].sum(-1) - 1
    assert (batch["input_ids"][torch.arange(2), ends] == processor.tokenizer.eos_token_id).all()
    model = hf_zoo.create_model("imagebind-tiny")
    assert model(**batch).loss.isfinite()


def test_one_thing_is_a_batch_of_one(processor):
    noise = np.random.default_rng(0)
    batch = processor(images=picture(), text="a dog", audio=noise.normal(size=9_000), depth=noise.random((20, 30)))
    assert {len(value) for value in batch.values()} == {1}


def test_a_film_is_cut_into_clips_in_its_order(processor):
    frames = [Image.new("RGB", (32, 32), (level, level, level)) for level in range(0, 240, 20)]  # twelve
    clips = processor(videos=frames)["pixel_values"]
    assert clips.shape == (1, 3, 3, 2, 32, 32)
    brightness = clips.mean((2, 4, 5)).flatten()
    assert (brightness.diff() > 0).all()
    assert processor(videos=[frames[:1], frames])["pixel_values"].shape == (2, 3, 3, 2, 32, 32)


def test_clips_of_a_sound_lie_evenly_over_it(processor):
    length = 50 * 160
    wave = np.concatenate([np.random.default_rng(i).normal(size=length) for i in range(3)])
    clips = processor(audio=wave)["audio_values"][0]
    for place in range(3):
        alone = processor(audio=wave[place * length : (place + 1) * length])["audio_values"][0, 0]
        torch.testing.assert_close(clips[place], alone)


def test_series_are_stretched(processor):
    series = np.tile(np.linspace(0, 1, 10), (6, 1))
    got = processor(imu=series)["imu_values"][0]
    np.testing.assert_allclose(got[2], np.linspace(0, 1, 64), atol=1e-6)


def test_what_cannot_be_is_named(processor):
    with pytest.raises(ValueError, match="at least one of images"):
        processor()
    with pytest.raises(ValueError, match="not both"):
        processor(images=picture(), videos=[picture()])
    with pytest.raises(ValueError, match="sampling"):
        processor(audio=np.zeros(9_000), sampling_rate=8_000)


def test_settings_survive_saving(processor, tmp_path):
    needs_image_processors()
    hf_zoo.create_model("imagebind-tiny").config.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ZooImagebindProcessor
    assert (again.num_clips, again.depth_size, again.imu_length) == (3, [32, 32], 64)
    wave = np.random.default_rng(0).normal(size=9_000)
    one, two = (p(audio=wave, text="a dog", images=picture()) for p in (processor, again))
    for name in one:
        assert torch.equal(one[name], two[name]), name
