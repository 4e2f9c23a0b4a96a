"""Clouds of points on the surfaces of solids with names."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .splits import generator_of

if TYPE_CHECKING:
    from datasets import Dataset

Random = np.random.Generator


def _sphere(random: Random, n: int) -> np.ndarray:
    points = random.normal(size=(n, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def _torus(random: Random, n: int) -> np.ndarray:
    thickness = 0.35
    around, through = random.uniform(0, 2 * np.pi, 4 * n), random.uniform(0, 2 * np.pi, 4 * n)
    # The inner side has less surface than the outer one
    kept = random.uniform(0, 1 + thickness, 4 * n) < 1 + thickness * np.cos(through)
    around, through = around[kept][:n], through[kept][:n]
    reach = 1 + thickness * np.cos(through)
    return np.stack([reach * np.cos(around), reach * np.sin(around), thickness * np.sin(through)], 1)


def _faces(random: Random, n: int, corners: np.ndarray, triangles: list[tuple[int, int, int]]) -> np.ndarray:
    """Points spread evenly over triangles."""
    a, b, c = (corners[[triangle[i] for triangle in triangles]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = random.choice(len(triangles), n, p=area / area.sum())
    s, t = random.uniform(size=(2, n, 1))
    s, t = np.where(s + t > 1, 1 - s, s), np.where(s + t > 1, 1 - t, t)
    return a[face] + s * (b - a)[face] + t * (c - a)[face]


def _box(random: Random, n: int) -> np.ndarray:
    points = random.uniform(-1, 1, (n, 3))
    points[np.arange(n), random.integers(3, size=n)] = random.choice([-1.0, 1.0], n)
    return points * random.uniform(0.5, 1, 3)


def _tetrahedron(random: Random, n: int) -> np.ndarray:
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=float)
    return _faces(random, n, corners, [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)])


def _octahedron(random: Random, n: int) -> np.ndarray:
    corners = np.concatenate([np.eye(3), -np.eye(3)])
    return _faces(random, n, corners, [(x, y, z) for x in (0, 3) for y in (1, 4) for z in (2, 5)])


def _pyramid(random: Random, n: int) -> np.ndarray:
    corners = np.array([[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0], [0, 0, 1.5]])
    return _faces(random, n, corners, [(0, 1, 2), (0, 2, 3), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)])


def _disc(random: Random, n: int, height: float) -> np.ndarray:
    angle, radius = random.uniform(0, 2 * np.pi, n), np.sqrt(random.uniform(0, 1, n))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full(n, height)], 1)


def _cylinder(random: Random, n: int) -> np.ndarray:
    half = random.uniform(0.7, 1.3)
    on_side = int(n * half / (half + 0.5))
    angle = random.uniform(0, 2 * np.pi, on_side)
    side = np.stack([np.cos(angle), np.sin(angle), random.uniform(-half, half, on_side)], 1)
    top = _disc(random, (n - on_side) // 2, half)
    return np.concatenate([side, top, _disc(random, n - on_side - len(top), -half)])


def _cone(random: Random, n: int) -> np.ndarray:
    height = random.uniform(1.2, 2)
    on_side = int(n * np.hypot(1, height) / (1 + np.hypot(1, height)))
    side = _disc(random, on_side, 0)
    side[:, 2] = height * (1 - np.hypot(side[:, 0], side[:, 1]))
    return np.concatenate([side, _disc(random, n - on_side, 0)])


def _helix(random: Random, n: int) -> np.ndarray:
    turn = random.uniform(0, 6 * np.pi, n)
    line = np.stack([np.cos(turn), np.sin(turn), turn / (3 * np.pi) - 1], 1)
    return line + 0.1 * _sphere(random, n)


SOLIDS: dict[str, Callable[[Random, int], np.ndarray]] = {
    "sphere": _sphere,
    "torus": _torus,
    "box": _box,
    "tetrahedron": _tetrahedron,
    "octahedron": _octahedron,
    "pyramid": _pyramid,
    "cylinder": _cylinder,
    "cone": _cone,
    "helix": _helix,
}


def solids(points: int = 1_024, each: int = 120) -> tuple["Dataset", list[str]]:
    """One row a cloud: `points` (N, 3), `label` (which solid) and `text` (its name).

    Each is turned, stretched by up to a fifth along each axis, scaled to the unit ball around its centre, and has
    noise of a hundredth.

    Args:
        points: of each cloud.
        each: clouds of each solid.

    Returns:
        The rows, and the number of each cloud, by which it is split.
    """
    from datasets import Array2D, ClassLabel, Dataset, Features, Value

    rows, keys = [], []
    for label, name in enumerate(SOLIDS):
        for number in range(each):
            keys.append(f"{name} {number}")
            cloud = _pose(generator_of(keys[-1]), SOLIDS[name], points)
            rows.append({"points": cloud.astype(np.float32), "label": label, "text": name})
    shape = Array2D((points, 3), "float32")
    features = Features({"points": shape, "label": ClassLabel(names=list(SOLIDS)), "text": Value("string")})
    return Dataset.from_list(rows, features=features), keys


def _pose(random: Random, solid: Callable[[Random, int], np.ndarray], n: int) -> np.ndarray:
    cloud = solid(random, n) * random.uniform(0.8, 1.2, 3)
    turn, upper = np.linalg.qr(random.normal(size=(3, 3)))
    cloud = cloud @ (turn * np.sign(np.diag(upper)))  # uniform over rotations and reflections
    cloud -= cloud.mean(0)
    cloud /= np.linalg.norm(cloud, axis=1).max()
    return random.permutation(cloud + random.normal(0, 0.01, cloud.shape))
