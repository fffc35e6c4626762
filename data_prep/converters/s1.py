"""S1 (Guo 2021): breast tumours, benign or malignant by the grey level of the label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.listing import match_files
from data_prep.mask_files import CheckedMask
from data_prep.masks import components
from data_prep.records import Converter, DatasetInfo, MaskRules, OneFile, Record
from ultrasam.errors import DataError
from ultrasam.io.images import read_mask

INFO = DatasetInfo(
    slug="s1",
    name="S1 (Guo 2021)",
    home="https://doi.org/10.1371/journal.pone.0253202",
    licence="CC BY 4.0",
    application="breast lesions",
    organ="breast",
    categories=("benign_breast_lesion", "malignant_breast_lesion"),
    group_key="image (patients are not published)",
    official_split="the folders TrainingDataSet and TestingDataSet",
    # Resampled borders leave specks.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(201, 204),
    view="breast",
    names=("s1", "s1.*", "s1_data*", "*pone.0253202*"),
    unsure="the grey levels 127 for benign and 255 for malignant are not described by the authors",
)
_LEVELS = {"benign_breast_lesion": 127, "malignant_breast_lesion": 255}
# TestingDataSet has a second pair of folders (General, with binary labels) in which the same names occur again.
_FILE = (r"(training|testing)dataset/(?:test-expanded-)?"
         r"(breasttumourimages|expanded-3-channel-labels)/(\d+)\.(?:jpe?g|png)")
_FOLDERS = {
    "training": ("BreastTumourImages", "Expanded-3-channel-Labels"),
    "testing": ("Test-Expanded-BreastTumourImages", "Test-Expanded-3-channel-Labels"),
}


@dataclass(frozen=True)
class LesionLevels(OneFile):
    """A label file with one grey level per lesion; the level of most of its pixels is that of the lesion.

    Read pixel by pixel, the soft border of a white (malignant) lesion would be a grey (benign) ring around it.

    Attributes:
        path: the label file.
        tolerance: largest distance of a pixel from the level of its lesion that counts as meant.
        agreement: smallest share of a lesion's pixels at its level; small lesions are border for a good part.
        foreign: largest share at the other level, which a border passes and a second lesion has.
    """

    tolerance: int = 10
    agreement: float = 0.4
    foreign: float = 0.1

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return one bool height x width mask per lesion, by first pixel in row order."""
        values = read_mask(self.path).astype(np.int32)
        if values.shape != (height, width):
            raise DataError(f"{self.path}: the label is {values.shape[1]} x {values.shape[0]} pixels (width x height) "
                            f"but its image is {width} x {height}; check that the two files belong together")
        return [self._lesion(part, values) for part in components(values > min(_LEVELS.values()) // 2)]

    def _lesion(self, part: np.ndarray, values: np.ndarray) -> tuple[str, np.ndarray]:
        """Return category and mask of one component."""
        inside = values[part]
        meant = {name: float((np.abs(inside - level) <= self.tolerance).mean()) for name, level in _LEVELS.items()}
        other, name = sorted(meant, key=lambda category: meant[category])
        unclear = meant[name] < self.agreement or meant[other] > self.foreign
        # Specks are dropped later and need no class.
        if unclear and inside.size >= INFO.rules.min_area:
            raise DataError(f"{self.path}: lesions of one grey level ({list(_LEVELS.values())}) were expected, found "
                            f"one with the values {np.unique(inside)[:8].tolist()}; check that this is the label")
        return name, part & (values > _LEVELS[name] // 2)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or label number of the training and of the test folder."""
    images: dict[tuple[str, int], dict[str, Path]] = defaultdict(dict)
    example = "TrainingDataSet/BreastTumourImages/1.jpg"
    for (side, part, digits), path in match_files(root, _FILE, example).items():
        images[side, int(digits)]["image" if part == "breasttumourimages" else "label"] = path
    for (side, number), parts in sorted(images.items()):
        base = next(iter(parts.values())).parent.parent
        image_folder, label_folder = _FOLDERS[side]
        split = {"training": "train", "testing": "test"}[side]
        label = LesionLevels(parts.get("label", base / label_folder / f"{number}.png"))
        yield Record(
            key=f"{split}_{number}",
            image=ImageFile(parts.get("image", base / image_folder / f"{number}.jpg")),
            masks=(CheckedMask(label, "of a tumour"),),
            group=f"{split}_{number}",
            attributes={"official_split": split},
        )


CONVERTER = Converter(INFO, records)
