"""Backbones of the downstream tasks, all with the interface of ``ultrasam.models.backbones.base.Backbone``."""
