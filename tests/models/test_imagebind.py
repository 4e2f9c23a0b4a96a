"""What is special to ImageBind: pairs with images alone, clips, scales, frozen towers, towers as their equations."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.imagebind.modeling_imagebind import INPUTS
from hf_zoo.modeling.losses import image_text_loss


def built(**fields):
    torch.manual_seed(0)
    model = hf_zoo.create_model("imagebind-tiny", **{"frozen_modalities": [], **fields})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def signal(model, name, rows=3, *before):
    part = getattr(model.config, f"{name}_config")
    shape = (rows, *before, part.num_channels, *part.input_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(name)))


def vectors(model, name, values):
    return model.get_signal_features(name, values).pooler_output


@torch.no_grad()
def test_the_loss_is_of_pairs_with_images_alone():
    model = built()
    batch = {INPUTS[name]: signal(model, name) for name in ("vision", "audio", "depth")}
    out = model(**batch)
    v, a, d = out.image_embeds, out.audio_embeds, out.depth_embeds

    def cross_entropy(x, y, scale):
        scores = x @ y.T * scale
        return -(scores.log_softmax(-1).diagonal().mean() + scores.T.log_softmax(-1).diagonal().mean()) / 2

    assert_close(out.loss, cross_entropy(v, a, 20.0) + cross_entropy(v, d, 5.0))
    assert model(audio_values=batch["audio_values"], depth_values=batch["depth_values"]).loss is None
    assert model(**batch, return_loss=False).loss is None


@torch.no_grad()
def test_texts_have_a_scale_that_is_learnt_up_to_a_hundred():
    model = built()
    ids = torch.tensor([[5, 6, 2, 0], [7, 2, 0, 0], [8, 9, 10, 2]])
    images = signal(model, "vision")
    out = model(pixel_values=images, input_ids=ids, attention_mask=(ids > 0).long())
    scale = model.text_logit_scale.exp()
    assert_close(out.logits_per_image, out.image_embeds @ out.text_embeds.T * scale)
    assert_close(out.loss, image_text_loss(out.image_embeds, out.text_embeds, scale))
    model.text_logit_scale.fill_(9.0)
    assert_close(model.scale_of("text"), torch.tensor(100.0))
    assert math.isclose(hf_zoo.create_model("imagebind-tiny").text_logit_scale.item(), 2.6592, abs_tol=1e-4)


@torch.no_grad()
def test_clips_are_averaged_after_they_have_length_one():
    model = built()
    for name, before in (("audio", (4,)), ("imu", (2,))):
        clips = signal(model, name, 3, *before)
        apart = torch.stack([vectors(model, name, clips[:, k]) for k in range(before[0])])
        assert_close(apart.norm(dim=-1), torch.ones(apart.shape[:2]))
        assert_close(vectors(model, name, clips), apart.mean(0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_film_knows_its_order_within_a_clip_and_not_between_clips():
    model = built()
    film = torch.randn(2, 3, 3, 2, 32, 32)  # clips of two frames
    seen = vectors(model, "vision", film)
    assert_close(seen, vectors(model, "vision", film.flip(1)), atol=1e-5, rtol=1e-5)
    assert (seen - vectors(model, "vision", film.flip(3))).abs().max() > 1e-3
    still = film[:, 0, :, 0]
    stood = still[:, None, :, None].expand(-1, 1, -1, 2, -1, -1)
    assert_close(vectors(model, "vision", still), vectors(model, "vision", stood))


@pytest.mark.parametrize("name", sorted(INPUTS))
@torch.no_grad()
def test_a_tower_is_its_equations(name):
    model = built()
    tower, x = getattr(model, f"{name}_tower"), signal(model, name)
    z = tower.embeddings(x)
    if name == "vision":
        z = tower.embed_norm(z)
    assert (tower.embed_norm is None) == (name != "vision")
    for block in tower.layers:
        has_bias = hasattr(block.self_attn, "bias_k")
        assert has_bias == (name != "vision")
        z = z + block.self_attn(block.mixer_norm(z))[0]
        z = z + block.mlp.down_proj(F.gelu(block.mlp.up_proj(block.mlp_norm(z))))
    expected = F.normalize(model.heads[name](tower.norm(z[:, 0])), dim=-1)
    assert_close(vectors(model, name, x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_texts_are_read_at_their_end_token():
    model = built()
    ids = torch.tensor([[5, 6, 2, 9, 9]])
    shorter = model.get_text_features(ids[:, :3]).pooler_output
    assert_close(model.get_text_features(ids).pooler_output, shorter, atol=1e-5, rtol=1e-5)


def test_the_published_tokens():
    config = hf_zoo.create_config("imagebind-huge")
    grids = {name: getattr(config, f"{name}_config").grid for name in INPUTS}
    assert grids == {"vision": [16, 16], "audio": [12, 19], "depth": [14, 14], "thermal": [14, 14], "imu": [250]}


def test_images_and_texts_are_frozen_as_published(tmp_path):
    model = hf_zoo.create_model("imagebind-tiny").train()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    parts = ("vision_tower.", "text_tower.", "heads.vision.", "heads.text.")
    expected = {n for n, _ in model.named_parameters() if n.startswith(parts)}
    assert frozen == expected | {"text_logit_scale"}
    assert not model.vision_tower.training and model.audio_tower.training
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert {n for n, p in again.named_parameters() if not p.requires_grad} == frozen
    batch = {INPUTS[name]: signal(model, name) for name in ("vision", "audio")}
    model(**batch).loss.backward()
    assert all((p.grad is None) == (n in frozen or "audio" not in n) for n, p in model.named_parameters())


def test_fewer_towers():
    model = hf_zoo.create_model("imagebind-tiny", modalities=["vision", "imu"])
    assert sorted(model.heads) == ["imu", "vision"] and model.text_logit_scale is None
    assert not hasattr(model, "text_tower")
    assert model(**model.dummy_inputs).loss is not None
    with pytest.raises(ValueError, match="no tower for 'audio': modalities are vision, imu"):
        model(audio_values=signal(model, "audio"))


def test_blocks_of_all_towers_stay_on_one_device():
    assert {"TowerBlock", "LlmBlock"} <= hf_zoo.create_model("imagebind-tiny")._no_split_modules


@torch.no_grad()
def test_hidden_states_of_a_tower_are_told():
    model = built()
    clips = signal(model, "audio", 2, 3)
    outputs = model.get_signal_features("audio", clips, output_hidden_states=True)
    assert len(outputs.hidden_states) == model.config.audio_config.num_hidden_layers + 1
    assert outputs.last_hidden_state.shape[0] == 6 and outputs.pooler_output.shape[0] == 2


@torch.no_grad()
def test_answers_as_tuples():
    model = built()
    batch = {INPUTS[name]: signal(model, name) for name in ("vision", "audio")}
    expected = model(**batch).to_tuple()
    model.config.return_dict = False
    for got, value in zip(model(**batch), expected, strict=True):
        assert_close(got, value)


def test_bad_input_is_named():
    model = built()
    with pytest.raises(ValueError, match=r"audio_values must be .*\(1, 32, 50\), got \(2, 1, 32, 40\)"):
        model(audio_values=torch.zeros(2, 1, 32, 40))
    with pytest.raises(ValueError, match="at least one of pixel_values"):
        model()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modalities": ["text", "audio"]}, "modalities must have 'vision'"),
        ({"frozen_modalities": ["sound"]}, "'sound', which is none of vision"),
        ({"imu_config": {"input_shape": [2000, 2]}}, "input_shape of kind='windows' must be 1 numbers"),
        ({"imu_config": {"patch_stride": 4}}, "patch_stride=4 is of kind='map'"),
    ],
)
def test_what_does_not_fit_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("imagebind-tiny", **fields)


def test_heads_and_paths_drop_in_training_alone():
    imu = {**hf_zoo.create_config("imagebind-tiny").imu_config.to_dict(), "path_dropout": 0.7, "head_dropout": 0.5}
    model = built(imu_config=imu)
    x = signal(model, "imu")
    assert torch.equal(vectors(model, "imu", x), vectors(model, "imu", x))
    assert model.imu_tower.layers[1].path_dropout == 0.7 and model.imu_tower.layers[0].path_dropout == 0
    model.train()
    assert not torch.equal(vectors(model, "imu", x), vectors(model, "imu", x))


def test_sounds_and_motion_meet_through_images():
    """Sixteen classes; sounds and motions are paired with images and never with each other."""
    torch.manual_seed(0)
    model = hf_zoo.create_model("imagebind-tiny", modalities=["vision", "audio", "imu"], frozen_modalities=[])
    kinds = {name: signal(model, name, 8) for name in ("vision", "audio", "imu")}
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def example(name):
        return kinds[name] + 0.3 * torch.randn_like(kinds[name])

    for step in range(60):
        other = ("audio", "imu")[step % 2]
        model(**{INPUTS["vision"]: example("vision"), INPUTS[other]: example(other)}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        sounds, motions = (vectors(model.eval(), n, example(n)) for n in ("audio", "imu"))
    found = (sounds @ motions.T).argmax(-1)
    assert (found == torch.arange(8)).float().mean() > 0.7
