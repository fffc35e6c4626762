"""Prompted segmentation of ultrasound images with Segment Anything (UltraSam)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrasam.inference.model import UltraSam as UltraSam

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and most of the package does without it.
    if name == "UltraSam":
        from ultrasam.inference.model import UltraSam

        return UltraSam
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
