"""What models without prompts answer of one image: a class, a value, detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.downstream.checkpoint import Rebuilt
from ultrasam.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from ultrasam.geometry.transform import SquareTransform

# Units of lengths and areas that were measured in pixels of the image, so that no pixel size is needed.
_PIXELS = ("", "px", "px2", "px^2", "pixel", "pixels")


@dataclass(frozen=True)
class ClassAnswer:
    """Classes with probabilities.

    Attributes:
        classes: names of all.
        probabilities: (K,) float32, their sum is 1.
    """

    classes: tuple[str, ...]
    probabilities: NDArray[np.float32]

    @property
    def name(self) -> str:
        """The most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        pairs = zip(self.classes, self.probabilities, strict=True)
        return {"class": self.name, "probability": round(self.probability, 6),
                "probabilities": {name: round(float(value), 6) for name, value in pairs}}  # fmt: skip


@dataclass(frozen=True)
class ValueAnswer:
    """A measured value.

    Attributes:
        value: in ``unit``.
        unit: of the training data, "" where it has none.
        deviation: predicted standard deviation in ``unit``; None where the model predicts none.
    """

    value: float
    unit: str
    deviation: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"value": self.value, "unit": self.unit, "deviation": self.deviation}


@dataclass(frozen=True)
class Detections:
    """Objects that were found, the best score first.

    Attributes:
        masks: (N, H, W) bool.
        boxes: (N, 4) float32 x1, y1, x2, y2, half-open, in pixels of the image.
        scores: (N,) float32.
        names: of their classes.
    """

    masks: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    names: tuple[str, ...]


class WholeImage:
    """A model that takes no prompts. Images are prepared as its test pipeline prepares them.

    Args:
        rebuilt: of ``rebuild``.
    """

    def __init__(self, rebuilt: Rebuilt) -> None:
        self.rebuilt = rebuilt
        self.model = rebuilt.model
        self.task = rebuilt.checkpoint.task

    def classify(self, image: NDArray[np.uint8], where: str) -> ClassAnswer:
        """Return the class of an image (H, W, 3) uint8 RGB; ``where`` names it in messages."""
        found = self._run(image, where, classes=self.model.classes)
        return ClassAnswer(self.model.classes, found.probabilities[0].cpu().numpy())

    def detect(self, image: NDArray[np.uint8], where: str, min_score: float = 0.0) -> Detections:
        """Return the objects of an image (H, W, 3) uint8 RGB that score ``min_score`` or more."""
        found = self._run(image, where, classes=self.model.classes)
        found = found[found.scores >= min_score]
        names = tuple(self.model.classes[int(label)] for label in found.labels)
        return Detections(found.masks.cpu().numpy(), found.bboxes.cpu().numpy(), found.scores.cpu().numpy(), names)

    def measure(self, image: NDArray[np.uint8], where: str, spacing: tuple[float, float] | None) -> ValueAnswer:
        """Return the value of an image (H, W, 3) uint8 RGB.

        Args:
            image: the pixels.
            where: names it in messages.
            spacing: mm along (rows, columns), which lengths and areas in millimetres need.

        Raises:
            DataError: the pixel size is needed and not known.
        """
        import math

        from ultrasam.datasets.values_scale import value_scale

        used = self._spacing(spacing, where)
        scale = value_scale(self.model.quantity, self._fit(image), used, where)
        found = self._run(image, where, quantity=self.model.quantity, value_scale=scale)
        value, deviation = float(found.measured[0]), float(found.deviations[0])
        if not math.isfinite(value):
            raise DataError(f"{where}: the model gives {value}, no number; train it, or take an earlier checkpoint")
        return ValueAnswer(value, self.unit, None if math.isnan(deviation) else deviation)

    @property
    def unit(self) -> str:
        """Unit of a regressor's values, "" where the training data say none."""
        about = self.rebuilt.checkpoint.meta.get("dataset_meta")
        said = about.get("unit") if isinstance(about, dict) else None
        return str(self.rebuilt.data.get("unit", "") if said is None else said)

    def _spacing(self, spacing: tuple[float, float] | None, where: str) -> tuple[float, float] | None:
        """Return the pixel size that enters the value, None where the training data were measured in pixels."""
        data = self.rebuilt.data
        # A table without a column of pixel sizes holds lengths in pixels of the image, whatever it calls them.
        table = bool(data) and not str(data.get("ann_file")).lower().endswith(".json")
        in_pixels = self.unit.strip().lower() in _PIXELS or (table and data.get("spacing_column") is None)
        if self.model.quantity == "plain" or in_pixels:
            return None
        if spacing is None:
            raise DataError(f"{where} does not say the size of its pixels, which {self.model.quantity}s in "
                            f"{self.unit} need; give it with --spacing")  # fmt: skip
        return spacing

    def _fit(self, image: NDArray[np.uint8]) -> SquareTransform:
        from ultrasam.geometry.transform import SquareTransform

        pixels = self.model.backbone.preprocessing
        height, width = image.shape[:2]
        return SquareTransform.fit(height, width, pixels.square, pixels.mode, pixels.interpolation)

    def _run(self, image: NDArray[np.uint8], where: str, **about: Any) -> Any:
        """Return the model's ``pred_instances``."""
        import warnings

        import torch
        from mmdet.structures import DetDataSample

        fit = self._fit(image)
        pixels: Tensor = torch.from_numpy(np.ascontiguousarray(fit.image(image).transpose(2, 0, 1)))
        sample = DetDataSample(metainfo={"img_path": where, "transform": fit, "ori_shape": image.shape[:2],
                                         "img_shape": pixels.shape[1:], **about})  # fmt: skip
        with torch.no_grad(), warnings.catch_warnings():
            # Of MMDetection's code, about a future version of torch.
            warnings.filterwarnings("ignore", message="torch.meshgrid")
            batch = self.model.data_preprocessor({"inputs": [pixels], "data_samples": [sample]})
            return self.model(**batch, mode="predict")[0].pred_instances
