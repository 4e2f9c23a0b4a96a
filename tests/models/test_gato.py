"""What is special to Gato: patches among tokens, where they are, places in a timestep, what is learnt, depth."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.layers.residual_patches import PatchIntervals, ResidualPatchEmbedding


def built(task=None, **fields):
    torch.manual_seed(0)
    model = hf_zoo.create_model("gato-tiny", task, **fields).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def image_batch(model, counts=(3, 1), length=9, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 500, (len(counts), length), generator=generator)
    for row, count in enumerate(counts):
        ids[row, 2 : 2 + count] = model.config.image_token_id
    patches = torch.randn(len(counts), max(counts), 3, 16, 16, generator=generator, dtype=torch.float64)
    first = torch.randint(0, 60, (len(counts), max(counts), 2), generator=generator)
    intervals = torch.stack((first[..., 0], first[..., 0] + 30, first[..., 1], first[..., 1] + 11), dim=-1)
    return {"input_ids": ids, "patches": patches, "patch_intervals": intervals}


@torch.no_grad()
def test_the_residual_block_is_its_equation():
    torch.manual_seed(0)
    layer = ResidualPatchEmbedding(5, 4, 8, 4).double()
    for norm in layer.norms:
        norm.weight.normal_(), norm.bias.normal_()
    x = torch.randn(2, 3, 3, 4, 4, dtype=torch.float64)

    def normed(h, norm):  # four groups of two channels
        groups = h.reshape(4, -1)
        mean, var = groups.mean(1, keepdim=True), groups.var(1, keepdim=True, unbiased=False)
        h = ((groups - mean) / (var + norm.eps).sqrt()).view_as(h)
        return h * norm.weight[:, None, None] + norm.bias[:, None, None]

    def convolved(h, c):
        padded, y = F.pad(h, (1, 1, 1, 1)), torch.zeros(len(c.weight), 4, 4, dtype=torch.float64)
        for i in range(4):
            for j in range(4):
                window = padded[:, i : i + 3, j : j + 3]
                y[:, i, j] = (c.weight * window).sum((1, 2, 3)) + c.bias
        return y

    y = layer(x)
    for row in range(2):
        for p in range(3):
            root = convolved(x[row, p], layer.root)
            h = root
            for norm, convolution in zip(layer.norms, layer.convolutions, strict=True):
                z = normed(h, norm)
                h = convolved(z * 0.5 * (1 + torch.erf(z / math.sqrt(2))), convolution)
            assert_close(y[row, p], layer.proj.weight @ (root + h).flatten() + layer.proj.bias)


def test_patch_positions_are_drawn_in_training_alone():
    layer = PatchIntervals(128, 4)
    ends = torch.tensor([[10, 15], [3, 3], [0, 127]])
    layer.eval()
    assert layer.choose(ends).tolist() == [12, 3, 64]  # rounded means
    layer.train()
    torch.manual_seed(0)
    drawn = torch.stack([layer.choose(ends) for _ in range(600)])
    assert sorted(set(drawn[:, 0].tolist())) == [10, 11, 12, 13, 14, 15]
    assert torch.bincount(drawn[:, 0])[10:].min() > 60
    assert set(drawn[:, 1].tolist()) == {3}
    intervals = torch.tensor([[[10, 15, 3, 3]]])
    layer.eval()
    assert_close(layer(intervals)[0, 0], layer.rows.weight[12] + layer.columns.weight[3])


@torch.no_grad()
def test_patches_stand_where_their_placeholders_are():
    model = built("feature-extraction")
    batch = image_batch(model)
    ids = batch["input_ids"]
    embeds = model.embed_tokens(ids)
    seen = model.embed_patches(batch["patches"]) + model.embed_intervals(batch["patch_intervals"])
    embeds[0, 2:5], embeds[1, 2] = seen[0], seen[1, 0]
    expected = model(inputs_embeds=embeds).last_hidden_state
    assert_close(model(**batch).last_hidden_state, expected)
    given = {name: value for name, value in batch.items() if name != "input_ids"}
    assert_close(model(inputs_embeds=model.embed_tokens(ids), **given).last_hidden_state, expected)
    batch["patches"][1, 1:] = 7.0  # beyond the placeholders of the row
    assert_close(model(**batch).last_hidden_state, expected)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing_beside_images(side):
    model = built()
    batch = image_batch(model)
    expected = model(**batch).logits
    amounts = (3, 0) if side == "left" else (0, 3)
    wide = {**batch, "input_ids": F.pad(batch["input_ids"], amounts, value=4)}
    mask = F.pad(torch.ones_like(batch["input_ids"]), amounts)
    got = model(**wide, attention_mask=mask).logits[mask.bool()].view(expected.shape)
    assert_close(got, expected)


def test_placeholders_need_their_patches():
    model = built()
    batch = image_batch(model)
    with pytest.raises(ValueError, match="3 placeholders of image patches, but 2 patches"):
        model(**{name: value if name == "input_ids" else value[:, :2] for name, value in batch.items()})
    as_words = model(inputs_embeds=model.get_input_embeddings()(batch["input_ids"])).logits
    assert_close(model(batch["input_ids"]).logits, as_words)
    with pytest.raises(ValueError, match=r"patch_intervals must be \(2, 3, 4\).*got None"):
        model(batch["input_ids"], patches=batch["patches"])


@torch.no_grad()
def test_places_in_a_timestep_are_added():
    model = built("feature-extraction")
    ids = torch.randint(5, 500, (1, 6), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[0, 2, 3, 4, 1, 0]])
    added = model.embed_local.weight[places] * (places > 0)[..., None]
    expected = model(inputs_embeds=model.embed_tokens(ids) + added).last_hidden_state
    assert_close(model(ids, local_positions=places).last_hidden_state, expected)
    assert_close(model(ids, local_positions=places * 0).last_hidden_state, model(ids).last_hidden_state)


def test_observations_are_not_learnt():
    """An observation as a target changes no loss; an action does."""
    model, processor = built(), hf_zoo.create_processor("gato-tiny")
    batch = processor(episodes=[[(np.array([0.1, -2.0]), 1), (np.array([0.3, 4.0]), 0)]])
    logits = model(**batch).logits
    ids = batch["input_ids"][0]
    actions = [i for i, place in enumerate(batch["local_positions"][0]) if place == 1]
    expected = -torch.stack([logits[0, i - 1].log_softmax(-1)[ids[i]] for i in actions]).mean()
    assert len(actions) == 2
    assert_close(model(**batch).loss.double(), expected, atol=1e-6, rtol=1e-6)


def test_whole_branches_are_left_out_in_training():
    model = built("feature-extraction", stochastic_depth=0.4)
    block = model.layers[0].train()
    torch.manual_seed(0)
    kept = block.drop(torch.ones(4000, 2, 3, dtype=torch.float64))
    values = kept[:, 0, 0]
    assert torch.equal(kept, values[:, None, None].expand_as(kept))
    assert_close(values.unique(), torch.tensor([0.0, 1 / 0.6]).double())
    assert 0.57 < (values > 0).float().mean() < 0.63
    block.eval()
    x = torch.randn(2, 3, 4)
    assert block.drop(x) is x


@pytest.mark.parametrize("use_cache", [True, False])
@torch.no_grad()
def test_text_goes_on_after_an_image(use_cache):
    model = built()
    batch = image_batch(model)
    batch["local_positions"] = torch.tensor([[0, 2, 3, 4, 5, 1, 0, 0, 0]]).expand(2, -1)
    ids = batch["input_ids"]
    for step in range(4):
        places = F.pad(batch["local_positions"], (0, step))
        logits = model(**{**batch, "input_ids": ids, "local_positions": places}).logits
        ids = torch.cat((ids, logits[:, -1:].argmax(-1)), dim=1)
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    looks = []
    model.model.embed_patches.register_forward_hook(lambda *_: looks.append(1))
    assert torch.equal(model.generate(**batch, **options, use_cache=use_cache), ids)
    assert len(looks) == (1 if use_cache else 4)  # a cache remembers the image


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"image_token_id": 3}, r"image_token_id must be an id after .* = 1552 and below vocab_size=1554, got 3"),
        ({"vocab_size": 1553}, "image_token_id must be an id after"),
        ({"separator_token_id": 1553}, "both 1553"),
        ({"patch_channels": 9}, "9 is not a multiple of 4"),
        ({"stochastic_depth": 1.0}, "stochastic_depth must be at least 0 and below 1"),
    ],
)
def test_configurations_that_cannot_be_are_refused(fields, complaint):
    with pytest.raises(ValueError, match=complaint):
        hf_zoo.create_config("gato-tiny", **fields)
