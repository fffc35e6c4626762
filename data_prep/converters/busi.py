"""BUSI: breast lesions, benign or malignant, and normal breasts; several mask files where there are several lesions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, MaskSource, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="busi",
    name="BUSI",
    home="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    licence="not stated by the authors; cite the paper",
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion",),
    group_key="image (patients are not published)",
    expected={"images": 780},
    # The masks carry specks of one to eight pixels beside the lesion.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(690, 690),
    view="breast",
    names=("dataset_busi*", "busi", "busi.*", "*busi_with_gt*"),
)
_NORMAL = "normal"
_FILE = r"(benign|malignant|normal)/\1 \((\d+)\)((?:_mask(?:_\d+)?)?)\.png"


@dataclass(frozen=True)
class CheckedMask:
    """A mask that must agree with the class of its image: nothing on a normal one, a lesion on any other.

    An empty mask of an image with a lesion is a damaged or missing annotation; kept, it would teach that there
    is no lesion.

    Attributes:
        mask: the mask.
        label: class of the image.
    """

    mask: MaskSource
    label: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the mask."""
        return self.mask.paths

    def read(self, height: int, width: int) -> list[tuple[str, np.ndarray]]:
        """Return the pairs of the mask; DataError when it does not agree with the class."""
        found = self.mask.read(height, width)
        drawn = any(bool(mask.any()) for _, mask in found)
        if drawn and self.label == _NORMAL:
            raise DataError(f"{self.paths[0]}: an empty mask was expected because the image is {self.label}, the mask "
                            "has objects; get the file again")
        if not drawn and self.label != _NORMAL:
            raise DataError(f"{self.paths[0]}: an object was expected because the image is {self.label}, the mask "
                            "is empty; get the file again")
        return found


def find_files(root: Path, pattern: str, example: str) -> dict[tuple[str, ...], Path]:
    """Return the files at or below ``root`` whose path ends in a pattern, by the pattern's groups in lower case.

    Args:
        root: folder of the raw files; folders of macOS archives (``__MACOSX``) are passed over.
        pattern: regular expression for the end of the path, with forward slashes; case does not matter.
        example: a path of this kind, for the message when there is none.

    Raises:
        DataError: none, or two files with the same groups.
    """
    expression = re.compile(f"(?:.*/)?{pattern}", re.IGNORECASE)
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        match = expression.fullmatch(name)
        if match is None or "__MACOSX" in path.parts or not path.is_file():
            continue
        key = tuple(group.lower() for group in match.groups())
        if key in found:
            raise DataError(f"{root}: one file of each name was expected, found {found[key].relative_to(root)} and "
                            f"{name}; give the folder of one copy")
        found[key] = path
    if not found:
        raise DataError(f"{root}: files like {example} were expected, found none; check the source")
    return found


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or mask number and class."""
    images: dict[tuple[str, int], dict[str, Path]] = defaultdict(dict)
    for (label, digits, part), path in find_files(root, _FILE, "benign/benign (1).png").items():
        images[label, int(digits)][part] = path
    for (label, number), parts in sorted(images.items()):
        stem = f"{label} ({number})"
        folder = next(iter(parts.values())).parent
        image = parts.pop("", folder / f"{stem}.png")
        parts.setdefault("_mask", folder / f"{stem}_mask.png")
        yield Record(
            key=f"{label}_{number}",
            image=ImageFile(image),
            # The masks of normal images are files too, all black.
            masks=tuple(CheckedMask(ThresholdMask(parts[part], "breast_lesion"), label)
                        for part in sorted(parts, key=lambda part: (len(part), part))),
            group=f"{label}_{number}",
            label=label,
        )


CONVERTER = Converter(INFO, records)
