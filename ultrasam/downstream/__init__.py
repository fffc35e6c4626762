"""Prediction with checkpoints of the other tasks: classes, classes of prompted objects, values, detections."""
