"""The box around a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def extent_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Return the tight half-open box x1, y1, x2, y2 in pixels around a mask bool (H, W); None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
