"""The one transform between an image and the network's square: images, points, boxes, masks, both ways."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ultrasam.errors import ConfigError, DataError

Mode = Literal["pad", "squash"]
Interpolation = Literal["bilinear", "area", "bicubic"]
Coordinates = TypeVar("Coordinates", NDArray[np.floating], Tensor)

_CV2_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "bicubic": cv2.INTER_CUBIC}
# Masks enlarged at a time: bounds the memory to about 130 MB at 1024 pixels, whatever the number of objects.
_CHUNK = 32


@dataclass(frozen=True)
class SquareTransform:
    """Resizing of one image into the top-left corner of a square, right and bottom padded.

    Attributes:
        original_size: height, width of the image in pixels.
        resized_size: height, width of the image inside the square.
        square: side of the square in pixels.
        interpolation: how the image is resized, "bilinear" or "area".
    """

    original_size: tuple[int, int]
    resized_size: tuple[int, int]
    square: int
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        smallest = min(*self.original_size, *self.resized_size, self.square)
        if smallest < 1 or max(self.resized_size) > self.square:
            raise ConfigError(
                f"a transform needs sizes from 1 pixel and an image inside its square, found original "
                f"{self.original_size}, resized {self.resized_size}, square {self.square}"
            )
        if self.interpolation not in _CV2_INTERPOLATION:
            raise ConfigError(f"interpolation must be 'bilinear', 'area' or 'bicubic', found {self.interpolation!r}")

    @classmethod
    def fit(
        cls,
        height: int,
        width: int,
        square: int,
        mode: Mode = "pad",
        interpolation: Interpolation = "bilinear",
    ) -> SquareTransform:
        """Choose the size of an image in the square.

        Args:
            height: image height in pixels.
            width: image width in pixels.
            square: side of the square in pixels.
            mode: "pad" keeps the proportions (long side = square), "squash" fills the square.
            interpolation: "bilinear" or "area" (averages; for strong reduction).

        Raises:
            ConfigError: a size below one pixel or an unknown mode.
        """
        if min(height, width, square) < 1:
            raise ConfigError(
                f"sizes must be at least 1 pixel, found image {height} x {width} and square {square}"
            )
        if mode == "squash":
            resized = (square, square)
        elif mode == "pad":
            scale = square / max(height, width)
            resized = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        else:
            raise ConfigError(f"the resize mode must be 'pad' or 'squash', found {mode!r}")
        return cls((height, width), resized, square, interpolation)

    @property
    def scale(self) -> tuple[float, float]:
        """Factors x, y from the original to the square."""
        return (
            self.resized_size[1] / self.original_size[1],
            self.resized_size[0] / self.original_size[0],
        )

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image uint8 (H, W, 3) or (H, W) to ``resized_size``, without the padding.

        Raises:
            DataError: the image does not have ``original_size``.
        """
        self._require_size(image.shape[:2])
        height, width = self.resized_size
        resized = cv2.resize(
            np.ascontiguousarray(image), (width, height), interpolation=_CV2_INTERPOLATION[self.interpolation]
        )
        return np.asarray(resized, dtype=np.uint8)

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Resize a mask bool (H, W) to ``resized_size`` by the nearest pixel centre, without the padding.

        Raises:
            DataError: the mask does not have ``original_size``.
        """
        self._require_size(mask.shape)
        (height, width), (rows, columns) = self.original_size, self.resized_size
        # Integer arithmetic: the source pixel whose area holds the centre of the target pixel.
        y = (2 * np.arange(rows) + 1) * height // (2 * rows)
        x = (2 * np.arange(columns) + 1) * width // (2 * columns)
        return mask[y[:, None], x[None, :]].astype(bool)

    def points(self, xy: Coordinates) -> Coordinates:
        """Map points (..., 2), x before y, from original pixels to pixels of the square."""
        return _scaled(xy, self.scale, 2)

    def points_back(self, xy: Coordinates) -> Coordinates:
        """Map points (..., 2), x before y, from pixels of the square to original pixels."""
        return _scaled(xy, self._scale_back, 2)

    def boxes(self, boxes: Coordinates) -> Coordinates:
        """Map boxes (..., 4) x1, y1, x2, y2 from original pixels to pixels of the square; NaN stays NaN."""
        return _scaled(boxes, self.scale, 4)

    def boxes_back(self, boxes: Coordinates) -> Coordinates:
        """Map boxes (..., 4) x1, y1, x2, y2 from pixels of the square to original pixels."""
        return _scaled(boxes, self._scale_back, 4)

    def logits_back(self, logits: Tensor) -> Tensor:
        """Enlarge mask logits to the original image; the threshold comes after.

        Args:
            logits: (N, h, w), any floating type, low resolution over the padded square.

        Returns:
            float32 (N, H, W) at ``original_size``: bilinear to the square, padding cut off, bilinear to
            the image, as in Segment Anything.
        """
        return self._enlarge(logits, lambda part: part.float(), torch.float32)

    def masks_back_released(self, logits: Tensor) -> Tensor:
        """Enlarge masks in the order of the released code, which makes them larger (only to compare with it).

        Args:
            logits: (N, h, w), any floating type, low resolution over the padded square.

        Returns:
            bool (N, H, W): cut at 0 at low resolution, enlarged bilinearly as numbers 0 and 1 to the square
            and then to the image, and every pixel that is not exactly 0 is foreground.
        """
        return self._enlarge(logits, lambda part: (part > 0).float(), torch.bool)

    @property
    def _scale_back(self) -> tuple[float, float]:
        return (
            self.original_size[1] / self.resized_size[1],
            self.original_size[0] / self.resized_size[0],
        )

    def _enlarge(self, logits: Tensor, prepare: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
        if logits.ndim != 3:
            raise DataError(f"mask logits have the shape (masks, height, width), found {tuple(logits.shape)}")
        rows, columns = self.resized_size
        out = torch.empty((len(logits), *self.original_size), dtype=dtype, device=logits.device)
        for begin in range(0, len(logits), _CHUNK):
            part = prepare(logits[begin : begin + _CHUNK])[:, None]
            part = _bilinear(part, (self.square, self.square))[..., :rows, :columns]
            part = _bilinear(part, self.original_size)
            out[begin : begin + _CHUNK] = part[:, 0] if dtype.is_floating_point else part[:, 0] != 0
        return out

    def _require_size(self, size: tuple[int, ...]) -> None:
        if tuple(size) != tuple(self.original_size):
            raise DataError(
                f"this transform is for an image of {self.original_size} (height, width), found {tuple(size)}"
            )


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def _scaled(values: Coordinates, scale: tuple[float, float], length: int) -> Coordinates:
    """Multiply x and y alternately; whole numbers become float32, floating types are kept."""
    if values.shape[-1:] != (length,):
        raise DataError(f"the last dimension must be {length}, found the shape {tuple(values.shape)}")
    factors = list(scale) * (length // 2)
    if isinstance(values, Tensor):
        values = values if values.is_floating_point() else values.float()
        return values * torch.tensor(factors, dtype=values.dtype, device=values.device)
    dtype = values.dtype if np.issubdtype(values.dtype, np.floating) else np.dtype(np.float32)
    return (values * np.array(factors)).astype(dtype)
