"""The phantom datasets, and the patient and picture that belong to each pair of numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ultrasam.datasets.phantom.anatomy import breast, vessels
from ultrasam.datasets.phantom.anatomy_polar import fetal, gastric, ovary
from ultrasam.datasets.phantom.fov import Fov, curved_fov, linear_fov, radial_fov
from ultrasam.datasets.phantom.render import Scanner, object_masks, random_scanner, render
from ultrasam.datasets.phantom.scene import Scene, View
from ultrasam.errors import DataError

# Pixels that an object must have in the picture to be worth a prompt.
MINIMUM_AREA = 60
_ATTEMPTS = 50
_REFERENCE_SIZE = 256


@dataclass(frozen=True)
class Kind:
    """One phantom dataset.

    Attributes:
        slug: folder and dataset name.
        application: clinical field, as the US-43d table calls it.
        classes: names by label.
        fov: draws a field of view from rng, height, width and depth.
        scene: draws a patient from rng and field of view.
        depth: shallowest and deepest beam length, mm.
        turn: standard deviation of the turn between pictures of a patient, radians.
        shift: of the shift between them, fraction of the depth.
    """

    slug: str
    application: str
    classes: tuple[str, ...]
    fov: Callable[[np.random.Generator, int, int, float], Fov]
    scene: Callable[[np.random.Generator, Fov], Scene]
    depth: tuple[float, float]
    turn: float
    shift: float


KINDS = (
    Kind("phantom_breast", "breast", ("benign", "malignant"), linear_fov, breast, (30, 45), 0.04, 0.03),
    Kind("phantom_fetal", "fetal", ("head", "femur"), curved_fov, fetal, (110, 150), 0.08, 0.02),
    Kind("phantom_vessel", "vascular", ("artery", "vein"), linear_fov, vessels, (30, 45), 0.04, 0.03),
    Kind("phantom_ovary", "ovarian", ("cyst", "solid mass"), curved_fov, ovary, (80, 120), 0.07, 0.02),
    Kind("phantom_gist", "gastrointestinal", ("gist", "lipoma"), radial_fov, gastric, (40, 60), 0.5, 0.01),
)


@dataclass(frozen=True)
class Picture:
    """A finished picture.

    Attributes:
        grey: uint8 (height, width).
        masks: label and bool (height, width) of every object.
        image_class: name for the whole picture.
        spacing: mm a pixel.
        fov: its field of view.
    """

    grey: NDArray[np.uint8]
    masks: list[tuple[int, NDArray[np.bool_]]]
    image_class: str
    spacing: float
    fov: Fov


@dataclass(frozen=True)
class Patient:
    """What the pictures of a patient share.

    Attributes:
        fov: the field of view.
        scanner: the machine and its settings.
        scene: the anatomy.
    """

    fov: Fov
    scanner: Scanner
    scene: Scene


def draw_patient(kind: int, patient: int, seed: int, size: int) -> Patient:
    """Draw a patient with at least one object that is large enough in a picture; see :func:`draw_picture`."""
    about = KINDS[kind]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, patient)))
    for _ in range(_ATTEMPTS):
        height, width = _picture_size(rng, size)
        fov = about.fov(rng, height, width, rng.uniform(*about.depth))
        scanner = random_scanner(rng)
        scene = about.scene(rng, fov)
        # Twice the area that counts, so that other views of the patient show the object too.
        if any(mask.sum() >= 2 * MINIMUM_AREA for _, mask in object_masks(scene, View(), fov)):
            return Patient(fov, scanner, scene)
    raise _too_small(about.slug, patient, size)


def draw_picture(kind: int, patient: int, image: int, seed: int, size: int) -> Picture:
    """Draw picture number ``image`` of a patient; the same numbers give the same picture.

    Args:
        kind: index into :data:`KINDS`.
        patient: number within the dataset.
        image: number within the patient.
        seed: of the whole phantom.
        size: scale; 256 gives pictures of 220-340 by 260-420 pixels.

    Raises:
        DataError: no object is large enough, which only a tiny ``size`` brings about.
    """
    about = KINDS[kind]
    # The patient is drawn anew for each picture, so that any worker can draw any picture.
    shared = draw_patient(kind, patient, seed, size)
    fov, scene = shared.fov, shared.scene
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(kind, patient, image)))
    scanner = replace(shared.scanner, grey=shared.scanner.grey + rng.normal(0, 0.015))
    for _ in range(_ATTEMPTS):
        view = _random_view(rng, about, fov)
        masks = object_masks(scene, view, fov)
        visible = [bool(mask.sum() >= MINIMUM_AREA) for _, mask in masks]
        if any(visible):
            # Objects too small to annotate are not drawn either, so that every lesion in sight has a mask.
            keep = iter(visible)
            parts = [part for part in scene.structures if part.label is None or next(keep)]
            masks = [pair for pair, seen in zip(masks, visible, strict=True) if seen]
            grey = render(replace(scene, structures=parts), view, fov, scanner, rng)
            return Picture(grey, masks, scene.image_class, fov.spacing, fov)
    raise _too_small(about.slug, patient, size)


def _too_small(slug: str, patient: int, size: int) -> DataError:
    return DataError(
        f"{slug}, patient {patient}: pictures of size {size} hold no object of {MINIMUM_AREA} pixels; "
        "give a larger --size"
    )


def _picture_size(rng: np.random.Generator, size: int) -> tuple[int, int]:
    height, width = rng.integers([220, 260], [341, 421]) * size / _REFERENCE_SIZE
    return round(height), round(width)


def _random_view(rng: np.random.Generator, about: Kind, fov: Fov) -> View:
    # Views of a radial probe turn about the probe, the others about the middle of the field.
    pivot = (0.0, 0.0) if fov.kind == "radial" else (0.0, 0.5 * fov.depth)
    dx, dy = rng.normal(0, about.shift * fov.depth, 2)
    return View(rng.normal(0, about.turn), (dx, dy), rng.uniform(0.94, 1.06), pivot)
