"""SA-1B as Meta distributes it: ``sa_<id>.jpg`` and ``sa_<id>.json`` in folders or in tar shards, read in place.

Shards are never unpacked: an index of where each picture and its annotations lie is made once, and a sample reads just
those bytes. An image has a hundred overlapping masks; training draws some of them (paper section 3.4).
"""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import Compose
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from ultrasam.datasets.coco_types import CocoObject
from ultrasam.datasets.prompts import PROMPT_MODES
from ultrasam.errors import ConfigError, DataError
from ultrasam.geometry.rle import decode_segmentation, measure_rles

logger = logging.getLogger(__name__)
NAME = re.compile(r"(?:^|/)(sa_\d+)\.(jpg|json)$")
INDEX_FORMAT = "sa1b-index-1"
# Where a picture or its annotations lie: number of the file, first byte, bytes.
Place = tuple[int, int, int]


@dataclass
class Index:
    """Where everything lies.

    Attributes:
        files: shards, or single pictures and annotation files.
        names: (N,) of the images, such as ``sa_223750``.
        places: (N, 2, 3) int64: for picture and annotations, the file's number, first byte, and bytes.
    """

    files: list[Path]
    names: NDArray[np.str_]
    places: NDArray[np.int64]

    def read(self, row: int, part: int) -> bytes:
        """Return the bytes of a picture (part 0) or its annotations (1).

        Raises:
            DataError: the file has gone or was cut.
        """
        number, start, count = (int(value) for value in self.places[row, part])
        try:
            with self.files[number].open("rb") as stream:
                stream.seek(start)
                data = stream.read(count)
        except OSError as error:
            raise DataError(f"{self.files[number]} cannot be read ({error}); index SA-1B again") from error
        if len(data) != count:
            raise DataError(f"{self.files[number]} ends inside of {self.names[row]}; copy the file again")
        return data


@DATASETS.register_module()
class Sa1bDataset(Dataset[Any]):
    """Images of SA-1B with some of their objects, for mixing with US-43d.

    Args:
        root: folder with ``sa_*.jpg`` and ``sa_*.json``, or with ``*.tar`` shards of them, at any depth.
        pipeline: configs of the transforms.
        prompt: "train", "point", "box" or "centroid"; see ``ultrasam.datasets.prompts``.
        max_objects: objects of an image; in training drawn anew each time, otherwise the first ones.
        min_area: leave out masks of fewer pixels of the original image.
        index: file to keep the index of tar shards in, so that the next start does not read their headers.
        test_mode: set by test loaders.

    Raises:
        DataError: nothing is found, or a picture and its annotations do not come together.
        ConfigError: a value that does not exist.
    """

    def __init__(
        self,
        root: str,
        pipeline: Sequence[dict[str, Any]] = (),
        prompt: str = "train",
        max_objects: int = 16,
        min_area: int = 0,
        index: str | None = None,
        test_mode: bool = False,
    ) -> None:
        if prompt not in PROMPT_MODES:
            raise ConfigError(f"prompt must be one of {', '.join(PROMPT_MODES)}, got {prompt!r}")
        if max_objects < 1:
            raise ConfigError(f"max_objects must be at least 1, got {max_objects}")
        self.root = Path(root).expanduser()
        self.prompt = prompt
        self.max_objects = max_objects
        self.min_area = min_area
        self.test_mode = test_mode
        self.index = open_index(self.root, None if index is None else Path(index))
        self.metainfo: dict[str, Any] = {"classes": ("object",), "source": "sa1b"}
        self.pipeline = Compose(list(pipeline))

    def __len__(self) -> int:
        return len(self.index.names)

    def full_init(self) -> None:
        """Do nothing: the index is read in the constructor (MMEngine's wrappers call this)."""

    def get_data_info(self, index: int) -> dict[str, Any]:
        """Return what the pipeline starts from; ``img`` holds the picture, uint8 (H, W, 3) RGB."""
        row = int(index)
        name = str(self.index.names[row])
        picture = _picture(self.index.read(row, 0), name)
        height, width = picture.shape[:2]
        return {
            "img": picture,
            "img_path": str(self.root / f"{name}.jpg"),
            "img_id": int(name.removeprefix("sa_")),
            "dataset": "sa1b",
            "group": f"sa1b/{name}",
            "application": "natural images",
            "spacing": None,
            "height": height,
            "width": width,
            "objects": self._objects(self.index.read(row, 1), name, height, width),
            "prompt": self.prompt,
            "sample_idx": row,
        }

    def _objects(self, data: bytes, name: str, height: int, width: int) -> list[CocoObject]:
        """Return the objects of an image, at most ``max_objects``."""
        records = _records(data, name, height, width)
        rows = [row for row, record in enumerate(records) if record.get("area", 1) >= max(1, self.min_area)]
        if len(rows) > self.max_objects and not self.test_mode:
            # NumPy's generator is seeded for each sample by the runner.
            rows = sorted(np.random.permutation(rows)[: self.max_objects].tolist())
        objects: list[CocoObject] = []
        for row in rows[: self.max_objects]:
            where = f"{name}.json, annotation {records[row].get('id', row)}"
            rle = decode_segmentation(records[row].get("segmentation"), height, width, where=where)
            areas, boxes = measure_rles([rle], [where])
            if areas[0]:
                x1, y1, x2, y2 = boxes[0].tolist()
                objects.append(CocoObject(len(objects) + 1, 0, rle, (x1, y1, x2, y2), int(areas[0])))
        return objects

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(self.get_data_info(index))


