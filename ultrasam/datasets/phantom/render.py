"""From a scene to a B-mode picture: echoes, attenuation, compression, scan conversion, and burnt-in marks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ultrasam.datasets.phantom.echo import PointSpread, beam_widths, receive
from ultrasam.datasets.phantom.fov import BeamGrid, Fov
from ultrasam.datasets.phantom.scene import Scene, View
from ultrasam.datasets.phantom.shapes import Plane
from ultrasam.datasets.phantom.tissue import Tissue, build_tissue, smooth_field


@dataclass(frozen=True)
class Scanner:
    """Settings of the machine.

    Attributes:
        dynamic_range: of the display, dB.
        grey: brightness of the mean tissue, 0-1 of the display.
        pulse: standard deviation of the pulse's envelope, pixels.
        beam: standard deviation of the beam at the focus, pixels.
        spread: growth of the beam width away from the focus, mm a mm.
        focus: depth of the focus, fraction of the beam length.
        tgc_error: standard deviation of the error of the depth compensation, dB.
        far_loss: echo lost at the far end, dB.
        noise_db: electronic noise at the far end, dB relative to the mean tissue.
        gamma: exponent of the grey map.
        smoothing: standard deviation of the display filter, pixels.
        reverberation: strength of the echoes between transducer and skin, relative to the mean tissue.
        looks: independent echoes averaged for a picture, as by spatial compounding.
        bar: draw the grey bar.
        ticks: draw the depth scale.
    """

    dynamic_range: float
    grey: float
    pulse: float
    beam: float
    spread: float
    focus: float
    tgc_error: float
    far_loss: float
    noise_db: float
    gamma: float
    smoothing: float
    reverberation: float
    looks: int
    bar: bool
    ticks: bool


def random_scanner(rng: np.random.Generator) -> Scanner:
    """Draw the settings that all pictures of a patient share."""
    return Scanner(
        dynamic_range=rng.uniform(45, 65),
        grey=rng.uniform(0.42, 0.56),
        pulse=rng.uniform(0.8, 1.15),
        beam=rng.uniform(1.2, 1.9),
        spread=rng.uniform(0.012, 0.03),
        focus=rng.uniform(0.3, 0.6),
        tgc_error=rng.uniform(0.5, 2.0),
        far_loss=rng.uniform(3, 12),
        noise_db=rng.uniform(-34, -22),
        gamma=rng.uniform(1.0, 1.6),
        smoothing=rng.uniform(0.0, 0.7),
        reverberation=rng.uniform(0.0, 1.0),
        looks=int(rng.choice([1, 2, 3, 4])),
        bar=bool(rng.random() < 0.5),
        ticks=bool(rng.random() < 0.5),
    )


def object_masks(scene: Scene, view: View, fov: Fov) -> list[tuple[int, NDArray[np.bool_]]]:
    """Label and exact mask bool (height, width), within the field of view, of every object to annotate."""
    x, y = view.scene_points(*fov.pixel_points())
    inside = fov.scan_maps()[2]
    return [
        (structure.label, (structure.shape.distance(x, y) < 0) & inside)
        for structure in scene.structures
        if structure.label is not None
    ]


def render(
    scene: Scene, view: View, fov: Fov, scanner: Scanner, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Make a picture, uint8 (height, width), black outside the field of view but for burnt-in marks."""
    grid = fov.beam_grid()
    tissue = build_tissue(scene, view, grid, rng)
    envelope = detect(tissue, grid, fov, scanner, rng)
    level = np.float32(20) * np.log10(envelope + np.float32(1e-6))
    beam, sample, inside = fov.scan_maps()
    border = cv2.BORDER_WRAP if grid.circular else cv2.BORDER_REPLICATE
    picture = cv2.remap(level, beam, sample, cv2.INTER_LINEAR, borderMode=border)
    if scanner.smoothing > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), scanner.smoothing)
    shown = np.clip(picture / np.float32(scanner.dynamic_range) + np.float32(scanner.grey), 0, 1)
    grey = (np.power(shown, np.float32(scanner.gamma)) * 255 + np.float32(0.5)).astype(np.uint8)
    grey[~inside] = 0
    _burn_in(grey, fov, scanner)
    return grey


