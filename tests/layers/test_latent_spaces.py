import math
from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from hf_zoo.modeling.layers.latent_spaces import HeadInteraction, LatentProjection, LatentSpaceAttention
from hf_zoo.modeling.layers.positions import rotate
from hf_zoo.modeling.losses import alignment_loss, similarity_of_heads

B, T, D, K, V = 2, 7, 24, 4, 6
SIZES = {"equal": (5, 5, 5), "different": (3, 5, 4)}


def make(sizes, interaction=True, **options):
    torch.manual_seed(0)
    config = SimpleNamespace(_attn_implementation="eager")
    projections = {name: LatentProjection(D, sizes, **options) for name in ("text", "image")}
    exchange = HeadInteraction(sizes, 2) if interaction else None
    layer = LatentSpaceAttention(config, 0, D, projections, exchange, K, V).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return layer.eval()


def mask(tokens=T):
    return torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)[None, None]


def equation(layer, x, act=lambda z: z, has_norm=True, modality="text", turn=None):
    """The equations of the module's docstring, head by head and token by token."""
    projection, sizes = layer.latents[modality], layer.sizes
    flat = act(projection.proj(x))
    z = list(flat.split(sizes, dim=-1))
    if has_norm:
        gains = projection.weight.split(sizes)
        z = [
            g * y / (y.square().mean(-1, keepdim=True) + projection.eps).sqrt() for y, g in zip(z, gains, strict=True)
        ]
    if (exchange := layer.interaction) is not None:
        embeddings = exchange.head_embedding.split(sizes)
        mixed = []
        for i, own in enumerate(z):
            told = [y + e for y, e in zip(z, embeddings, strict=True)]
            u = told[i] @ exchange.query[: sizes[i]]
            w = [y @ exchange.key[: sizes[j]] for j, y in enumerate(told)]
            scores = torch.stack([(u * k).sum(-1) / math.sqrt(2) + exchange.bias[i, j] for j, k in enumerate(w)], -1)
            M = scores.softmax(-1)
            taken = sum(M[..., j, None] * (y @ exchange.value[: sizes[j], : sizes[i]]) for j, y in enumerate(z))
            mixed.append(own + exchange.gain[i] * taken)
        z = mixed
    heads = []
    for y, *weights in zip(
        z, *(w.split(sizes, dim=-1) for w in (layer.q_weight, layer.k_weight, layer.v_weight)), strict=True
    ):
        q, k, v = (y @ w.mT for w in weights)
        if turn is not None:
            q, k = (rotate(s[:, None], *turn)[:, 0] for s in (q, k))
        scores = q @ k.mT / math.sqrt(K) + mask(x.shape[1])[0, 0]
        heads.append(scores.softmax(-1) @ v)
    return layer.o_proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("interaction", [True, False])
@pytest.mark.parametrize("options", [{}, {"hidden_act": "silu"}, {"has_norm": False}], ids=str)
def test_equals_the_equation_and_its_gradients(sizes, interaction, options):
    layer, x = make(sizes, interaction, **options), torch.randn(B, T, D).double().requires_grad_()
    act = torch.nn.functional.silu if "hidden_act" in options else lambda z: z
    learnt = [x, *(p for n, p in layer.named_parameters() if "image" not in n)]
    results = []
    for y in (layer(x, mask())[0], equation(layer, x, act, options.get("has_norm", True))):
        results.append((y, *torch.autograd.grad((y * y.detach().cos()).sum(), learnt)))
    assert_close(*results)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("is_rotary", [True, False])
def test_remembered_latents_are_enough(sizes, is_rotary):
    """A new token after others: keys are made again, or their weights move to the query."""
    layer, x, turn = make(sizes), torch.randn(B, T, D).double(), None
    if is_rotary:
        angles = torch.arange(T).double()[None, :, None] * torch.tensor([1.0, 0.1, 1.0, 0.1]).double()
        turn = (angles.cos(), torch.cat((-angles[..., :2].sin(), angles[..., 2:].sin()), dim=-1))
    expected = equation(layer, x, turn=turn)
    assert_close(layer(x, mask(), position_embeddings=turn)[0], expected)
    past, remembered = layer.project(x[:, :-1])[0].transpose(1, 2), []

    def remember(z):
        remembered.append(torch.cat((past, z), dim=2))
        return remembered[-1]

    queries = None if turn is None else tuple(z[:, -1:] for z in turn)
    y, *_ = layer(x[:, -1:], None, remember, position_embeddings=queries, key_position_embeddings=turn)
    assert_close(y, expected[:, -1:])
    assert remembered[0].shape == (B, len(sizes), T, max(sizes))


