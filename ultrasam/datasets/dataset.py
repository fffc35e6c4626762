"""Dataset of images with objects to prompt, read from a COCO file."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from torch.utils.data import Dataset

from ultrasam.datasets.coco import CocoImage, read_coco
from ultrasam.datasets.composition import Exclusion, check_words, joined_groups
from ultrasam.datasets.composition import exclude as drop
from ultrasam.datasets.packed import PackedList
from ultrasam.datasets.prompts import PROMPT_MODES
from ultrasam.datasets.selection import select
from ultrasam.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@DATASETS.register_module()
class PromptedCocoDataset(Dataset[Any]):
    """Images of a COCO file, each with all its objects.

    Classes and ids are read from the file; a config need not repeat them, and is checked if it does.

    Args:
        ann_file: the COCO file, relative to ``data_root`` or absolute.
        data_root: folder that ``ann_file`` and the images' file names are relative to.
        img_prefix: folder of the images below ``data_root``, for files whose names leave it out.
        pipeline: configs of the transforms.
        prompt: "train", "point", "box" or "centroid"; see ``ultrasam.datasets.prompts``.
        classes: names that the file must have, in any order of ids; None takes the file's.
        empty: "keep" trains images without objects as negatives, "skip" leaves them out.
        exclude: data sets or applications to leave out of training and validation, such as "bus_bra" or "breast", with
            their near duplicates elsewhere (``ultrasam.datasets.composition``); an unknown word is an error.
        indices: keep the first so many images (int) or those named (list), after ``empty``; None keeps all.
        test_mode: set by test loaders; images without objects are kept then, whatever ``empty`` says.
        metainfo: further values for ``metainfo``.

    Raises:
        DataError: the file cannot be used, or holds no image.
        ConfigError: a value that does not exist, or classes that the file does not have.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        img_prefix: str = "",
        pipeline: Sequence[dict[str, Any]] = (),
        prompt: str = "train",
        classes: Sequence[str] | None = None,
        empty: str = "keep",
        exclude: Sequence[str] = (),
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        if prompt not in PROMPT_MODES:
            raise ConfigError(f"prompt must be one of {', '.join(PROMPT_MODES)}, got {prompt!r}")
        if empty not in ("keep", "skip"):
            raise ConfigError(f"empty must be 'keep' or 'skip', got {empty!r}")
        self.ann_file = str(Path(data_root) / ann_file)
        self.prompt = prompt
        collection = read_coco(self.ann_file, Path(data_root) / img_prefix, classes=classes)
        images = collection.images
        self.excluded: Exclusion | None = None
        if exclude:
            images, self.excluded = self._exclude(images, exclude, Path(data_root))
        for image in images:
            # A group is no object to prompt; an image of nothing else has none.
            image.objects = [obj for obj in image.objects if not obj.iscrowd]
        without = sum(not image.objects for image in images)
        if empty == "skip" and not test_mode and without:
            images = [image for image in images if image.objects]
            logger.warning("%s: left out %d images without objects", self.ann_file, without)
        images = select(images, indices, self.ann_file)
        if not images:
            raise DataError(f"{self.ann_file} has no images to use ({without} without objects); check the file")
        # Shared with the loader's workers for good, and a fraction of the objects' size.
        self.images: Sequence[CocoImage] = PackedList(images)
        self.metainfo: dict[str, Any] = {"classes": tuple(collection.classes), **(metainfo or {})}
        self.pipeline = Compose(list(pipeline))

    def _exclude(
        self, images: Sequence[CocoImage], words: Sequence[str], root: Path
    ) -> tuple[list[CocoImage], Exclusion]:
        """Leave out named data sets and applications, and say so."""
        check_words(words, images, self.ann_file)
        kept, found = drop(images, words, joined_groups(root))
        logger.warning("%s: %s", self.ann_file, found)
        return kept, found

    def __len__(self) -> int:
        return len(self.images)

    def full_init(self) -> None:
        """Do nothing: the file is read in the constructor (MMEngine's wrappers call this)."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from: the image's path, size, ids and objects."""
        image = self.images[int(index)]
        return {
            "img_path": str(image.path),
            "img_id": image.id,
            "dataset": image.dataset,
            "group": image.group,
            "application": str(image.extra.get("application") or ""),
            "spacing": pixel_spacing(image),
            "height": image.height,
            "width": image.width,
            "objects": image.objects,
            "prompt": self.prompt,
            "sample_idx": int(index),
        }

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(index))


def pixel_spacing(image: CocoImage) -> tuple[float, float] | None:
    """Return the ``spacing_mm`` of an image record, (rows, columns) in millimetres, or None where it has none.

    Raises:
        DataError: it is something else than two positive numbers.
    """
    found = image.extra.get("spacing_mm")
    if found is None:
        return None
    try:
        rows, columns = (float(value) for value in found)
    except (TypeError, ValueError):
        rows = columns = math.nan
    if not (0 < rows < math.inf and 0 < columns < math.inf):
        raise DataError(
            f"{image.path}: spacing_mm must be two positive numbers (millimetres along rows and columns), "
            f"found {found!r}; correct the image record or remove the key"
        )
    return rows, columns
