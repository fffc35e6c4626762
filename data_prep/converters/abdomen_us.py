"""AbdomenUS: abdominal organs of eleven volunteers; the simulated part of the set is not used."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import ImageFile
from data_prep.listing import by_stem, find_folders, paired
from data_prep.mask_files import ColourMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record

# RGB, as the authors give them. Read as BGR, kidney and adrenal gland, pancreas and vessel change places.
_COLOURS = {
    "liver": (100, 0, 100), "kidney": (255, 255, 0), "pancreas": (0, 0, 255), "vessel": (255, 0, 0),
    "adrenal_gland": (0, 255, 255), "gallbladder": (0, 255, 0), "bone": (255, 255, 255), "spleen": (255, 0, 255),
}

INFO = DatasetInfo(
    slug="abdomen_us",
    name="AbdomenUS (US simulation & segmentation)",
    home="https://www.kaggle.com/datasets/ignaciorlando/ussimandsegm",
    licence="as stated on the Kaggle page (Open Data Research Grant)",
    application="abdomen",
    organ="abdominal organs",
    view="various",
    categories=tuple(_COLOURS),
    group_key="image (the subject is not known)",
    official_split="train and test folders (kept as an attribute)",
    # Only a part of the images has an annotation; the others may hold organs.
    rules=MaskRules(drop_empty=True),
    table1=(60, 89),
    names=("*ussimandsegm*", "*abdominal_us*", "*abdomen?us*", "*abdomenus*"),
    access="needs a Kaggle account",
    unsure="how many images have an annotation, and how the files are named",
)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per real image; the simulated images (folder AUS) are no ultrasound."""
    for labels in find_folders(root, "RUS/annotations"):
        pictures = labels.with_name("images")
        for side in sorted({path.name for path in (*labels.iterdir(), *pictures.glob("*")) if path.is_dir()}):
            for stem, image, mask in paired(pictures / side, labels / side, by_stem):
                yield Record(
                    # Stems may repeat over the two sides.
                    key=f"{side}_{stem}",
                    image=ImageFile(image),
                    masks=(ColourMask(mask, _COLOURS, tolerance=10),) if mask.is_file() else (),
                    group=f"{side}_{stem}",
                    attributes={"official_split": side},
                )


CONVERTER = Converter(INFO, records)
