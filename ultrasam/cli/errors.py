"""How the commands say what went wrong: one sentence, on the error stream, and status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ultrasam.errors import UltraSamError


def guarded(run: Callable[[], int]) -> int:
    """Run a command; return its status, or 2 after an error that the user can correct, which is printed."""
    try:
        return run()
    except UltraSamError as error:
        complain(str(error))
        return 2


def complain(problem: str) -> str:
    """Print what could not be done; return it."""
    print(f"error: {problem}", file=sys.stderr, flush=True)
    return problem


def about_file(path: Path, error: UltraSamError) -> str:
    """Return an error's sentence, with the file in front where it does not name it."""
    text = str(error)
    return text if path.name in text else f"{path}: {text}"
