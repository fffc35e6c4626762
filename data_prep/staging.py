"""Building a dataset's folder out of sight and moving it into place when it is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ultrasam.errors import DataError


class Staging:
    """The hidden work folder ``ROOT/.<slug>.partial`` of one conversion.

    Attributes:
        folder: where the new dataset folder is built.
        scratch: where an archive may be unpacked.
        journal: file of what is converted already.
        final: where the folder goes.
    """

    def __init__(self, root: Path, slug: str) -> None:
        self.work = root / f".{slug}.partial"
        self.folder = self.work / "new"
        self.scratch = self.work / "source"
        self.old = self.work / "old"
        self.journal = self.work / "journal.jsonl"
        self.final = root / slug

    def recover(self) -> None:
        """Put the old dataset back if a run was killed while swapping; what it had converted stays for the journal."""
        if self.old.exists() and not self.final.exists():
            self.old.replace(self.final)
        for leftover in (self.old, self.scratch, self.folder / "annotations"):
            shutil.rmtree(leftover, ignore_errors=True)

    def publish(self) -> None:
        """Swap the new folder for the old one; a kill in between is undone by the next run's `recover`."""
        if self.final.exists():
            self.final.replace(self.old)
        self.folder.replace(self.final)


@contextmanager
def staging(root: Path, slug: str) -> Iterator[Staging]:
    """Give the work folder of a conversion and remove it afterwards, unless the run was interrupted.

    Raises:
        DataError: another conversion of the set into this root is running, or the final folder exists and
            was not written by data_prep.
    """
    work = Staging(root, slug)
    if work.final.exists() and not (work.final / "manifest.json").is_file():
        raise DataError(f"{work.final}: a folder written by data_prep was expected, found one without "
                        "manifest.json; move it away or choose another --out")
    made = _make_folders(work.work)
    lock = os.open(work.work, os.O_RDONLY)
    try:
        # The lock goes away with the process, so that a killed run never blocks the next.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DataError(f"{work.work}: another conversion of {slug} into this folder is running; "
                        "wait for it or stop it") from error
    try:
        work.recover()
        work.folder.mkdir(exist_ok=True)
        stopped = False
        try:
            yield work
        except KeyboardInterrupt:
            stopped = True  # As after a kill, the next run goes on from here.
            raise
        finally:
            if not stopped:
                shutil.rmtree(work.work, ignore_errors=True)
    finally:
        os.close(lock)
        for folder in made:
            with suppress(OSError):  # rmdir removes only empty folders, which is the point
                folder.rmdir()


def _make_folders(folder: Path) -> list[Path]:
    """Make the folder and its parents; return those that were not there, innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made
