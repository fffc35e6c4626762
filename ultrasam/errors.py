"""Errors that a user can act on: one sentence naming the file or value, what was expected and found."""

from __future__ import annotations


class UltraSamError(Exception):
    """Base of every error that the commands print as one sentence, with exit status 2."""


class DataError(UltraSamError):
    """An image, mask or annotation file that cannot be used."""


class CheckpointError(UltraSamError):
    """A weight file that is damaged, unsafe, or of another architecture."""


class ConfigError(UltraSamError):
    """A configuration or command-line value that does not exist or does not fit."""


class PromptError(UltraSamError):
    """A point, box or mask prompt that is not valid for its image."""
