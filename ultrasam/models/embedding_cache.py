"""Embeddings of a frozen encoder, kept on disk between steps, epochs and runs."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.io.files import write_atomic
from ultrasam.modeling.sam import Preprocessing

CHECKSUM_BYTES = 4


def weights_hash(module: nn.Module, without: Sequence[nn.Module] = ()) -> str:
    """Return the SHA-256 of a module's names and values, those of the submodules ``without`` left out."""
    left_out = tuple(f"{name}." for name, part in module.named_modules() if any(part is other for other in without))
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if left_out and name.startswith(left_out):
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Folder of half-precision embeddings, named by what they depend on: image, weights, preprocessing, options.

    Args:
        folder: where to keep them; made when needed.
        encoder: the frozen encoder, for the hash of its weights.
        preprocessing: part of the key.
        max_bytes: the oldest files go when the folder grows beyond this; each process counts what it writes.
        without: last parts of the encoder that come after what is kept, and so are not part of the key.
        options: plain values that change what the encoder gives and are no weights, such as an adapter's scale.
    """

    def __init__(
        self,
        folder: str | Path,
        encoder: nn.Module,
        preprocessing: Preprocessing,
        max_bytes: int = 20 * 2**30,
        without: Sequence[nn.Module] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if max_bytes < 1:
            raise ConfigError(f"the embedding cache needs max_bytes of at least 1, got {max_bytes}")
        context = weights_hash(encoder, without) + json.dumps(preprocessing.to_dict(), sort_keys=True)
        if options:
            context += json.dumps(options, sort_keys=True)
        self.context = hashlib.sha256(context.encode()).digest()
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = sum(size for _, size, _ in self.files())
        self.hits = self.misses = 0

    def files(self) -> list[tuple[float, int, Path]]:
        """Return (time of writing, bytes, path) of every embedding, the oldest first."""
        found = []
        for path in self.folder.glob("*.npy"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # Another process made room.
            found.append((status.st_mtime, status.st_size, path))
        return sorted(found)

    def path(self, image: Tensor) -> Path:
        """Return the file of one resized image (3, h, w) uint8; a flipped image is another image."""
        digest = hashlib.sha256(self.context)
        digest.update(str(tuple(image.shape)).encode())
        digest.update(image.cpu().contiguous().numpy().tobytes())
        return self.folder / f"{digest.hexdigest()}.npy"

    def get(self, image: Tensor) -> Tensor | None:
        """Return the embedding (C, h, w) float16 on the CPU, or None. A damaged file counts as absent."""
        path = self.path(image)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            self.misses += 1
            return None
        content, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
        if zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little") != checksum:
            path.unlink(missing_ok=True)
            self.misses += 1
            return None
        self.hits += 1
        return torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))

    def put(self, image: Tensor, embedding: Tensor) -> None:
        """Store an embedding (C, h, w); the file appears whole or not at all. One beyond ``max_bytes`` is not kept.

        Raises:
            DataError: the folder cannot be written.
        """
        buffer = io.BytesIO()
        np.save(buffer, embedding.detach().to("cpu", torch.float16).numpy(), allow_pickle=False)
        content = buffer.getvalue()
        data = content + zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "little")
        if len(data) > self.max_bytes:
            return
        self.make_room(len(data))
        write_atomic(self.path(image), data)
        self.size += len(data)

    def make_room(self, wanted: int) -> None:
        """Delete the oldest files until ``wanted`` more bytes fit."""
        if self.size + wanted <= self.max_bytes:
            return
        files = self.files()
        self.size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self.size + wanted <= self.max_bytes:
                return
            self.size -= size
            path.unlink(missing_ok=True)
