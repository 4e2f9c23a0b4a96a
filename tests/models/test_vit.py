"""What is special to vision towers: layouts of norms, pooling, positions, features of inner layers, masked pixels."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import hf_zoo
from hf_zoo.modeling.vit.configuration_vit import ZooVitConfig
from hf_zoo.modeling.vit.modeling_vit import VitBlock, ZooVitForMaskedImageModeling, ZooVitModel


def make(model_class=ZooVitModel, seed=0, **options):
    torch.manual_seed(seed)
    model = model_class(hf_zoo.create_config("vit-tiny", **options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def images(rows=2, side=32):
    return torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(5))


def shuffled(pixels, order, size=8):
    """The patches of each image in another order."""
    n = pixels.shape[-1] // size
    patches = pixels.unfold(2, size, size).unfold(3, size, size).flatten(2, 3)[:, :, order]
    return patches.unflatten(2, (n, n)).permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "mean", "use_cls": False}, {"pooling": "attention"}, {"pooling": "cls", "final_norm": "pooled"}],
)
@torch.no_grad()
def test_only_positions_tell_patches_apart(options):
    model, pixels = make(**options), images()
    other = shuffled(pixels, torch.randperm(16, generator=torch.Generator().manual_seed(1)))
    assert not torch.equal(pixels, other)
    assert (model(pixels).pooler_output - model(other).pooler_output).abs().max() > 1e-3
    model.embeddings.embed_positions.weight[-16:] = 0.3
    assert_close(model(pixels).pooler_output, model(other).pooler_output, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_features_of_the_layer_before_the_last_know_nothing_of_the_last():
    model, pixels = make(), images()
    before = model(pixels, output_hidden_states=True)
    assert len(before.hidden_states) == 3
    assert_close(model.norm(before.hidden_states[-1]), before.last_hidden_state)
    model.layers[-1].mlp.up_proj.weight.add_(0.5)
    after = model(pixels, output_hidden_states=True)
    assert torch.equal(before.hidden_states[-2], after.hidden_states[-2])
    assert (before.last_hidden_state - after.last_hidden_state).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options", [{}, {"norm_position": "res_post"}, {"is_parallel": True}, {"is_parallel": True, "qk_norm": True}]
)
@torch.no_grad()
def test_a_block_is_its_equation(options):
    torch.manual_seed(0)
    config = ZooVitConfig(hidden_size=12, intermediate_size=20, num_attention_heads=3, norm_eps=1e-6, **options)
    config._attn_implementation = "eager"
    block = VitBlock(config, 0).double()
    for parameter in block.parameters():
        parameter.normal_(std=0.5)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    attend = lambda y: block.self_attn(y)[0]  # noqa: E731
    if options.get("is_parallel"):
        assert block.mlp_norm is None
        expected = x + attend(block.mixer_norm(x)) + block.mlp(block.mixer_norm(x))
    elif options:
        h = x + block.mixer_norm(attend(x))
        expected = h + block.mlp_norm(block.mlp(h))
    else:
        h = x + attend(block.mixer_norm(x))
        expected = h + block.mlp(block.mlp_norm(h))
    assert_close(block(x, None), expected)


@torch.no_grad()
def test_a_norm_after_the_branch_makes_its_size_that_of_the_norm():
    """In EVA2 what a block adds has the size of two norms' outputs, whatever its input; in ViT it has not."""
    added = {}
    for position in ("res_post", "pre"):
        block = make(norm_position=position).layers[0]
        for name, parameter in block.named_parameters():
            if "bias" in name:
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1)
            elif "o_proj" in name or "down_proj" in name:
                parameter.mul_(7)
        x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
        attention = block.self_attn(x if position == "res_post" else block.mixer_norm(x), None)[0]
        added[position] = (block.mixer_norm(attention) if position == "res_post" else attention).square().mean()
        assert (block(x, None) - x).square().mean() > 0
    assert_close(added["res_post"], torch.tensor(1.0), atol=1e-3, rtol=0)
    assert abs(added["pre"] - 1) > 0.1


@torch.no_grad()
def test_what_the_last_norm_is_applied_to():
    pixels, norms = images(), {}
    for final_norm in ("tokens", "pooled", "both", "none"):
        norms[final_norm] = make(final_norm=final_norm, pooling="cls")
        norms[final_norm].load_state_dict(make(final_norm="tokens", pooling="cls").state_dict(), strict=False)
    raw = norms["none"](pixels).last_hidden_state
    norm = norms["tokens"].norm
    out = {name: model(pixels) for name, model in norms.items()}
    assert_close(out["tokens"].last_hidden_state, norm(raw))
    assert_close(out["tokens"].pooler_output, norm(raw)[:, 0])
    assert_close(out["pooled"].last_hidden_state, raw)
    assert_close(out["pooled"].pooler_output, norm(raw[:, 0]))
    assert_close(out["both"].last_hidden_state, norm(raw))
    assert_close(out["both"].pooler_output, norm(norm(raw[:, 0])))
    assert_close(out["none"].pooler_output, raw[:, 0])


