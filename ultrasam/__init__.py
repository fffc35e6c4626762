"""Prompted segmentation of ultrasound images with Segment Anything (UltraSam)."""

__version__ = "0.1.0"
