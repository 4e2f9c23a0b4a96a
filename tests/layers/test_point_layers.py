"""Groups of points, PointNet, graph convolution and folding against plain loops; distances between clouds."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from hf_zoo.modeling.layers.graph_convolution import EdgeConvolution, GraphNetwork
from hf_zoo.modeling.layers.point_folding import PointFolding
from hf_zoo.modeling.layers.point_groups import farthest_points, group_points, nearest_points
from hf_zoo.modeling.layers.point_net import PointNet
from hf_zoo.modeling.losses import chamfer_loss, code_usage_loss


def cloud(rows=2, points=37, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, points, channels, generator=generator, dtype=torch.float64)


def random_weights(layer):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5, generator=generator)
        for name, buffer in layer.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5, generator=generator)
    return layer.double().eval()


def test_centres_lie_farthest_from_all_before_them():
    points = cloud()
    found = farthest_points(points, 9)
    for row, places in enumerate(points):
        centre = places.mean(0)
        expected = [max(range(37), key=lambda i: (places[i] - centre).norm().item())]
        for _ in range(8):
            far = [min((places[i] - places[j]).norm().item() for j in expected) for i in range(37)]
            expected.append(max(range(37), key=far.__getitem__))
        assert found[row].tolist() == expected


def test_groups_are_the_nearest_points_around_their_centre():
    points = cloud(channels=5)
    centres, groups = group_points(points, 6, 7)
    for row, places in enumerate(points):
        for g, index in enumerate(farthest_points(points[..., :3], 6)[row].tolist()):
            assert_close(centres[row, g], places[index, :3])
            order = sorted(range(37), key=lambda i: (places[i, :3] - places[index, :3]).norm().item())[:7]
            expected = places[order].clone()
            expected[:, :3] -= places[index, :3]
            got = groups[row, g]
            assert_close(got[got[:, 3].argsort()], expected[expected[:, 3].argsort()])


def test_the_order_of_points_does_not_matter():
    points = cloud()
    shuffled = points[:, torch.randperm(37, generator=torch.Generator().manual_seed(1))]
    layer = random_weights(PointNet(3, 8, 6))
    (centres, groups), (others, other_groups) = (group_points(p, 5, 8) for p in (points, shuffled))
    assert_close(centres, others)
    assert_close(layer(groups), layer(other_groups))


def test_half_precision_tells_neighbours_apart():
    points = (cloud() * 0.01 + 10).to(torch.bfloat16)
    centres, groups = group_points(points, 4, 8)
    assert centres.dtype == groups.dtype == torch.float32


def test_point_net_is_its_equation():
    layer, groups = random_weights(PointNet(4, 8, 6)), cloud(2, 30, 4).unflatten(1, (5, 6))

    def norm(x, m):
        return (x - m.running_mean) / (m.running_var + m.eps).sqrt() * m.weight + m.bias

    for b in range(2):
        for g in range(5):
            f = [layer.up_proj(F.relu(norm(layer.in_proj(p), layer.point_norm))) for p in groups[b, g]]
            whole = torch.stack(f).amax(0)
            mixed = [norm(layer.mix_proj(torch.cat((whole, one))), layer.group_norm) for one in f]
            expected = layer.out_proj(torch.stack([layer.down_proj(F.relu(one)) for one in mixed]).amax(0))
            assert_close(layer(groups)[b, g], expected)


def test_point_net_learns_with_the_right_gradient():
    layer = random_weights(PointNet(3, 4, 2)).train()
    groups = cloud(1, 12).unflatten(1, (2, 6)).requires_grad_()
    assert torch.autograd.gradcheck(layer, groups, atol=1e-6)


def test_edge_convolution_is_its_equation():
    layer, x = random_weights(EdgeConvolution(5, 8)), cloud(2, 9, 5)
    neighbours = nearest_points(x[..., :3], x[..., :3], 4)
    edges = torch.stack(
        [
            torch.stack(
                [torch.stack([torch.cat((x[b, j] - x[b, i], x[b, i])) for j in neighbours[b, i]]) for i in range(9)]
            )
            for b in range(2)
        ]
    )  # (B, G, K, 2 C)
    y = layer.norm((edges @ layer.proj.weight.T).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert_close(layer(x, neighbours), F.leaky_relu(y, 0.2).amax(2))


def test_graph_network_joins_all_convolutions():
    layer, x = random_weights(GraphNetwork(5, 3, 4)), cloud(2, 9, 5)
    neighbours = nearest_points(x[..., :3], x[..., :3], 4)
    inner, outputs = layer.in_proj(x), []
    for convolution in layer.convolutions:
        inner = convolution(inner, neighbours)
        outputs.append(inner)
    assert [y.shape[-1] for y in outputs] == [8, 16, 16, 32]
    joined = torch.cat(outputs, -1) @ layer.mix_proj.weight.T
    normed = F.group_norm(joined.mT, 4, layer.norm.weight, layer.norm.bias).mT
    assert_close(layer(x, neighbours), layer.out_proj(F.leaky_relu(normed, 0.2)))


def test_folding_stays_around_its_coarse_points():
    layer, z = random_weights(PointFolding(6, 12, 8)), cloud(2, 5, 6)
    coarse, fine = layer(z)
    assert (coarse.shape, fine.shape) == ((2, 5, 3, 3), (2, 5, 12, 3))
    corners = [(-0.05, -0.05), (-0.05, 0.05), (0.05, -0.05), (0.05, 0.05)]
    for k in range(12):
        seed = torch.cat((z[1, 2], torch.tensor(corners[k % 4], dtype=z.dtype), coarse[1, 2, k // 4]))[None]
        x = F.relu(layer.in_norm(layer.in_proj(seed)))
        x = F.relu(layer.mid_norm(layer.mid_proj(x)))
        assert_close(fine[1, 2, k], layer.out_proj(x)[0] + coarse[1, 2, k // 4])


def test_chamfer_distance_by_hand():
    points, target = torch.tensor([[[0.0, 0, 0], [3, 0, 0]]]), torch.tensor([[[0.0, 4, 0]]])
    assert_close(chamfer_loss(points, target), torch.tensor(((4 + 5) / 2 + 4) / 2))
    assert chamfer_loss(points, points) < 1e-5


@pytest.mark.parametrize(("logits", "expected"), [([[0.0, 0.0]], 0.0), ([[9.0, 0.0], [0.0, 9.0]], 0.0)])
def test_codes_in_equal_use_cost_nothing(logits, expected):
    assert_close(code_usage_loss(torch.tensor(logits)), torch.tensor(expected), atol=1e-6, rtol=0)


def test_codes_out_of_use_cost_their_divergence():
    used = torch.tensor([0.9, 0.1])
    expected = (0.5 * (0.5 / used).log()).sum()
    assert_close(code_usage_loss(used.log()[None]), expected)
