"""The page's part on the sizes of objects and images."""

from __future__ import annotations

from collections import Counter
from html import escape

import numpy as np
from numpy.typing import NDArray

from data_prep.report.charts import diameter_histogram, image_size_chart
from data_prep.report.summary import Content, SetRow, Summary

# Side of the square that the encoder turns into one token.
PATCH = 16
_SCALE = 10  # 2**10 pixels are the right end of the range bars.


def size_section(summary: Summary) -> str:
    """Return two charts over all converted sets, and a table with one line per set."""
    done = [(row, row.content) for row in summary.converted if row.content is not None]
    counted = [content for row, content in done if row.counted]
    diameters = np.concatenate([content.diameters for content in counted])
    images: Counter[tuple[int, int]] = Counter()
    for content in counted:
        images.update(content.image_sizes)
    small = int((diameters < PATCH).sum())
    share = 100 * small / max(len(diameters), 1)
    rows = "".join(_row(row, content) for row, content in done)
    return (
        '<h2 id="sizes">Sizes of objects and images</h2><p class="muted">The size of an object is the diameter of a '
        "disc of its area, after the long side of the image is scaled to the network's 1024 pixels. "
        f"{small:,} of {len(diameters):,} objects ({share:.1f} %) are smaller than one {PATCH}-pixel token of the "
        f"encoder. The images have {len(images):,} different sizes.</p><div class=charts>"
        f'<div class=card><h3>Objects</h3>{diameter_histogram(diameters)}</div>'
        f'<div class=card><h3>Images</h3>{image_size_chart(images)}</div></div>'
        '<div class="card scroll"><table><thead><tr><th rowspan=2>set</th><th rowspan=2 class=n>objects</th>'
        "<th rowspan=2>object size, 2 to 1024 (log scale)</th><th class=group colspan=3>object size</th>"
        "<th class=group colspan=3>image size, width x height</th></tr><tr><th class=n>5 %</th>"
        "<th class=n>median</th><th class=n>95 %</th><th class=n>smallest</th><th class=n>most common</th>"
        f"<th class=n>largest</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def quantiles(diameters: NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Return the 5 %, 50 % and 95 % quantiles; None without objects."""
    if not len(diameters):
        return None
    low, middle, high = np.quantile(diameters, (0.05, 0.5, 0.95)).tolist()
    return low, middle, high


def _row(row: SetRow, content: Content) -> str:
    """Return one set of the table."""
    found = quantiles(content.diameters)
    numbers = ["-"] * 3 if found is None else [f"{value:,.0f}" for value in found]
    sizes = content.image_sizes
    order = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    common = max(order, key=lambda size: sizes[size], default=None)
    named = [order[0], common, order[-1]] if order else [None] * 3
    shown = ["-" if size is None else f"{size[0]:,} x {size[1]:,}" for size in named]
    cells = "".join(f"<td class=n>{cell}</td>" for cell in (*numbers, *shown))
    return (f"<tr><th scope=row>{escape(row.name)}</th><td class=n>{len(content.diameters):,}</td>"
            f"<td>{_range(found)}</td>{cells}</tr>")


def _range(found: tuple[float, float, float] | None) -> str:
    """Return a bar from the 5 % to the 95 % quantile with a mark at the median."""
    if found is None:
        return ""
    low, middle, high = (100 * float(np.clip((np.log2(max(value, 1e-9)) - 1) / (_SCALE - 1), 0, 1)) for value in found)
    return (f'<div class=range><i style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
            f'<b style="left:{middle:.1f}%"></b></div>')
