"""Figure 3: images in rows; their prompt, truth and each model's mask in columns."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ultrasam.datasets.coco import CocoImage, read_coco
from ultrasam.datasets.prompts import ObjectPrompt, simulate_prompt
from ultrasam.errors import DataError
from ultrasam.evaluation.results import Row, read_metrics, read_per_object
from ultrasam.geometry.rle import decode_mask
from ultrasam.io.images import read_image
from ultrasam.reproduce.canvas import MUTED, figure, save
from ultrasam.reproduce.paper import DATASETS
from ultrasam.visualization.overlay import draw_overlay

CASES = ("median", "worst", "best")
Key = tuple[str, str, str, str, str]
Pixels = npt.NDArray[np.uint8]
# Long side of a picture inside the figure, in pixels.
_SIDE = 640
_INCH = 1.7


@dataclass(frozen=True)
class Model:
    """The results of a model: its name in the figure, and the result folder of each data set."""

    name: str
    folders: Mapping[str, Path]


@dataclass(frozen=True)
class Case:
    """One row of the figure.

    Attributes:
        dataset: slug.
        key: of the object in ``per_object.csv``.
        dice: of each model; NaN where undefined.
    """

    dataset: str
    key: Key
    dice: tuple[float, ...]


def choose_cases(models: Sequence[Model], dataset: str, count: int, which: str) -> list[Case]:
    """Choose objects of a data set by their mean Dice over the models, each of another patient.

    Args:
        models: those with results of the data set.
        dataset: slug.
        count: at most so many objects.
        which: ``median`` (nearest to the median), ``worst`` or ``best``.

    Returns:
        cases from low to high Dice, the same for the same results.

    Raises:
        DataError: two models were tested on other objects, or there are none of the data set.
    """
    tables = [_rows_of(model.folders[dataset], dataset) for model in models]
    for model, table in zip(models[1:], tables[1:], strict=True):
        if table.keys() != tables[0].keys():
            raise DataError(
                f"{model.folders[dataset]} and {models[0].folders[dataset]} must be results on the same objects of "
                f"{dataset}; test both on the same annotation file"
            )
    scored = []
    for key, row in tables[0].items():
        dice = tuple(table[key].values["dice"] for table in tables)
        if all(math.isfinite(value) for value in dice):
            scored.append((sum(dice) / len(dice), row.group, Case(dataset, key, dice)))
    middle = float(np.median([mean for mean, _, _ in scored])) if scored else 0.0
    order = {
        "median": lambda mean: abs(mean - middle),
        "worst": lambda mean: mean,
        "best": lambda mean: -mean,
    }[which]
    chosen: dict[str, tuple[float, str, Case]] = {}
    for item in sorted(scored, key=lambda item: (order(item[0]), item[2].key)):
        chosen.setdefault(item[1], item)
    first = list(chosen.values())[:count]
    return [case for _, _, case in sorted(first, key=lambda item: (item[0], item[2].key))]


def _rows_of(folder: Path, dataset: str) -> dict[Key, Row]:
    """Return the objects of a data set in a result folder."""
    found = {row.key: row for row in read_per_object(folder) if row.key[0] == dataset}
    if not found:
        raise DataError(f"{folder}: per_object.csv has no object of {dataset}; test on it with --datasets {dataset}")
    return found


def draw_figure3(
    models: Sequence[Model], data: Path, out: Path, *, images: int = 2, cases: str = "median"
) -> list[Path]:
    """Write ``figure3.png`` and ``figure3.svg``; nothing where there are no results.

    Args:
        models: columns, in order; one without results of a data set leaves its pictures out there.
        data: root of the prepared data, for images and true masks.
        out: folder to write.
        images: rows of each data set.
        cases: which, see ``choose_cases``.

    Raises:
        DataError: results, annotations or images that do not fit together.
    """
    rows: list[tuple[Case, list[Pixels], list[str]]] = []
    for dataset in dict.fromkeys(slug for model in models for slug in model.folders):
        there = [model for model in models if dataset in model.folders]
        chosen = choose_cases(there, dataset, images, cases)
        found = _find_objects(data, dataset, chosen, there)
        masks = {model.name: _predictions(model.folders[dataset], dataset) for model in there}
        prompt = _prompt_of([model.folders[dataset] for model in there])
        for case in chosen:
            rows.append((case, *_pictures(case, *found[case.key], prompt, models, masks)))
    if not rows:
        return []
    heads = ["image", "prompt", "truth", *(model.name for model in models)]
    high = [_INCH * max(picture.shape[0] / picture.shape[1] for picture in pictures) for _, pictures, _ in rows]
    with figure(_INCH * len(heads) + 0.3, sum(high) + 0.16 * len(rows) + 0.45) as drawn:
        grid = drawn.subplots(len(rows), len(heads), squeeze=False, gridspec_kw={"height_ratios": high})
        for line, (case, pictures, captions) in zip(grid, rows, strict=True):
            for axis, picture, caption in zip(line, pictures, captions, strict=True):
                axis.set_axis_off()
                if picture.size > 3:
                    axis.imshow(picture)
                axis.text(0.5, -0.02, caption, transform=axis.transAxes, ha="center", va="top", fontsize=6, color=MUTED)
            line[0].text(-0.03, 0.5, DATASETS.get(case.dataset, case.dataset), transform=line[0].transAxes,
                         rotation=90, ha="right", va="center", fontsize=8)  # fmt: skip
        for axis, head in zip(grid[0], heads, strict=True):
            axis.set_title(head, fontsize=8)
        drawn.subplots_adjust(left=0.04, right=0.995, bottom=0.06, top=0.94, wspace=0.03, hspace=0.12)
        drawn.text(0.5, 0.01, "prediction blue, truth orange, click green, box yellow; numbers are Dice",
                   ha="center", va="bottom", fontsize=6, color=MUTED)  # fmt: skip
        return save(drawn, out, "figure3")


def _pictures(
    case: Case, image: CocoImage, truth_rle: Any, prompt: str, models: Sequence[Model],
    masks: Mapping[str, Mapping[tuple[str, str], Any]],
) -> tuple[list[Pixels], list[str]]:  # fmt: skip
    """Return the pictures of a row and their captions; an empty picture for a model without results."""
    pixels = read_image(image.path)
    truth = decode_mask(truth_rle)
    if pixels.shape[:2] != truth.shape:
        raise DataError(f"{image.path}: {truth.shape} (height, width) was expected, found {pixels.shape[:2]}")
    y, x = np.nonzero(truth)
    box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
    asked: ObjectPrompt = simulate_prompt(truth, box, prompt, np.random.default_rng(0))
    marks: dict[str, Any] = {"points": asked.points, "point_labels": asked.point_labels}
    marks["boxes"] = None if asked.box is None else [asked.box]
    pictures = [draw_overlay(pixels), draw_overlay(pixels, **marks), draw_overlay(pixels, truth=truth)]
    captions = [Path(image.file_name).stem, "", ""]
    dice = iter(case.dice)
    for model in models:
        if case.dataset not in model.folders:
            pictures.append(np.zeros((1, 1, 3), np.uint8))
            captions.append("not tested")
            continue
        rle = masks[model.name].get(_ids(case.key))
        mask = np.zeros_like(truth) if rle is None else decode_mask(rle)
        pictures.append(draw_overlay(pixels, prediction=mask, truth=truth))
        captions.append(f"{next(dice):.2f}")
    return [_fitted(picture) for picture in pictures], captions


def _fitted(picture: Pixels) -> Pixels:
    """Return a picture of at most the figure's size."""
    factor = _SIDE / max(picture.shape[:2])
    if factor >= 1:
        return picture
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def _prompt_of(folders: Sequence[Path]) -> str:
    """Return the one prompt that result folders were made with."""
    found = {str(folder): read_metrics(folder).get("prompt") for folder in folders}
    prompts = [prompt for each in found.values() for prompt in each or [None]]
    if len(set(prompts)) != 1 or prompts[0] is None:
        raise DataError(f"results of one and the same prompt were expected, found {found}; test again with --prompt")
    return str(prompts[0])


