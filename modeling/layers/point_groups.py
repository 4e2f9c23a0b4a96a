"""A cloud of points as groups of neighbours: centres that lie far apart, and what lies around each.

Qi et al. 2017, https://arxiv.org/abs/1706.02413, section 3.2. The first centre is the point farthest from the centroid
and each next one the point farthest from all before it, so that the order of the points does not matter.

Shapes: B clouds, N points, C numbers a point, the first three of which are where it is, G groups, M points of a group.
"""

import torch
from torch import Tensor


@torch.no_grad()
def farthest_points(places: Tensor, num_groups: int) -> Tensor:
    """Indices (B, G) of points that lie far apart, from places (B, N, 3)."""
    rows = torch.arange(len(places), device=places.device)
    chosen = (places - places.mean(1, keepdim=True)).square().sum(-1).argmax(-1)
    nearest = places.new_full(places.shape[:2], torch.inf)  # squared distance to the centres so far
    centres = [chosen]
    for _ in range(num_groups - 1):
        nearest = torch.minimum(nearest, (places - places[rows, chosen][:, None]).square().sum(-1))
        chosen = nearest.argmax(-1)
        centres.append(chosen)
    return torch.stack(centres, dim=1)


@torch.no_grad()
def nearest_points(centres: Tensor, places: Tensor, count: int) -> Tensor:
    """Indices (B, G, count) of the points that are nearest to centres (B, G, 3) among places (B, N, 3)."""
    distances = torch.cdist(centres, places, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(count, dim=-1, largest=False, sorted=False).indices


def take_points(points: Tensor, index: Tensor) -> Tensor:
    """points (B, N, C) at index (B, ...) -> (B, ..., C)."""
    rows = torch.arange(len(points), device=points.device).view(-1, *[1] * (index.ndim - 1))
    return points[rows, index]


def group_points(points: Tensor, num_groups: int, group_size: int) -> tuple[Tensor, Tensor]:
    """points (B, N, C) -> centres (B, G, 3), and groups (B, G, M, C) whose places are relative to their centre.

    Distances are worked out in float32 at least, as half precision would not tell neighbours apart.
    """
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    places = points[..., :3]
    centres = take_points(places, farthest_points(places, num_groups))
    groups = take_points(points, nearest_points(centres, places, group_size))
    return centres, torch.cat((groups[..., :3] - centres[:, :, None], groups[..., 3:]), dim=-1)
