"""Making a whole phantom: plan, pictures in parallel, annotation files, and the move into place."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ultrasam.datasets.phantom.patients import KINDS, draw_picture
from ultrasam.datasets.phantom.store import Parameters, Report, existing_report, staging, write_annotations
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import encode_mask, rle_area, rle_box
from ultrasam.io.images import write_png
from ultrasam.io.perceptual_hash import perceptual_hash

# Every dataset needs a patient for each split.
MINIMUM_IMAGES = 3 * len(KINDS)
_SIZES = (96, 2048)
_LARGEST_GROUP = 4
_VALIDATION, _TEST = 0.1, 0.2
# Keys the stream that deals patients to splits; no patient has this number.
_PLAN_STREAM = 2**32 - 1


@dataclass(frozen=True)
class Task:
    """One picture to make.

    Attributes:
        kind: index into the datasets.
        patient: number within the dataset, from 0.
        image: number within the patient, from 0.
        split: "train", "val" or "test".
    """

    kind: int
    patient: int
    image: int
    split: str

    @property
    def file_name(self) -> str:
        """Path of the picture relative to the data root."""
        slug = KINDS[self.kind].slug
        return f"{slug}/images/{slug}_{self.patient + 1:04d}_{self.image + 1}.png"


def generate_phantom(
    out: str | Path, images: int, seed: int = 0, *, size: int = 256, workers: int = 1
) -> Report:
    """Make a synthetic ultrasound data root, or find that the same one is already there.

    The content depends on ``images``, ``seed`` and ``size`` only. The folder appears when it is complete.

    Args:
        out: the data root, which must not exist, be empty, or be a phantom of the same parameters.
        images: number of pictures over all datasets.
        seed: another seed gives other patients.
        size: scale; 256 gives pictures of 220-340 by 260-420 pixels.
        workers: processes. With more than one, the calling script needs the usual
            ``if __name__ == "__main__"``.

    Returns:
        what there is, and whether it was there before.

    Raises:
        ConfigError: a number out of range.
        DataError: the folder holds something else or cannot be written.
    """
    parameters = Parameters(
        images=_whole("images", images, MINIMUM_IMAGES, 1_000_000),
        seed=_whole("seed", seed, 0, 2**63 - 1),
        size=_whole("size", size, *_SIZES),
    )
    workers = _whole("workers", workers, 1, 1024)
    out = Path(out)
    found = existing_report(out, parameters)
    if found is not None:
        return found
    tasks = plan(parameters)
    with staging(out) as folder:
        records = _make_pictures(tasks, parameters, folder, min(workers, len(tasks)))
        return write_annotations(folder, out, parameters, records)


def plan(parameters: Parameters) -> list[Task]:
    """All pictures: even shares of the datasets, patients of two to four pictures, splits by patient.

    Patients have one picture or more where there are fewer than six pictures for a dataset.
    """
    tasks: list[Task] = []
    for kind in range(len(KINDS)):
        images = parameters.images // len(KINDS) + (kind < parameters.images % len(KINDS))
        rng = np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=(kind, _PLAN_STREAM)))
        groups = _group_sizes(images, rng)
        splits = _deal(len(groups), rng)
        tasks += [
            Task(kind, patient, image, splits[patient])
            for patient, count in enumerate(groups)
            for image in range(count)
        ]
    return tasks


def _group_sizes(images: int, rng: np.random.Generator) -> list[int]:
    patients = max(3, round(images / 3))
    sizes = [2 if images >= 2 * patients else 1] * patients
    for _ in range(images - sum(sizes)):
        open_groups = [index for index, count in enumerate(sizes) if count < _LARGEST_GROUP]
        sizes[int(rng.choice(open_groups))] += 1
    return sizes


def _deal(patients: int, rng: np.random.Generator) -> list[str]:
    """Split of each patient: 70, 10 and 20 in a hundred, at least one each."""
    test, validation = max(1, round(_TEST * patients)), max(1, round(_VALIDATION * patients))
    splits = ["test"] * test + ["val"] * validation + ["train"] * (patients - test - validation)
    return [splits[index] for index in rng.permutation(patients)]


def _make_pictures(
    tasks: Sequence[Task], parameters: Parameters, folder: Path, workers: int
) -> list[dict[str, Any]]:
    jobs = [(task, parameters, folder) for task in tasks]
    if workers == 1:
        return [_make_picture(job) for job in jobs]
    # A forked copy of a process with threads (PyTorch, OpenCV) may hang, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            return list(pool.map(_make_picture, jobs, chunksize=4))
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that draws pictures for {folder} was ended from outside, perhaps for want of memory; "
            f"give fewer workers than {workers}"
        ) from error


def _make_picture(job: tuple[Task, Parameters, Path]) -> dict[str, Any]:
    """Draw and write one picture; return its image record with its objects under "objects"."""
    task, parameters, folder = job
    about = KINDS[task.kind]
    picture = draw_picture(task.kind, task.patient, task.image, parameters.seed, parameters.size)
    write_png(folder / task.file_name, picture.grey)
    objects = []
    for label, mask in picture.masks:
        rle = encode_mask(mask)
        x1, y1, x2, y2 = rle_box(rle)
        objects.append(
            {"label": label, "segmentation": rle, "area": rle_area(rle), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        )
    height, width = picture.grey.shape
    return {
        "file_name": task.file_name,
        "height": height,
        "width": width,
        "dataset": about.slug,
        "application": about.application,
        "group": f"{about.slug}/{task.patient + 1}",
        "split": task.split,
        "class": picture.image_class,
        "spacing_mm": [round(picture.spacing, 6)] * 2,
        # Of the picture as it is read: what `data_prep` finds near duplicates with.
        "phash": perceptual_hash(np.repeat(picture.grey[..., None], 3, axis=2)),
        "objects": objects,
    }


def _whole(name: str, value: object, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not lowest <= value <= highest:
        raise ConfigError(
            f"{name} must be a whole number from {lowest} to {highest}, found {value!r}; change it"
        )
    return int(value)
