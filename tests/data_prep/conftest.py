"""A miniature BUS-BRA, made in the published layout."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Case, fold, pathology, sides of the breast: 10 patients, 17 images.
CASES = [
    (1, 3, "malignant", "lr"), (2, 5, "benign", "lr"), (3, 1, "benign", "s"), (4, 2, "malignant", "lr"),
    (5, 1, "malignant", "lr"), (6, 4, "benign", "s"), (7, 2, "benign", "lr"), (8, 3, "benign", "s"),
    (9, 4, "malignant", "lr"), (10, 5, "benign", "lr"),
]


@dataclass(frozen=True)
class Miniature:
    """The raw folder and the truth by image name."""

    source: Path
    masks: dict[str, np.ndarray]
    folds: dict[str, int]
    cases: dict[str, int]
    classes: dict[str, str]

    @property
    def raw(self) -> Path:
        return self.source / "BUSBRA"

    def image(self, name: str) -> Path:
        return self.raw / "Images" / f"{name}.png"

    def mask(self, name: str) -> Path:
        return self.raw / "Masks" / f"mask_{name[4:]}.png"

    def edit(self, table: str, name: str, **values: str) -> None:
        """Change cells of one line of a table."""
        path = self.raw / table
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        next(row for row in rows if row["ID"] == name).update(values)
        _write_csv(path, rows)


def _write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def mini(tmp_path: Path) -> Miniature:
    made = Miniature(tmp_path / "raw", {}, {}, {}, {})
    (made.raw / "Images").mkdir(parents=True)
    (made.raw / "Masks").mkdir()
    rng = np.random.default_rng(5)
    data, folds = [], []
    for case, fold, pathology, sides in CASES:
        for side in sides:
            name = f"bus_{case:04d}-{side}"
            height, width = int(rng.integers(40, 70)), int(rng.integers(40, 70))
            mask = np.zeros((height, width), bool)
            mask[12:30, 8 + case:26 + case] = True
            mask[12:18, 8 + case:12 + case] = False
            Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).save(made.image(name))
            Image.fromarray(mask).save(made.mask(name))
            box = [8 + case + 1, 13, 17, 17]
            data.append({"ID": name, "Case": str(case), "Histology": "x", "Pathology": pathology,
                         "BIRADS": "4", "Device": "GE", "Width": str(width), "Height": str(height),
                         "Side": side, "BBOX": json.dumps(box, separators=(",", ":"))})
            folds.append({"ID": name, "Pathology": pathology, "kFold": str(fold), "valid_1": "NaN"})
            made.masks[name], made.folds[name] = mask, fold
            made.cases[name], made.classes[name] = case, pathology
    _write_csv(made.raw / "bus_data.csv", data)
    _write_csv(made.raw / "5-fold-cv.csv", folds)
    return made
