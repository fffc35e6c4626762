"""Dataset of prompted objects with one class each, and its packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmdet.registry import DATASETS, TRANSFORMS

from ultrasam.datasets.classes_sources import class_counts
from ultrasam.datasets.dataset import PromptedCocoDataset
from ultrasam.datasets.packed import PackedList
from ultrasam.datasets.transforms import PackPrompted
from ultrasam.errors import ConfigError, DataError

LABELS_FROM = ("category", "image")


@DATASETS.register_module()
class PromptedClassDataset(PromptedCocoDataset):
    """Images of a COCO file with all their objects to prompt, each with a class.

    Args:
        ann_file: the COCO file with classes, relative to ``data_root`` or absolute.
        data_root: folder that ``ann_file`` and the images' file names are relative to.
        img_prefix: folder of the images below ``data_root``.
        pipeline: configs of the transforms.
        prompt: "train", "point", "box" or "centroid".
        classes: names in the order of the labels, may hold some without objects; None takes them from the file.
        label_from: "category" of the object, or "image": every object has the class of its image record.
        label_key: of the image records.
        empty: "keep" or "skip" images without objects.
        indices: keep the first so many images (int) or those named (list).
        test_mode: set by test loaders.
        metainfo: further values for ``metainfo``.

    Raises:
        DataError: the file cannot be used, or an object's image has no class.
        ConfigError: a value that does not exist, or classes that are not those of the file.
    """

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        img_prefix: str = "",
        pipeline: Sequence[dict[str, Any]] = (),
        prompt: str = "train",
        classes: Sequence[str] | None = None,
        label_from: str = "category",
        label_key: str = "class",
        empty: str = "keep",
        indices: int | Sequence[int] | None = None,
        test_mode: bool = False,
        metainfo: dict[str, Any] | None = None,
    ) -> None:
        if label_from not in LABELS_FROM:
            raise ConfigError(f"label_from must be one of {', '.join(map(repr, LABELS_FROM))}, got {label_from!r}")
        super().__init__(
            ann_file, data_root, img_prefix, pipeline, prompt,
            empty=empty, indices=indices, test_mode=test_mode, metainfo=metainfo,
        )  # fmt: skip
        in_file = list(self.metainfo["classes"])
        names = self._names(label_from, label_key, in_file)
        found = sorted({name for row in names for name in row})
        order = list(classes) if classes is not None else (in_file if label_from == "category" else found)
        strange = [name for name in found if name not in order]
        if strange:
            raise ConfigError(
                f"{self.ann_file} has objects of the class {strange[0]!r}, which is none of {order}; correct the "
                "classes of the configuration, or give the file with classes instead of the class-agnostic one"
            )
        labelled = list(self.images)
        for image, row in zip(labelled, names, strict=True):
            image.objects = [
                replace(item, label=order.index(name)) for item, name in zip(image.objects, row, strict=True)
            ]
        self.images = PackedList(labelled)
        self.metainfo["classes"] = tuple(order)

    def _names(self, label_from: str, key: str, categories: Sequence[str]) -> list[list[str]]:
        """Return the class of every object of every image."""
        if label_from == "category":
            return [[categories[item.label] for item in image.objects] for image in self.images]
        for image in self.images:
            if image.objects and not image.extra.get(key):
                raise DataError(
                    f"{self.ann_file}: the image {image.file_name} has objects but no {key!r}; add its class, or set "
                    "label_from='category'"
                )
        return [[str(image.extra.get(key))] * len(image.objects) for image in self.images]

    def class_counts(self) -> list[int]:
        """Return the number of objects of each class."""
        return class_counts([item.label for i in self.images for item in i.objects], len(self.metainfo["classes"]))

    def sample_labels(self) -> list[list[int]]:
        """Return the labels in each sample, for samplers that balance classes."""
        return [[item.label for item in image.objects] for image in self.images]

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from."""
        return {**super().get_data_info(index), "classes": self.metainfo["classes"]}


@TRANSFORMS.register_module()
class PackPromptedClass(PackPrompted):
    """As ``PackPrompted``, with the names of the classes and without masks, which classification does not need."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return ``inputs`` and ``data_samples``."""
        # The encoded masks would be those of a mirrored image; prompts are made, so nobody asks for them.
        packed = super().transform({**results, "flip": False})
        sample = packed["data_samples"]
        sample.set_metainfo({"classes": results["classes"], "flip": results["flip"]})
        del sample.gt_instances.rles
        return packed
