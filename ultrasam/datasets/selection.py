"""Taking a part of the images of a dataset, as its configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ultrasam.errors import ConfigError

Item = TypeVar("Item")


def select(images: Sequence[Item], indices: int | Sequence[int] | None, where: str) -> list[Item]:
    """Return the first so many images (int), those named (list), or all (None).

    Raises:
        ConfigError: a number beyond the images of the file ``where``.
    """
    if indices is None:
        return list(images)
    if isinstance(indices, int):
        return list(images[:indices])
    wrong = [index for index in indices if not 0 <= index < len(images)]
    if wrong:
        raise ConfigError(f"indices names image {wrong[0]}, but {where} has {len(images)} images")
    return [images[index] for index in indices]
