"""Random patients of the linear fields of view, and what all kinds of anatomy are made of."""

from __future__ import annotations

import numpy as np

from ultrasam.datasets.phantom.fov import Fov
from ultrasam.datasets.phantom.scene import Boundary, Layer, Scene, Structure
from ultrasam.datasets.phantom.shapes import Blob, Tube, lobulated, spiculated


def wavy(
    rng: np.random.Generator,
    depth: float,
    height: float,
    rates: tuple[float, float] = (1.0, 9.0),
    turn: bool = False,
) -> Boundary:
    """A boundary of mean depth ``depth`` and waves of about ``height`` mm; ``turn`` closes it on a circle."""
    values = rng.uniform(*rates, size=4)
    values = np.maximum(1, np.round(values)) if turn else values
    heights = height * rng.uniform(0.3, 1.0, 4) / values**0.7
    return Boundary(depth, heights, values, rng.uniform(0, 2 * np.pi, 4))


def apart(
    rng: np.random.Generator,
    placed: list[tuple[float, float, float]],
    radius: float,
    low: tuple[float, float],
    high: tuple[float, float],
) -> tuple[float, float] | None:
    """A place for a circle clear of the circles (x, y, radius) placed before; None if none is found."""
    for _ in range(40):
        x, y = rng.uniform(low, high)
        if all(np.hypot(x - px, y - py) > radius + other for px, py, other in placed):
            placed.append((x, y, radius))
            return float(x), float(y)
    return None


def breast(rng: np.random.Generator, fov: Fov) -> Scene:
    """Skin, fat, gland, muscle and chest wall, with a benign or malignant lesion or two."""
    size, half = fov.depth, fov.half_span
    fat, gland, muscle, wall = np.cumsum(rng.uniform([0.05, 0.1, 0.3, 0.14], [0.08, 0.22, 0.42, 0.24])) * size
    layers = [
        Layer(None, rng.uniform(2, 6)),
        Layer(
            wavy(rng, fat, 0.02 * size),
            rng.uniform(-9, -4),
            streaks=rng.uniform(6, 11),
            fibres=26,
            interface_db=5,
        ),
        Layer(wavy(rng, gland, 0.08 * size), rng.uniform(-2, 2), streaks=rng.uniform(7, 12), fibres=38),
        Layer(
            wavy(rng, muscle, 0.05 * size),
            rng.uniform(-10, -5),
            streaks=rng.uniform(7, 12),
            fibres=44,
            interface_db=11,
        ),
        Layer(wavy(rng, wall, 0.05 * size), rng.uniform(-16, -9), 0.25, streaks=5, interface_db=13),
    ]
    malignant = rng.random() < 0.45
    lesions: list[Structure] = []
    placed: list[tuple[float, float, float]] = []
    for _ in range(1 if malignant else int(rng.choice([1, 1, 1, 2]))):
        radius = size * rng.uniform(0.08, 0.2)
        place = apart(rng, placed, 1.5 * radius, (-0.6 * half, 0.24 * size), (0.6 * half, 0.55 * size))
        if place is not None:
            lesions += _malignant(rng, *place, radius) if malignant else _benign(rng, *place, radius)
    return Scene(layers, lesions, None, size, "malignant" if malignant else "benign", rng.uniform(1.5, 3))


def _benign(rng: np.random.Generator, x: float, y: float, radius: float) -> list[Structure]:
    angle = rng.normal(0, 0.15)
    if rng.random() < 0.35:
        cyst = Blob(x, y, 1.1 * radius, radius * rng.uniform(0.65, 1.0), angle, lobulated(rng, 0.03, 2, 4))
        enhancement = rng.uniform(5, 10) / (2 * radius)
        return [
            Structure(
                cyst,
                -36,
                label=0,
                attenuation=-enhancement,
                texture=0.5,
                softness=0.15,
                wall_db=3,
                wall=0.5,
                specular=1.2,
                haze_db=rng.uniform(-26, -18),
            )
        ]
    outline = lobulated(rng, rng.uniform(0.02, 0.06), 2, 5)
    solid = Blob(x, y, 1.25 * radius, radius * rng.uniform(0.55, 0.8), angle, outline)
    enhancement = rng.uniform(1, 5) / (2 * radius)
    return [
        Structure(
            solid,
            -rng.uniform(9, 17),
            label=0,
            attenuation=-enhancement,
            texture=rng.uniform(1.5, 3),
            softness=0.25,
            wall_db=rng.uniform(0, 4),
            wall=0.6,
            specular=rng.uniform(0.2, 1.0),
        )
    ]


