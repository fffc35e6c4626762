"""Prediction: an image is encoded once, then prompts cost milliseconds. Imports PyTorch alone, and only when used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ultrasam.inference.decoding import Decoder
    from ultrasam.inference.masks import Masks
    from ultrasam.inference.model import Embedding, UltraSam
    from ultrasam.inference.prompt import Prompt, check_prompt
    from ultrasam.inference.sam_predictor import SamPredictor
    from ultrasam.inference.session import ObjectState, Session

_WHERE = {
    "Decoder": "decoding",
    "Embedding": "model",
    "Masks": "masks",
    "ObjectState": "session",
    "Prompt": "prompt",
    "SamPredictor": "sam_predictor",
    "Session": "session",
    "UltraSam": "model",
    "check_prompt": "prompt",
}

__all__ = [
    "Decoder",
    "Embedding",
    "Masks",
    "ObjectState",
    "Prompt",
    "SamPredictor",
    "Session",
    "UltraSam",
    "check_prompt",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"ultrasam.inference.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
