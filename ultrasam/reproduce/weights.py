"""The weights that the tables need: what they are, how to get them, and the files given for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ultrasam.checkpoints.cards import KNOWN_SHA256
from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.weights import resolve_weights
from ultrasam.errors import ConfigError

_TRAIN = "tools/dist_train.sh {config} 4 --weights sam_vit_b_01ec64.pth"
MAIN = "configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"
FAMILIES = {"bus_bra": "breast", "mmotu_2d": "ovarian", "gist514_db": "gastrointestinal"}
# Percent of the images of a test set's application in training; 0 is UltraSam* and 100 UltraSam.
SHARES = (0, 10, 30, 50, 100)


@dataclass(frozen=True)
class Weights:
    """Weights that a table needs.

    Attributes:
        what: for people.
        command: what makes them; empty where they are downloaded.
        card: card of the public file, see ``ultrasam.checkpoints.cards``; empty for trainings.
    """

    what: str
    command: str = ""
    card: str = ""


def _trainings() -> dict[str, Weights]:
    """Return what is trained without an application or with a share of it."""
    found = {}
    for family in FAMILIES.values():
        config = MAIN.replace(".py", f"_without-{family}.py")
        found[f"ultrasam-without-{family}"] = Weights(
            f"UltraSam trained without {family} images", _TRAIN.format(config=config)
        )
        for share in SHARES[1:-1]:
            option = f"--cfg-options train_dataloader.dataset.ann_file=train.{family}_{share}.json"
            found[f"ultrasam-{family}-{share}"] = Weights(
                f"UltraSam trained with {share} % of the {family} images",
                f"{_TRAIN.format(config=MAIN)} --work-dir work_dirs/ultrasam_{family}_{share} {option}",
            )
    return found


WEIGHTS: dict[str, Weights] = {
    "sam": Weights(
        "sam_vit_b_01ec64.pth from https://github.com/facebookresearch/segment-anything", card="sam_vit_b"
    ),
    "medsam": Weights("medsam_vit_b.pth from https://github.com/bowang-lab/MedSAM", card="medsam"),
    "ultrasam": Weights(
        "UltraSam.pth from https://github.com/CAMMA-public/UltraSam, or a training of your own",
        _TRAIN.format(config=MAIN),
    ),
    "ultrasam-no-refine": Weights(
        "UltraSam trained without refinement", _TRAIN.format(config=MAIN.replace(".py", "_no-refine.py"))
    ),
    **_trainings(),
}


def given_weights(texts: Sequence[str]) -> dict[str, Path]:
    """Read ``NAME=FILE`` arguments.

    Args:
        texts: the file is one of any known format, a work directory of a training (its newest checkpoint is taken),
            or a name such as ``litemedsam``.

    Raises:
        ConfigError: no such name, or given twice.
        CheckpointError: no such file.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise ConfigError(f"--weights takes NAME=FILE, but got {text!r}; names are {', '.join(WEIGHTS)}")
        if name not in WEIGHTS:
            raise ConfigError(f"--weights {text}: no table needs {name!r}; names are {', '.join(WEIGHTS)}")
        if name in found:
            raise ConfigError(f"--weights names {name} twice, {found[name]} and {value}; give one")
        found[name] = _file_of(value)
        _check_card(name, found[name])
    return found


def _file_of(value: str) -> Path:
    """Return the file that a path, work directory or name stands for."""
    folder = Path(value).expanduser()
    if not folder.is_dir():
        return resolve_weights(value)
    from ultrasam.engine.checkpointing import latest_checkpoint

    latest = latest_checkpoint(folder)
    if latest is None:
        raise ConfigError(f"{folder} holds no iter_N.pth; give a work directory of tools/train.py, or a file")
    return latest


def _check_card(name: str, path: Path) -> None:
    """Refuse a public file in the place of another one: their names and shapes are the same, their pixels are not."""
    wanted, found = WEIGHTS[name].card, KNOWN_SHA256.get(checkpoint_hash(path))
    if wanted and found is not None and found != wanted:
        raise ConfigError(f"--weights {name}={path}: {wanted} was expected, found {found}; give the right file")


@cache
def checkpoint_hash(path: Path) -> str:
    """Return the SHA-256 of a weight file, read once a process."""
    return sha256_of(path)
