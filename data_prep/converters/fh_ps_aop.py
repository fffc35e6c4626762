"""FH-PS-AOP: pubic symphysis and fetal head in transperineal images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_prep.frames import volume
from data_prep.listing import by_stem, find_folders, paired
from data_prep.mask_shapes import VolumeLabels
from data_prep.records import Converter, DatasetInfo, MaskRules, OneFile, Record
from ultrasam.errors import DataError
from ultrasam.io.volumes import frames_to_uint8

INFO = DatasetInfo(
    slug="fh_ps_aop",
    name="FH-PS-AOP",
    home="https://zenodo.org/records/10829116",
    licence="as stated on the Zenodo page (CC BY-NC 4.0 reported)",
    application="fetal head",
    organ="fetal head, pubic symphysis",
    view="sagittal, transperineal",
    categories=("pubic_symphysis", "fetal_head"),
    group_key="image (frames of videos, whose numbers are not published)",
    official_split="the public part is the training set of the challenge",
    expected={"images": 4000},
    # Both structures are drawn as whole ellipses, which leave the sector of the scanner.
    rules=MaskRules(split_components=False, fill_holes=True, clip_to_fov=True),
    table1=(4000, 7999),
    names=("*fh?ps?aop*", "*pubic?symphysis?fetal?head*", "*10829116*", "*7851339*"),
)


@dataclass(frozen=True)
class EqualPlanes(OneFile):
    """A file that holds one grey image as three equal planes, or as one.

    Attributes:
        path: the file.
    """

    copied: Path | None = None

    def read(self) -> np.ndarray:
        """Return the image, uint8 H x W x 3 RGB."""
        planes = volume(self.path, "file").array
        if planes.ndim == 4 and len(planes) == 1:
            # The three as the colours of one frame.
            planes = np.moveaxis(planes[0], 2, 0)
        if planes.ndim != 3 or len(planes) not in (1, 3) or (planes != planes[:1]).any():
            raise DataError(f"{self.path}: one grey image, as one plane or as three equal ones, was expected, found "
                            f"shape {planes.shape} with planes that differ; get the file again")
        grey = frames_to_uint8(planes[0], self.path)
        return np.repeat(grey[..., None], 3, axis=2)


def records(root: Path) -> Iterator[Record]:
    """Yield one record per name in the two folders."""
    for parent in sorted({path.parent for path in find_folders(root, "image_mha", "label_mha")}):
        listed = partial(by_stem, suffixes=(".mha",))
        for stem, image, labels in paired(parent / "image_mha", parent / "label_mha", listed):
            yield Record(
                key=stem,
                image=EqualPlanes(image),
                masks=(VolumeLabels(labels, 0, {1: "pubic_symphysis", 2: "fetal_head"}),),
                group=stem,
            )


CONVERTER = Converter(INFO, records)