def _find_objects(
    data: Path, dataset: str, cases: Sequence[Case], models: Sequence[Model]
) -> dict[Key, tuple[CocoImage, Any]]:
    """Return image and true mask (RLE) of each case, from the annotation files that the models were tested on."""
    for model in models:
        for path, digest in _annotations(data, model.folders[dataset]):
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise DataError(
                    f"{model.folders[dataset]} holds results on another {path} than there is now; give its --data, or "
                    "test again"
                )
    wanted = {_ids(case.key): case.key for case in cases}
    found = {}
    for path, _ in _annotations(data, models[0].folders[dataset]):
        for image in read_coco(path, data).images:
            for item in image.objects if image.dataset == dataset else ():
                key = wanted.get((str(image.id), str(item.annotation_id)))
                if key is not None:
                    found[key] = (image, item.rle)
    if len(found) != len(cases):
        raise DataError(
            f"{models[0].folders[dataset]}: its annotation files hold {len(found)} of {len(cases)} objects; test again"
        )
    return found


def _annotations(data: Path, folder: Path) -> list[tuple[Path, str]]:
    """Return the annotation files of a result folder and their hashes when it was tested."""
    entries = read_metrics(folder).get("annotations", [])
    return [(data / str(entry.get("file")), str(entry.get("sha256"))) for entry in entries]


def _predictions(folder: Path, dataset: str) -> dict[tuple[str, str], Any]:
    """Return the predicted masks (RLE) of a result folder by image id and annotation id."""
    path = folder / f"predictions.{dataset}.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {(str(entry["image_id"]), str(entry["annotation_id"])): entry["segmentation"] for entry in entries}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); test again with tools/test.py --out") from error


def _ids(key: Key) -> tuple[str, str]:
    """Return image id and annotation id of an object."""
    return key[1], key[3]
