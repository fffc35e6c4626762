"""The weights that the tables need: what they are, how to get or train them, and the files given for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ultrasam.checkpoints.cards import KNOWN_SHA256
from ultrasam.checkpoints.hashing import sha256_of
from ultrasam.checkpoints.weights import resolve_weights
from ultrasam.errors import ConfigError
from ultrasam.reproduce.paper import DATASETS

MAIN = "configs/ultrasam/ultrasam_vit-b_4xb8-30k_us43d.py"
HYBRID = "configs/studies/ultrasam_vit-b_4xb8-30k_us43d-sa1b.py"
ADAPTERS = {
    "lora": ("LoRA", "configs/adapters/lora_vit-b_4xb8-30k_us43d.py"),
    "med-sa": ("Med-SA", "configs/adapters/med-sa_vit-b_4xb8-30k_us43d.py"),
    "samus": ("SAMUS", "configs/adapters/samus_vit-b_4xb8-30k_us43d.py"),
}
FAMILIES = {"bus_bra": "breast", "mmotu_2d": "ovarian", "gist514_db": "gastrointestinal"}
# Percent of the images of a test set's application in training; 0 is UltraSam* and 100 UltraSam.
SHARES = (0, 10, 30, 50, 100)
# Name of the weights that a backbone starts from, and the paper's name of it.
BACKBONES = {
    "resnet50": "ResNet-50", "dinov2": "DINOv2", "usfm": "USFM", "deblurring-mim": "DeblurringMIM", "sam": "SAM",
    "medsam": "MedSAM", "ultrasam": "UltraSam",
}  # fmt: skip
# What is trained on top of a backbone: what it is called, its folder, and how it is given the weights to start from.
HEADS = {
    "mask2former": ("Mask2Former", "segmentation", "--cfg-options model.backbone.weights={start}"),
    "classifier": ("the classifier", "classification", "--cfg-options model.backbone.weights={start}"),
    "prompted": ("the prompted classifier", "prompted_classification", "--weights {start}"),
}
_FILE_NAMES = {"bus_bra": "bus-bra", "mmotu_2d": "mmotu2d", "gist514_db": "gist514-db"}


@dataclass(frozen=True)
class Weights:
    """Weights that a table needs.

    Attributes:
        what: for people.
        file: name of the public file; empty for trainings.
        url: where the public file is.
        command: what trains them, with ``{work_dir}``, and ``{start}`` for the file that it starts from.
        start: name of the weights that the training starts from.
        card: card of the public file, see ``ultrasam.checkpoints.cards``, where it can be told apart by its hash.
    """

    what: str
    file: str = ""
    url: str = ""
    command: str = ""
    start: str = ""
    card: str = ""


def head_name(head: str, start: str, dataset: str) -> str:
    """Return the name of weights trained for a task, such as ``mask2former-ultrasam-bus_bra``.

    Args:
        head: of ``HEADS``.
        start: name of the weights that the backbone starts from.
        dataset: slug.
    """
    return f"{head}-{start}-{dataset}"


def head_config(head: str, start: str, dataset: str) -> str:
    """Return the configuration that trains and tests such weights; all trainings of UltraSam share one."""
    backbone = start if start in BACKBONES else "ultrasam"
    return f"configs/downstream/{HEADS[head][1]}/{head}_{backbone}_{_FILE_NAMES[dataset]}.py"


def share_name(dataset: str, share: int) -> str:
    """Return the name of the pretraining with a share (percent) of the images of a test set's application."""
    family = FAMILIES[dataset]
    return {0: f"ultrasam-without-{family}", 100: "ultrasam"}.get(share, f"ultrasam-{family}-{share}")


def _public() -> dict[str, Weights]:
    """Return what can be downloaded."""
    hub = "https://github.com"
    resnet = "resnet50-0676ba61.pth"
    return {
        "sam": Weights("SAM's ViT-B", "sam_vit_b_01ec64.pth", f"{hub}/facebookresearch/segment-anything",
                       card="sam_vit_b"),
        "medsam": Weights("MedSAM", "medsam_vit_b.pth", f"{hub}/bowang-lab/MedSAM", card="medsam"),
        "ultrasam": Weights("UltraSam", "UltraSam.pth", f"{hub}/CAMMA-public/UltraSam", _training(MAIN), "sam"),
        "resnet50": Weights("ImageNet's ResNet-50", resnet, f"https://download.pytorch.org/models/{resnet}"),
        "dinov2": Weights("DINOv2's ViT-B/14", "dinov2_vitb14_pretrain.pth", f"{hub}/facebookresearch/dinov2"),
        "usfm": Weights("USFM", "USFM_latest.pth", f"{hub}/openmedlab/USFM"),
        "deblurring-mim": Weights("the MAE-B checkpoint of DeblurringMIM", "deblurring-mim.pth",
                                  f"{hub}/openmedlab/DeblurringMIM"),
    }  # fmt: skip


def _training(config: str, start: str = "--weights {start}", more: str = "") -> str:
    """Return the command of a training on four GPUs."""
    return " ".join(filter(None, (f"tools/dist_train.sh {config} 4 --work-dir {{work_dir}}", start, more)))