@torch.no_grad()
def test_the_vector_of_an_image():
    pixels, model = images(), make()
    x = model(pixels).last_hidden_state
    assert_close(model(pixels).pooler_output, torch.tanh(model.pooler.dense(x[:, 0])))
    model = make(pooling="mean")
    assert_close(model(pixels).pooler_output, model(pixels).last_hidden_state[:, 1:].mean(1))
    assert make(pooling="mean", use_cls=False)(pixels).last_hidden_state.shape == (2, 16, 64)


@torch.no_grad()
def test_tokens_may_be_given_and_some_may_be_padding():
    model, pixels = make(), images()
    tokens = model.embeddings(pixels)
    assert_close(model(token_embeds=tokens).last_hidden_state, model(pixels).last_hidden_state)
    wide = torch.cat((tokens, torch.full((2, 3, 64), 9.0)), 1)
    mask = torch.ones(2, 20).index_fill(1, torch.arange(17, 20), 0)
    got = model(token_embeds=wide, attention_mask=mask)
    assert_close(got.last_hidden_state[:, :17], model(pixels).last_hidden_state, atol=1e-5, rtol=1e-4)
    assert_close(got.pooler_output, model(pixels).pooler_output, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="exactly one"):
        model()


@torch.no_grad()
def test_the_loss_is_that_of_masked_pixels_alone():
    model, pixels = make(ZooVitForMaskedImageModeling), images()
    masked = torch.rand(2, 16, generator=torch.Generator().manual_seed(2)) < 0.4
    out = model(pixels, masked)
    total = count = 0.0
    for b in range(2):
        for n in range(16):
            row, column = divmod(n, 4)
            area = (b, slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            if masked[b, n]:
                total += (out.reconstruction[area] - pixels[area]).abs().sum()
                count += 3 * 64
    assert_close(out.loss, total / count)
    assert model(pixels).loss is None
    changed = pixels.clone()
    changed[0, :, :8, :8] = 9.0
    masked[0, 0] = True
    assert_close(model(pixels, masked).reconstruction, model(changed, masked).reconstruction)  # it does not see them


@torch.no_grad()
def test_masked_images_of_another_size():
    model = make(ZooVitForMaskedImageModeling)
    pixels = torch.randn(2, 3, 16, 40)
    out = model(pixels, torch.rand(2, 10) < 0.5, interpolate_pos_encoding=True)
    assert out.reconstruction.shape == pixels.shape and out.loss.isfinite()


def test_fresh_tokens_and_probe():
    torch.manual_seed(0)
    model = ZooVitForMaskedImageModeling(hf_zoo.create_config("vit-tiny", pooling="attention"))
    assert 0 < model.model.embeddings.cls_token.std() < 0.03
    assert model.model.embeddings.mask_token.abs().max() == 0
    assert model.model.pooler.probe.std() > 0.05


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 4}, "image_size=4.*patch_size=8"),
        ({"use_cls": False}, "pooling='tanh'.*use_cls"),
        ({"is_parallel": True, "norm_position": "res_post"}, "is_parallel"),
        ({"hidden_act": "gelo"}, "gelo"),
        ({"num_attention_heads": 5}, "hidden_size.*num_attention_heads"),
    ],
)
def test_configs_that_do_not_fit_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        hf_zoo.create_config("vit-tiny", **options)


def test_published_towers_are_what_they_are_said_to_be():
    eva, eva2, giant = (hf_zoo.create_config(name) for name in ("eva-vit-g", "eva2-clip-e", "vit-22b"))
    assert (eva.num_hidden_layers, eva.qkv_bias, eva.final_norm) == (39, "qv", "both")
    assert (eva.image_size // eva.patch_size) ** 2 + eva.use_cls == 257
    assert (eva2.num_hidden_layers, eva2.norm_position, eva2.final_norm) == (63, "res_post", "none")
    assert (giant.is_parallel, giant.qk_norm, giant.qkv_bias, giant.norm) == (True, True, "none", "rms_norm")


def test_quick_gelu_is_its_equation():
    from hf_zoo.modeling.layers.mlp import activation

    x = torch.linspace(-4, 4, 41, dtype=torch.float64, requires_grad=True)
    got, expected = activation("quick_gelu")(x), x * torch.sigmoid(1.702 * x)
    assert_close(got, expected)
    assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (got, expected)))
    assert not torch.allclose(got, F.gelu(x))


def test_an_image_processor_feeds_the_tower():
    import numpy as np
    from PIL import Image

    image = Image.fromarray(np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
    for name, side in (("vit-tiny", 32), ("clip-vit-l14-336", 336), ("nfnet-tiny", 32)):
        pixels = hf_zoo.create_processor(name)(images=image, return_tensors="pt").pixel_values
        assert pixels.shape == (1, 3, side, side)
