"""Metrics of prompted segmentation."""
