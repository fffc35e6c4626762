"""The model of the Python API: loads weights, encodes images, opens sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.errors import ConfigError, DataError, PromptError
from ultrasam.geometry.transform import SquareTransform
from ultrasam.inference.field import find_field, window_of
from ultrasam.inference.masks import Masks
from ultrasam.inference.prompt import Prompt, check_prompt
from ultrasam.inference.session import Session
from ultrasam.modeling.sam import Sam

if TYPE_CHECKING:
    from ultrasam.geometry.transform import Interpolation, Mode
    from ultrasam.io.scan import Scan

# Images encoded at a time on a GPU; on a CPU one image fills all cores.
GPU_BATCH = 8


class NetworkLike(Protocol):
    """What ``load_network`` returns, as far as prediction needs it; see ``UltraSam`` for the fields."""

    sam: Sam
    passes: tuple[str, ...]
    mask_prompt: bool
    card: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Embedding:
    """One encoded image.

    Attributes:
        features: (1, C, h, w) on the model's device.
        transform: from the image to the network's square.
    """

    features: Tensor
    transform: SquareTransform


class UltraSam:
    """A network for prediction. The entry point: ``UltraSam.from_checkpoint(...).open("scan.png").predict(...)``.

    Args:
        network: ``sam`` (in evaluation mode), ``passes`` of the decoder in order ("single": mask token 0, "multi":
            the best of tokens 1 to 3; none for SAM's own convention), ``mask_prompt`` (each pass gets the logits of
            the one before) and ``card`` (what is known of the weights).
    """

    def __init__(self, network: NetworkLike) -> None:
        self.sam = network.sam
        self.passes = tuple(network.passes)
        self.mask_prompt = network.mask_prompt
        self.card = network.card
        self.device = next(self.sam.parameters()).device

    @classmethod
    def from_checkpoint(
        cls, weights: str | Path | None = None, device: str | torch.device | None = None
    ) -> UltraSam:
        """Load weights of any known family.

        Args:
            weights: a file or folder, or the name of known weights; None for those that come with the package.
            device: "cpu", "cuda", ...; None for CUDA where there is a GPU.

        Raises:
            CheckpointError: the weights cannot be used.
            ConfigError: there is no such device.
        """
        from ultrasam.checkpoints.network import load_network

        return cls(load_network(weights, device=choose_device(device)))

    def to(self, device: str | torch.device) -> UltraSam:
        """Move the network, in place; embeddings made before stay where they are.

        Raises:
            ConfigError: there is no such device.
        """
        self.device = choose_device(device)
        self.sam.to(self.device)
        return self

    def open(
        self, source: str | Path | Scan | NDArray[np.uint8], frame: int = 0, crop: bool = False, clip: bool = True
    ) -> Session:
        """Open an ultrasound file or array and encode one frame of it.

        Args:
            source: a path (image, DICOM, volume, video), an opened ``Scan``, or RGB or grey pixels.
            frame: number of the frame, from 0.
            crop: encode the field of view alone, outside of which nothing is mask then; prompts and masks stay in
                pixels of the whole image.
            clip: text outside of the field of view never becomes mask; see ``Session``.

        Raises:
            DataError: the file cannot be read, or has no such frame.
        """
        from ultrasam.io.scan import open_scan, scan_from_array

        if isinstance(source, np.ndarray):
            scan = scan_from_array(source)
        else:
            scan = open_scan(source) if isinstance(source, (str, Path)) else source
        image = scan.read(frame)
        if not crop:
            return self.session(image, spacing=scan.spacing, name=scan.name, clip=clip)
        field = find_field(image)
        x1, y1, x2, y2 = window_of(field, (image.shape[0], image.shape[1]))
        embedding = self.encode([image[y1:y2, x1:x2]])[0]
        session = Session(self, image, embedding, spacing=scan.spacing, name=scan.name, origin=(x1, y1))
        if field is not None:
            session.block(field, ~field)
        return session

    def fit(self, height: int, width: int) -> SquareTransform:
        """Return the transform from an image of a size in pixels to the network's square."""
        pixels = self.sam.preprocessing
        # ``Preprocessing`` has checked both names.
        mode, interpolation = cast("Mode", pixels.mode), cast("Interpolation", pixels.interpolation)
        return SquareTransform.fit(height, width, pixels.square, mode, interpolation)

    @torch.no_grad()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Encode images, on a GPU several at a time.

        Args:
            images: (H, W, 3) uint8 RGB, of any sizes.

        Raises:
            DataError: an array of another type or shape.
        """
        pixels = self.sam.preprocessing
        batch = batch_of(self.device)
        found: list[Embedding] = []
        for start in range(0, len(images), batch):
            part = [check_image(image) for image in images[start : start + batch]]
            fits = [self.fit(image.shape[0], image.shape[1]) for image in part]
            resized = [
                torch.from_numpy(fit.image(image)).permute(2, 0, 1).to(self.device)
                for fit, image in zip(fits, part, strict=True)
            ]
            features = self.sam.encode(pixels.batch(resized))
            # Copies: a view would keep the whole batch in memory.
            parts = [features] if len(features) == 1 else [row[None].clone() for row in features]
            found += [Embedding(row, fit) for row, fit in zip(parts, fits, strict=True)]
        return found

    def session(
        self,
        image: NDArray[np.uint8],
        embedding: Embedding | None = None,
        spacing: tuple[float, float] | None = None,
        name: str = "",
        clip: bool = True,
    ) -> Session:
        """Start a session on pixels.

        Args:
            image: (H, W, 3) uint8 RGB.
            embedding: of this image, where it is there already (``encode``).
            spacing: mm along (rows, columns), for measures.
            name: of the image, for outputs.
            clip: text outside of the field of view never becomes mask; see ``Session``.

        Raises:
            DataError: the image has another type or shape, or the embedding is of another size.
        """
        image = check_image(image)
        if embedding is None:
            embedding = self.encode([image])[0]
        elif embedding.transform.original_size != image.shape[:2]:
            raise DataError(
                f"the embedding is of an image of {embedding.transform.original_size} (height, width), but this one "
                f"has {image.shape[:2]}; encode this image"
            )
        return Session(self, image, embedding, spacing=spacing, name=name, clip=clip)

    def predict_batch(
        self,
        images: Sequence[NDArray[np.uint8]],
        prompts: Sequence[Sequence[Prompt]],
        batch_size: int = GPU_BATCH,
        clip: bool = True,
    ) -> list[Masks]:
        """Predict several images; the answers are those of one session an image.

        Args:
            images: (H, W, 3) uint8 RGB, of any sizes.
            prompts: per image its objects; an image without objects gets no masks.
            batch_size: images whose embeddings are in memory at a time.
            clip: as in ``session``.

        Raises:
            PromptError: prompts that do not fit, before anything is encoded where that can be told.
        """
        if len(images) != len(prompts):
            raise PromptError(f"{len(images)} images need {len(images)} lists of prompts, found {len(prompts)}")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        for image, objects in zip(images, prompts, strict=True):
            for prompt in objects:
                check_prompt(prompt, *check_image(image).shape[:2])
        found: list[Masks] = []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            for row, embedding in enumerate(self.encode(part)):
                session = self.session(part[row], embedding, clip=clip)
                found.append(session.predict(prompts=prompts[start + row]))
        return found


def batch_of(device: torch.device) -> int:
    """Return how many images are encoded at a time."""
    return GPU_BATCH if device.type == "cuda" else 1


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device of a name; None for CUDA where there is a GPU, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"there is no device {device!r}; use cpu, cuda or cuda:1") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {str(device)!r} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices; use cpu"
        )
    return chosen


def check_image(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image as contiguous (H, W, 3); grey (H, W) is repeated.

    Raises:
        DataError: not uint8, or of another shape.
    """
    image = np.asarray(image)
    shaped = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if image.dtype != np.uint8 or not shaped or not image.size:
        raise DataError(
            f"an image is (height, width, 3) uint8 RGB of 0 to 255, found {image.dtype} of the shape {image.shape}; "
            "convert it, or open the file itself"
        )
    return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image)
