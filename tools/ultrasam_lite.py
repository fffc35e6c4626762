"""Make UltraSam-lite, the model that comes with the installation: hold patients out, and pack the trained weights.

python tools/ultrasam_lite.py split ROOT        # writes ROOT/lite/train.<set>.json, val.json and test.json
python tools/ultrasam_lite.py pack CHECKPOINT   # writes ultrasam/weights/ultrasam_lite.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.errors import DataError, UltraSamError
from ultrasam.io.files import write_atomic

# Openly licensed sets, and the part of their patients that is held out.
SETS = {"bus_bra": 0.5, "busi": 0.25, "hc18": 0.25, "ccaui": 0.25, "bus_uc_sample": 0.25}
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
        for image in collection["images"]:
            if image["dataset"] not in SETS:
                continue
            empty: dict[str, Any] = {"images": [], "annotations": [], "categories": collection["categories"]}
            part = files.setdefault(side_of(image, joined), empty)
            here = [one for one in collection["annotations"] if one["image_id"] == image["id"]]
            # Ids start anew in each side's file.
            number = len(part["images"]) + 1
            part["images"].append({**image, "id": number})
            for one in here:
                part["annotations"].append({**one, "id": len(part["annotations"]) + 1, "image_id": number})
    missing = [slug for slug in SETS if f"train.{slug}" not in files]
    if missing:
        raise DataError(f"{root}: no images of {', '.join(missing)}; run python -m data_prep prepare {root} first")
    for name, content in files.items():
        write_atomic(root / "lite" / f"{name}.json", json.dumps(content).encode())
    return [f"{name}: {len(part['images'])} images, {len(part['annotations'])} masks" for name, part in files.items()]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("split").add_argument("root", type=Path)
    options = parser.parse_args(argv)
    try:
        if options.verb == "split":
            print("\n".join(split(options.root)))
            print(f"wrote {options.root / 'lite'}")
    except UltraSamError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
