"""Maps of reflectivity and attenuation of a scene at the samples of a field of view."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ultrasam.datasets.phantom.fov import BeamGrid
from ultrasam.datasets.phantom.scene import Layer, Scene, Structure, View
from ultrasam.datasets.phantom.shapes import Plane


@dataclass
class Tissue:
    """What the beams meet.

    Attributes:
        db: float32 (samples, beams), echogenicity, dB relative to the mean tissue.
        attenuation: float32 (samples, beams), two-way loss beyond the scanner's compensation, dB/mm.
        coherent: float32 (samples, beams), reflectivity of interfaces relative to the mean tissue.
    """

    db: Plane
    attenuation: Plane
    coherent: Plane


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], cells: tuple[int, int], circular: bool = False
) -> Plane:
    """A slowly varying random field of mean 0 and standard deviation about 1.

    Args:
        rng: source of chance.
        shape: of the result, (rows, columns).
        cells: number of independent values along the rows and columns.
        circular: the last column continues in the first.

    Returns:
        float32 of ``shape``.
    """
    rows, columns = max(2, cells[0]), max(2, cells[1])
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    if circular:
        # Enlarge with half a turn on either side, then cut the turn out.
        coarse = np.hstack([coarse, coarse, coarse])
        wide = cv2.resize(coarse, (3 * shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
        field = wide[:, shape[1] : 2 * shape[1]]
    else:
        field = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(field) * np.float32(1.12)


def build_tissue(scene: Scene, view: View, grid: BeamGrid, rng: np.random.Generator) -> Tissue:
    """Evaluate a scene at the samples of the beams.

    Args:
        scene: the anatomy.
        view: how the scene lies under the transducer.
        grid: positions of the samples.
        rng: source of the textures.
    """
    x, y = view.scene_points(grid.x, grid.y)
    shape = x.shape
    tissue = Tissue(
        scene.texture * smooth_field(rng, shape, (10, 8), grid.circular),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
    )
    _paint_layers(tissue, scene, x, y, grid, rng)
    for structure in scene.structures:
        _paint_structure(tissue, structure, structure.shape.distance(x, y), grid, rng)
    return tissue


def _paint_layers(
    tissue: Tissue, scene: Scene, x: Plane, y: Plane, grid: BeamGrid, rng: np.random.Generator
) -> None:
    depth, along = scene.layer_coordinates(x, y)
    step = np.float32(grid.step)
    texture = tissue.db.copy()
    for layer in scene.layers:
        value = texture + np.float32(layer.db) + _streaks(layer, x.shape, grid.circular, rng)
        if layer.boundary is None:
            tissue.db[:] = value
            tissue.attenuation[:] = layer.attenuation
            continue
        below = depth - layer.boundary.at(along)
        _blend(tissue.db, value, np.clip(below / (4 * step) + np.float32(0.5), 0, 1))
        tissue.attenuation[below > 0] = layer.attenuation
        if layer.interface_db:
            patchy = np.clip(
                np.float32(0.8) + np.float32(0.7) * smooth_field(rng, x.shape, (3, 12), grid.circular), 0, 2
            )
            line = np.exp(-((below / (1.4 * step)) ** 2)) * patchy
            tissue.coherent += np.float32(0.35 * 10 ** (layer.interface_db / 20)) * line
            tissue.db += np.float32(0.7 * layer.interface_db) * np.exp(-((below / (3 * step)) ** 2)) * patchy


def _streaks(layer: Layer, shape: tuple[int, int], circular: bool, rng: np.random.Generator) -> Plane | float:
    """Thin bright sheets that follow the layer: the zero lines of a field that varies faster with depth."""
    if not layer.streaks:
        return 0.0
    sheets = smooth_field(rng, shape, (layer.fibres, 5), circular)
    strength = smooth_field(rng, shape, (layer.fibres // 2, 8), circular)
    ridge = np.exp(-((sheets / np.float32(0.3)) ** 2)) * np.clip(np.float32(0.5) + strength, 0, 1.5)
    return np.float32(layer.streaks) * (ridge - np.float32(0.25))


def _paint_structure(
    tissue: Tissue, structure: Structure, distance: Plane, grid: BeamGrid, rng: np.random.Generator
) -> None:
    shape = distance.shape
    soft = np.float32(max(structure.softness, grid.step))
    value = np.float32(structure.db)
    if structure.texture:
        value = value + np.float32(structure.texture) * smooth_field(rng, shape, (22, 18), grid.circular)
    if structure.haze_db:
        # Reverberation of the near wall lies inside, close under it, and fades with depth.
        under = np.cumsum(distance < 0, axis=0, dtype=np.float32) * np.float32(grid.step)
        haze = np.float32(structure.haze_db) - under * np.float32(7.0)
        value = np.float32(10) * np.log10(np.power(10, value / 10) + np.power(10, haze / 10))
    _blend(tissue.db, value, np.clip(np.float32(0.5) - distance / soft, 0, 1))
    inside = distance < 0
    tissue.attenuation[inside] = structure.attenuation
    tissue.coherent[inside] = 0
    if structure.wall_db or structure.specular:
        _paint_wall(tissue, structure, distance, grid, rng)


def _paint_wall(
    tissue: Tissue, structure: Structure, distance: Plane, grid: BeamGrid, rng: np.random.Generator
) -> None:
    # A wall reflects where it faces the beam: the distance then changes along the beam as fast as depth does.
    facing = np.abs(np.diff(distance, axis=0, append=distance[-1:])) / np.float32(grid.step)
    facing = np.clip(facing, 0, 1)
    half = np.float32(max(abs(structure.wall) / 2, 0.8 * grid.step))
    middle = np.float32(structure.wall / 2)
    patchy = np.clip(
        1 + np.float32(0.45) * smooth_field(rng, distance.shape, (9, 9), grid.circular), 0.2, 1.6
    )
    band = np.exp(-(((distance - middle) / half) ** 2)) * patchy
    rough = np.float32(structure.wall_db) * (np.float32(0.2) + np.float32(0.8) * facing**2)
    np.maximum(tissue.db, rough * np.minimum(band * 1.6, 1) - 40 * (band < 0.3), out=tissue.db)
    if structure.specular:
        line = np.exp(-(((distance - middle) / np.float32(1.3 * grid.step)) ** 2))
        tissue.coherent += np.float32(structure.specular) * line * facing**6 * patchy


def _blend(target: Plane, value: Plane | np.floating, weight: Plane) -> None:
    """Move ``target`` towards ``value`` by ``weight``, in place."""
    target += (value - target) * weight
