"""Dataset of images with one measured value each."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from ultrasam.datasets.classes import chosen
from ultrasam.datasets.classes_table import TableRow, check_part, group_of, needed_cell, part_of, read_table
from ultrasam.datasets.coco import read_coco
from ultrasam.datasets.dataset import pixel_spacing
from ultrasam.datasets.values_scale import QUANTITIES
from ultrasam.errors import ConfigError, DataError
from ultrasam.io.images import image_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasuredImage:
    """An image and its value.

    Attributes:
        path: of the image.
        image_id: number in its source.
        value: in the unit of the source.
        group: patient or video.
        dataset: name of the data set.
        spacing: millimetres of a pixel along rows and columns, or None.
        size: height, width in pixels.
    """

    path: Path
    image_id: int
    value: float
    group: str
    dataset: str
    spacing: tuple[float, float] | None
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path)


@DATASETS.register_module()
class ValueDataset(Dataset[Any]):
    """Images with a value from a table (``.csv``) or from the image records of a COCO file (``.json``).

    Args:
        ann_file: the file, relative to ``data_root`` or absolute.
        value: column of the table or key of the image records that holds the value.
        quantity: "plain", "length" or "area", see ``datasets.values_scale``.
        unit: of the value, such as "mm"; for reports.
        data_root: folder that ``ann_file`` is relative to.
        img_prefix: folder of the images below ``data_root``, that the names in the file start from.
        pipeline: configs of the transforms.
        file_column: of a table.
        spacing_column: of a table, millimetres of a pixel; None where there are none. COCO files have ``spacing_mm``.
        group_column: of a table, with the patient or video; None takes it from the file name.
        group_pattern: regular expression whose first group is the patient or video in a file name; None takes each
            image for a patient of its own.
        missing: "error", or "skip" to leave out lines of a table whose image does not exist, with a warning.
        part: "all", or "train", "val" or "test" of a source without splits: see ``classes_table.part_of``.
        test_share: share of the patients in the part "test".
        val_share: share of the patients in the part "val".
        split_seed: of the parts.
        indices: keep the first so many images (int) or those named (list); None keeps all.
        test_mode: set by test loaders; changes nothing.
        metainfo: further values for ``metainfo``.

    Raises:
        DataError: the source cannot be used, or a value is missing or no number.
        ConfigError: a value of the configuration that does not exist.
    """

    def __init__(
        self,
        ann_file: str,
        value: str,
        quantity: str = "plain",
        unit: str = "",
        data_root: str = "",
        img_prefix: str = "",
        pipeline: Sequence[dict[str, Any]] = (),
        file_column: str = "file",
        spacing_column: str | None = None,
        group_column: str | None = None,
        group_pattern: str | None = None,
        missing: str = "error",
        part: str = "all",
        test_share: float = 0.2,
        val_share: float = 0.1,
        split_seed: int = 0,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        if missing not in ("error", "skip"):
            raise ConfigError(f"missing must be 'error' or 'skip', got {missing!r}")
        if quantity not in QUANTITIES:
            raise ConfigError(f"quantity must be one of {', '.join(map(repr, QUANTITIES))}, got {quantity!r}")
        check_part(part, test_share, val_share)
        path, root = Path(data_root) / ann_file, Path(data_root) / img_prefix
        self.ann_file = str(path)
        self.quantity = quantity
        if path.suffix.lower() == ".json":
            images = values_from_coco(path, root, value)
        else:
            columns = TableColumns(file_column, value, spacing_column, group_column, group_pattern)
            images = values_from_table(path, root, columns, missing)
        if part != "all":
            images = [i for i in images if part_of(i.group, test_share, val_share, split_seed) == part]
        self.entries: list[MeasuredImage] = chosen(images, indices, self.ann_file)
        # The card of a checkpoint counts images by this name.
        origin = " and ".join(sorted({image.dataset for image in self.entries}))
        self.metainfo: dict[str, Any] = {"quantity": quantity, "unit": unit, "source": origin, **(metainfo or {})}
        self.pipeline = Compose(list(pipeline))

    def __len__(self) -> int:
        return len(self.entries)

    def full_init(self) -> None:
        """Do nothing: the source is read in the constructor (MMEngine's wrappers call this)."""

    def measured(self) -> list[MeasuredImage]:
        """Return all images with their values."""
        return self.entries

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from."""
        image = self.entries[int(index)]
        return {
            "img_path": str(image.path),
            "img_id": image.image_id,
            "dataset": image.dataset,
            "group": image.group,
            "value": image.value,
            "quantity": self.quantity,
            "unit": self.metainfo["unit"],
            "spacing": image.spacing,
            "sample_idx": int(index),
        }

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(index))


@dataclass(frozen=True)
class TableColumns:
    """Names of the columns of a table of values; see ``ValueDataset``."""

    file: str
    value: str
    spacing: str | None
    group: str | None
    group_pattern: str | None

    def needed(self) -> list[str]:
        """Return the columns that the table must have."""
        return [self.file, self.value, *(name for name in (self.spacing, self.group) if name)]


def values_from_table(path: Path, root: Path, columns: TableColumns, missing: str) -> list[MeasuredImage]:
    """Read values from a CSV table with one line for each image.

    Raises:
        DataError: the table cannot be used, a value is missing or no number, or an image is absent or in it twice.
    """
    images: list[MeasuredImage] = []
    lines: dict[str, int] = {}
    absent = []
    for row in read_table(path, columns.needed()):
        name = needed_cell(row, columns.file, path)
        if name in lines:
            raise DataError(f"{path}, line {row.line}: {name} stands in line {lines[name]} already; delete one of them")
        lines[name] = row.line
        value = number(row, columns.value, path)
        spacing = None
        if columns.spacing:
            pixel = number(row, columns.spacing, path)
            if pixel <= 0:
                raise DataError(f"{path}, line {row.line}: a pixel of {pixel:g} mm was found; it must be above 0")
            spacing = (pixel, pixel)
        image = root / name
        if missing == "skip" and not image.exists():
            absent.append(name)
            continue
        group = needed_cell(row, columns.group, path) if columns.group else group_of(image.name, columns.group_pattern)
        size = image_size(image)
        images.append(MeasuredImage(image, len(lines), value, group, path.stem, spacing, size))
    if absent:
        logger.warning(
            "%s: left out %d of %d lines, whose images do not exist (first: %s)",
            path, len(absent), len(lines), absent[0],
        )  # fmt: skip
    return images


def values_from_coco(path: Path, root: Path, key: str) -> list[MeasuredImage]:
    """Read values from the image records of a COCO file.

    Raises:
        DataError: the file cannot be used, or a value is missing or no number.
    """
    images = []
    for image in read_coco(path, root).images:
        found = image.extra.get(key)
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise DataError(
                f"{path}: the image {image.file_name} has {key} {found!r}, a number was expected; correct the record "
                "or leave the image out"
            )
        spacing, size = pixel_spacing(image), (image.height, image.width)
        images.append(MeasuredImage(image.path, image.id, float(found), image.group, image.dataset, spacing, size))
    return images


def number(row: TableRow, column: str, path: Path) -> float:
    """Return a cell as a finite number.

    Raises:
        DataError: names file, line and column.
    """
    text = needed_cell(row, column, path)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{path}, line {row.line}: {column!r} is {text!r}, a number was expected; correct the line")
    return value
