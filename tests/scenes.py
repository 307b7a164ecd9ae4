"""Drawn scenes of circles, squares and triangles: what the example model was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shape:
    """One shape: class id (1 circle, 2 square, 3 triangle) and box (xmin, ymin, xmax, ymax) in pixels."""

    label: int
    box: tuple[float, float, float, float]


def draw_scene(seed: int, side: int = 320) -> tuple[np.ndarray, list[Shape]]:
    """A picture, uint8 RGB (side, side, 3), and what is in it; the same seed gives the same scene."""
    random = np.random.default_rng(seed)
    ends = random.uniform(30, 220, (2, 3))
    ramp = np.linspace(0, 1, side)[:, None]
    gradient = ends[0] * (1 - ramp) + ends[1] * ramp
    picture = np.broadcast_to(gradient[:, None] if random.random() < 0.5 else gradient[None], (side, side, 3)).copy()
    shapes: list[Shape] = []
    wanted = random.integers(1, 7)
    for _ in range(60):
        if len(shapes) == wanted:
            break
        radius = random.uniform(0.05, 0.22) * side
        x, y = random.uniform(radius, side - radius, 2)
        box = (x - radius, y - radius, x + radius, y + radius)
        if any(_touch(box, other.box) for other in shapes):
            continue
        label = int(random.integers(1, 4))
        picture[_mask(label, x, y, radius, side)] = random.uniform(0, 255, 3)
        shapes.append(Shape(label, box))
    picture += random.normal(0, random.uniform(2, 14), picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), shapes


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _mask(label: int, x: float, y: float, radius: float, side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] + 0.5
    if label == 1:
        return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    inside = (abs(rows - y) <= radius) & (abs(columns - x) <= radius)
    if label == 2:
        return inside
    return inside & (abs(columns - x) <= (rows - (y - radius)) / 2)
