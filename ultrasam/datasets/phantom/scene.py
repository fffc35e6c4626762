"""What lies under the transducer: layers of tissue and the structures in them, in mm."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ultrasam.datasets.phantom.shapes import Plane, Shape


@dataclass(frozen=True)
class Boundary:
    """The upper boundary of a layer: a depth that varies along the layer.

    Attributes:
        depth: mean depth, mm.
        heights: float (k,), amplitudes of its waves, mm.
        rates: float (k,), their rates, radians a unit of the coordinate along the layer.
        phases: float (k,), radians.
    """

    depth: float
    heights: NDArray[np.float64]
    rates: NDArray[np.float64]
    phases: NDArray[np.float64]

    def at(self, along: Plane) -> Plane:
        """Depth in mm at coordinates along the layer."""
        result = np.full_like(along, self.depth)
        for height, rate, phase in zip(self.heights, self.rates, self.phases, strict=True):
            result += np.float32(height) * np.sin(along * np.float32(rate) + np.float32(phase))
        return result


@dataclass(frozen=True)
class Layer:
    """A layer from its boundary down to that of the next.

    Attributes:
        boundary: None for the first layer, which starts at the transducer.
        db: echogenicity, dB relative to the mean tissue.
        attenuation: two-way loss beyond what the scanner compensates, dB/mm.
        streaks: brightness of fibres along the layer, dB.
        fibres: number of fibre sheets from the transducer to the end of the picture.
        interface_db: brightness of the specular echo of the boundary; 0 for none.
    """

    boundary: Boundary | None
    db: float
    attenuation: float = 0.0
    streaks: float = 0.0
    fibres: int = 24
    interface_db: float = 0.0


@dataclass(frozen=True)
class Structure:
    """A lesion, cyst, vessel or bone in front of the layers.

    Attributes:
        shape: its outline.
        db: echogenicity inside, dB relative to the mean tissue.
        label: class index of an object to annotate, None for a structure that is only scenery.
        attenuation: two-way loss inside beyond what the scanner compensates, dB/mm; negative behind a
            fluid, which gives enhancement.
        texture: standard deviation of slow variations inside, dB.
        softness: width of the transition at the outline, mm.
        wall_db: brightness of the wall or capsule above the inside, 0 for none.
        wall: thickness of the wall, mm, laid outside the outline (inside if negative).
        specular: strength of the coherent echo of the wall, relative to the mean tissue.
        haze_db: reverberation under the near wall, dB relative to the mean tissue; 0 for none.
    """

    shape: Shape
    db: float
    label: int | None = None
    attenuation: float = 0.0
    texture: float = 1.0
    softness: float = 0.3
    wall_db: float = 0.0
    wall: float = 0.5
    specular: float = 0.0
    haze_db: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Anatomy of one patient.

    Attributes:
        layers: from the transducer down.
        structures: painted in this order.
        centre: (y, radius) of the circle that the layers follow, mm; None for flat layers.
        extent: unit of length along flat layers and of fibres, mm.
        image_class: name for the whole picture.
        texture: standard deviation of slow variations of the tissue, dB.
    """

    layers: list[Layer]
    structures: list[Structure]
    centre: tuple[float, float] | None
    extent: float
    image_class: str
    texture: float = 1.5

    def layer_coordinates(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Depth below the transducer (mm) and coordinate along the layers of points of the plane."""
        if self.centre is None:
            return y, x / np.float32(self.extent)
        centre_y, radius = self.centre
        down = y - np.float32(centre_y)
        return np.hypot(x, down) - np.float32(radius), np.arctan2(x, down)


@dataclass(frozen=True)
class View:
    """How one picture of a patient differs from the others: the scene turned, moved and scaled.

    Attributes:
        angle: radians.
        shift: (x, y) mm.
        scale: factor.
        pivot: (x, y) of the turning point, mm.
    """

    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    pivot: tuple[float, float] = field(default=(0.0, 0.0))

    def scene_points(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Coordinates in the scene of points of the picture plane, mm."""
        cos, sin = np.float32(np.cos(self.angle)), np.float32(np.sin(self.angle))
        dx = (x - np.float32(self.pivot[0] + self.shift[0])) / np.float32(self.scale)
        dy = (y - np.float32(self.pivot[1] + self.shift[1])) / np.float32(self.scale)
        return dx * cos + dy * sin + np.float32(self.pivot[0]), dy * cos - dx * sin + np.float32(
            self.pivot[1]
        )