def detect(tissue: Tissue, grid: BeamGrid, fov: Fov, scanner: Scanner, rng: np.random.Generator) -> Plane:
    """The envelope of the amplified signal, float32 (samples, beams); Rayleigh distributed for one look."""
    shape = tissue.db.shape
    depths = (np.arange(shape[0], dtype=np.float64) + 0.5) * grid.step
    lateral = (
        beam_widths(depths, scanner.focus * fov.depth, scanner.beam * fov.spacing, scanner.spread)
        / grid.pitch
    )
    psf = PointSpread(scanner.pulse * fov.spacing / grid.step, lateral)
    gain = compensation_error(tissue, grid, scanner, rng)
    amplitude, coherent = _amplitude(tissue.db + gain), _coherent(tissue, gain, scanner, rng)
    relative = (depths / fov.depth).astype(np.float32)[:, None]
    noise = np.power(np.float32(10), (np.float32(scanner.noise_db) - 14 * (1 - relative)) / 20) * np.sqrt(
        np.float32(0.5)
    )
    total = np.zeros(shape, np.float32)
    for _ in range(scanner.looks):
        field = receive(amplitude, psf, rng, coherent)
        field.real += noise * rng.standard_normal(shape, dtype=np.float32)
        field.imag += noise * rng.standard_normal(shape, dtype=np.float32)
        total += np.abs(field)
    return total / np.float32(scanner.looks)


def compensation_error(tissue: Tissue, grid: BeamGrid, scanner: Scanner, rng: np.random.Generator) -> Plane:
    """Gain at each sample, dB: shadows, enhancement, and what the depth compensation gets wrong."""
    loss = np.cumsum(tissue.attenuation, axis=0, dtype=np.float32) * np.float32(grid.step)
    # The beam averages over its width, which softens the edges of shadows.
    border = cv2.BORDER_WRAP if grid.circular else cv2.BORDER_REPLICATE
    padded = cv2.copyMakeBorder(loss, 0, 0, 8, 8, border)
    loss = cv2.blur(padded, (5, 1))[:, 8:-8]
    down = np.linspace(0, 1, loss.shape[0], dtype=np.float32)[:, None]
    knobs = smooth_field(rng, (loss.shape[0], 2), (7, 2))[:, :1]
    return np.float32(scanner.tgc_error) * knobs - np.float32(scanner.far_loss) * down**2 - loss


def _amplitude(db: Plane) -> Plane:
    return np.power(np.float32(10), np.clip(db, -80, 40) / 20)


def _coherent(tissue: Tissue, gain: Plane, scanner: Scanner, rng: np.random.Generator) -> Plane:
    """Reflections of interfaces, and the repeated echo between transducer and skin."""
    result = tissue.coherent * _amplitude(gain)
    samples = result.shape[0]
    period = samples * rng.uniform(0.018, 0.032)
    for echo in range(1, 5):
        row = int(period * echo)
        if row < samples:
            result[row] += np.float32(scanner.reverberation * 0.55**echo * 3)
    return result


def _burn_in(grey: NDArray[np.uint8], fov: Fov, scanner: Scanner) -> None:
    """Draw the grey bar and depth scale where they lie outside the field of view."""
    outside = ~fov.scan_maps()[2]
    height, width = grey.shape
    if scanner.bar:
        tall, wide = height // 4, max(2, width // 100)
        place = np.s_[height // 20 : height // 20 + tall, 1 : 1 + wide]
        bar = np.broadcast_to(np.linspace(255, 0, tall).astype(np.uint8)[:, None], (tall, wide))
        grey[place] = np.where(outside[place], bar, grey[place])
    if scanner.ticks:
        # One tick a centimetre along the right edge.
        rows = np.arange(fov.origin[1], height - 1, 10 / fov.spacing).astype(int)
        for index, row in enumerate(rows[rows >= 0]):
            place = np.s_[row, width - (5 if index % 5 else 9) : width - 2]
            grey[place] = np.where(outside[place], np.uint8(190), grey[place])
