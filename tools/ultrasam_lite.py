"""Make UltraSam-lite, the model that comes with the installation: hold patients out, and pack the trained weights.

python tools/ultrasam_lite.py split ROOT        # writes ROOT/lite/train.<set>.json, val.json and test.json
python tools/ultrasam_lite.py pack CHECKPOINT ... --data ROOT [--results box=FOLDER point=FOLDER]
                                                # writes ultrasam/weights/ultrasam_lite.safetensors, of their mean
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ultrasam.checkpoints import read_weights
from ultrasam.checkpoints.cards import LITEMEDSAM_PIXELS
from ultrasam.checkpoints.lite import write_lite
from ultrasam.errors import DataError, UltraSamError
from ultrasam.io.files import write_atomic

# Openly licensed sets, and the part of their patients that is held out.
SETS = {"bus_bra": 0.5, "busi": 0.25, "hc18": 0.25, "ccaui": 0.25, "bus_uc_sample": 0.25}
LICENCE = "CC BY 4.0"
TARGET = Path(__file__).resolve().parents[1] / "ultrasam" / "weights" / "ultrasam_lite.safetensors"
# Of the differences of encoder weights: 80 to 90 % of their energy, and the file stays below 9 MB.
RANK = 24
# Of those held out, the part for validation; the rest is for the test.
VALIDATION = 0.2
# Of BUS-BRA the first two parts of the training saw folds 2 to 4.
HELD_OUT_FOLD = 1


def side_of(image: Mapping[str, Any], joined: Mapping[str, str]) -> str:
    """Return "train.<set>", "val" or "test": by a hash of the patient, near duplicates counting as one patient."""
    slug = str(image["dataset"])
    group = joined.get(str(image["group"]), str(image["group"]))
    digest = hashlib.sha256(group.encode()).hexdigest()
    kept = int(digest[:8], 16) / 2**32 < SETS[slug]
    if not kept or (slug == "bus_bra" and image.get("fold") != HELD_OUT_FOLD):
        return f"train.{slug}"
    return "val" if int(digest[8:16], 16) / 2**32 < VALIDATION else "test"


def split(root: Path) -> list[str]:
    """Write the files for training, validation and test; return a line about each."""
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    joined = {name: names[0] for names in manifest["near_duplicates"]["joined_groups"] for name in names}
    files: dict[str, dict[str, Any]] = {}
    for side in ("train", "val", "test"):
        collection = json.loads((root / f"{side}.agnostic.json").read_text(encoding="utf-8"))
        objects: dict[int, list[dict[str, Any]]] = {}
        for one in collection["annotations"]:
            objects.setdefault(one["image_id"], []).append(one)
        for image in collection["images"]:
            if image["dataset"] not in SETS:
                continue
            empty: dict[str, Any] = {"images": [], "annotations": [], "categories": collection["categories"]}
            part = files.setdefault(side_of(image, joined), empty)
            # Ids start anew in each side's file.
            number = len(part["images"]) + 1
            part["images"].append({**image, "id": number})
            for one in objects.get(image["id"], ()):
                part["annotations"].append({**one, "id": len(part["annotations"]) + 1, "image_id": number})
    missing = [slug for slug in SETS if f"train.{slug}" not in files]
    if missing:
        raise DataError(f"{root}: no images of {', '.join(missing)}; run python -m data_prep prepare {root} first")
    for name, content in files.items():
        write_atomic(root / "lite" / f"{name}.json", json.dumps(content).encode())
    return [f"{name}: {len(part['images'])} images, {len(part['annotations'])} masks" for name, part in files.items()]


def average(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of the weights of several checkpoints of the same network."""
    states = [read_weights(path).state for path in paths]
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in states[0].items()
    }


def card(root: Path, results: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the file says of itself: training sets with counts, licence, figures of the held-out patients."""
    sets: dict[str, dict[str, Any]] = {}
    for slug in SETS:
        content = json.loads((root / "lite" / f"train.{slug}.json").read_text(encoding="utf-8"))
        application = "breast lesions" if slug == "bus_uc_sample" else content["images"][0].get("application", "")
        counts = {"images": len(content["images"]), "masks": len(content["annotations"])}
        sets[slug] = {"application": application, **counts, "licence": LICENCE}
    figures: dict[str, Any] = {}
    for prompt, folder in results.items():
        found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["breakdown"]["datasets"]
        figures[prompt] = {
            slug: {"dice": round(entry["dice"]["mean"], 4), "objects": entry["dice"]["objects"]}
            for slug, entry in found.items()
        }
    return {
        "name": "ultrasam-lite",
        "architecture": "tiny_vit",
        "mlp_residual": "single",
        "preprocessing": LITEMEDSAM_PIXELS,
        "passes": ["single", "multi"],
        "mask_prompt": True,
        "training": {
            "images": sum(entry["images"] for entry in sets.values()),
            "masks": sum(entry["masks"] for entry in sets.values()),
            "sets": sets,
            "started_from": {"file": "lite_medsam.pth", "name": "litemedsam"},
        },
        "held_out": {"what": "mean Dice on patients of the same sets that training did not see", **figures},
        "licence": "Apache-2.0 (weights; the training sets are CC BY 4.0)",
        "intended_use": "research; not a medical device, not for diagnosis",
        "source": "configs/ultrasam_lite/ultrasam_lite_teacher.py",
    }


def pack(paths: Sequence[Path], root: Path, results: Mapping[str, Path]) -> str:
    """Write the file that comes with the installation; return a line about it."""
    written = write_lite(average(paths), TARGET, RANK, card(root, results))
    return f"wrote {written.path}: {written.size / 1e6:.2f} MB, {written.deltas} weights as differences of rank {RANK}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("split").add_argument("root", type=Path)
    packing = verbs.add_parser("pack")
    packing.add_argument("checkpoints", nargs="+", type=Path)
    packing.add_argument("--data", type=Path, required=True, metavar="ROOT")
    packing.add_argument("--results", nargs="+", default=[], metavar="PROMPT=FOLDER")
    options = parser.parse_args(argv)
    try:
        if options.verb == "split":
            print("\n".join(split(options.root)))
            print(f"wrote {options.root / 'lite'}")
        else:
            results = {name: Path(folder) for name, _, folder in (text.partition("=") for text in options.results)}
            print(pack(options.checkpoints, options.data, results))
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
