"""The processor of Meta-Transformer: where each modality goes, what is refused, what is kept."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import ASTFeatureExtractor, AutoProcessor

import hf_zoo
from hf_zoo.modeling.meta_transformer.modality_tokens import INPUTS
from hf_zoo.tokenization.meta_transformer_processor import ZooMetaTransformerProcessor


@pytest.fixture(scope="module")
def processor():
    return hf_zoo.create_processor("meta-transformer-tiny")


def picture(height=40, width=30, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rows():
    """Two rows of each modality but the table."""
    random = np.random.default_rng(1)
    graph = {"nodes": random.normal(size=(5, 4)), "edges": [[0, 1], [1, 2]], "edge_values": random.normal(size=(2, 2))}
    small = {"nodes": random.normal(size=(2, 4)), "edges": np.zeros((0, 2)), "edge_values": np.zeros((0, 2))}
    return {
        "text": ["import os", "x"],
        "image": [picture(), picture(20, 20)],
        "infrared": [picture(), picture(20, 20).convert("L")],
        "x_ray": [np.asarray(picture()), np.asarray(picture().convert("L"))],
        "video": [[picture(seed=i) for i in range(6)], [picture()]],
        "hyperspectral": random.normal(size=(2, 6, 3, 3)),
        "points": [random.normal(size=(50, 3)), random.normal(size=(10, 3))],
        "audio": [random.normal(size=8000), random.normal(size=4000)],
        "graph": [graph, small],
        "time_series": random.normal(size=(2, 9, 2)),
        "imu": random.normal(size=(2, 9, 6)),
    }


def test_a_model_reads_what_it_is_given(processor):
    model = hf_zoo.create_model("meta-transformer-tiny").eval()
    data = rows()
    for name, values in data.items():
        batch = processor(**{name: values})
        assert set(batch) <= set(INPUTS[name])
        assert model(**batch).logits.shape == (2, 2), name
        first = processor(**{name: values[0]})  # one row alone
        if name not in ("text", "graph"):  # these are padded to the longest
            assert_close(first[INPUTS[name][0]], batch[INPUTS[name][0]][:1])
    everything = processor(**data)
    assert model(**everything).logits.shape == (2, 2)
    assert set(everything) <= set(processor.model_input_names)


def test_pictures_of_one_channel_are_grey(processor):
    batch = processor(infrared=picture(), x_ray=picture().convert("L"), image=picture())
    assert batch["pixel_values"].shape == (1, 3, 16, 16)
    assert batch["infrared_values"].shape == (1, 1, 16, 16)
    assert_close(batch["infrared_values"], batch["x_ray_values"])
    assert -1 <= batch["pixel_values"].min() and batch["pixel_values"].max() <= 1


def test_frames_are_taken_evenly(processor):
    video = [Image.new("RGB", (16, 16), (25 * i, 0, 0)) for i in range(10)]
    frames = processor(video=video)["pixel_values_videos"]
    assert frames.shape == (1, 4, 3, 16, 16)
    assert ((frames[0, :, 0, 0, 0] + 1) * 127.5 / 25).round().tolist() == [0, 3, 6, 9]


def test_clouds_are_moved_into_the_unit_ball(processor):
    cloud = np.random.default_rng(0).normal(size=(50, 3)) * 7 + 3
    points = processor(points=cloud)["points"]
    assert points.shape == (1, 24, 3)
    assert_close(points[0].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert_close(points[0].norm(dim=1).max(), torch.tensor(1.0))
    assert processor(points=[[1.0, 2.0, 3.0]])["points"].isfinite().all()


def test_sounds_are_those_of_ast(processor):
    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    expected = ASTFeatureExtractor(num_mel_bins=16, max_length=40)(sound, sampling_rate=16000, return_tensors="pt")
    assert_close(processor(audio=sound)["audio_values"], expected["input_values"])


def test_graphs_are_padded(processor):
    batch = processor(graph=rows()["graph"])
    assert batch["node_mask"].tolist() == [[1] * 5, [1, 1, 0, 0, 0]]
    assert batch["edge_index"].tolist() == [[[0, 1], [1, 2]], [[-1, -1], [-1, -1]]]


def test_what_is_wrong_is_named(processor):
    with pytest.raises(ValueError, match="unknown modality 'imagee'. Did you mean 'image'"):
        processor(imagee=picture())
    with pytest.raises(ValueError, match="give at least one of text, image"):
        processor()
    with pytest.raises(ValueError, match=r"hyperspectral pictures must be \(6, 3, 3\)"):
        processor(hyperspectral=np.zeros((1, 5, 3, 3)))
    with pytest.raises(ValueError, match=r"time_series must be \(steps, 2\)"):
        processor(time_series=np.zeros((1, 5, 3)))
    with pytest.raises(ValueError, match=r"a cloud must be \(points, 3\)"):
        processor(points=[np.zeros((5, 2))])
    with pytest.raises(ValueError, match="edges of graph 0 name nodes that are not among its 2"):
        processor(graph={"nodes": np.zeros((2, 4)), "edges": [[0, 2]], "edge_values": np.zeros((1, 2))})
    with pytest.raises(ValueError, match=r"nodes of graph 0 must be \(nodes, 4\)"):
        processor(graph={"nodes": np.zeros((2, 3)), "edges": [[0, 1]], "edge_values": np.zeros((1, 2))})
    with pytest.raises(ValueError, match="call fit_table"):
        processor(table=[{"a": 1}])


def test_the_whole_processor_is_saved(tmp_path):
    processor = hf_zoo.create_processor("meta-transformer-tiny")
    table = [{"age": 20.5, "town": "Ulm", "member": "no"}, {"age": 31.0, "town": "Bonn", "member": "yes"}]
    assert processor.fit_table(table, target="member") == {"num_numeric_columns": 1, "category_sizes": [3]}
    processor.save_pretrained(tmp_path)
    hf_zoo.create_config("meta-transformer-tiny").save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    assert (again.modalities, again.columns) == (processor.modalities, processor.columns)
    data = {**rows(), "table": table}
    one, other = processor(**data), again(**data)
    assert set(one) == set(other) and "labels" in one
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_a_model_without_texts_needs_no_tokenizer(tmp_path):
    config = hf_zoo.create_config("meta-transformer-tiny", modalities={"imu": {}})
    processor = ZooMetaTransformerProcessor.from_model_config(config)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert again.tokenizer is None and not (tmp_path / "tokenizer.json").exists()
    assert again(imu=np.zeros((4, 6)))["imu_values"].shape == (1, 4, 6)
    with pytest.raises(ValueError, match="unknown modality 'text'"):
        again(text="a")
