"""Dataset of images with one class each."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from ultrasam.datasets.classes_sources import (
    LabelledImage,
    LabelSource,
    class_counts,
    labels_from_coco,
    labels_from_folders,
    labels_from_table,
    ordered_classes,
)
from ultrasam.datasets.classes_table import check_part, part_of
from ultrasam.datasets.selection import select
from ultrasam.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@DATASETS.register_module()
class ClassDataset(Dataset[Any]):
    """Images with classes from a COCO file (``.json``), a table (``.csv``), or a folder with one folder a class.

    Args:
        ann_file: the file or folder, relative to ``data_root`` or absolute.
        data_root: folder that ``ann_file`` is relative to.
        img_prefix: folder of the images below ``data_root``, that the names in a file start from.
        pipeline: configs of the transforms.
        classes: names in the order of the labels, may hold some without images; None takes them from the source.
        label_key: of a COCO file's image records; where an image lacks it, the category of its objects counts.
        unlabelled: "error" or "skip", for images of a COCO file without a class.
        file_column: of a table.
        class_column: of a table.
        group_column: of a table, with the patient or video; None takes it from the file name.
        group_pattern: regular expression whose first group is the patient or video in a file name (tables, folders);
            None takes each image for a patient of its own.
        part: "all", or "train", "val" or "test" of a source without splits: see ``classes_table.part_of``.
        test_share: share of the patients in the part "test".
        val_share: share of the patients in the part "val".
        split_seed: of the parts.
        indices: keep the first so many images (int) or those named (list); None keeps all.
        test_mode: set by test loaders; changes nothing.
        metainfo: further values for ``metainfo``.

    Raises:
        DataError: the source cannot be used or holds no image.
        ConfigError: a value that does not exist, or classes that are not those of the source.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        img_prefix: str = "",
        pipeline: Sequence[dict[str, Any]] = (),
        classes: Sequence[str] | None = None,
        label_key: str = "class",
        unlabelled: str = "error",
        file_column: str = "file",
        class_column: str = "class",
        group_column: str | None = None,
        group_pattern: str | None = None,
        part: str = "all",
        test_share: float = 0.2,
        val_share: float = 0.1,
        split_seed: int = 0,
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        if unlabelled not in ("error", "skip"):
            raise ConfigError(f"unlabelled must be 'error' or 'skip', got {unlabelled!r}")
        check_part(part, test_share, val_share)
        path, root = Path(data_root) / ann_file, Path(data_root) / img_prefix
        self.ann_file = str(path)
        if path.suffix.lower() == ".json":
            source = labels_from_coco(path, root, label_key, unlabelled)
        elif path.suffix.lower() == ".csv":
            source = labels_from_table(path, root, file_column, class_column, group_column, group_pattern)
        else:
            source = labels_from_folders(path, group_pattern)
        names = ordered_classes(source, classes, self.ann_file)
        if part != "all":
            kept = [i for i in source.images if part_of(i.group, test_share, val_share, split_seed) == part]
            source = LabelSource(kept, source.classes)
        self.entries: list[LabelledImage] = chosen(source.images, indices, self.ann_file)
        self.labels = [names.index(image.label) for image in self.entries]
        # The card of a checkpoint counts images by this name.
        origin = " and ".join(sorted({image.dataset for image in self.entries}))
        self.metainfo: dict[str, Any] = {"classes": tuple(names), "source": origin, **(metainfo or {})}
        self.pipeline = Compose(list(pipeline))
        self._report_empty()

    def _report_empty(self) -> None:
        """Say which classes no image has."""
        names = self.metainfo["classes"]
        empty = [name for name, count in zip(names, self.class_counts(), strict=True) if not count]
        if empty:
            logger.warning("%s: no image has the class %s", self.ann_file, " or ".join(map(repr, empty)))

    def __len__(self) -> int:
        return len(self.entries)

    def full_init(self) -> None:
        """Do nothing: the source is read in the constructor (MMEngine's wrappers call this)."""

    def class_counts(self) -> list[int]:
        """Return the number of images of each class."""
        return class_counts(self.labels, len(self.metainfo["classes"]))

    def sample_labels(self) -> list[list[int]]:
        """Return the labels in each sample, for samplers that balance classes."""
        return [[label] for label in self.labels]

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from."""
        image = self.entries[int(index)]
        return {
            "img_path": str(image.path),
            "img_id": image.image_id,
            "dataset": image.dataset,
            "group": image.group,
            "application": image.application,
            "label": self.labels[int(index)],
            "classes": self.metainfo["classes"],
            "sample_idx": int(index),
        }

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(index))


def chosen(images: Sequence[Any], indices: int | Sequence[int] | None, where: str) -> list[Any]:
    """Return the first so many images, those named, or all.

    Raises:
        ConfigError: a number beyond the images.
        DataError: nothing is left.
    """
    images = select(images, indices, where)
    if not images:
        raise DataError(f"{where} has no images to use; check the file, its part and the indices")
    return images
