"""From low-resolution logits to masks of the whole image: only the part where a mask is, a strip at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ultrasam.geometry.extent import extent_of
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.threads import share_out

# Pixels along an axis that are enlarged at a time: their table then spans few cells.
STRIP = 128
GPU_CHUNK = 32


@dataclass(frozen=True)
class Axis:
    """How the pixels of one axis of the image are mixed of low-resolution cells.

    Attributes:
        table: (pixels, cells) float32, rows of at most four weights that are 1 in sum.
        first: (pixels,) first cell of each pixel, not decreasing.
        last: (pixels,) last cell of each pixel, not decreasing.
    """

    table: Tensor
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def pixels(self, begin: int, end: int) -> tuple[int, int]:
        """Return the half-open range of pixels that cells ``begin`` to ``end`` (half-open) are part of."""
        return int(np.searchsorted(self.last, begin)), int(np.searchsorted(self.first, end))

    def strips(self, begin: int, end: int) -> list[tuple[slice, slice]]:
        """Cut a range of pixels into strips; each with the range of its cells."""
        found = []
        for start in range(begin, end, STRIP):
            stop = min(start + STRIP, end)
            found.append((slice(start, stop), slice(int(self.first[start]), int(self.last[stop - 1]) + 1)))
        return found


@lru_cache(maxsize=16)
def axis_of(cells: int, square: int, resized: int, original: int) -> Axis:
    """Return what ``SquareTransform.logits_back`` does along one axis: to the square, cut, to the image."""
    table = F.interpolate(torch.eye(cells)[None], size=square, mode="linear", align_corners=False)[..., :resized]
    table = F.interpolate(table, size=original, mode="linear", align_corners=False)[0].T.contiguous()
    used = table.numpy() > 0
    return Axis(table, used.argmax(axis=1), cells - 1 - used[:, ::-1].argmax(axis=1))


class Enlarger:
    """Enlarges logits of one image, or of a window of it, to masks of the whole image.

    Args:
        transform: of the window.
        origin: (x, y) of the window in the image.
        size: (height, width) of the image.
        blocked: (height, width) bool, what is never mask; None for nothing.
    """

    def __init__(
        self,
        transform: SquareTransform,
        origin: tuple[int, int],
        size: tuple[int, int],
        blocked: NDArray[np.bool_] | None = None,
    ) -> None:
        self.transform = transform
        self.origin = origin
        self.size = size
        self.blocked = blocked

    def masks(self, logits: Tensor) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Enlarge, threshold at 0 and take away what is never mask.

        Args:
            logits: (N, h, w) float32 over the padded square.

        Returns:
            masks (N, H, W) bool, equal to ``logits_back(logits) > 0`` in the window up to rounding, and their
            half-open boxes (N, 4) x1, y1, x2, y2 float32, zeros for an empty mask.
        """
        masks = np.zeros((len(logits), *self.size), bool)
        boxes = np.zeros((len(logits), 4), np.float32)
        if logits.is_cuda:
            self._all_at_once(logits, masks)
            for number in range(len(logits)):
                self._finish(masks[number], boxes[number], (0, self.size[0], 0, self.size[1]))
            return masks, boxes

        def enlarge(rows: slice) -> None:
            for part, mask, box in zip(logits[rows], masks[rows], boxes[rows], strict=True):
                part_of_image = self._paint(part, mask)
                if part_of_image is not None:
                    self._finish(mask, box, part_of_image)

        share_out(enlarge, len(logits))
        return masks, boxes

    def _all_at_once(self, logits: Tensor, masks: NDArray[np.bool_]) -> None:
        x, y = self.origin
        height, width = self.transform.original_size
        for start in range(0, len(logits), GPU_CHUNK):
            part = self.transform.logits_back(logits[start : start + GPU_CHUNK]) > 0
            masks[start : start + len(part), y : y + height, x : x + width] = part.cpu().numpy()

    def _paint(self, logits: Tensor, mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
        """Set the mask of one object; return the range y1, y2, x1, x2 of what was written, None for nothing."""
        # A pixel is a mean of cells: none of it is positive where no cell is.
        positive = logits > 0
        ranges = []
        for hit, axis in zip((positive.any(dim=1), positive.any(dim=0)), self._axes(logits), strict=True):
            cells = torch.nonzero(hit)[:, 0]
            if not len(cells):
                return None
            ranges.append(axis.pixels(int(cells[0]), int(cells[-1]) + 1))
        (top, bottom), (left, right) = ranges
        if top == bottom or left == right:
            return None
        rows, columns = self._axes(logits)
        low, high = int(rows.first[top]), int(rows.last[bottom - 1]) + 1
        wide = torch.empty(high - low, right - left)
        for pixels, part in columns.strips(left, right):
            out = wide[:, pixels.start - left : pixels.stop - left]
            torch.mm(logits[low:high, part], columns.table[pixels, part].T, out=out)
        x, y = self.origin
        target = torch.from_numpy(mask)[y:, x + left : x + right]
        for pixels, part in rows.strips(top, bottom):
            strip = rows.table[pixels, part] @ wide[part.start - low : part.stop - low]
            torch.gt(strip, 0, out=target[pixels])
        return y + top, y + bottom, x + left, x + right

    def _axes(self, logits: Tensor) -> tuple[Axis, Axis]:
        sizes = zip(logits.shape, self.transform.resized_size, self.transform.original_size, strict=True)
        rows, columns = (axis_of(cells, self.transform.square, *others) for cells, *others in sizes)
        return rows, columns

    def _finish(self, mask: NDArray[np.bool_], box: NDArray[np.float32], part: tuple[int, int, int, int]) -> None:
        """Take from a mask what is blocked and measure its box, both within a part of the image."""
        y1, y2, x1, x2 = part
        inside = mask[y1:y2, x1:x2]
        if self.blocked is not None:
            inside &= ~self.blocked[y1:y2, x1:x2]
        found = extent_of(inside)
        if found is not None:
            box[:] = x1 + found[0], y1 + found[1], x1 + found[2], y1 + found[3]
