"""Filter banks against Kaldi's recipe worked out sample by sample; batches, checks, settings that are saved."""

import numpy as np
import pytest
from transformers import AutoFeatureExtractor, SeamlessM4TFeatureExtractor

import hf_zoo
from hf_zoo.tokenization.beats_feature_extractor import ZooBeatsFeatureExtractor


def wave(samples=4_000, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples)


def test_spectra_are_kaldis():
    """Frame, mean, pre-emphasis, window of Povey, power, triangles on the mel scale."""
    sound, bins = wave(), 128
    mel = lambda f: 1127 * np.log1p(f / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), bins + 2)
    tones = mel(np.arange(257) * 16_000 / 512)
    up = (tones - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - tones) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(np.minimum(up, down), 0)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    rows = []
    for start in range(0, len(sound) - 399, 160):
        frame = sound[start : start + 400] * 32768
        frame = frame - frame.mean()
        frame = frame - 0.97 * np.concatenate((frame[:1], frame[:-1]))
        power = np.abs(np.fft.rfft(frame * window, 512)) ** 2
        rows.append(np.log(np.maximum(triangles @ power, 1.1920929e-07)))
    expected = (np.stack(rows) - 15.41663) / (2 * 6.55582)
    got = ZooBeatsFeatureExtractor()(sound, return_tensors="np")["input_values"][0]
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_spectra_are_those_of_transformers_own_kaldi_recipe():
    sound = wave()
    theirs = SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80)._extract_fbank_features(sound)
    ours = ZooBeatsFeatureExtractor(80, mean=0.0, std=0.5).spectrum(sound)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_ten_seconds_are_998_frames():
    assert ZooBeatsFeatureExtractor()(np.zeros(160_000))["input_values"].shape == (1, 998, 128)


def test_sounds_of_several_lengths_are_padded_on_the_right():
    short, long = wave(6_000), wave(9_000, 1)
    extractor = ZooBeatsFeatureExtractor(32)
    batch = extractor([short, long], sampling_rate=16_000)
    assert batch["attention_mask"].sum(-1).tolist() == [36, 54]
    alone = extractor(short.tolist())
    assert (batch["input_values"][0, :36] == alone["input_values"][0]).all()
    assert (batch["input_values"][0, 36:] == 0).all()


def test_a_short_sound_makes_a_patch():
    batch = ZooBeatsFeatureExtractor(32, least_frames=8)(wave(100))
    assert batch["input_values"].shape == (1, 8, 32) and batch["attention_mask"].all()


def test_what_is_no_sound_is_named():
    extractor = ZooBeatsFeatureExtractor()
    with pytest.raises(ValueError, match="sampling_rate=16000, got 8000"):
        extractor(wave(), sampling_rate=8_000)
    with pytest.raises(ValueError, match="one row of samples"):
        extractor([np.zeros((2, 500))])


def test_settings_survive_saving(tmp_path):
    hf_zoo.create_model("beats-tiny").config.save_pretrained(tmp_path)
    extractor = hf_zoo.create_processor("beats-tiny")
    extractor.mean = 3.0
    extractor.save_pretrained(tmp_path)
    again = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(again) is ZooBeatsFeatureExtractor
    assert (again.num_mel_bins, again.least_frames, again.mean) == (32, 8, 3.0)
    np.testing.assert_array_equal(again.spectrum(wave()), extractor.spectrum(wave()))
