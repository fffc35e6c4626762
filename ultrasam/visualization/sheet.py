"""Many pictures on one sheet, with captions and a key to the colours."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ultrasam.errors import ConfigError, DataError
from ultrasam.visualization import drawing
from ultrasam.visualization.drawing import Canvas

_GAP = 10
_TEXT = 17


def contact_sheet(
    panels: Sequence[npt.NDArray[np.uint8]],
    columns: int,
    captions: Sequence[str] | None = None,
    legend: bool = True,
    cell: int = 460,
) -> npt.NDArray[np.uint8]:
    """Arrange pictures in rows, each fitted into a cell of equal size, none distorted.

    Args:
        panels: uint8 (h, w, 3) RGB pictures of any sizes, in reading order.
        columns: Pictures in a row.
        captions: One line under each picture, shortened where it does not fit.
        legend: Whether to explain the colours of `draw_overlay` at the bottom.
        cell: Width of a cell in pixels; its height follows the median proportions of the pictures.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        DataError: There are no pictures, or one is not uint8 RGB.
        ConfigError: `columns` or `cell` is too small, or the number of captions differs from that of
        pictures.
    """
    _check(panels, columns, captions, cell)
    columns = min(columns, len(panels))
    proportions = float(np.median([panel.shape[0] / panel.shape[1] for panel in panels]))
    height = round(cell * float(np.clip(proportions, 0.4, 1.4)))
    strip = drawing.text_size("Ag", _TEXT)[0] + 12 if captions is not None else 0
    rows = -(-len(panels) // columns)
    width = columns * (cell + _GAP) + _GAP
    key = _legend(width) if legend else np.zeros((0, width, 3), dtype=np.uint8)
    sheet = np.empty((rows * (height + strip + _GAP) + _GAP + len(key), width, 3), dtype=np.uint8)
    sheet[...] = drawing.PANEL
    for i, panel in enumerate(panels):
        x = _GAP + (i % columns) * (cell + _GAP)
        y = _GAP + (i // columns) * (height + strip + _GAP)
        _place(sheet[y : y + height, x : x + cell], panel)
        if captions is not None:
            caption = drawing.shortened(captions[i], _TEXT, cell - 8)
            drawing.write_text(sheet, caption, x + 2, y + height + 5, _TEXT)
    if len(key):
        sheet[-len(key) :] = key
    return sheet


def _place(target: Canvas, panel: npt.NDArray[np.uint8]) -> None:
    """Fit a picture into the middle of an area of the sheet."""
    height, width = target.shape[:2]
    factor = min(height / panel.shape[0], width / panel.shape[1])
    size = (
        min(width, max(1, round(panel.shape[1] * factor))),
        min(height, max(1, round(panel.shape[0] * factor))),
    )
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    fitted = cv2.resize(panel, size, interpolation=kind)
    y, x = (height - size[1]) // 2, (width - size[0]) // 2
    target[...] = drawing.PANEL
    target[y : y + size[1], x : x + size[0]] = fitted


def _legend(width: int) -> Canvas:
    """Draw the key to the colours, on as many lines as the width needs."""
    names = ("prediction", "truth", "point inside", "point outside", "box")
    line, swatch = 34, 26
    places, x, y = [], _GAP + 2, 0
    for name in names:
        needed = swatch + 10 + drawing.text_size(name, _TEXT)[1] + 26
        if x + needed > width and x > _GAP + 2:
            x, y = _GAP + 2, y + line
        places.append((name, x, y))
        x += needed
    key = np.empty((y + line + _GAP, width, 3), dtype=np.uint8)
    key[...] = drawing.PANEL
    for name, left, top in places:
        _swatch(key, name, left, top + line // 2, swatch)
        drawing.write_text(
            key, name, left + swatch + 10, top + (line - drawing.text_size(name, _TEXT)[0]) // 2, _TEXT,
            drawing.MUTED,
        )  # fmt: skip
    return key


def _swatch(key: Canvas, name: str, x: int, y: int, size: int) -> None:
    """Draw a sample of one kind of mark, as `draw_overlay` draws it; y is its middle."""
    half = 8
    corners = [[x, y - half], [x + size, y - half], [x + size, y + half], [x, y + half], [x, y - half]]
    border = np.array(corners, dtype=np.float64)
    if name.startswith("point"):
        drawing.point_mark(key, x + size / 2, y, name == "point inside", 8)
        return
    if name == "prediction":
        area = np.zeros(key.shape[:2], dtype=np.float32)
        area[y - half : y + half + 1, x : x + size + 1] = 1
        drawing.fill(key, area, drawing.PREDICTION, 0.38)
        drawing.stroke(key, [border], drawing.PREDICTION, 2)
    elif name == "truth":
        drawing.stroke(key, [border], drawing.TRUTH, 2)
    else:
        drawing.stroke(key, drawing.dashes(border, 6), drawing.BOX, 2)


def _check(
    panels: Sequence[npt.NDArray[np.uint8]], columns: int, captions: Sequence[str] | None, cell: int
) -> None:
    if not panels:
        raise DataError("There are no pictures for a contact sheet: draw at least one overlay first.")
    for i, panel in enumerate(panels):
        if panel.dtype != np.uint8 or panel.ndim != 3 or panel.shape[2] != 3 or panel.size == 0:
            raise DataError(
                f"Picture {i} of the contact sheet must be uint8 height x width x 3, found {panel.dtype} "
                f"{panel.shape}."
            )
    if columns < 1 or cell < 64:
        raise ConfigError(
            f"A contact sheet needs at least 1 column and cells of 64 pixels, found {columns} and {cell}."
        )
    if captions is not None and len(captions) != len(panels):
        raise ConfigError(
            f"The contact sheet has {len(panels)} pictures but {len(captions)} captions: give one each."
        )
