"""The folder of a phantom: annotation files, manifest, and how it appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ultrasam
from ultrasam.datasets.coco import write_coco
from ultrasam.datasets.phantom.patients import KINDS
from ultrasam.errors import DataError
from ultrasam.io.files import write_atomic

SPLITS = ("train", "val", "test")
AGNOSTIC = "object"
MANIFEST = "manifest.json"
# Raised whenever the same parameters give other pictures, so that an old folder is not taken for a new one.
VERSION = 2


@dataclass(frozen=True)
class Parameters:
    """What the content depends on; see :func:`generate_phantom`."""

    images: int
    seed: int
    size: int


@dataclass(frozen=True)
class Report:
    """What a phantom holds.

    Attributes:
        folder: the data root.
        manifest: the content of its manifest.json.
        reused: it was there before.
    """

    folder: Path
    manifest: dict[str, Any]
    reused: bool

    def sentence(self) -> str:
        """One line for the user."""
        counts = self.manifest["counts"]
        done = "is already complete and is reused" if self.reused else "written"
        return (
            f"{self.folder}: phantom of {counts['images']} images, {counts['objects']} objects and "
            f"{counts['groups']} patients in {len(self.manifest['datasets'])} datasets {done}"
        )


def existing_report(out: Path, parameters: Parameters) -> Report | None:
    """The phantom that is already in ``out``; None if the folder is free.

    Raises:
        DataError: the folder holds something else, another phantom, or a damaged one.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise DataError(f"{out} is a file, a folder was expected; choose another folder")
    try:
        if not any(out.iterdir()):
            return None
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
        found = (manifest["kind"], manifest["phantom_version"], manifest["parameters"])
        files, images = dict(manifest["files"]), dict(manifest["datasets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{out} is not empty and is not a phantom ({error}); choose another folder"
        ) from error
    wanted = ("phantom", VERSION, asdict(parameters))
    if found != wanted:
        raise DataError(
            f"{out} holds a phantom of version {found[1]} and {found[2]}, asked for is version {VERSION} and "
            f"{wanted[2]}; choose another folder or remove this one"
        )
    damaged = [name for name, digest in files.items() if _digest(out / name) != digest]
    damaged += [slug for slug, counts in images.items() if _pictures(out, slug) != counts["images"]]
    if damaged:
        raise DataError(
            f"{out}: {', '.join(sorted(damaged)[:3])} is missing or changed; remove the folder and "
            "make the phantom again"
        )
    return Report(out, manifest, reused=True)


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside ``out`` to build in; it takes the place of ``out`` if nothing failed.

    Raises:
        DataError: the folder cannot be made, or ``out`` was filled by somebody else in the meantime.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.partial-", dir=out.parent))
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}); check permissions and free space") from error
    try:
        # An inner folder, because that of mkdtemp is closed to other users.
        new = work / "new"
        new.mkdir()
        yield new
        try:
            new.replace(out)
        except OSError as error:
            raise DataError(f"{out} cannot be put in place ({error}); choose another folder") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_annotations(
    folder: Path, out: Path, parameters: Parameters, records: Sequence[Mapping[str, Any]]
) -> Report:
    """Write the COCO files of each dataset and of all together, and the manifest.

    Args:
        folder: where the phantom is built.
        out: where it will be.
        parameters: for the manifest.
        records: image records with their objects under "objects".
    """
    files: dict[str, str] = {}
    datasets: dict[str, Any] = {}

    def write(name: str, part: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> None:
        write_coco(folder / name, coco_document(part, classes))
        files[name] = _digest(folder / name) or ""

    for kind in KINDS:
        own = [record for record in records if record["dataset"] == kind.slug]
        for split in SPLITS:
            part = [record for record in own if record["split"] == split]
            write(f"{kind.slug}/annotations/{split}.{kind.slug}.json", part, kind.classes)
            write(f"{kind.slug}/annotations/{split}.{kind.slug}.agnostic.json", part, (AGNOSTIC,))
        datasets[kind.slug] = {"application": kind.application, "classes": list(kind.classes), **_counts(own)}
        # What a converted set has, so that `python -m data_prep prepare` takes the phantom's.
        name = f"{kind.slug}/{MANIFEST}"
        content = {"dataset": kind.slug, "name": kind.slug, "licence": "made", **datasets[kind.slug]}
        write_atomic(folder / name, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
        files[name] = _digest(folder / name) or ""
    for split in SPLITS:
        write(
            f"{split}.agnostic.json", [record for record in records if record["split"] == split], (AGNOSTIC,)
        )
    manifest = {
        "kind": "phantom",
        "phantom_version": VERSION,
        "ultrasam_version": ultrasam.__version__,
        "parameters": asdict(parameters),
        "counts": _counts(records),
        "datasets": datasets,
        "files": files,
    }
    write_atomic(folder / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return Report(out, manifest, reused=False)


def coco_document(records: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """COCO document of some images, ids counting from 1; with one class, all objects are of that class."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in enumerate(records, start=1):
        images.append({"id": image_id, **{key: record[key] for key in record if key != "objects"}})
        for item in record["objects"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1 + (item["label"] if len(classes) > 1 else 0),
                    "segmentation": item["segmentation"],
                    "area": item["area"],
                    "bbox": item["bbox"],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _counts(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "images": len(records),
        "objects": sum(len(record["objects"]) for record in records),
        "groups": len({record["group"] for record in records}),
        "images_by_split": {split: sum(record["split"] == split for record in records) for split in SPLITS},
    }


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _pictures(out: Path, slug: str) -> int:
    return sum(path.stat().st_size > 0 for path in (out / slug / "images").glob("*.png"))
