"""Random patients of the curved and radial fields of view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ultrasam.datasets.phantom.anatomy import apart, wavy
from ultrasam.datasets.phantom.fov import Fov
from ultrasam.datasets.phantom.scene import Layer, Scene, Structure
from ultrasam.datasets.phantom.shapes import Blob, Rod, lobulated


def _body_wall(rng: np.random.Generator, size: float) -> tuple[list[Layer], float]:
    """Skin, fat and muscle before an abdominal organ, and the depth where it ends, mm."""
    fat, muscle, end = np.cumsum(rng.uniform([0.02, 0.04, 0.05], [0.04, 0.09, 0.08])) * size
    return [
        Layer(None, rng.uniform(2, 6)),
        Layer(wavy(rng, fat, 0.006 * size), rng.uniform(-6, -2), streaks=6, fibres=50, interface_db=4),
        Layer(wavy(rng, muscle, 0.008 * size), rng.uniform(-5, 1), streaks=7, fibres=70, interface_db=7),
    ], float(end)


def fetal(rng: np.random.Generator, fov: Fov) -> Scene:
    """The uterus with a fetal head, or with a femur that throws a shadow."""
    size = fov.depth
    layers, end = _body_wall(rng, size)
    near, far = wavy(rng, end, 0.015 * size), wavy(rng, size * rng.uniform(0.86, 0.98), 0.03 * size)
    layers.append(Layer(near, rng.uniform(-9, -3), streaks=6, fibres=34, interface_db=6))
    layers.append(Layer(far, rng.uniform(-8, -2), streaks=5, interface_db=5))
    head = rng.random() < 0.65
    parts = _head(rng, size) if head else _thigh(rng, size)
    return Scene(layers, parts, fov.centre, size, "head" if head else "femur", 2.5)


def _sac(rng: np.random.Generator, x: float, y: float, a: float, b: float) -> Structure:
    """The amniotic fluid around the fetus."""
    fluid = Blob(x, y, a, b, rng.normal(0, 0.2), lobulated(rng, 0.07, 2, 5))
    return Structure(
        fluid,
        -rng.uniform(20, 30),
        attenuation=-0.03,
        texture=2,
        softness=1.5,
        wall_db=1,
        wall=1.5,
        specular=0.4,
        haze_db=-10,
    )


def _head(rng: np.random.Generator, size: float) -> list[Structure]:
    a = size * rng.uniform(0.3, 0.39)
    b = a * rng.uniform(0.72, 0.82)
    x, y = rng.normal(0, 0.05) * size, rng.uniform(0.53, 0.58) * size
    angle = rng.normal(0, 0.25)
    cos, sin = np.cos(angle), np.sin(angle)
    shift = rng.normal(0, 0.05, 2) * size
    skull = Blob(x, y, a, b, angle, lobulated(rng, 0.008))
    falx = Rod(x, y, 0.68 * a, 0.01 * b, angle, rng.normal(0, 0.02) * b)
    parts = [
        _sac(rng, x + shift[0], y + shift[1], 1.18 * a, 1.2 * b),
        Structure(
            skull,
            -rng.uniform(16, 23),
            label=0,
            attenuation=0.06,
            texture=2.5,
            softness=0.5,
            wall_db=rng.uniform(11, 16),
            wall=-0.016 * size,
            specular=rng.uniform(5, 10),
        ),
        Structure(falx, -rng.uniform(6, 14), texture=6, softness=0.6, specular=0.5),
    ]
    for side in (-1, 1):
        for along in (-0.38, 0.3):
            off = np.array([along * a, side * rng.uniform(0.25, 0.45) * b])
            dx, dy = off[0] * cos - off[1] * sin, off[0] * sin + off[1] * cos
            plexus = Blob(
                x + dx,
                y + dy,
                rng.uniform(0.14, 0.28) * a,
                rng.uniform(0.06, 0.14) * b,
                angle + rng.normal(0, 0.4),
                lobulated(rng, 0.2),
            )
            parts.append(Structure(plexus, -rng.uniform(5, 14), texture=4, softness=2.5))
    return parts


def _thigh(rng: np.random.Generator, size: float) -> list[Structure]:
    x, y, angle = rng.normal(0, 0.06) * size, rng.uniform(0.42, 0.58) * size, rng.normal(0, 0.22)
    length = size * rng.uniform(0.16, 0.23)
    flesh = Blob(x, y, 1.5 * length, size * rng.uniform(0.13, 0.19), angle, lobulated(rng, 0.09, 2, 5))
    bone = Rod(x, y, length, size * rng.uniform(0.015, 0.022), angle, rng.normal(0, 0.01) * size)
    return [
        _sac(rng, x, y, 2.0 * length, 0.27 * size),
        Structure(flesh, -rng.uniform(4, 10), texture=3, softness=1.0, wall_db=1, wall=1.2, specular=1),
        Structure(
            bone, rng.uniform(7, 12), label=1, attenuation=rng.uniform(1.5, 3), softness=0.8, specular=3
        ),
    ]


def ovary(rng: np.random.Generator, fov: Fov) -> Scene:
    """The pelvis with an ovary that holds one to five cysts, or a solid mass; sometimes gas beside it."""
    size = fov.depth
    layers, end = _body_wall(rng, size)
    near, far = wavy(rng, end, 0.015 * size), wavy(rng, 0.86 * size, 0.04 * size)
    layers.append(Layer(near, rng.uniform(-4, 2), streaks=5, fibres=26, interface_db=6))
    layers.append(Layer(far, rng.uniform(-6, 1), 0.05, streaks=6, fibres=20, interface_db=7))
    x, y = rng.normal(0, 0.07) * size, rng.uniform(0.48, 0.58) * size
    parts: list[Structure] = []
    if rng.random() < 0.35:
        side = x + rng.choice([-1, 1]) * 0.5 * size
        gas = Blob(side, 0.42 * size, 0.12 * size, 0.05 * size, 0, lobulated(rng, 0.15))
        parts.append(Structure(gas, 8, attenuation=1.2, texture=3, softness=1.5))
    if rng.random() < 0.35:
        return Scene(layers, [*parts, _solid_mass(rng, x, y, size)], fov.centre, size, "solid mass", 2.5)
    organ = Blob(x, y, 0.33 * size, 0.25 * size, rng.normal(0, 0.3), lobulated(rng, 0.05, 2, 5))
    parts.append(Structure(organ, -rng.uniform(2, 5), texture=2.5, softness=2.5, wall_db=2, wall=1.2))
    return Scene(layers, parts + _cysts(rng, x, y, size), fov.centre, size, "cysts", 2.5)


def _solid_mass(rng: np.random.Generator, x: float, y: float, size: float) -> Structure:
    a = size * rng.uniform(0.14, 0.24)
    profile = lobulated(rng, rng.uniform(0.05, 0.12), 2, 6)
    mass = Blob(x, y, a, a * rng.uniform(0.65, 0.95), rng.uniform(-0.6, 0.6), profile)
    return Structure(
        mass,
        -rng.uniform(8, 15),
        label=1,
        attenuation=rng.uniform(0, 4) / a,
        texture=rng.uniform(2, 4),
        softness=0.8,
        wall_db=rng.uniform(0, 4),
        wall=1.2,
        specular=0.8,
    )


def _cysts(rng: np.random.Generator, x: float, y: float, size: float) -> list[Structure]:
    parts: list[Structure] = []
    placed: list[tuple[float, float, float]] = []
    reach = 0.15 * size
    few = rng.random() < 0.4
    for _ in range(1 if few else int(rng.integers(2, 6))):
        radius = size * (rng.uniform(0.12, 0.2) if few else rng.uniform(0.045, 0.11))
        place = apart(rng, placed, 1.1 * radius, (x - 1.3 * reach, y - reach), (x + 1.3 * reach, y + reach))
        if place is None:
            continue
        outline = lobulated(rng, 0.045, 2, 4)
        cyst = Blob(*place, radius, radius * rng.uniform(0.75, 1.0), rng.uniform(-1, 1), outline)
        parts.append(
            Structure(
                cyst,
                -rng.uniform(24, 34),
                label=0,
                attenuation=-rng.uniform(3, 7) / (2 * radius),
                softness=0.5,
                wall_db=rng.uniform(1, 5),
                wall=1.0,
                specular=rng.uniform(0.8, 2),
                haze_db=rng.uniform(-24, -14),
            )
        )
    return parts


def gastric(rng: np.random.Generator, fov: Fov) -> Scene:
    """The five echo layers of the gut wall around an endoscopic probe, with a lesion in the wall."""
    size = fov.depth
    steps = np.array([0.14, 0.045, 0.045, 0.075, 0.075]) * rng.uniform(0.8, 1.35, 5)
    starts = np.cumsum(steps) * size
    wall = wavy(rng, 0.0, 0.06 * size, (1, 3.4), turn=True)
    layers = [Layer(None, -rng.uniform(20, 30))]
    for start, level in zip(starts, (2.0, -10.0, 1.0, -13.0, 0.0), strict=True):
        # All boundaries of the wall bend together.
        boundary = replace(wall, depth=float(start))
        layers.append(Layer(boundary, level + rng.uniform(-2, 2), interface_db=3))
    outer = wavy(rng, float(starts[-1] + size * rng.uniform(0.07, 0.12)), 0.05 * size, (1, 6), turn=True)
    layers.append(Layer(outer, rng.uniform(-8, -1), 0.1, streaks=8, fibres=16))
    hypo = rng.random() < 0.65
    turn = rng.uniform(-np.pi, np.pi)
    a, b = size * rng.uniform(0.2, 0.4), size * rng.uniform(0.12, 0.2)
    seat = starts[3] if hypo else starts[2]
    bend = float(wall.at(np.array([turn], np.float32))[0])
    reach = fov.radius + bend + seat + rng.uniform(0.2, 0.8) * b
    outline = lobulated(rng, rng.uniform(0.03, 0.08), 2, 5)
    shape = Blob(reach * np.sin(turn), reach * np.cos(turn), a, b, -turn, outline)
    if hypo:
        lesion = Structure(
            shape,
            -rng.uniform(11, 18),
            label=0,
            attenuation=rng.uniform(-1, 3) / b,
            texture=rng.uniform(2, 3.5),
            softness=0.5,
            wall_db=rng.uniform(2, 5),
            wall=0.8,
            specular=0.8,
        )
    else:
        lesion = Structure(
            shape, rng.uniform(9, 13), label=1, attenuation=rng.uniform(0, 4) / b, texture=2, softness=0.6
        )
    parts = [lesion, *_nodes(rng, size, (shape.x, shape.y, 1.4 * a), fov.radius)]
    return Scene(layers, parts, fov.centre, size, "gist" if hypo else "lipoma", 2.5)


def _nodes(
    rng: np.random.Generator, size: float, lesion: tuple[float, float, float], probe: float
) -> list[Structure]:
    """Small vessels outside the wall, clear of the lesion (x, y, radius)."""
    parts: list[Structure] = []
    placed = [lesion]
    for _ in range(int(rng.integers(0, 4))):
        radius = size * rng.uniform(0.04, 0.08)
        place = apart(rng, placed, radius, (-0.75 * size, -0.75 * size), (0.75 * size, 0.75 * size))
        if place is not None and np.hypot(*place) > 0.6 * size + probe:
            node = Blob(*place, radius, 0.8 * radius, rng.uniform(0, 3))
            parts.append(Structure(node, -26, attenuation=-0.3, wall_db=3, specular=1))
    return parts
