"""The processor of SAM: sizes, coordinates, and all masks of an image without torchvision."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import hf_zoo
from hf_zoo.tokenization.sam_processor import ZooSamImageProcessorPil, ZooSamProcessor, read_runs, suppress


@pytest.fixture
def image():
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 255, (48, 96, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = hf_zoo.create_model("sam-tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    hf_zoo.create_processor("sam-tiny").save_pretrained(tmp_path)
    return tmp_path


def test_images_and_points_are_scaled_to_the_model(image, folder):
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert type(processor) is ZooSamProcessor
    assert type(processor.image_processor) is ZooSamImageProcessorPil
    inputs = processor(images=image, input_points=[[[24, 12]]], input_boxes=[[[0, 0, 96, 48]]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert inputs["pixel_values"][:, :, 32:].eq(0).all()  # filled up below
    assert inputs["input_points"].tolist() == [[[[16.0, 8.0]]]]
    assert inputs["input_boxes"].tolist() == [[[0.0, 0.0, 64.0, 32.0]]]
    model = transformers.AutoModelForMaskGeneration.from_pretrained(folder).eval()
    sizes = inputs.pop("original_sizes"), inputs.pop("reshaped_input_sizes")
    masks = processor.post_process_masks(model(**inputs).pred_masks, *sizes)
    assert masks[0].shape == (1, 3, 48, 96)


def test_doubles_are_suppressed_and_runs_are_read():
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [0, 0, 10, 10], [5, 5, 5, 5]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.6, 0.2])
    assert suppress(boxes, scores, 0.7).tolist() == [1, 4, 2]  # 90 / 110 of the first and of the fourth
    assert suppress(boxes, scores, 0.9).tolist() == [1, 3, 4, 2]
    assert suppress(boxes[:0], scores[:0], 0.7).tolist() == []
    mask = read_runs({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_the_pipeline_finds_all_masks_of_an_image(image, folder):
    find = transformers.pipeline("mask-generation", model=str(folder))
    lenient = {"points_per_crop": 4, "pred_iou_thresh": -99.0, "stability_score_thresh": -1.0, "crops_nms_thresh": 0.9}
    found = find(image, **lenient)
    assert len(found["masks"]) == len(found["scores"]) > 1
    assert all(mask.shape == (48, 96) and mask.dtype == bool for mask in found["masks"])
    assert (found["scores"].diff() <= 0).all()
    strict = find(image, **{**lenient, "crops_nms_thresh": 0.0})
    assert len(strict["masks"]) < len(found["masks"])
    best = find(image, **{**lenient, "pred_iou_thresh": found["scores"][0].item() - 1e-6})
    assert len(best["masks"]) == 1


@pytest.mark.slow
def test_the_pipeline_runs_without_the_package(image, folder):
    image.save(folder / "image.png")
    options = {"points_per_crop": 4, "pred_iou_thresh": -99.0, "stability_score_thresh": -1.0}
    expected = transformers.pipeline("mask-generation", model=str(folder))(str(folder / "image.png"), **options)
    script = (
        "import json, sys\n"
        "sys.modules['hf_zoo'] = None\n"
        "import transformers\n"
        "find = transformers.pipeline('mask-generation', model=sys.argv[1], trust_remote_code=True)\n"
        "found = find(sys.argv[1] + '/image.png', **json.loads(sys.argv[2]))\n"
        "print(json.dumps(found['scores'].tolist()))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, folder, json.dumps(options)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert json.loads(run.stdout) == pytest.approx(expected["scores"].tolist(), abs=1e-5)
