"""Synthetic B-mode ultrasound with exact masks, for demonstrations and tests without patient data."""

from ultrasam.datasets.phantom.cli import add_arguments, main
from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.datasets.phantom.store import Report

__all__ = ["Report", "add_arguments", "generate_phantom", "main"]
