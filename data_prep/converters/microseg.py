"""MicroSeg: the same Zenodo record as MUP under its other name; convert one of the two."""

from __future__ import annotations

from dataclasses import replace

from data_prep.converters import mup
from data_prep.records import Converter

INFO = replace(
    mup.INFO,
    slug="microseg",
    name="MicroSeg (the same data as MUP)",
    names=("*microseg*",),
    alias_of="mup",
)

CONVERTER = Converter(INFO, mup.records)
