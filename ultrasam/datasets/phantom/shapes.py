"""Outlines of organs and lesions as signed distances, so that a mask is exact at any sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_BINS = 1024


class Shape(Protocol):
    """A region of the scene plane."""

    def distance(self, x: Plane, y: Plane) -> Plane:
        """Signed distance to the outline in mm, negative inside; exact in sign, near the outline in size."""


@dataclass(frozen=True)
class Blob:
    """An ellipse whose radius is multiplied by a profile over its angle; star-shaped, so connected.

    Attributes:
        x: centre, mm.
        y: centre, mm.
        a: half axis along ``angle``, mm.
        b: half axis across it, mm.
        angle: radians, from the x axis towards y.
        profile: float32 (bins,), factor of the radius by angle; None for a plain ellipse.
    """

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    profile: NDArray[np.float32] | None = None

    def distance(self, x: Plane, y: Plane) -> Plane:
        """See :class:`Shape`."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        along, across = (dx * cos + dy * sin) / np.float32(self.a), (dy * cos - dx * sin) / np.float32(self.b)
        factor: Plane | np.float32 = np.float32(1.0)
        if self.profile is not None:
            turn = np.arctan2(across, along) * np.float32(_BINS / (2 * np.pi))
            factor = self.profile[turn.astype(np.int32) % _BINS]
            along, across = along / factor, across / factor
        level = np.hypot(along, across) + np.float32(1e-6)
        # First-order distance of an ellipse: value over the length of its gradient.
        slope = np.hypot(along / np.float32(self.a), across / np.float32(self.b)) + np.float32(1e-6)
        return level * (level - np.float32(1)) / slope * factor


@dataclass(frozen=True)
class Tube:
    """A vessel cut lengthwise: a band around a wavy line across the picture.

    Attributes:
        y: depth of the axis at x = 0, mm.
        slope: of the axis.
        wave: height of the waves of the axis, mm.
        period: of the waves, mm.
        phase: of the waves, radians.
        radius: half width, mm.
    """

    y: float
    slope: float
    wave: float
    period: float
    phase: float
    radius: float

    def distance(self, x: Plane, y: Plane) -> Plane:
        """See :class:`Shape`."""
        axis = (
            self.y + self.slope * x + self.wave * np.sin(x * np.float32(2 * np.pi / self.period) + self.phase)
        )
        return (np.abs(y - axis) - np.float32(self.radius)).astype(np.float32)


@dataclass(frozen=True)
class Rod:
    """A straight rod with rounded ends, such as a long bone.

    Attributes:
        x: middle, mm.
        y: middle, mm.
        half: half length between the centres of the ends, mm.
        radius: half thickness, mm.
        angle: radians, from the x axis towards y.
        bend: how far the middle lies off the line of the ends, mm.
    """

    x: float
    y: float
    half: float
    radius: float
    angle: float
    bend: float = 0.0

    def distance(self, x: Plane, y: Plane) -> Plane:
        """See :class:`Shape`."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        held = np.clip(along, np.float32(-self.half), np.float32(self.half))
        across = across - np.float32(self.bend) * (1 - (held / np.float32(self.half)) ** 2)
        return np.hypot(along - held, across) - np.float32(self.radius)


def lobulated(
    rng: np.random.Generator, amount: float, lowest: int = 2, highest: int = 6
) -> NDArray[np.float32]:
    """Profile of a smooth outline with a few lobes.

    Args:
        rng: source of chance.
        amount: standard deviation of the radius, relative.
        lowest: fewest lobes.
        highest: most lobes.

    Returns:
        float32 (bins,), at least 0.4.
    """
    turn = np.arange(_BINS) * (2 * np.pi / _BINS)
    orders = np.arange(lowest, highest + 1)
    weights = rng.normal(size=len(orders)) / orders
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    wave = (weights[:, None] * np.cos(orders[:, None] * turn + phases[:, None])).sum(axis=0)
    return np.clip(1 + amount * wave / (wave.std() + 1e-9), 0.4, None).astype(np.float32)


def spiculated(rng: np.random.Generator, amount: float) -> NDArray[np.float32]:
    """Profile of an irregular outline with pointed extensions.

    Args:
        rng: source of chance.
        amount: height of the highest points, relative to the radius.

    Returns:
        float32 (bins,), at least 0.4.
    """
    profile = lobulated(rng, 0.45 * amount, 3, 9)
    turn = np.arange(_BINS) * (2 * np.pi / _BINS)
    for _ in range(int(rng.integers(5, 10))):
        apart = np.abs((turn - rng.uniform(0, 2 * np.pi) + np.pi) % (2 * np.pi) - np.pi)
        width = rng.uniform(0.12, 0.3)
        profile += (amount * rng.uniform(0.4, 1.0) * np.exp(-apart / width)).astype(np.float32)
    return np.clip(profile, 0.4, None)
