"""The answer of a session: masks of the original image, with scores and the logits to correct them by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.inference.prompt import Prompt

if TYPE_CHECKING:
    from ultrasam.geometry.measure import Measures


@dataclass(eq=False)
class Masks:
    """Masks of N objects of one image.

    Attributes:
        masks: (N, H, W) bool, at the size of the original image.
        scores: (N,) float32, the IoU that the network predicts for its mask.
        logits: (N, h, w) float32 on the CPU, low resolution over the network's square; as a prompt they ask for a
            correction.
        boxes: (N, 4) float32 x1, y1, x2, y2 around the masks, half-open, zeros for an empty mask.
        image: (H, W, 3) uint8 RGB.
        spacing: mm along (rows, columns), or None where it is not known.
        name: of the image, without folders.
        prompts: what was asked, in pixels of the original image.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    logits: Tensor
    boxes: NDArray[np.float32]
    image: NDArray[np.uint8]
    spacing: tuple[float, float] | None = None
    name: str = ""
    prompts: Sequence[Prompt] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.masks)

    def __iter__(self) -> Iterator[Masks]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, index: Any) -> Masks:
        """Return some of the objects: an int, a slice, a list of numbers or a bool array."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"there are {len(self)} masks, asked for number {index}")
            index = [index % len(self)]
        rows = np.arange(len(self))[index]
        return Masks(
            self.masks[rows],
            self.scores[rows],
            self.logits[rows.tolist()],
            self.boxes[rows],
            self.image,
            self.spacing,
            self.name,
            [self.prompts[row] for row in rows] if len(self.prompts) else [],
        )

    @property
    def stem(self) -> str:
        """What results are named by: the name without folders and suffix, "image" where there is none."""
        name = Path(self.name).name
        name = name[:-3] if name.lower().endswith(".nii.gz") else name
        suffix = Path(name).suffix[1:]
        # The numbers at the end of a DICOM file's name (1.2.840.113) are no suffix.
        return (Path(name).stem if suffix and not suffix.isdigit() else name) or "image"

    def save(self, out_dir: str | Path) -> list[Path]:
        """Write STEM_labels.png (0 outside, objects from 1), STEM_overlay.png and STEM.json (COCO, with measures).

        Args:
            out_dir: a folder, which is made where it does not exist. Files of these names are written over.

        Returns:
            the files, in this order.

        Raises:
            DataError: a file cannot be written.
        """
        from ultrasam.io.outputs import Answer, write_coco, write_label_png, write_overlay

        folder = Path(out_dir)
        paths = [folder / f"{self.stem}{end}" for end in ("_labels.png", "_overlay.png", ".json")]
        given = list(self.prompts)
        points = [prompt.points for prompt in given if prompt.points is not None]
        labels = [prompt.labels for prompt in given if prompt.labels is not None]
        boxes = [prompt.box for prompt in given if prompt.box is not None]
        write_label_png(paths[0], self.masks)
        write_overlay(
            paths[1],
            self.image,
            self.masks,
            points=np.concatenate(points) if points else None,
            labels=np.concatenate(labels) if labels else None,
            boxes=np.stack(boxes) if boxes else None,
        )
        asked = [prompt.to_dict() for prompt in given]
        answer = Answer(self.name or "image", self.masks, self.scores, spacing=self.spacing, prompts=asked)
        write_coco(paths[2], [answer])
        return paths

    def measures(self) -> list[Measures]:
        """Return area, diameters and so on of each mask, in pixels and, where the spacing is known, mm."""
        from ultrasam.geometry.measure import measure

        return [measure(mask, self.spacing) for mask in self.masks]
