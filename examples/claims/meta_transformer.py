"""One encoder, trained once and then frozen, reads twelve modalities better than a linear model reads them raw.

Zhang et al. 2023, "Meta-Transformer", https://arxiv.org/abs/2307.10802: what a vision transformer has learnt from
pictures and their texts serves all modalities; only a tokeniser and a head are learnt for each. Here the encoder
learns to match glyphs with their names, as in the paper by contrast, and is then frozen. Each task is real data or
drawn, and for each the rival is a logistic regression on the raw numbers (of a text on how often each token occurs, of
a graph on its adjacency matrix), at the better of three strengths of its penalty on the test rows. Tasks are chosen
such that what matters is no sum of raw numbers: positions, phases, polarities and numberings are random.
"""

import warnings

import numpy as np
import torch
from torch.nn import functional as F

import hf_zoo
from hf_zoo.claims import Claim, train
from hf_zoo.data import load_dataset
from hf_zoo.modeling.meta_transformer.modeling_meta_transformer import (
    ZooMetaTransformerForSequenceClassification,
    ZooMetaTransformerModel,
)
from hf_zoo.tokenization.meta_transformer_processor import ZooMetaTransformerProcessor
from hf_zoo.tokenization.train import train_tokenizer

PRETRAINING, STEPS, BATCH, RATE = 200, 600, 32, 5e-3
ENCODER = {
    **{"model_type": "zoo_vit", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "use_cls": False, "pooling": "mean", "final_norm": "none", "norm_eps": 1e-5},
}
NAME_LENGTH = 20  # tokens of a glyph's name


def split(inputs, labels, raw=None, test=400):
    """The last rows are for the test."""
    inputs = {name: torch.as_tensor(np.asarray(value)) for name, value in inputs.items()}
    labels = torch.as_tensor(np.asarray(labels)).long()
    raw = torch.cat([value.flatten(1).float() for value in inputs.values()], 1) if raw is None else raw
    parts = slice(None, -test), slice(-test, None)
    return [({n: v[p] for n, v in inputs.items()}, labels[p], np.asarray(raw)[p]) for p in parts]


def scaled(values):
    """Numbers of mean 0 and deviation 1."""
    return ((values - values.mean()) / values.std()).astype(np.float32)


def texts(random):
    """The first sixteen tokens of a docstring, as they are or backwards."""
    docs = [row for row in load_dataset("python-docs", "train+validation+test")["doc"] if len(row) > 200]
    vocab = 800
    tokenizer = train_tokenizer(docs[:1500], "bpe", vocab)
    rows, labels = [], []
    for ids in tokenizer(docs)["input_ids"]:
        labels.append(random.integers(2))
        rows.append(ids[:16][:: -1 if labels[-1] else 1])
    counts = np.stack([np.bincount(row, minlength=vocab) for row in rows]).astype(np.float32)
    return {"vocab_size": vocab, "max_length": 16}, split({"input_ids": rows}, labels, counts)


def pictures(random):
    """Digits of any bright colour on a ground of any dark one, or the other way round."""
    ink, labels = digits(random, 8)
    dark, bright = random.uniform(-1, -0.3, (len(ink), 3, 1, 1)), random.uniform(0.3, 1, (len(ink), 3, 1, 1))
    pixels = (dark + (bright - dark) * ink[:, None]) * random.choice([-1, 1], (len(ink), 1, 1, 1))
    sizes = {"image_size": 8, "patch_size": 2, "num_channels": 3}
    return sizes, split({"pixel_values": pixels.astype(np.float32)}, labels)


def digits(random, side):
    """Handwritten digits somewhere in a larger picture, (N, side, side) from 0 to 1, and which they are."""
    rows = load_dataset("digits", "train+validation+test")
    small = np.stack([np.asarray(image) for image in rows["image"]]).astype(np.float32)
    small = small / small.max()
    picked = random.permutation(np.tile(np.arange(len(rows)), 2))
    test = random.permutation(len(rows))[:400]  # each of these once, at the end
    picked = np.concatenate((picked[~np.isin(picked, test)], test))
    pictures = np.zeros((len(picked), side, side), dtype=np.float32)
    for picture, index in zip(pictures, picked, strict=True):
        top, left = random.integers(0, side - 7, 2)
        picture[top : top + 8, left : left + 8] = small[index]
    return pictures, np.asarray(rows["label"])[picked]


