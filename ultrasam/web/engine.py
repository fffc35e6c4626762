"""The model behind the server: one for all files, used by one thread at a time, with the frames it encoded last."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ultrasam.geometry.rle import encode_mask
from ultrasam.web.study import Mark, Point, Study

if TYPE_CHECKING:
    from torch import Tensor

    from ultrasam.inference import Embedding, Session, UltraSam

# A decoder keeps what does not depend on the prompt, about so many times the size of the embedding.
_DECODER_SHARE = 6
Box = tuple[float, float, float, float]


class Engine:
    """Encodes frames and predicts masks.

    Encoder and decoder have a lock each: a click in one file is answered while a frame of another is encoded.

    Args:
        model: the network.
        cache_bytes: memory of the encoded frames that are kept.
    """

    def __init__(self, model: UltraSam, cache_bytes: int) -> None:
        self.model = model
        self.encode_seconds = 0.0
        self._cache_bytes = cache_bytes
        self._encoding = threading.Lock()
        self._decoding = threading.Lock()
        self._table = threading.Lock()
        self._cache: OrderedDict[tuple[str, int], tuple[Session, int]] = OrderedDict()
        self._urgent = 0
        self._wish: tuple[Study, list[int]] | None = None
        self._wished = threading.Condition()
        self._stopped = False
        self._worker: threading.Thread | None = None

    def session(self, study: Study, frame: int) -> Session:
        """Return the encoded frame; it is encoded first where it is not kept."""
        found = self._kept(study, frame)
        if found is not None:
            return found
        with self._urgently(), self._encoding:
            return self._encode(study, frame)

    def session_if(self, study: Study, frame: int, wanted: Callable[[], bool]) -> Session | None:
        """Return the encoded frame as `session` does, or None where it is not wanted any more when its turn comes."""
        found = self._kept(study, frame)
        if found is not None:
            return found
        with self._urgently(), self._encoding:
            return self._encode(study, frame) if wanted() else None

    def is_encoded(self, study: Study, frame: int) -> bool:
        """Whether a frame is answered without encoding it first."""
        with self._table:
            return (study.key, frame) in self._cache

    def predict(
        self, session: Session, points: Sequence[Point], box: Box | None, logits: Tensor | None
    ) -> Mark:
        """Predict one object.

        Args:
            session: the encoded frame.
            points: x, y in pixels and 1 or 0.
            box: x1, y1, x2, y2 in pixels.
            logits: of the answer before, which this one corrects.

        Raises:
            PromptError: a prompt that does not fit the image.
        """
        import torch

        from ultrasam.inference import Prompt

        prompt = Prompt(
            points=np.array([point[:2] for point in points], np.float32) if points else None,
            labels=np.array([point[2] for point in points], np.int64) if points else None,
            box=None if box is None else np.array(box, np.float32),
            logits=None if logits is None else logits[0].float(),
        )
        with self._decoding:
            masks = session.predict(prompts=[prompt])
        mask: NDArray[np.bool_] = np.asarray(masks.masks[0], bool)
        kept = masks.logits[:1].to(device="cpu", dtype=torch.float16)
        measures = plain(masks.measures()[0]) if mask.any() else {}
        return Mark(tuple(points), box, encode_mask(mask), float(masks.scores[0]), kept, measures)

    def prefetch(self, study: Study, frames: Sequence[int]) -> None:
        """Encode frames that may be looked at next, when nothing else is to be done; replaces the wish before."""
        with self._wished:
            self._wish = (study, list(frames))
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="prefetch", daemon=True)
                self._worker.start()
            self._wished.notify()

    def refit(self, study: Study) -> None:
        """Make the sessions of a file anew after ``study.clip`` changed; its frames stay encoded."""
        with self._encoding:
            with self._table:
                kept = [(key, *entry) for key, entry in self._cache.items() if key[0] == study.key]
            made = [(key, self._session(study, old.image, old.embedding), size) for key, old, size in kept]
            with self._table:
                self._cache.update({key: (new, size) for key, new, size in made if key in self._cache})

    def forget(self, study: Study) -> None:
        """Drop the encoded frames of a file."""
        with self._table:
            for key in [key for key in self._cache if key[0] == study.key]:
                del self._cache[key]

    def stop(self) -> None:
        """End the thread that encodes ahead."""
        with self._wished:
            self._stopped = True
            self._wished.notify()
        if self._worker is not None:
            self._worker.join(timeout=10)

    def _kept(self, study: Study, frame: int) -> Session | None:
        key = (study.key, frame)
        with self._table:
            if key not in self._cache:
                return None
            self._cache.move_to_end(key)
            return self._cache[key][0]

    def _encode(self, study: Study, frame: int) -> Session:
        """Encode a frame and keep it; the encoding lock is held."""
        found = self._kept(study, frame)
        if found is not None:
            return found
        image = study.read(frame)
        start = time.perf_counter()
        embedding = self.model.encode([image])[0]
        self.encode_seconds = time.perf_counter() - start
        session = self._session(study, image, embedding)
        features = embedding.features
        size = image.nbytes + _DECODER_SHARE * features.numel() * features.element_size()
        with self._table:
            if study.closed:
                return session
            self._cache[(study.key, frame)] = (session, size)
            # The frame that is looked at stays, however large it is.
            while len(self._cache) > 1 and sum(kept for _, kept in self._cache.values()) > self._cache_bytes:
                self._cache.popitem(last=False)
        return session

    def _session(self, study: Study, image: NDArray[np.uint8], embedding: Embedding) -> Session:
        scan = study.scan
        session = self.model.session(image, embedding, spacing=scan.spacing, name=scan.name, clip=study.clip)
        # Looks for the field of view, which the first click would wait for.
        _ = session.field
        return session

    @contextmanager
    def _urgently(self) -> Iterator[None]:
        with self._table:
            self._urgent += 1
        try:
            yield
        finally:
            with self._table:
                self._urgent -= 1

    def _work(self) -> None:
        while True:
            with self._wished:
                while self._wish is None and not self._stopped:
                    self._wished.wait()
                if self._stopped or self._wish is None:
                    return
                study, frames = self._wish
                if not frames or study.closed:
                    self._wish = None
                    continue
                frame = frames.pop(0)
            self._encode_ahead(study, frame)

    def _encode_ahead(self, study: Study, frame: int) -> None:
        from ultrasam.errors import UltraSamError

        if self._urgent or self.is_encoded(study, frame):
            return
        with self._encoding:
            try:
                self._encode(study, frame)
            except UltraSamError:
                # Said when the frame is looked at.
                return


def plain(value: Any) -> Any:
    """Return values for JSON: dataclasses as dictionaries, arrays as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value
