"""BUS_UC: breast lesions of a teaching site, benign or malignant, annotated later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import match_files
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

INFO = DatasetInfo(
    slug="bus_uc",
    name="BUS_UC",
    home="https://data.mendeley.com/datasets/3ksd7w7jkx/1",
    licence="CC BY 4.0",
    application="breast lesions",
    organ="breast",
    categories=("breast_lesion",),
    group_key="image (patients are not published)",
    # Masks are resized, in copies of the set also JPEG; both leave specks. Every image shows a lesion, so that
    # those with a blank mask were not annotated.
    rules=MaskRules(fill_holes=True, min_area=20, drop_empty=True),
    table1=(810, 791),
    view="breast",
    names=("bus_uc", "bus_uc.*", "bus-uc", "bus-uc.*", "*3ksd7w7jkx*"),
)
# A third folder, All, holds the same images again. Stems may repeat between the classes.
_FILE = r"(benign|malignant)/(images|masks)/([a-z0-9_-]+)\.(?:png|jpe?g)"


def records(root: Path) -> Iterator[Record]:
    """Yield one record per image or mask of a class."""
    images: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for (label, part, name), path in match_files(root, _FILE, "Benign/images/01.png").items():
        images[label, name][part] = path
    for (label, name), parts in sorted(images.items()):
        base = next(iter(parts.values())).parent.parent
        mask = parts.get("masks", base / "masks" / f"{name}.png")
        yield Record(
            key=f"{label}_{name}",
            image=ImageFile(parts.get("images", base / "images" / f"{name}.png")),
            masks=(ThresholdMask(mask, "breast_lesion", resize=True),),
            group=f"{label}_{name}",
            label=label,
        )


CONVERTER = Converter(INFO, records)