def infrared(random):
    """Digits that are hotter or colder than a noisy ground."""
    heat, labels = digits(random, 10)
    heat = heat * random.choice([-1.0, 1.0], (len(heat), 1, 1)) + random.normal(0, 0.1, heat.shape)
    sizes = {"image_size": 10, "patch_size": 2, "num_channels": 1}
    return sizes, split({"infrared_values": heat[:, None].astype(np.float32)}, labels)


def x_rays(random):
    """How many rivets are behind a plate of some thickness and slope, of whose rays a share comes through."""
    count, side = 2400, 16
    labels, across = random.integers(1, 5, count), np.linspace(-1, 1, side)
    metal = np.zeros((count, side, side))
    for plate, rivets in zip(metal, labels, strict=True):
        for place in random.permutation(16)[:rivets]:
            top, left = 4 * np.array(divmod(place, 4)) + random.integers(0, 3, 2)
            plate[top : top + 2, left : left + 2] = random.uniform(0.5, 1.5)
    slope = random.normal(0, 0.5, (count, 2, 1, 1))
    metal += random.uniform(0, 2, (count, 1, 1)) + slope[:, 0] * across + slope[:, 1] * across[:, None]
    rays = np.exp(-metal) + random.normal(0, 0.005, metal.shape)
    sizes = {"image_size": side, "patch_size": 4, "num_channels": 1}
    return sizes, split({"x_ray_values": scaled(np.log(rays.clip(5e-3)))[:, None]}, labels - 1)


def videos(random):
    """Which way a glyph moves, dark on light or light on dark."""
    rows = load_dataset("moving-glyphs", "train+validation+test")
    directions = {name: i for i, name in enumerate(sorted(set(rows["direction"])))}
    frames = np.stack([[np.asarray(f.resize((16, 16)).convert("L")) for f in film] for film in rows["frames"]])
    frames = 1 - frames[:, :, None].astype(np.float32) / 127.5
    frames *= random.choice([-1, 1], (len(frames), 1, 1, 1, 1)).astype(np.float32)
    sizes = {"image_size": 16, "patch_size": 8, "num_channels": 1, "num_frames": 8, "tubelet_size": 2}
    return sizes, split({"pixel_values_videos": frames}, [directions[name] for name in rows["direction"]])


def spectra(random):
    """How many lines a mineral absorbs, at random places, in light of random strength."""
    count, bands = 2400, 40
    labels = random.integers(1, 5, count)
    light = np.empty((count, bands, 3, 3), dtype=np.float32)
    for row, lines in enumerate(labels):
        places = 3 + 5 * random.permutation(8)[:lines] + random.integers(-1, 2, lines)
        depths = random.uniform(0.3, 0.9, lines)
        lost = (depths * np.exp(-((np.arange(bands)[:, None] - places) ** 2) / 1.5)).sum(1)
        level = random.uniform(0.5, 1.5) + random.normal(0, 0.3) * np.linspace(-1, 1, bands)
        light[row] = (level * (1 - lost.clip(0, 0.95)))[:, None, None]
    light += random.normal(0, 0.05, light.shape)
    return {"num_bands": bands, "patch_size": 3, "group_size": 3}, split({"band_values": scaled(light)}, labels - 1)


def clouds(random):
    """Which solid points lie on, turned any way."""
    rows = load_dataset("solids", "train+validation+test").shuffle(seed=int(random.integers(1 << 30)))
    points = np.asarray(rows["points"], dtype=np.float32)[:, :128]
    sizes = {"num_channels": 3, "num_points": 128, "stride": 4, "group_size": 16}
    return sizes, split({"points": points}, rows["label"], test=300)


def sounds(random):
    """Which instrument plays, on any note or chord."""
    rows = load_dataset("tones", "train+validation+test").shuffle(seed=int(random.integers(1 << 30)))
    timbres = {name: i for i, name in enumerate(sorted(set(rows["timbre"])))}
    config = hf_zoo.create_config(
        "meta-transformer-tiny", modalities={"audio": {"max_frames": 48, "num_mel_bins": 32, "stride": 10}}
    )
    processor = ZooMetaTransformerProcessor.from_model_config(config)
    values = processor(audio=[row["array"][:8000] for row in rows["audio"]])["audio_values"]
    return config.modalities["audio"], split(
        {"audio_values": values}, [timbres[name] for name in rows["timbre"]], test=300
    )


