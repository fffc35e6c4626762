"""Ultrasound Nerve Segmentation (Kaggle 2016): the brachial plexus in the neck, frames of 47 subjects."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep.frames import ImageFile
from data_prep.listing import find_files
from data_prep.mask_files import BinaryMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError
from ultrasam.io.images import read_image, read_mask
from ultrasam.io.perceptual_hash import perceptual_hash

INFO = DatasetInfo(
    slug="us_nerve",
    name="Ultrasound Nerve Segmentation",
    home="https://www.kaggle.com/c/ultrasound-nerve-segmentation/data",
    licence="rules of the competition",
    application="cervical nerves",
    organ="brachial plexus",
    view="transverse",
    categories=("brachial_plexus",),
    group_key="subject (number before the underscore)",
    official_split="train and test; the test part has no annotations and is not used",
    expected={"masks": 2323},
    rules=MaskRules(split_components=False, fill_holes=True),
    table1=(5635, 2323),
    names=("*ultrasound-nerve-segmentation*", "*ultrasound?nerve*", "*us?nerve*"),
    access="needs a Kaggle account that has accepted the rules of the competition",
)
_NAME = re.compile(r"(?P<subject>\d+)_(?P<frame>\d+)(?P<mask>_mask)?")
# Bits of 64. Frames of one video that differ by noise or a few pixels of motion have 0 or 2 (one coefficient
# changes places with the median), different views of one subject 6 and more.
_NEAR = 2


def records(root: Path) -> Iterator[Record]:
    """Yield one record per training frame, but not empty ones that look like an annotated one of the subject.

    The frames of the videos were shuffled and annotated one by one, and of two that are nearly the same often
    one alone has a mask. The other frames without a mask are true negatives.
    """
    contradicting = 0
    for folder in sorted({path.parent for path in find_files(root, "*_mask.tif")}):
        subjects: dict[str, set[str]] = defaultdict(set)
        for path in folder.glob("[!.]*.tif"):
            match = _NAME.fullmatch(path.stem)
            if match is None:
                raise DataError(f"{path}: a name <subject>_<frame>.tif or <subject>_<frame>_mask.tif was expected")
            subjects[match["subject"]].add(match["frame"])
        for subject, numbers in sorted(subjects.items()):
            frames = {number: (folder / f"{subject}_{number}.tif", folder / f"{subject}_{number}_mask.tif")
                      for number in sorted(numbers, key=int)}
            dropped = _contradicting(frames)
            contradicting += len(dropped)
            for number, (image, mask) in frames.items():
                if number not in dropped:
                    yield Record(
                        key=f"{subject}_{number}",
                        image=ImageFile(image),
                        masks=(BinaryMask(mask, "brachial_plexus"),),
                        group=subject,
                    )
    if contradicting:
        print(f"{INFO.slug}: {contradicting} frames with an empty mask look like an annotated frame of their subject "
              "and are left out", file=sys.stderr)


def _contradicting(frames: dict[str, tuple[Path, Path]]) -> set[str]:
    """Return the numbers of the empty frames of a subject that are nearly the same as an annotated one."""
    hashes: dict[bool, dict[str, np.ndarray]] = {True: {}, False: {}}
    for number, (image, mask) in frames.items():
        try:
            empty = not read_mask(mask).any()
            digits = perceptual_hash(read_image(image))
        except DataError:
            # Its conversion reports what is wrong.
            continue
        hashes[empty][number] = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
    if not hashes[True] or not hashes[False]:
        return set()
    annotated = np.array(list(hashes[False].values()))
    return {number for number, bits in hashes[True].items() if (annotated != bits).sum(axis=1).min() <= _NEAR}


CONVERTER = Converter(INFO, records)
