"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference weights, golden numbers and real files; the test is skipped where it is absent."""
    folder = Path(os.environ.get("ULTRASAM_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not present at {folder} (set ULTRASAM_SHARED to run this test)")
    return folder
