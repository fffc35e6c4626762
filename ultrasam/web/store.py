"""The files that are open: unguessable names, a bound on number and bytes, and closing of what is not used."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ultrasam.web.limits import Limits, WebError, megabytes
from ultrasam.web.study import Study

if TYPE_CHECKING:
    from ultrasam.io.scan import Scan

# Names of closed files that are remembered, to say why they are closed.
_REMEMBERED = 1000


class Store:
    """Open files in memory, those used last at the end.

    Args:
        limits: of the server.
        on_close: called with every file that is closed.
        clock: seconds, growing.
    """

    def __init__(
        self,
        limits: Limits,
        on_close: Callable[[Study], None] = lambda study: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._on_close = on_close
        self._clock = clock
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Study] = OrderedDict()
        self._closed: OrderedDict[str, str] = OrderedDict()
        self._receiving = 0

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: str) -> Study:
        """Return an open file, which counts as use.

        Raises:
            WebError: no such file, or one that was closed, with the reason.
        """
        with self._lock:
            self.expire()
            if key in self._closed:
                raise WebError(410, self._closed[key])
            if key not in self._open:
                raise WebError(404, "This file is not open on the server; open it again.")
            self._open.move_to_end(key)
            study = self._open[key]
            study.used = self._clock()
            return study

    def add(self, scan: Scan, nbytes: int) -> Study:
        """Take a file in; files that were not used for longest make room.

        Raises:
            WebError: the file alone is larger than the memory that is allowed.
        """
        if nbytes > self._limits.memory_bytes:
            raise WebError(
                413,
                f"The opened file takes {megabytes(nbytes)}, at most {megabytes(self._limits.memory_bytes)} are kept; "
                "open a part of it.",
            )
        with self._lock:
            self.expire()
            while len(self._open) >= self._limits.sessions:
                self._close_oldest(f"more than {self._limits.sessions} files were open")
            while self._open and self.nbytes + nbytes > self._limits.memory_bytes:
                self._close_oldest("newer files needed its memory")
            study = Study(secrets.token_urlsafe(24), scan, nbytes, self._limits)
            study.used = self._clock()
            self._open[study.key] = study
            return study

    def make_room(self, study: Study) -> None:
        """Close files that were not used for longest where marks took the memory that is allowed; ``study`` stays."""
        with self._lock:
            for key in list(self._open):
                if self.nbytes <= self._limits.memory_bytes:
                    return
                if key != study.key:
                    self._drop(key, "This file was closed because another needed its memory; open it again.")

    def close(self, key: str) -> None:
        """Close a file that is open; nothing happens where it is not."""
        with self._lock:
            if key in self._open:
                self._drop(key, "This file was closed; open it again.")

    @contextmanager
    def expiring(self, every: float = 30.0) -> Iterator[None]:
        """Close what was not used for too long also while no request comes, looking at it ``every`` so many seconds."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(every):
                self.expire()

        watcher = threading.Thread(target=watch, name="expire", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def expire(self) -> None:
        """Close what was not used for too long."""
        with self._lock:
            now, idle = self._clock(), self._limits.idle_seconds
            for key in [key for key, study in self._open.items() if now - study.used > idle]:
                minutes = max(1, round(idle / 60))
                self._drop(key, f"This file was closed after {minutes} minutes without use; open it again.")

    @property
    def nbytes(self) -> int:
        """Memory of the open files and what is marked in them."""
        with self._lock:
            return sum(study.nbytes + study.marks_nbytes for study in self._open.values())

    @contextmanager
    def receiving(self) -> Iterator[Callable[[int], None]]:
        """Count a file while it arrives: the value is a function to call with the size of each part.

        The function raises WebError where the file, or all files on their way together, become too large.
        """
        taken = 0

        def take(count: int) -> None:
            nonlocal taken
            most = self._limits.upload_bytes
            if taken + count > most:
                raise WebError(
                    413, f"The file is larger than {megabytes(most)}, the most that this server takes; "
                    "start it with a larger --max-upload-mb."
                )
            with self._lock:
                if self._receiving + count > self._limits.memory_bytes:
                    raise WebError(503, "The server is receiving other files; try again in a moment.")
                self._receiving += count
            taken += count

        try:
            yield take
        finally:
            with self._lock:
                self._receiving -= taken

    def _close_oldest(self, reason: str) -> None:
        self._drop(next(iter(self._open)), f"This file was closed because {reason}; open it again.")

    def _drop(self, key: str, sentence: str) -> None:
        study = self._open.pop(key)
        study.closed = True
        self._closed[key] = sentence
        while len(self._closed) > _REMEMBERED:
            self._closed.popitem(last=False)
        self._on_close(study)
