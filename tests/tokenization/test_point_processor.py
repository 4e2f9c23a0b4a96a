"""Clouds of any size to one size, and settings that are saved."""

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

import hf_zoo
from hf_zoo.tokenization.point_processor import ZooPointProcessor


def test_clouds_come_out_centred_scaled_and_of_one_size():
    random = np.random.default_rng(0)
    clouds = [random.normal(5, 2, (n, 3)) for n in (50, 300, 128)]
    points = ZooPointProcessor(num_points=128)(clouds)["points"]
    assert points.shape == (3, 128, 3) and points.dtype == torch.float32
    assert points.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(points.norm(dim=-1).amax(1), torch.ones(3))
    assert len(points[0].unique(dim=0)) == 50 and len(points[1].unique(dim=0)) == 128


def test_one_cloud_is_a_batch_of_one_and_always_the_same():
    cloud = np.random.default_rng(0).normal(size=(200, 3))
    processor = ZooPointProcessor(num_points=64)
    first = processor(cloud)["points"]
    assert first.shape == (1, 64, 3)
    assert torch.equal(first, processor(cloud.tolist())["points"])
    assert torch.equal(first, processor([torch.tensor(cloud)])["points"])


def test_colours_stay():
    cloud = np.concatenate((np.random.default_rng(0).normal(size=(64, 3)), np.full((64, 3), 0.5)), 1)
    points = ZooPointProcessor(num_points=64, num_channels=6)(cloud)["points"]
    assert (points[..., 3:] == 0.5).all()
    raw = ZooPointProcessor(num_points=64, num_channels=6, do_center=False, do_scale=False)(cloud)["points"]
    np.testing.assert_allclose(raw[0].numpy(), cloud.astype(np.float32))


@pytest.mark.parametrize(
    ("cloud", "message"),
    [(np.zeros((4, 2)), "num_channels=3"), (np.zeros((0, 3)), "points"), (np.full((4, 3), np.nan), "not finite")],
)
def test_bad_clouds_are_named(cloud, message):
    with pytest.raises(ValueError, match=message):
        ZooPointProcessor()(cloud)


def test_settings_survive_saving(tmp_path):
    hf_zoo.create_model("point-bert-tiny").config.save_pretrained(tmp_path)
    processor = hf_zoo.create_processor("point-bert-tiny")
    processor.do_scale = False
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is ZooPointProcessor
    assert (again.num_points, again.do_scale, again.do_center) == (128, False, True)