def test_without_interaction_and_norm_it_is_multi_head_attention():
    """The weights of its heads are products: W_z^i W_q^i, and so on."""
    sizes = (4, 4, 4)
    layer, x = make(sizes, interaction=False, has_norm=False), torch.randn(B, T, D).double()
    with torch.no_grad():
        layer.latents["text"].proj.bias.zero_()
    W_z = layer.latents["text"].proj.weight.split(sizes)  # (r, D) each
    q, k, v = (
        torch.stack([x @ (w @ z).mT for w, z in zip(weight.split(sizes, dim=-1), W_z, strict=True)], dim=1)
        for weight in (layer.q_weight, layer.k_weight, layer.v_weight)
    )
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(layer(x, mask())[0], layer.o_proj(y.transpose(1, 2).flatten(2)))


def test_heads_are_independent_until_the_gain_is_not_zero():
    layer, x = make(SIZES["equal"]), torch.randn(B, T, D).double()
    with torch.no_grad():
        layer.interaction.initialise()
    weight = layer.latents["text"].proj.weight

    def others_change():
        before = layer.project(x)[0]
        with torch.no_grad():
            weight[:5] += 1.0
            after = layer.project(x)[0]
            weight[:5] -= 1.0
        assert not torch.equal(before[:, :, 0], after[:, :, 0])
        return not torch.equal(before[:, :, 1:], after[:, :, 1:])

    assert not others_change()
    with torch.no_grad():
        layer.interaction.gain.fill_(1.0)
    assert others_change()
    mixing = layer.interaction.head_embedding.unflatten(0, (3, 5))
    assert (mixing[0] - mixing[1]).abs().max() > 0.1  # or all heads would start with the same weights


def test_scores_have_the_rank_of_the_latent_space():
    layer, x = make((2, 2, 2), interaction=False), torch.randn(1, 12, D).double()
    W_q, W_k = (w.unflatten(-1, (3, 2)).transpose(0, 1) for w in (layer.q_weight, layer.k_weight))
    z = layer.project(x)[0].transpose(1, 2)
    assert torch.linalg.matrix_rank((z @ W_q.mT) @ (z @ W_k.mT).mT).max() == 2 < K


def test_modalities_have_their_own_way_into_the_same_spaces():
    layer, x = make(SIZES["equal"]), torch.randn(B, T, D).double()
    z, _ = layer.project(x, {"image": slice(0, 3), "text": slice(3, None)})
    assert_close(z[:, :3], layer.project(x[:, :3], {"image": slice(None)})[0])
    assert_close(z[:, 3:], layer.project(x[:, 3:])[0])
    assert (z[:, :3] - layer.project(x[:, :3])[0]).abs().max() > 0.1


def test_stochastic_latents_are_drawn_in_training_alone():
    layer, x = make(SIZES["different"], is_stochastic=True), torch.randn(B, 4096, D).double()
    projection = layer.latents["text"]
    mean, log_var = projection.proj(x), projection.log_var(x)
    assert torch.equal(layer.project(x)[0], layer.project(x)[0])
    layer.train()
    assert not torch.equal(layer.project(x)[0], layer.project(x)[0])
    _, divergence = layer.project(x)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_var).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    expected = torch.stack([part.sum(-1) for part in exact.split(SIZES["different"], dim=-1)], dim=-1)
    assert_close(divergence, expected)


def test_drawing_starts_narrow():
    projection = LatentProjection(D, (5, 5), is_stochastic=True, has_norm=False)
    for module in projection.modules():
        if hasattr(module, "initialise"):
            module.initialise()
    x = torch.randn(512, 8, D)
    spread = projection.train()(x)[0] - projection.eval()(x)[0]
    assert spread.std().item() == pytest.approx(math.exp(-3), rel=0.1)
    assert projection.proj.weight.std().item() == pytest.approx(D**-0.5, rel=0.1)


def test_alignment_is_cross_entropy_over_the_rows_both_ways():
    a, b = torch.randn(2, 5, 3, 4).double().unbind()
    expected = []
    for h in range(3):
        u, w = (z[:, h] / z[:, h].norm(dim=-1, keepdim=True) for z in (a, b))
        scores = (u @ w.mT / 0.2).float()
        expected += [-(s.log_softmax(-1).diagonal().mean()) for s in (scores, scores.mT)]
    assert_close(alignment_loss([a, b], 0.2), torch.stack(expected).mean())
    assert alignment_loss([a], 0.2) == 0


def test_likeness_is_the_cosine_of_gram_matrices():
    z = torch.randn(2, 5, 3, 4)
    mask = torch.ones(2, 5)
    mask[0, :2] = 0
    rows = z.flatten(0, 1)[mask.flatten().bool()]  # (tokens, H, r)
    grams = [(rows[:, h] @ rows[:, h].mT).flatten() for h in range(3)]
    cosines = [torch.cosine_similarity(grams[i], grams[j], dim=0) for i in range(3) for j in range(3) if i != j]
    assert_close(similarity_of_heads(z, mask), torch.stack(cosines).square().mean())
    same = z[:, :, :1].expand(-1, -1, 3, -1)
    assert similarity_of_heads(same, None).item() == pytest.approx(1.0)
