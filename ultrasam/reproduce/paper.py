"""The numbers that the paper prints (paper_tables.json, in percent)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

# The paper's names of its test sets and ours.
DATASETS = {"bus_bra": "BUS-BRA", "mmotu_2d": "MMOTU2D", "gist514_db": "GIST514-DB"}


@cache
def paper_tables() -> dict[str, Any]:
    """Return the content of the file; do not change it."""
    return dict(json.loads(Path(__file__).with_name("paper_tables.json").read_text(encoding="utf-8")))
