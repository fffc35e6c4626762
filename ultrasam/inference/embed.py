"""Encoder features of many files in one safetensors file, for training one's own head on them."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ultrasam.errors import ConfigError, DataError, UltraSamError
from ultrasam.inference.model import Embedding, UltraSam

if TYPE_CHECKING:
    from ultrasam.io.scan_base import Scan

KEY = "ultrasam"
_DTYPES = {"float32": "F32", "float16": "F16"}


@dataclass
class EmbedReport:
    """What became of the files.

    Attributes:
        frames: number of frames with features.
        files: number of files with features.
        failures: one sentence for each file that could not be used.
    """

    frames: int = 0
    files: int = 0
    failures: list[str] = field(default_factory=list)


class TensorFile:
    """A safetensors file written a tensor at a time, so that memory does not grow; whole or not at all.

    Used as a context: the file appears when ``finish`` was called, and not otherwise.

    Args:
        path: the file; its folder is created.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._header: dict[str, Any] = {}
        self._place = 0

    def __enter__(self) -> TensorFile:
        """Open the place for the numbers.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._numbers = tempfile.TemporaryFile(dir=self.path.parent)
        except OSError as error:
            raise self._refused(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the numbers."""
        self._numbers.close()

    def add(self, name: str, values: NDArray[Any]) -> None:
        """Add one tensor.

        Args:
            name: not yet used.
            values: float32 or float16, any shape.

        Raises:
            ConfigError: the name is used already.
            DataError: the disk is full.
        """
        if name in self._header or name == "__metadata__":
            raise ConfigError(f"two files have the name {name!r}; give the folder above them, so that names differ")
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
        end = self._place + len(data)
        self._header[name] = {
            "dtype": _DTYPES[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [self._place, end],
        }
        self._place = end
        try:
            self._numbers.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Write the file.

        Raises:
            DataError: it cannot be written.
        """
        text = json.dumps({"__metadata__": dict(metadata), **self._header}, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        temporary = self.path.with_name(f".{self.path.name[:100]}.{secrets.token_hex(4)}.tmp")
        try:
            try:
                with temporary.open("wb") as stream:
                    stream.write(len(text).to_bytes(8, "little") + text)
                    self._numbers.seek(0)
                    shutil.copyfileobj(self._numbers, stream, 1 << 20)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> DataError:
        return DataError(f"{self.path} cannot be written ({error}); check permissions and free space")


def pooled(embedding: Embedding) -> NDArray[np.float32]:
    """Return the mean (C,) of the cells that show the image; those of the padding are left out."""
    rows, columns = shown_cells(embedding)
    return embedding.features[0, :, :rows, :columns].float().mean(dim=(1, 2)).cpu().numpy()


def shown_cells(embedding: Embedding) -> tuple[int, int]:
    """Return how many rows and columns of cells show any of the image."""
    height, width = embedding.features.shape[-2:]
    square = embedding.transform.square
    rows, columns = embedding.transform.resized_size
    return -(-rows * height // square), -(-columns * width // square)


def embed_files(
    model: UltraSam,
    files: Sequence[tuple[Path, str]],
    out: str | Path,
    *,
    maps: bool = False,
    every: int = 1,
    batch: int = 8,
    weights_sha256: str = "",
    say: Callable[[str], None] | None = None,
) -> EmbedReport:
    """Encode every frame of some files.

    A frame's features have the key ``NAME#FRAME`` (the pooled vector, (C,) float32) and, with ``maps``,
    ``NAME#FRAME/map`` (C, h, w) float16. The file's metadata ``ultrasam`` says how pixels were prepared, of which
    weights the features are, and of each frame its size and how many rows and columns of the map show the image.

    Args:
        model: the network.
        files: path and name of each.
        out: a file ending in .safetensors, written whole or, where no file could be used, not at all.
        maps: keep the whole map of each frame too.
        every: take each such frame of cine loops and volumes, from the first.
        batch: frames encoded at a time.
        weights_sha256: of the weight file.
        say: told about each file.

    Raises:
        ConfigError: two files have the same name, another ending, or a number below 1.
        DataError: no file could be used, or ``out`` cannot be written.
    """
    if Path(out).suffix != ".safetensors":
        raise ConfigError(f"features are written as .safetensors, got {Path(out).name!r}")
    if every < 1 or batch < 1:
        raise ConfigError(f"every and batch are at least 1, got {every} and {batch}")
    names = [name for _, name in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two files have the name {twice!r}; give the folder above them, so that names differ")
    report, frames = EmbedReport(), dict[str, Any]()
    with TensorFile(out) as target:
        for path, name in files:
            try:
                found = _embed_file(model, path, name, maps, every, batch, target, frames)
            except UltraSamError as error:
                text = str(error)
                report.failures.append(text if path.name in text else f"{path}: {text}")
                continue
            report.files += 1
            report.frames += found
            if say is not None:
                say(f"{name}: {found} frame{'s' if found > 1 else ''}")
        if not frames:
            first = report.failures[0] if report.failures else "no file was given"
            raise DataError(f"no features were written: none of {len(files)} files could be used; the first: {first}")
        about = {
            "architecture": model.sam.arch,
            "preprocessing": model.sam.preprocessing.to_dict(),
            "weights": str(model.card.get("name") or model.sam.arch),
            "weights_sha256": weights_sha256,
            "every": every,
            "frames": frames,
        }
        target.finish({"format": "pt", KEY: json.dumps(about, ensure_ascii=False, default=str)})
    return report


def _embed_file(
    model: UltraSam,
    path: Path,
    name: str,
    maps: bool,
    every: int,
    batch: int,
    target: TensorFile,
    frames: dict[str, Any],
) -> int:
    """Add the features of one file; return the number of frames. A file that breaks half way adds nothing."""
    from ultrasam.io.scan import open_scan

    waiting: list[tuple[str, NDArray[Any]]] = []
    shown: dict[str, Any] = {}
    with open_scan(path) as scan, tempfile.TemporaryFile(dir=target.path.parent) as spool:
        for numbers, images in _batches(scan, every, batch):
            for number, embedding in zip(numbers, model.encode(images), strict=True):
                key = f"{name}#{number}"
                shown[key] = {
                    "size": list(embedding.transform.original_size),
                    "cells": list(shown_cells(embedding)),
                    "spacing": scan.spacing,
                }
                waiting.append((key, pooled(embedding)))
                if maps:
                    # Maps of a long cine do not fit in memory, and may be in vain if its last frame is damaged.
                    np.save(spool, embedding.features[0].to(torch.float16).cpu().numpy())
        spool.seek(0)
        for key, vector in waiting:
            target.add(key, vector)
            if maps:
                target.add(f"{key}/map", np.load(spool))
    frames.update(shown)
    return len(shown)


def _batches(scan: Scan, every: int, batch: int) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    """Yield the numbers and pixels of some frames at a time."""
    numbers: list[int] = []
    images: list[NDArray[np.uint8]] = []
    for number, image in _chosen(scan, every):
        numbers.append(number)
        images.append(image)
        if len(images) == batch:
            yield numbers, images
            numbers, images = [], []
    if images:
        yield numbers, images


def _chosen(scan: Scan, every: int) -> Iterable[tuple[int, NDArray[np.uint8]]]:
    return ((number, image) for number, image in enumerate(scan.iterate()) if number % every == 0)
