"""Families of applications, as the paper leaves them out or takes a part of them (sections 3.2 and 3.5)."""

from __future__ import annotations

# Beginnings of words in the application of an image record, or the organ of a set.
FAMILIES: dict[str, tuple[str, ...]] = {
    "breast": ("breast",),
    "ovarian": ("ovar",),
    "gastrointestinal": ("gist", "gastrointestinal"),
}