def _pretrainings() -> dict[str, Weights]:
    """Return what is trained on US-43d, all of it or a part."""
    found = {
        "ultrasam-no-refine": Weights(
            "UltraSam trained without refinement", command=_training(MAIN.replace(".py", "_no-refine.py")), start="sam"
        ),
        "ultrasam-sa1b": Weights(
            "UltraSam trained on half US-43d, half SA-1B, which lies below ULTRASAM_SA1B (data/sa1b)",
            command=_training(HYBRID), start="sam",
        ),
    }  # fmt: skip
    for name, (title, config) in ADAPTERS.items():
        command = _training(config, "--cfg-options model.weights={start}")
        found[name] = Weights(f"{title} trained on US-43d", command=command, start="sam")
    for slug, family in FAMILIES.items():
        config = MAIN.replace(".py", f"_without-{family}.py")
        what = f"UltraSam trained without {family} images"
        found[share_name(slug, 0)] = Weights(what, command=_training(config), start="sam")
        for share in SHARES[1:-1]:
            lists = f"--cfg-options train_dataloader.dataset.ann_file=train.{family}_{share}.json"
            what = f"UltraSam trained with {share} % of the {family} images"
            found[share_name(slug, share)] = Weights(what, command=_training(MAIN, more=lists), start="sam")
    return found


def _heads() -> dict[str, Weights]:
    """Return what is trained for one data set, on what starts from other weights."""
    wanted: dict[tuple[str, str, str], None] = {}
    for slug in DATASETS:
        starts = (*BACKBONES, *(share_name(slug, share) for share in SHARES))
        starts += ("ultrasam-sa1b",) if slug == "gist514_db" else ()
        wanted.update({(head, start, slug): None for head in ("mask2former", "classifier") for start in starts})
        wanted.update({("prompted", start, slug): None for start in ("sam", "medsam", "ultrasam")})
    found = {}
    for head, start, slug in wanted:
        title, _, given = HEADS[head]
        command = f"python tools/train.py {head_config(head, start, slug)} --work-dir {{work_dir}} {given}"
        what = f"{title} on {BACKBONES.get(start, start)}, trained on {DATASETS[slug]}"
        found[head_name(head, start, slug)] = Weights(what, command=command, start=start)
    return found


WEIGHTS: dict[str, Weights] = {**_public(), **_pretrainings(), **_heads()}


def work_dir(name: str) -> Path:
    """Return the work directory of the command that trains weights."""
    return Path("work_dirs") / name


def what_to_get(name: str, given: Mapping[str, Path]) -> str:
    """Say what weights are, and where they or what they start from can be downloaded.

    Args:
        name: of the weights.
        given: files that are there.
    """
    known = WEIGHTS[name]
    if known.file:
        own = ", or a training of your own" if known.command else ""
        return f"{known.what}, {known.file} from {known.url}{own}"
    start = WEIGHTS[known.start]
    if known.start in given:
        return known.what
    return f"{known.what}; it starts from " + (f"{start.file} ({start.url})" if start.file else known.start)


def training_commands(name: str, given: Mapping[str, Path], data: Path) -> tuple[str, ...]:
    """Return the commands that train weights, in order; none where they are only downloaded.

    Args:
        name: of the weights.
        given: files that are there; a training that starts from other ones names the files' usual names.
        data: root of the prepared data.
    """
    known = WEIGHTS[name]
    if not known.command:
        return ()
    before: tuple[str, ...] = ()
    start, first = given.get(known.start), WEIGHTS[known.start]
    if start is None and first.file:
        start = Path(first.file)
    elif start is None:
        before = training_commands(known.start, given, data)
        # All of them train for 30,000 iterations.
        start = work_dir(known.start) / "iter_30000.pth"
    command = known.command.format(start=start, work_dir=work_dir(name))
    return (*before, f"ULTRASAM_DATA={data} {command}")


def given_weights(texts: Sequence[str]) -> dict[str, Path]:
    """Read the arguments of ``--weights``.

    Args:
        texts: ``NAME=FILE``, where the file is one of any known format, a work directory of a training (its newest
            checkpoint is taken), or a name such as ``litemedsam``. Or a folder, in which work directories are called
            by the names of the weights and public files by their own; ``NAME=FILE`` goes before it.

    Raises:
        ConfigError: no such name, or given twice; nothing in a folder.
        CheckpointError: no such file.
    """
    named: dict[str, Path] = {}
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and Path(text).expanduser().is_dir():
            found.update(_in_folder(Path(text).expanduser()))
            continue
        if not equals or not value:
            raise ConfigError(f"--weights takes NAME=FILE or a folder of work directories, but got {text!r}")
        if name not in WEIGHTS:
            from ultrasam.engine.names import nearest

            raise ConfigError(f"--weights {text}: no table needs {name!r}; nearest: {nearest(name, WEIGHTS)}")
        if name in named:
            raise ConfigError(f"--weights names {name} twice, {named[name]} and {value}; give one")
        named[name] = _file_of(value)
    found.update(named)
    for name, path in found.items():
        _check_card(name, path)
    return found


def _in_folder(folder: Path) -> dict[str, Path]:
    """Return what a folder of work directories and public files holds.

    Raises:
        ConfigError: nothing, or the same weights twice.
    """
    from ultrasam.engine.checkpointing import latest_checkpoint

    found = {}
    for name, known in WEIGHTS.items():
        public = folder / known.file
        trained = latest_checkpoint(folder / name)
        paths = [*([trained] if trained else []), *([public] if public.is_file() else [])]
        if len(paths) > 1:
            raise ConfigError(f"--weights {folder} holds {name} twice, {paths[0]} and {paths[1]}; remove one")
        if paths:
            found[name] = paths[0]
    if not found:
        raise ConfigError(
            f"--weights {folder} holds no work directory or public file with a known name, such as ultrasam-no-refine "
            f"or {WEIGHTS['sam'].file}; give NAME=FILE"
        )
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
    wanted = WEIGHTS[name].card
    found = KNOWN_SHA256.get(checkpoint_hash(path)) if wanted else None
    if found is not None and found != wanted:
        raise ConfigError(f"--weights {name}={path}: {wanted} was expected, found {found}; give the right file")


@cache
def checkpoint_hash(path: Path) -> str:
    """Return the SHA-256 of a weight file, read once a process."""
    return sha256_of(path)