def open_index(root: Path, kept: Path | None = None) -> Index:
    """Find the images below a folder, or read the index that an earlier start kept.

    Raises:
        DataError: there are none, a picture lacks its annotations or the reverse, or a shard is damaged.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; give the folder of SA-1B's files or tar shards")
    shards = sorted(root.rglob("*.tar"))
    stamp = [[str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns] for path in shards]
    if kept is not None and kept.is_file():
        found = _kept_index(kept, stamp, root)
        if found is not None:
            return found
        logger.info("%s is of other shards, they are indexed again", kept)
    places: dict[str, dict[str, Place]] = {}
    files = list(shards)
    for number, shard in enumerate(shards):
        _index_shard(shard, number, places)
    if not shards:
        for path in sorted(root.rglob("sa_*")):
            if match := NAME.search(path.name):
                _put(places, match, (len(files), 0, path.stat().st_size), path)
                files.append(path)
    index = _complete(places, files, root)
    if kept is not None and shards:
        _keep(index, kept, stamp)
    return index


def _index_shard(shard: Path, number: int, places: dict[str, dict[str, Place]]) -> None:
    """Read the headers of one uncompressed tar file."""
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and (match := NAME.search(member.name)):
                    _put(places, match, (number, member.offset_data, member.size), shard)
    except tarfile.TarError as error:
        raise DataError(f"{shard} is no whole tar file ({error}); download the shard again") from error


def _put(places: dict[str, dict[str, Place]], match: re.Match[str], place: Place, where: Path) -> None:
    name, kind = match.groups()
    parts = places.setdefault(name, {})
    if kind in parts:
        raise DataError(f"{where}: {name}.{kind} is there twice; keep one copy")
    parts[kind] = place


def _complete(places: dict[str, dict[str, Place]], files: list[Path], root: Path) -> Index:
    """Check that every picture has annotations, and the reverse."""
    for name, parts in places.items():
        for kind in ("jpg", "json"):
            if kind not in parts:
                there = next(iter(parts))
                raise DataError(f"{root}: {name}.{kind} is missing beside {name}.{there}; get its shard again")
    if not places:
        raise DataError(f"{root}: sa_<id>.jpg with sa_<id>.json, or tar shards of them, were expected, found none")
    names = sorted(places, key=lambda name: int(name[3:]))
    rows = np.array([[places[name]["jpg"], places[name]["json"]] for name in names], np.int64)
    return Index(files, np.array(names), rows)


def _keep(index: Index, path: Path, stamp: list[Any]) -> None:
    """Write an index, whole or not at all."""
    from ultrasam.io.files import write_atomic

    buffer = io.BytesIO()
    text = json.dumps({"format": INDEX_FORMAT, "shards": stamp})
    np.savez_compressed(buffer, names=index.names, places=index.places, stamp=np.array(text))
    write_atomic(path, buffer.getvalue())


def _kept_index(path: Path, stamp: list[Any], root: Path) -> Index | None:
    """Return a kept index, or None where it is of other shards."""
    try:
        with np.load(path, allow_pickle=False) as content:
            text = json.loads(str(content["stamp"]))
            names, places = content["names"], content["places"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is no index of SA-1B ({error}); delete it to have it made again") from error
    if text != {"format": INDEX_FORMAT, "shards": stamp}:
        return None
    return Index([root / name for name, *_ in stamp], names, places)


def _picture(data: bytes, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}.jpg is damaged ({error}); get the file or its shard again") from error


def _records(data: bytes, name: str, height: int, width: int) -> list[dict[str, Any]]:
    """Return the annotation records of an image.

    Raises:
        DataError: not the JSON of SA-1B, or of a picture of another size.
    """
    try:
        content = json.loads(data)
        size = (content["image"]["height"], content["image"]["width"])
        records = content["annotations"]
        sound = isinstance(records, list) and all(isinstance(record, dict) for record in records)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{name}.json: SA-1B's 'image' and 'annotations' were expected ({error!r})") from error
    if not sound:
        raise DataError(f"{name}.json: 'annotations' must be a list of JSON objects")
    if size != (height, width):
        raise DataError(f"{name}.json is of {size[0]} x {size[1]} pixels, {name}.jpg has {height} x {width}")
    return records