def _malignant(rng: np.random.Generator, x: float, y: float, radius: float) -> list[Structure]:
    profile = spiculated(rng, rng.uniform(0.22, 0.45))
    shape = Blob(x, y, 0.85 * radius, radius * rng.uniform(0.8, 1.15), rng.normal(0, 0.4), profile)
    halo = Blob(x, y - 0.1 * radius, 1.25 * shape.a, 1.25 * shape.b, shape.angle, profile)
    loss = rng.uniform(6, 16) / (2 * radius)
    parts = [
        Structure(halo, rng.uniform(1, 5), softness=0.6 * radius, texture=3),
        Structure(
            shape, -rng.uniform(10, 17), label=1, attenuation=loss, texture=rng.uniform(2, 4), softness=0.6
        ),
    ]
    for _ in range(int(rng.choice([0, 0, 2, 4]))):
        dx, dy = rng.uniform(-0.4, 0.4, 2) * radius
        grain = Blob(x + dx, y + dy, 0.25, 0.18)
        parts.append(Structure(grain, rng.uniform(4, 8), attenuation=1.5, texture=0, softness=0.1))
    return parts


def vessels(rng: np.random.Generator, fov: Fov) -> Scene:
    """Muscle with one to four vessels cut across, or one cut lengthwise; sometimes a bone below."""
    size, half = fov.depth, fov.half_span
    fat, muscle, deep = np.cumsum(rng.uniform([0.04, 0.08, 0.4], [0.07, 0.18, 0.6])) * size
    layers = [
        Layer(None, rng.uniform(2, 6)),
        Layer(wavy(rng, fat, 0.01 * size), rng.uniform(-7, -3), streaks=6, fibres=24, interface_db=4),
        Layer(
            wavy(rng, muscle, 0.02 * size),
            rng.uniform(-5, -1),
            streaks=rng.uniform(5, 10),
            fibres=50,
            interface_db=9,
        ),
        Layer(
            wavy(rng, deep, 0.03 * size),
            rng.uniform(-6, 0),
            streaks=rng.uniform(4, 8),
            fibres=36,
            interface_db=8,
        ),
    ]
    parts: list[Structure] = []
    if rng.random() < 0.3:
        bone = Blob(
            rng.uniform(-half, half),
            size * rng.uniform(0.82, 0.95),
            half * rng.uniform(0.4, 0.7),
            0.12 * size,
        )
        parts.append(Structure(bone, -12, attenuation=5, wall_db=14, wall=-0.7, specular=6))
    if rng.random() < 0.25:
        radius = size * rng.uniform(0.06, 0.11)
        tube = Tube(
            size * rng.uniform(0.35, 0.55),
            rng.normal(0, 0.06),
            0.02 * size,
            size * rng.uniform(0.8, 2),
            rng.uniform(0, 6),
            radius,
        )
        return Scene(layers, [*parts, *_vessel(rng, tube, radius, artery=True)], None, size, "lengthwise")
    placed: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(1, 5))):
        artery = rng.random() < 0.5
        radius = size * rng.uniform(0.055, 0.11)
        flat = rng.uniform(0.9, 1.0) if artery else rng.uniform(0.5, 0.8)
        place = apart(rng, placed, 1.6 * radius, (-0.75 * half, 0.24 * size), (0.75 * half, 0.7 * size))
        if place is not None:
            shape = Blob(
                *place,
                radius * (1 if artery else 1.3),
                radius * flat,
                rng.normal(0, 0.25),
                lobulated(rng, 0.015 if artery else 0.05, 2, 4),
            )
            parts += _vessel(rng, shape, radius, artery)
    return Scene(layers, parts, None, size, "across")


def _vessel(rng: np.random.Generator, shape: Blob | Tube, radius: float, artery: bool) -> list[Structure]:
    enhancement = rng.uniform(3, 7) / (2 * radius)
    haze = rng.uniform(-24, -15)
    if artery:
        return [
            Structure(
                shape,
                -rng.uniform(24, 34),
                label=0,
                attenuation=-enhancement,
                softness=0.15,
                wall_db=rng.uniform(4, 8),
                wall=rng.uniform(0.7, 1.1),
                specular=rng.uniform(1.5, 3.5),
                haze_db=haze,
            )
        ]
    return [
        Structure(
            shape,
            -rng.uniform(22, 30),
            label=1,
            attenuation=-enhancement,
            softness=0.2,
            wall_db=rng.uniform(0, 4),
            wall=0.4,
            specular=rng.uniform(0.5, 1.5),
            haze_db=haze,
        )
    ]