def tables(random):
    """Whether a digit is odd, from the 64 columns of scikit-learn's table of digits."""
    rows = load_dataset("table-digits", "train+validation+test").shuffle(seed=int(random.integers(1 << 30)))
    columns = [name for name in rows.column_names if name != "label"]
    values = np.stack([np.asarray(rows[name], dtype=np.float32) for name in columns], 1) / 8 - 1
    labels = np.asarray(rows["label"]) % 2
    return {"num_numeric_columns": len(columns), "category_sizes": []}, split({"numeric_values": values}, labels)


def graphs(random):
    """Trees of as many edges: paths, stars, two joined stars, and those that grow at random nodes; numbered anyhow."""
    count, nodes = 2400, 10
    labels, edges = random.integers(0, 4, count), np.empty((count, nodes - 1, 2), dtype=np.int64)
    adjacency = np.zeros((count, nodes, nodes), dtype=np.float32)
    for row, kind in enumerate(labels):
        parents = {
            0: np.arange(nodes - 1),
            1: np.zeros(nodes - 1, dtype=int),
            2: np.array([0, *random.permutation(np.arange(nodes - 2) % 2)]),
            3: np.array([random.integers(0, node) for node in range(1, nodes)]),
        }[int(kind)]
        tree = np.stack((parents, np.arange(1, nodes)), 1)
        names = random.permutation(nodes)
        edges[row] = random.permutation(names[tree])
        adjacency[row, edges[row, :, 0], edges[row, :, 1]] = adjacency[row, edges[row, :, 1], edges[row, :, 0]] = 1
    sizes = {"node_size": 1, "edge_size": 0, "identifier_size": 16, "identifiers": "random"}
    inputs = {"node_values": np.ones((count, nodes, 1), dtype=np.float32), "edge_index": edges}
    return sizes, split(inputs, labels, adjacency.reshape(count, -1))


def series(random):
    """A season, a trend that turns, a walk, or noise."""
    count, steps = 2400, 32
    labels, time = random.integers(0, 4, count), np.arange(32)
    values = np.empty((count, steps), dtype=np.float32)
    for row, kind in enumerate(labels):
        noise = random.normal(0, 1, steps)
        values[row] = {
            0: lambda n: 1.4 * np.sin(2 * np.pi * (time / random.uniform(4, 8) + random.uniform())) + 0.4 * n,
            1: lambda n: random.choice([-1, 1]) * 0.15 * np.abs(time - random.integers(8, 24)) + 0.4 * n,
            2: lambda n: np.cumsum(n),
            3: lambda n: n,
        }[int(kind)](noise)
    values = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    return {"num_channels": 1}, split({"series_values": values[..., None]}, labels)


def motions(random):
    """A wrist that circles one way or the other, shakes along a line, or taps; held at any angle."""
    count, steps = 2400, 32
    labels, time = random.integers(0, 4, count), np.arange(steps) / steps
    values = np.empty((count, steps, 6), dtype=np.float32)
    for row, kind in enumerate(labels):
        phase = 2 * np.pi * (random.uniform(2, 4) * time + random.uniform())
        turn = -1 if kind == 1 else 1
        if kind < 2:
            moved = np.stack((np.cos(phase), turn * np.sin(phase), 0 * phase), 1)
        elif kind == 2:
            moved = np.cos(phase)[:, None] * [np.cos(angle := random.uniform(0, np.pi)), np.sin(angle), 0]
        else:
            moved = (np.cos(phase) > 0.9)[:, None] * [0, 0, 2.0] + 0.0
        held = np.array([0, 0, 9.8]) / 9.8 + random.normal(0, 0.2, 3)
        spin = np.gradient(moved, axis=0) * 3
        values[row] = np.concatenate((moved * random.uniform(0.7, 1.3) + held, spin), 1)
    values += random.normal(0, 0.3, values.shape)
    return {"num_channels": 6}, split({"imu_values": values}, labels)


TASKS = {
    **{"text": texts, "image": pictures, "infrared": infrared, "x_ray": x_rays, "video": videos},
    **{"hyperspectral": spectra, "points": clouds, "audio": sounds, "table": tables, "graph": graphs},
    **{"time_series": series, "imu": motions},
}


def glyph_pixels(rows):
    """(N, 3, 32, 32) from -1 to 1."""
    return (
        np.stack([np.asarray(image) for image in rows["image"]]).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    )


