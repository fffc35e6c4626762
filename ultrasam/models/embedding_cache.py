"""Embeddings of a frozen encoder, kept on disk between steps, epochs and runs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ultrasam.errors import ConfigError
from ultrasam.modeling.sam import Preprocessing


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a module's names and values."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class EmbeddingCache:
    """Folder of half-precision embeddings, named by what they depend on: image, weights, preprocessing.

    Args:
        folder: where to keep them; made when needed.
        encoder: the frozen encoder, for the hash of its weights.
        preprocessing: part of the key.
        max_bytes: the oldest files go when the folder grows beyond this.
    """

    def __init__(
        self, folder: str | Path, encoder: nn.Module, preprocessing: Preprocessing, max_bytes: int = 20 * 2**30
    ) -> None:
        if max_bytes < 1:
            raise ConfigError(f"the embedding cache needs max_bytes of at least 1, got {max_bytes}")
        context = weights_hash(encoder) + json.dumps(preprocessing.to_dict(), sort_keys=True)
        self.context = hashlib.sha256(context.encode()).digest()
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        self.hits = self.misses = 0

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
            array = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            self.misses += 1
            return None
        except (ValueError, EOFError):
            path.unlink(missing_ok=True)
            self.misses += 1
            return None
        self.hits += 1
        return torch.from_numpy(array)

    def put(self, image: Tensor, embedding: Tensor) -> None:
        """Store an embedding (C, h, w); the file appears whole or not at all."""
        array = embedding.detach().to("cpu", torch.float16).numpy()
        self.make_room(array.nbytes)
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            np.save(file, array, allow_pickle=False)
        Path(temporary).replace(self.path(image))
        self.size += array.nbytes

    def make_room(self, wanted: int) -> None:
        """Delete the oldest files until ``wanted`` more bytes fit."""
        if self.size + wanted <= self.max_bytes:
            return
        files = sorted(self.folder.glob("*.npy"), key=lambda file: file.stat().st_mtime)
        self.size = sum(file.stat().st_size for file in files)
        for file in files:
            if self.size + wanted <= self.max_bytes:
                return
            self.size -= file.stat().st_size
            file.unlink(missing_ok=True)
