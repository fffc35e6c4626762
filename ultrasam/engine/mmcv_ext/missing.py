"""What operators say that only a compiled mmcv has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ultrasam.errors import UltraSamError


class MissingOpError(UltraSamError, NotImplementedError):
    """An operator of mmcv that only its compiled extension has."""

    def __init__(self, name: str) -> None:
        """Say what is missing and what to do.

        Args:
            name: the operator, as a user would look it up.
        """
        super().__init__(
            f"the mmcv operator '{name}' needs a compiled mmcv, which this installation does not have: "
            "replace mmcv-lite by it (`pip uninstall mmcv-lite`, then `pip install openmim` and "
            "`mim install mmcv==2.1.0`) or configure a model that does not use this operator"
        )


def missing_op(name: str) -> Callable[..., NoReturn]:
    """Return a function that takes any arguments and raises :class:`MissingOpError` for operator ``name``."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise MissingOpError(name)

    refuse.__name__ = refuse.__qualname__ = name
    return refuse