class Pairs(torch.nn.Module):
    """Pictures and names through one encoder that still learns, and how well they match."""

    def __init__(self, vocab_size):
        super().__init__()
        modalities = {
            "text": {"vocab_size": vocab_size, "max_length": NAME_LENGTH},
            "image": {"image_size": 32, "patch_size": 8},
        }
        config = hf_zoo.create_config(
            *("meta-transformer-tiny",), modalities=modalities, encoder_config=ENCODER, freeze_encoder=False
        )
        self.model = ZooMetaTransformerModel(config)
        self.scale = torch.nn.Parameter(torch.tensor(2.66))

    def forward(self, pixel_values, input_ids, attention_mask):
        """The loss of a batch of pairs."""
        outputs = self.model(pixel_values=pixel_values), self.model(input_ids=input_ids, attention_mask=attention_mask)
        images, names = (F.normalize(output.pooler_output, dim=-1) for output in outputs)
        scores, own = images @ names.T * self.scale.exp(), torch.arange(len(images))
        return {"loss": (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2}


def pretrained(seed, claim=None):
    """Blocks that have learnt to match glyphs with their names."""
    rows = load_dataset("glyphs", "train")
    tokenizer = train_tokenizer(rows["text"], "bpe", 800)
    options = {"padding": "max_length", "max_length": NAME_LENGTH, "truncation": True, "padding_side": "right"}
    names = tokenizer(list(rows["text"]), return_tensors="pt", **options)
    pixels = torch.as_tensor(glyph_pixels(rows))

    def draw(generator):
        i = int(torch.randint(len(pixels), (), generator=generator))
        return {"pixel_values": pixels[i], **{n: names[n][i] for n in ("input_ids", "attention_mask")}}

    torch.manual_seed(seed)
    pairs = Pairs(len(tokenizer))
    losses = train(pairs, draw, PRETRAINING, 2e-3, batch_size=64, seed=seed)
    if claim is not None:
        claim.draw("matching glyphs with names", "loss", range(10, PRETRAINING + 1, 10), losses)
    return pairs.model.encoder


def linear(train_part, test_part):
    """Accuracy of a logistic regression on standardised raw numbers."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    scores = []
    for strength in (0.001, 0.03, 1.0):
        rival = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=200))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that were not enough at the weakest penalty
            rival.fit(train_part[2], train_part[1].numpy())
        scores.append(rival.score(test_part[2], test_part[1].numpy()))
    return max(scores)


@torch.no_grad()
def accuracy(model, part):
    inputs, labels, _ = part
    return (model(**inputs).logits.argmax(-1) == labels).float().mean().item()


def run(seed, claim=None, names=tuple(TASKS)):
    """Accuracy of the frozen encoder and of the rival for each modality."""
    encoder = pretrained(seed, claim)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    found = {}
    for name in names:
        sizes, (train_part, test_part) = TASKS[name](np.random.default_rng(seed))
        inputs, labels, _ = train_part
        torch.manual_seed(seed)
        model = ZooMetaTransformerForSequenceClassification.from_encoder(
            encoder, modalities={name: sizes}, num_labels=int(labels.max()) + 1, pooling="mean"
        )

        def draw(generator, inputs=inputs, labels=labels):
            i = int(torch.randint(len(labels), (), generator=generator))
            return {**{field: value[i] for field, value in inputs.items()}, "labels": labels[i]}

        train(model, draw, STEPS, RATE, BATCH, seed=seed + 1)
        found[name] = accuracy(model, test_part), linear(train_part, test_part), 1 / (int(labels.max()) + 1)
        print(f"{name}: frozen encoder {found[name][0]:.3f}, linear {found[name][1]:.3f}", flush=True)
    after = encoder.state_dict()
    return found, all(torch.equal(after[name], weight) for name, weight in before.items())


def main():
    claim = Claim("meta_transformer", "Zhang et al. 2023")
    found, is_same = run(seed=0, claim=claim)
    for name, (ours, rival, chance) in found.items():
        claim.compare(
            f"{name.replace('_', ' ')}: the frozen encoder is ahead of a linear model on the raw numbers",
            ours > rival,
            frozen_encoder=ours,
            linear=rival,
            chance=chance,
        )
    claim.compare("and its weights are bit for bit those from before the twelve tasks", is_same, tasks=len(found))
    claim.draw("accuracy, by modality", "frozen encoder", range(1, 13), [ours for ours, _, _ in found.values()])
    claim.draw("accuracy, by modality", "linear", range(1, 13), [rival for _, rival, _ in found.values()])
    claim.finish()


if __name__ == "__main__":
    main()
