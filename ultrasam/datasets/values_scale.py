"""How a measured value changes when its image is resized into the network's square."""

from __future__ import annotations

import math

from ultrasam.errors import ConfigError
from ultrasam.geometry.transform import SquareTransform

QUANTITIES = ("plain", "length", "area")
# Relative difference of scales or pixel sizes along x and y up to which a length has one scale.
EVEN = 0.02


def value_scale(quantity: str, fit: SquareTransform, spacing: tuple[float, float] | None, where: str) -> float:
    """Return the factor from a value to what the network can see of it.

    A network sees neither the pixel size nor how much an image was resized. Of a length or an area it therefore
    predicts pixels of the square, and the known pixel size and resizing turn them back: a length in millimetres is
    ``value / pixel size * resizing`` pixels of the square.

    Args:
        quantity: "plain" (a score, a share, an age: 1), "length" or "area".
        fit: resizing of the image.
        spacing: millimetres of a pixel of the original image along rows and columns; None where the value is in
            original pixels.
        where: the image, for messages.

    Raises:
        ConfigError: an unknown quantity, or a length in an image whose scales along x and y differ.
    """
    if quantity not in QUANTITIES:
        raise ConfigError(f"quantity must be one of {', '.join(map(repr, QUANTITIES))}, got {quantity!r}")
    if quantity == "plain":
        return 1.0
    rows, columns = spacing or (1.0, 1.0)
    # Pixels of the square for one unit along x and along y.
    across, down = fit.scale[0] / columns, fit.scale[1] / rows
    if quantity == "area":
        return across * down
    if abs(across - down) > EVEN * max(across, down):
        raise ConfigError(
            f"{where}: a length has no one scale here, {across:.4g} pixels of the square a unit along x and {down:.4g} "
            "along y; resize with mode='pad', or check the pixel size"
        )
    return math.sqrt(across * down)
