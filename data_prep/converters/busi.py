"""BUSI: breast lesions, benign or malignant, and normal breasts; several mask files where there are several lesions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import match_files
from data_prep.mask_files import CheckedMask, ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

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
_FILE = r"(benign|malignant|normal)/\1 \((\d+)\)((?:_mask(?:_\d+)?)?)\.png"


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or mask number and class."""
    images: dict[tuple[str, int], dict[str, Path]] = defaultdict(dict)
    for (label, digits, part), path in match_files(root, _FILE, "benign/benign (1).png").items():
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
