"""Fields of view: linear, curved and radial transducers, between beam samples and picture pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ultrasam.datasets.phantom.shapes import Plane

# Beams beyond either edge, so that the point spread does not wrap around; cut off at scan conversion.
_MARGIN = 16
_SAMPLES_PER_PIXEL = 1.3


@dataclass(frozen=True)
class BeamGrid:
    """Sampling of a field of view along and across the beams.

    Attributes:
        x: float32 (samples, beams), mm from the middle of the transducer, to the right.
        y: float32 (samples, beams), mm, downwards.
        step: distance of samples along a beam, mm.
        pitch: float64 (samples,), distance of neighbouring beams at each depth, mm.
        circular: the last beam is a neighbour of the first.
    """

    x: Plane
    y: Plane
    step: float
    pitch: NDArray[np.float64]
    circular: bool


@dataclass(frozen=True)
class Fov:
    """A field of view in a picture.

    Attributes:
        kind: "linear", "curved" or "radial".
        height: of the picture, pixels.
        width: of the picture, pixels.
        spacing: mm a pixel.
        depth: length of the beams, mm.
        origin: (x, y) pixels, the middle of the transducer's face (linear, curved) or of the transducer
            (radial).
        half_span: half width of the field, mm (linear) or radians (curved); pi for radial.
        radius: of the transducer's face, mm; 0 for linear.
    """

    kind: str
    height: int
    width: int
    spacing: float
    depth: float
    origin: tuple[float, float]
    half_span: float
    radius: float = 0.0

    @property
    def samples(self) -> int:
        """Number of samples along a beam."""
        return max(16, round(self.depth / self.spacing * _SAMPLES_PER_PIXEL))

    @property
    def beams(self) -> int:
        """Number of beams in the field, margins not counted."""
        # Sector beams diverge: they are as dense as needed at two thirds of the depth.
        reach = 1.0 if self.kind == "linear" else self.radius + 0.66 * self.depth
        return max(32, round(2 * self.half_span * reach / self.spacing / 1.5))

    @property
    def margin(self) -> int:
        """Beams beyond either edge of the field."""
        return 0 if self.kind == "radial" else _MARGIN

    @property
    def centre(self) -> tuple[float, float] | None:
        """(y, radius) in mm of the circle of the transducer's face; None where it is flat."""
        if self.kind == "linear":
            return None
        return (0.0 if self.kind == "radial" else -self.radius), self.radius

    def beam_grid(self) -> BeamGrid:
        """Positions of all samples of all beams."""
        step = self.depth / self.samples
        down = ((np.arange(self.samples) + 0.5) * step)[:, None]
        beams = self.beams
        across = (np.arange(-self.margin, beams + self.margin) + 0.5) / beams * 2 - 1
        across = (across * self.half_span)[None, :]
        if self.kind == "linear":
            x, y = np.broadcast_arrays(across, down)
            pitch = np.full(self.samples, 2 * self.half_span / beams)
        else:
            centre_y = self.centre[0] if self.centre else 0.0
            x = (self.radius + down) * np.sin(across)
            y = (self.radius + down) * np.cos(across) + centre_y
            pitch = (self.radius + down[:, 0]) * (2 * self.half_span / beams)
        return BeamGrid(x.astype(np.float32), y.astype(np.float32), step, pitch, self.kind == "radial")

    def pixel_points(self) -> tuple[Plane, Plane]:
        """Positions x, y in mm of all pixel centres, each float32 (height, width)."""
        x = (np.arange(self.width, dtype=np.float32) + np.float32(0.5 - self.origin[0])) * np.float32(
            self.spacing
        )
        y = (np.arange(self.height, dtype=np.float32) + np.float32(0.5 - self.origin[1])) * np.float32(
            self.spacing
        )
        wide, tall = np.meshgrid(x, y)
        return wide, tall

    def scan_maps(self) -> tuple[Plane, Plane, NDArray[np.bool_]]:
        """Where each pixel lies in the beam grid.

        Returns:
            beam index and sample index, float32 (height, width), and bool (height, width): in the field.
        """
        x, y = self.pixel_points()
        if self.centre is None:
            across, down = x, y
        else:
            across = np.arctan2(x, y - np.float32(self.centre[0]))
            down = np.hypot(x, y - np.float32(self.centre[0])) - np.float32(self.radius)
        inside = (down >= 0) & (down < self.depth)
        if self.kind != "radial":
            inside &= np.abs(across) < self.half_span
        beam = (across / np.float32(self.half_span) + 1) * np.float32(self.beams / 2) + np.float32(
            self.margin - 0.5
        )
        sample = down * np.float32(self.samples / self.depth) - np.float32(0.5)
        return beam, sample, inside


def linear_fov(rng: np.random.Generator, height: int, width: int, depth: float) -> Fov:
    """A rectangular field that fills the picture but for random borders."""
    bordered = rng.random() < 0.5
    side, top, bottom = rng.uniform([0.02, 0.0, 0.0], [0.09, 0.03, 0.05]) if bordered else (0.0, 0.0, 0.0)
    left, right = round(side * width), width - round(side * width)
    first, last = round(top * height), height - round(bottom * height)
    spacing = depth / (last - first)
    origin = ((left + right) / 2, float(first))
    return Fov("linear", height, width, spacing, depth, origin, (right - left) / 2 * spacing)


def curved_fov(rng: np.random.Generator, height: int, width: int, depth: float) -> Fov:
    """A fan of a convex transducer, as large as the picture, or a little larger and cut at the sides."""
    radius = depth * rng.uniform(0.3, 0.5)
    half_angle = np.deg2rad(rng.uniform(30, 38))
    tall = depth + radius * (1 - np.cos(half_angle))
    wide = 2 * (radius + depth) * np.sin(half_angle)
    spacing = max(tall / (height * 0.97), wide / (width * rng.uniform(0.98, 1.2)))
    top = (height - tall / spacing) / 2
    origin = (width / 2, top + radius * (1 - np.cos(half_angle)) / spacing)
    return Fov("curved", height, width, spacing, depth, origin, float(half_angle), radius)


def radial_fov(rng: np.random.Generator, height: int, width: int, depth: float) -> Fov:
    """The full circle around an endoscopic transducer."""
    radius = depth * rng.uniform(0.12, 0.18)
    spacing = (radius + depth) / (min(height, width) / 2 * rng.uniform(0.97, 1.08))
    origin = (width / 2 + rng.uniform(-0.02, 0.02) * width, height / 2)
    return Fov("radial", height, width, spacing, depth, origin, np.pi, radius)
