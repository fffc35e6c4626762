"""Clipping polygons to the image, so that no coordinate outside of it ever reaches the rasteriser in C."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip_polygon(vertices: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Cut a polygon to the rectangle of the image by the method of Sutherland and Hodgman.

    Args:
        vertices: float64 (P, 2), x before y, in pixels.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        float64 (Q, 2) with 0 <= x <= width and 0 <= y <= height; Q is 0 where the polygon has no area
        inside the image. A concave polygon may come back with parts joined by edges on the border, which
        enclose nothing. A polygon that is inside already is returned unchanged.
    """
    inside = (vertices >= 0).all() and (vertices[:, 0] <= width).all() and (vertices[:, 1] <= height).all()
    if inside:
        return vertices
    for axis, limit in ((0, float(width)), (1, float(height))):
        vertices = _clip_half_plane(vertices, axis, 0.0, 1.0)
        vertices = _clip_half_plane(vertices, axis, limit, -1.0)
    # Interpolation may round one bit beyond a bound that was cut before.
    vertices = np.clip(vertices, 0.0, [float(width), float(height)])
    # What is left of a polygon that only touches the border has no extent.
    if len(vertices) < 3 or (np.ptp(vertices, axis=0) == 0).any():
        return np.empty((0, 2), dtype=np.float64)
    return vertices


def _clip_half_plane(
    vertices: NDArray[np.float64], axis: int, bound: float, sign: float
) -> NDArray[np.float64]:
    """Keep the part with ``sign * coordinate >= sign * bound``."""
    kept: list[NDArray[np.float64]] = []
    for index in range(len(vertices)):
        previous, current = vertices[index - 1], vertices[index]
        was_in, is_in = sign * previous[axis] >= sign * bound, sign * current[axis] >= sign * bound
        if was_in != is_in:
            share = (bound - previous[axis]) / (current[axis] - previous[axis])
            crossing = previous + share * (current - previous)
            crossing[axis] = bound
            kept.append(crossing)
        if is_in:
            kept.append(current)
    return np.array(kept, dtype=np.float64).reshape(-1, 2)
