"""BUID: breast lesions, benign or malignant, of the Qamebi image database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import match_files
from data_prep.mask_files import CheckedMask, ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

INFO = DatasetInfo(
    slug="buid",
    name="BUID (QAMEBI)",
    home="https://qamebi.com/breast-ultrasound-images-database/",
    licence="open access, terms not stated; cite the paper",
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion",),
    group_key="image (patients are not published)",
    expected={"images": 232},
    # Thresholding leaves specks at soft borders.
    rules=MaskRules(fill_holes=True, min_area=20),
    table1=(232, 236),
    view="breast",
    names=("*buid*", "*qamebi*"),
    # The image again, with the outline drawn on it.
    ignored=("* lesion.*", "* contour.*"),
    access="The site gives Benign.zip and Malignant.zip: put both into one folder, with buid in its name.",
)
# Numbers begin again in each class.
_FILE = r"(\d+) +(benign|malignant) +(image|mask)\.(?:bmp|tiff?|png)"


def records(root: Path) -> Iterator[Record]:
    """Yield one record per class and number."""
    images: dict[tuple[str, int], dict[str, Path]] = defaultdict(dict)
    for (digits, label, part), path in match_files(root, _FILE, "1 Benign Image.bmp").items():
        images[label, int(digits)][part] = path
    for (label, number), parts in sorted(images.items()):
        folder = next(iter(parts.values())).parent
        stem = f"{number} {label.capitalize()}"
        yield Record(
            key=f"{label}_{number}",
            image=ImageFile(parts.get("image", folder / f"{stem} Image.bmp")),
            masks=(CheckedMask(ThresholdMask(parts.get("mask", folder / f"{stem} Mask.tif"), "breast_lesion"), label),),
            group=f"{label}_{number}",
            label=label,
        )


CONVERTER = Converter(INFO, records)
