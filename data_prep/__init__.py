"""Converters that turn public ultrasound datasets into COCO collections."""
