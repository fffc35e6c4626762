"""A prompted classifier as a model of the Python API: masks as ever, and the class of every prompted object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ultrasam.downstream.checkpoint import Rebuilt
from ultrasam.downstream.whole_image import ClassAnswer
from ultrasam.inference.model import Embedding, UltraSam, check_image
from ultrasam.inference.prompt import Prompt

if TYPE_CHECKING:
    from ultrasam.inference.session import Session
    from ultrasam.modeling.sam import Sam


@dataclass(frozen=True, eq=False)
class TwoEmbeddings(Embedding):
    """One encoded image.

    Attributes:
        vision: (1, C, h, w) of E_o, None in models without.
        about: (1, C, h, w) of E_g, None in models without.
    """

    vision: Tensor | None = None
    about: Tensor | None = None


@dataclass
class _Parts:
    """What ``UltraSam`` needs of a network."""

    sam: Sam
    passes: tuple[str, ...]
    mask_prompt: bool
    card: dict[str, Any]


class PromptedUltraSam(UltraSam):
    """Masks and classes of prompted objects. Masks come from the classifier's own SAM network, E_o.

    Args:
        rebuilt: of ``rebuild``.
    """

    def __init__(self, rebuilt: Rebuilt) -> None:
        sam, card = rebuilt.model.sam, dict(rebuilt.checkpoint.card)
        passes = passes_of(sam)
        super().__init__(_Parts(sam, passes, True, {**card, "name": rebuilt.name, "passes": list(passes)}))
        self.classifier = rebuilt.model
        self.classes: tuple[str, ...] = rebuilt.model.classes

    @torch.no_grad()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Encode images by both encoders, (H, W, 3) uint8 RGB each."""
        found: list[Embedding] = []
        for image in map(check_image, images):
            fit = self.fit(image.shape[0], image.shape[1])
            pixels = torch.from_numpy(np.ascontiguousarray(fit.image(image).transpose(2, 0, 1))).to(self.device)
            vision, about = self.classifier.encode([pixels])
            features = self.sam.encode(self.sam.preprocessing.batch([pixels])) if vision is None else vision
            found.append(TwoEmbeddings(features, fit, vision, about))
        return found

    @torch.no_grad()
    def classify(self, session: Session, prompts: Sequence[Prompt]) -> list[ClassAnswer]:
        """Return the classes of prompted objects.

        Args:
            session: of this model.
            prompts: points and boxes in pixels of the image; logits of an answer before say nothing of a class and are
                left out.
        """
        embedding = session.embedding
        assert isinstance(embedding, TwoEmbeddings)
        bare = [Prompt(prompt.points, prompt.labels, prompt.box) for prompt in prompts]
        scores = self.classifier.scores_of(embedding.vision, embedding.about, session.square_prompts(bare))
        return [ClassAnswer(self.classes, row) for row in scores.float().softmax(dim=1).cpu().numpy()]


def passes_of(sam: Sam) -> tuple[str, ...]:
    """Return the decoder's passes of the public weights that a network started from.

    A checkpoint of a classifier does not say them: LiteMedSAM has one; UltraSam, told by the form of its residual, two;
    of others SAM's own convention is taken.
    """
    if sam.arch == "tiny_vit":
        return ("single",)
    return ("single", "multi") if sam.mlp_residual == "double" else ()
