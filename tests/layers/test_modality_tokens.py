"""Tokens of videos, sounds, spectra, series, points and graphs against their equations, in float64."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import ASTConfig, VideoMAEConfig
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTEmbeddings
from transformers.models.videomae.modeling_videomae import VideoMAEPatchEmbeddings

from hf_zoo.modeling.layers.graph_tokens import GraphTokens, laplacian_vectors, orthonormal
from hf_zoo.modeling.layers.patches import PatchEmbedding
from hf_zoo.modeling.layers.point_tokens import PointTokens
from hf_zoo.modeling.layers.series_tokens import SeriesTokens
from hf_zoo.modeling.layers.spectral_bands import BandTokens
from hf_zoo.modeling.layers.spectrogram_patches import SpectrogramTokens
from hf_zoo.modeling.layers.tubelets import TubeletTokens


def drawn(layer, seed=0):
    """The layer in float64 with weights far from their first values."""
    generator = torch.Generator().manual_seed(seed)
    layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return layer


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(layer, output, *inputs):
    """Of the same sum of the output, to all weights and inputs."""
    factors = torch.arange(output.numel(), dtype=output.dtype).view_as(output).cos()
    wanted = [*layer.parameters(), *inputs]
    found = torch.autograd.grad((output * factors).sum(), wanted, allow_unused=True)
    return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


# videos


def test_tubelets_are_blocks_of_pixels():
    layer, frames = drawn(TubeletTokens(5, 9, 2, 4, 3, 7)), noise(2, 5, 3, 9, 9).requires_grad_()  # odd: cut off
    expected = []
    for t in range(2):
        for row in range(2):
            for column in range(2):
                block = frames[:, 2 * t : 2 * t + 2, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                block = block.transpose(1, 2).flatten(1)
                token = block @ layer.tubelet_embed.weight.flatten(1).T + layer.tubelet_embed.bias
                expected.append(token + layer.embed_positions.weight[len(expected)])
    expected, got = torch.stack(expected, dim=1), layer(frames)
    assert_close(got, expected)
    assert_close(gradients(layer, got, frames), gradients(layer, expected, frames))


@pytest.mark.parametrize("kind", ["mean", "central"])
def test_a_clip_in_which_nothing_moves_has_the_tokens_of_its_picture(kind):
    patches, layer = drawn(PatchEmbedding(3, 7, 4)), drawn(TubeletTokens(6, 8, 3, 4, 3, 7))
    layer.tubelet_embed.inflate(patches, kind)
    picture = noise(2, 3, 8, 8)
    tokens = layer.tubelet_embed(picture[:, None].expand(-1, 6, -1, -1, -1))
    assert_close(tokens, patches(picture).repeat(1, 2, 1))
    moving = noise(2, 6, 3, 8, 8)
    if kind == "central":
        assert_close(layer.tubelet_embed(moving)[:, :4], patches(moving[:, 1]))
    else:
        assert_close(layer.tubelet_embed(moving)[:, :4], patches(moving[:, :3].mean(1)))


def test_tubelets_are_those_of_videomae():
    sizes = {"image_size": 8, "patch_size": 4, "num_channels": 3, "num_frames": 4, "tubelet_size": 2}
    upstream = VideoMAEPatchEmbeddings(VideoMAEConfig(**sizes, hidden_size=7)).double()
    layer = drawn(TubeletTokens(4, 8, 2, 4, 3, 7))
    upstream.projection.load_state_dict(layer.tubelet_embed.state_dict())
    frames = noise(2, 4, 3, 8, 8)
    assert_close(layer.tubelet_embed(frames), upstream(frames))


def test_other_videos_are_named():
    with pytest.raises(ValueError, match=r"num_frames=4.*\(2, 5, 3, 8, 8\)"):
        drawn(TubeletTokens(4, 8, 2, 4, 3, 7))(noise(2, 5, 3, 8, 8))


# sounds


def test_patches_of_a_spectrogram_overlap():
    layer, frames = drawn(SpectrogramTokens(17, 10, 4, 3, 5)), noise(2, 14, 10).requires_grad_()
    assert layer.grid == (3, 5)  # of the longest sound
    expected = []
    for row in range(3):
        for column in range(4):
            patch = frames[:, 3 * column : 3 * column + 4, 3 * row : 3 * row + 4].mT.flatten(1)
            token = patch @ layer.patch_embed.weight.flatten(1).T + layer.patch_embed.bias
            expected.append(token + layer.embed_positions.weight[5 * row + column])
    expected, got = torch.stack(expected, dim=1), layer(frames)
    assert_close(got, expected)
    assert_close(gradients(layer, got, frames), gradients(layer, expected, frames))


def test_tokens_of_a_sound_are_those_of_ast():
    sizes = {"patch_size": 4, "frequency_stride": 3, "time_stride": 3, "max_length": 17, "num_mel_bins": 10}
    upstream = ASTEmbeddings(ASTConfig(hidden_size=5, **sizes)).double().eval()
    layer, frames = drawn(SpectrogramTokens(17, 10, 4, 3, 5)), noise(2, 17, 10)
    upstream.patch_embeddings.projection.load_state_dict(layer.patch_embed.state_dict())
    upstream.position_embeddings.data[0, 2:] = layer.embed_positions.weight
    assert_close(layer(frames), upstream(frames)[:, 2:])
    assert SpectrogramTokens(1024, 128, 16, 10, 2).embed_positions.num_embeddings == 101 * 12


@pytest.mark.parametrize("shape", [(2, 18, 10), (2, 3, 10), (2, 12, 9)])
def test_other_sounds_are_named(shape):
    with pytest.raises(ValueError, match="num_mel_bins=10.*max_frames=17"):
        drawn(SpectrogramTokens(17, 10, 4, 3, 5))(noise(*shape))


# spectra


@pytest.mark.parametrize("group", [1, 3, 5])
def test_a_band_is_read_with_its_neighbours(group):
    layer, bands = drawn(BandTokens(7, 2, group, 4)), noise(3, 7, 2, 2).requires_grad_()
    expected = []
    for band in range(7):
        around = [min(max(band + offset, 0), 6) for offset in range(-(group // 2), group // 2 + 1)]
        pixels = torch.cat([bands[:, i].flatten(1) for i in around], dim=1)
        expected.append(layer.group_proj(pixels) + layer.embed_positions.weight[band])
    expected, got = torch.stack(expected, dim=1), layer(bands)
    assert_close(got, expected)
    assert_close(gradients(layer, got, bands), gradients(layer, expected, bands))


# series


@pytest.mark.parametrize("length", [1, 2, 9])
def test_the_ends_of_a_series_meet(length):
    layer, series = drawn(SeriesTokens(3, 6)), noise(2, length, 3).requires_grad_()
    weight, expected = layer.step_embed.weight, []
    for t in range(length):
        token = sum(series[:, (t + k - 1) % length] @ weight[:, :, k].T for k in range(3))
        angles = [t / 10000 ** (2 * (i // 2) / 6) for i in range(6)]
        place = [math.cos(a) if i % 2 else math.sin(a) for i, a in enumerate(angles)]
        expected.append(token + torch.tensor(place, dtype=torch.float64))
    expected, got = torch.stack(expected, dim=1), layer(series)
    assert_close(got, expected, atol=1e-6, rtol=1e-6)  # sines are worked out in float32
    assert_close(gradients(layer, got, series), gradients(layer, expected, series))


def test_turning_a_series_turns_its_tokens():
    layer, series = drawn(SeriesTokens(3, 6)), noise(2, 9, 3)
    turned = layer.step_embed(series.roll(4, dims=1).mT)
    assert_close(turned, layer.step_embed(series.mT).roll(4, dims=2))


# points


def test_points_are_their_equation():
    layer, points = drawn(PointTokens(4, 3, 5, 6)), noise(2, 13, 4)
    got = layer(points)
    assert got.shape == (2, 4, 6)
    for cloud in range(2):
        places = points[cloud, :, :3]
        centre = int((places - places.mean(0)).norm(dim=1).argmax())
        chosen = [centre]
        while len(chosen) < 4:
            gaps = torch.stack([(places - places[i]).norm(dim=1) for i in chosen]).amin(0)
            chosen.append(int(gaps.argmax()))
        for group, centre in enumerate(chosen):
            near = (places - places[centre]).norm(dim=1).argsort()[:5]
            around = torch.cat((places[near] - places[centre], points[cloud, near, 3:]), dim=1)
            token = layer.group_proj(layer.point_mlp(around).amax(0)) + layer.embed_positions(places[centre])
            assert_close(got[cloud, group], token)


def test_the_order_of_points_does_not_matter():
    layer, points = drawn(PointTokens(3, 4, 6, 5)), noise(2, 24, 3)
    assert_close(layer(points[:, torch.randperm(24)]), layer(points))


def test_only_places_of_centres_know_where_a_cloud_is():
    layer, points = drawn(PointTokens(3, 4, 6, 5)), noise(2, 24, 3)
    moved = points + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert (layer(moved) - layer(points)).abs().max() > 1e-2
    with torch.no_grad():
        layer.embed_positions[2].weight.zero_()
    assert_close(layer(moved), layer(points))


# graphs

EDGES = [[(0, 1), (1, 2), (2, 3), (3, 0), (3, 4)], [(0, 2), (2, 1), (0, 1)]]


def graphs(edge_size=2):
    """Two graphs, of 5 and of 3 nodes."""
    index = torch.full((2, 5, 2), -1)
    for row, edges in enumerate(EDGES):
        index[row, : len(edges)] = torch.tensor(edges)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    values = noise(2, 5, edge_size, seed=4) if edge_size else None
    return noise(2, 5, 3, seed=3), index, values, mask


@pytest.mark.parametrize("edge_size", [0, 2])
def test_tokens_of_a_graph_are_their_equation(edge_size):
    layer = drawn(GraphTokens(3, edge_size, 8, "random", 6))
    nodes, index, values, mask = graphs(edge_size)
    identifiers = noise(2, 5, 8, seed=5).requires_grad_()
    nodes.requires_grad_()
    got, got_mask = layer(nodes, index, values, mask, identifiers)
    assert got_mask.tolist() == [[1] * 10, [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]]
    expected = []
    for row in range(2):
        for v in range(5):
            ends = torch.cat((identifiers[row, v], identifiers[row, v]))
            expected.append(layer.node_proj(nodes[row, v]) + layer.identifier_proj(ends) + layer.embed_types.weight[0])
        for e in range(5):
            u, v = index[row, e].clamp_min(0).tolist()
            token = layer.identifier_proj(torch.cat((identifiers[row, u], identifiers[row, v])))
            token = token + layer.embed_types.weight[1]
            expected.append(token if values is None else token + layer.edge_proj(values[row, e]))
    expected = torch.stack(expected).view(2, 10, 6)
    assert_close(got, expected)
    assert_close(gradients(layer, got, nodes, identifiers), gradients(layer, expected, nodes, identifiers))


def test_random_identifiers_are_orthonormal_and_new_at_each_step():
    torch.manual_seed(0)
    drawn_once = orthonormal(3, 8)
    assert_close(drawn_once @ drawn_once.mT, torch.eye(8).expand(3, -1, -1), atol=1e-5, rtol=0)
    layer = drawn(GraphTokens(3, 0, 8, "random", 6)).train()
    nodes, index, _, mask = graphs(0)
    first, second = (layer.identify(index, mask.bool()) for _ in range(2))
    assert (first[0] - first[1]).abs().max() > 0.1 and (first - second).abs().max() > 0.1
    layer.eval()
    still = layer.identify(index, mask.bool())
    assert torch.equal(still, layer.identify(index, mask.bool()))
    assert_close(still @ still.mT, torch.eye(5, dtype=still.dtype).expand(2, -1, -1), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="graph of 9 nodes.*identifier_size is 8"):
        layer.identify(index, torch.ones(2, 9).bool())


def test_eigenvectors_are_those_of_the_laplacian():
    _, index, _, mask = graphs(0)
    vectors = laplacian_vectors(index, mask.bool(), 7)
    assert vectors.shape == (2, 5, 7)
    for row, count in enumerate((5, 3)):
        adjacency = torch.zeros(count, count)
        for u, v in EDGES[row]:
            adjacency[u, v] = adjacency[v, u] = 1
        scale = adjacency.sum(1).rsqrt().diag()
        laplacian = torch.eye(count) - scale @ adjacency @ scale
        values = torch.linalg.eigvalsh(laplacian)
        own = vectors[row, :count, :count]
        assert_close(laplacian @ own, own * values, atol=1e-5, rtol=0)
        assert_close(own.T @ own, torch.eye(count), atol=1e-5, rtol=0)
        assert not vectors[row, count:].any() and not vectors[row, :, count:].any()


def renumbered(nodes, index, values, mask, order):
    """The same graphs with node `order[i]` called i."""
    names = torch.empty_like(order)
    names[order] = torch.arange(len(order))
    index = torch.where(index < 0, index, names[index.clamp_min(0)])
    return nodes[:, order], index, values, mask[:, order]


def test_eigenvectors_go_with_their_nodes_under_other_numbers():
    layer = drawn(GraphTokens(3, 2, 5, "laplacian", 6))
    generator = torch.Generator().manual_seed(4)  # without symmetries, which leave signs open
    index = torch.triu_indices(9, 9, 1).T[torch.randperm(36, generator=generator)[:14]][None]
    graph = (noise(1, 9, 3), index, noise(1, 14, 2), torch.ones(1, 9))
    order = torch.randperm(9, generator=generator)
    before, _ = layer(*graph)
    after, _ = layer(*renumbered(*graph, order))
    assert_close(after[:, :9], before[:, order], atol=1e-4, rtol=1e-4)  # eigenvectors are worked out in float32
    assert_close(after[:, 9:], before[:, 9:], atol=1e-4, rtol=1e-4)


def test_signs_of_eigenvectors_are_random_in_training_alone():
    layer = drawn(GraphTokens(3, 0, 5, "laplacian", 6))
    _, index, _, mask = graphs(0)
    fixed = layer.identify(index, mask.bool())
    assert (fixed.pow(3).sum(1) >= -1e-6).all()
    torch.manual_seed(0)
    layer.train()
    signs = torch.stack([(layer.identify(index, mask.bool()) * fixed).sum(1) for _ in range(20)])
    assert_close(signs.abs(), (fixed * fixed).sum(1).expand_as(signs), atol=1e-5, rtol=0)
    assert ((signs < -0.5).any(0) & (signs > 0.5).any(0))[0].all()


@pytest.mark.parametrize("identifiers", ["random", "laplacian"])
def test_padding_of_a_graph_changes_nothing(identifiers):
    layer = drawn(GraphTokens(3, 2, 8, identifiers, 6))
    nodes, index, values, mask = graphs()
    whole, _ = layer(nodes, index, values, mask)
    alone, alone_mask = layer(nodes[1:, :3], index[1:, :3], values[1:, :3])
    assert alone_mask.all()
    assert_close(whole[1:, [0, 1, 2, 5, 6, 7]], alone, atol=1e-5, rtol=1e-5)


def test_parts_of_a_graph_that_do_not_fit_are_named():
    layer = drawn(GraphTokens(3, 2, 8, "random", 6))
    nodes, index, values, _ = graphs()
    for arguments, message in (
        ((nodes[..., :2], index, values), "node_values must be"),
        ((nodes, index[..., :1], values), "edge_index must be"),
        ((nodes, index, None), "edge_values must be given"),
        ((nodes, index, values[:, :3]), "edge_values must be"),
        ((nodes, None, values), "needs node_values and edge_index"),
    ):
        with pytest.raises(ValueError, match=message):
            layer(*arguments)
    assert isinstance(layer.node_proj, nn.Linear)
