"""Checks that the data pipeline prepares images and targets the way the network's weights need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultrasam.errors import ConfigError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.modeling.sam import Preprocessing

# The released system truncates sizes where others round: a pixel, which is not another preprocessing.
ROUNDING = 1


def check_transforms(samples: Sequence[Any], preprocessing: Preprocessing) -> None:
    """Refuse images that were resized otherwise than the weights' preprocessing says.

    Weights that run with another preprocessing give another model's numbers without any other sign.

    Args:
        samples: with ``transform``, the ``SquareTransform`` of the image.
        preprocessing: of the weights.

    Raises:
        ConfigError: names the image, both resizings, and what to set.
    """
    pixels = preprocessing
    wanted = f"square={pixels.square}, mode={pixels.mode!r}, interpolation={pixels.interpolation!r}"
    for sample in samples:
        found: SquareTransform = sample.transform
        expected = SquareTransform.fit(
            *found.original_size,
            pixels.square,
            pixels.mode,  # type: ignore[arg-type]
            pixels.interpolation,  # type: ignore[arg-type]
        )
        near = all(abs(a - b) <= ROUNDING for a, b in zip(found.resized_size, expected.resized_size, strict=True))
        if not near or (found.square, found.interpolation) != (pixels.square, pixels.interpolation):
            name = getattr(sample, "img_path", "an image")
            raise ConfigError(
                f"{name} of {tuple(found.original_size)} was resized to {tuple(found.resized_size)} with "
                f"square={found.square}, mode={resize_mode(found)!r}, interpolation={found.interpolation!r}, but the "
                f"weights' preprocessing has {wanted}; give the pipeline's FitSquare these values"
            )


def resize_mode(transform: SquareTransform) -> str:
    """Return "squash" where an image that is not square fills the square, else "pad"."""
    height, width = transform.original_size
    filled = tuple(transform.resized_size) == (transform.square, transform.square)
    return "squash" if filled and height != width else "pad"


def check_targets(samples: Sequence[Any], side: int) -> None:
    """Refuse training samples without targets of the low-resolution masks' size.

    Args:
        samples: with ``gt_instances``.
        side: of the network's low-resolution masks in pixels.

    Raises:
        ConfigError: names the sizes and what to set.
    """
    for sample in samples:
        targets = getattr(sample.gt_instances, "targets", None)
        found = None if targets is None else targets.shape[-1]
        if found != side:
            raise ConfigError(
                f"training targets of the network have {side} pixels a side, the pipeline gives {found}; "
                f"set target_size={side} in the training pipeline's FitSquare"
            )
