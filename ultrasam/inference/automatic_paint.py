"""Stability, box and mask of one candidate from its low-resolution logits, only where the mask can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.automatic_geometry import inclusive_box
from ultrasam.inference.enlarge import axis_of


@dataclass(frozen=True)
class Painted:
    """One candidate in pixels of its crop.

    Attributes:
        stability: IoU of the masks above and below the threshold; NaN where both are empty.
        box: (4,) x1, y1, x2, y2, both ends inside, zeros where empty.
        bits: the mask within its box, packed.
    """

    stability: float
    box: NDArray[np.int64]
    bits: NDArray[np.uint8]

    def mask(self, height: int, width: int, origin: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the mask (height, width) of the image, ``origin`` (x, y) being the crop's corner in it."""
        mask = np.zeros((height, width), bool)
        if self.bits.size:
            (x, y), (x1, y1, x2, y2) = origin, (int(v) for v in self.box)
            inside = np.unpackbits(self.bits, count=(y2 - y1 + 1) * (x2 - x1 + 1)).astype(bool)
            mask[y + y1 : y + y2 + 1, x + x1 : x + x2 + 1] = inside.reshape(y2 - y1 + 1, x2 - x1 + 1)
        return mask


class Painter:
    """Enlarges candidates of one crop.

    Args:
        transform: from the crop to the square.
        offset: how far the thresholds of the stability lie from 0, in logits.
        field: (H, W) bool of the crop, outside of which nothing is mask; None for no such limit.
    """

    def __init__(self, transform: SquareTransform, offset: float, field: NDArray[np.bool_] | None) -> None:
        self.transform = transform
        self.offset = offset
        self.outside = None if field is None else torch.from_numpy(~field)

    def paint(self, logits: Tensor, least: float) -> list[Painted | None]:
        """Measure candidates (N, h, w) float32; None for each whose stability is below ``least`` (0 keeps all)."""
        if logits.is_cuda:
            return self._at_once(logits, least)
        return [self._one(part, least) for part in logits]

    def _at_once(self, logits: Tensor, least: float) -> list[Painted | None]:
        """As ``paint``, on whole masks: what a GPU does best."""
        enlarged = self.transform.logits_back(logits)
        if self.outside is not None:
            enlarged.masked_fill_(self.outside.to(enlarged.device), -torch.inf)
        high, low = ((enlarged > edge).sum((1, 2)) for edge in (self.offset, -self.offset))
        shares = (high / low).tolist()
        kept = [not least > 0 or share >= least for share in shares]
        masks = iter((enlarged[kept] > 0).cpu().numpy())
        return [
            _packed(share, next(masks), (0, 0)) if keep else None for share, keep in zip(shares, kept, strict=True)
        ]

    def _one(self, logits: Tensor, least: float) -> Painted | None:
        # A pixel is a mean of cells: none of it is above a threshold where no cell is.
        lowest = -abs(self.offset)
        seen = logits > lowest
        sizes = zip(logits.shape, self.transform.resized_size, self.transform.original_size, strict=True)
        rows, columns = (axis_of(count, self.transform.square, *others) for count, *others in sizes)
        ranges = []
        for hit, axis in ((seen.any(dim=1), rows), (seen.any(dim=0), columns)):
            at = torch.nonzero(hit)[:, 0]
            ranges.append(axis.pixels(int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0))
        (top, bottom), (left, right) = ranges
        if top == bottom or left == right:
            return None if least > 0 else Painted(float("nan"), np.zeros(4, np.int64), np.zeros(0, np.uint8))
        first, last = int(rows.first[top]), int(rows.last[bottom - 1]) + 1
        wide = torch.empty(last - first, right - left)
        for pixels, cells in columns.strips(left, right):
            torch.mm(
                logits[first:last, cells],
                columns.table[pixels, cells].T,
                out=wide[:, pixels.start - left : pixels.stop - left],
            )
        high = low = 0
        mask = np.empty((bottom - top, right - left), bool)
        for pixels, cells in rows.strips(top, bottom):
            strip = rows.table[pixels, cells] @ wide[cells.start - first : cells.stop - first]
            if self.outside is not None:
                strip.masked_fill_(self.outside[pixels, left:right], -torch.inf)
            high += int((strip > self.offset).sum())
            low += int((strip > -self.offset).sum())
            mask[pixels.start - top : pixels.stop - top] = (strip > 0).numpy()
        share = high / low if low else float("nan")
        return None if least > 0 and not share >= least else _packed(share, mask, (left, top))


def _packed(stability: float, mask: NDArray[np.bool_], origin: tuple[int, int]) -> Painted:
    """Keep a part of a crop whose left upper corner is ``origin`` (x, y)."""
    if not mask.any():
        return Painted(stability, np.zeros(4, np.int64), np.zeros(0, np.uint8))
    box = inclusive_box(mask)
    x1, y1, x2, y2 = box.tolist()
    return Painted(stability, box + np.array([*origin, *origin]), np.packbits(mask[y1 : y2 + 1, x1 : x2 + 1]))
