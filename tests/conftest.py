"""Fixtures shared by all tests."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes give a test no name: a file built while collecting (a gzip holds the time) may differ between workers."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference weights, golden numbers and real files; the test is skipped where it is absent."""
    folder = Path(os.environ.get("ULTRASAM_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference data not present at {folder} (set ULTRASAM_SHARED to run this test)")
    return folder


@pytest.fixture(autouse=True, scope="module")
def registry_of_mmdet() -> None:
    """Names of configurations are looked up where the commands look them up, whatever the module before has run.

    MMEngine keeps the scope of the last runner for the whole process.
    """
    if "mmdet" in sys.modules:
        from mmengine.registry import init_default_scope

        init_default_scope("mmdet")
