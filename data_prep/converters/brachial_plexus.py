"""Regional-US: videos of the supraclavicular brachial plexus; nerve masks in all frames, needle masks in six videos."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from data_prep.frames import VideoFrame
from data_prep.listing import files_below, find_folders
from data_prep.mask_files import ThresholdMask
from data_prep.records import Converter, DatasetInfo, MaskRules, Record
from ultrasam.errors import DataError

INFO = DatasetInfo(
    slug="brachial_plexus",
    name="Regional-US brachial plexus",
    home="https://github.com/Regional-US/brachial_plexus",
    licence="non-commercial data use agreement of the repository",
    application="plexus",
    organ="brachial plexus",
    categories=("brachial_plexus", "needle"),
    group_key="video (the patient is not known)",
    # JPEG leaves specks of a few pixels around a mask; a needle is a line four pixels wide.
    rules=MaskRules(split_components=False, min_area=16),
    table1=(40788, 36736),
    view="supraclavicular",
    names=("*brachial_plexus*", "*brachial-plexus*"),
)

Masks = dict[int, Path]


def records(root: Path) -> Iterator[Record]:
    """Yield one record per frame that has a mask file; a black nerve mask says that the plexus is not in view.

    Masks belong to the frame whose number, counted from 0, stands in their name: the needle's start at different
    frames and have gaps. ``labelled`` tells which structures were looked for in a frame.
    """
    videos = dict(_videos(root))
    if not videos:
        raise DataError(f"{root}: folders called ac_masks or demo were expected in the raw files, found none")
    for video, (prefix, folders) in sorted(videos.items()):
        found = {category: _masks(folder, video.stem) for category, folder in folders.items()}
        for frame in sorted({frame for masks in found.values() for frame in masks}):
            sources = {category: masks[frame] for category, masks in found.items() if frame in masks}
            yield Record(
                key=f"{prefix}_{video.stem}_{frame:05d}",
                image=VideoFrame(video, frame),
                masks=tuple(ThresholdMask(path, category) for category, path in sources.items()),
                group=f"{prefix}_{video.stem}",
                frame=frame,
                attributes={"labelled": list(sources)},
            )


def _videos(root: Path) -> Iterator[tuple[Path, tuple[str, dict[str, Path]]]]:
    """Yield each video with a prefix for its name (the scanner) and its mask folders by category."""
    for folder in find_folders(root, "ac_masks"):
        scanner = folder.parent
        needles = scanner / "needle" / "needle_masks"
        for masks in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield scanner / "videos" / f"{masks.name}.mp4", (
                scanner.name, {"brachial_plexus": masks, "needle": needles / masks.name})
    for demo in find_folders(root, "demo"):
        for masks in sorted(demo.glob("*_masks")):
            yield demo / f"{masks.name.removesuffix('_masks')}.mp4", ("demo", {"brachial_plexus": masks})


def _masks(folder: Path, video: str) -> Masks:
    """Return the mask files of a folder by frame; empty where there is no such folder.

    Raises:
        DataError: a JPEG of another name, or two of one frame.
    """
    found: dict[int, list[Path]] = defaultdict(list)
    for path in files_below(folder, "*.jpg"):
        match = re.fullmatch(rf"{re.escape(video)}_(\d+)\.jpg", path.name)
        if match is None:
            raise DataError(f"{path}: a mask named {video}_<frame>.jpg was expected")
        found[int(match[1])].append(path)
    for paths in found.values():
        if len(paths) > 1:
            raise DataError(f"{folder}: one mask a frame was expected, found {paths[0].name} and {paths[1].name}")
    return {frame: paths[0] for frame, paths in found.items()}


CONVERTER = Converter(INFO, records)
