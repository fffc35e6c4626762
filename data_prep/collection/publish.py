"""Moving many finished files into place together, also when the run is killed in between."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultrasam.errors import DataError
from ultrasam.io.files import write_atomic

WORK = ".collection.partial"
_PLAN = "complete.json"


class Publication:
    """Files that are written out of sight, below ``ROOT/.collection.partial``, and then moved over those of the root.

    When all are written, a plan of the moves is written too. A run that is killed while moving is finished by the
    next one; a run that is killed before leaves everything as it was.

    Args:
        root: folder of all converted datasets.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / WORK
        self.new = self.work / "new"

    def path(self, name: str) -> Path:
        """Return where to write the file that will be ``root / name``; its folder is made."""
        path = self.new / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def same(self, name: str, existing: str) -> None:
        """Make a file with the bytes of one that is written already, sharing its room where the disk can."""
        source, target = self.new / existing, self.path(name)
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    def publish(self, obsolete: Sequence[str], read: Mapping[str, str]) -> None:
        """Move the files into place.

        Args:
            obsolete: names of files, relative to the root, that the new collection does not have.
            read: slug to SHA-256 of the set's manifest that the collection was made from.

        Raises:
            DataError: a set was converted anew meanwhile.
        """
        files = sorted(path.relative_to(self.new).as_posix() for path in self.new.rglob("*") if path.is_file())
        # A set's manifest is what tells whether its files are moved, and the root's whether all are.
        files.sort(key=lambda name: (name == "manifest.json", name.endswith("/manifest.json")))
        written = {slug: digest(self.new / slug / "manifest.json") for slug in read}
        plan = {"files": files, "obsolete": sorted(set(obsolete) - set(files)), "before": dict(read), "after": written}
        changed = self._changed(plan)
        if changed:
            raise DataError(f"{self.root / changed[0]} was converted again while the collection was made; "
                            "run prepare again")
        write_atomic(self.work / _PLAN, json.dumps(plan).encode())
        self._move(plan, leave=[])

    def recover(self) -> None:
        """Finish the moves of a run that was killed, or clear what it left."""
        path = self.work / _PLAN
        if path.is_file():
            plan = json.loads(path.read_text(encoding="utf-8"))
            # A set that was converted again since must not get the older files.
            self._move(plan, leave=self._changed(plan))
        shutil.rmtree(self.new, ignore_errors=True)

    def _changed(self, plan: dict[str, Any]) -> list[str]:
        """Return the sets whose manifest is neither the one read nor the one to be written."""
        return [slug for slug, before in plan["before"].items()
                if digest(self.root / slug / "manifest.json") not in (before, plan["after"][slug])]

    def _move(self, plan: dict[str, Any], leave: Sequence[str]) -> None:
        """Do what is left of the moves, except those into the folders of some sets."""
        for name in plan["files"]:
            if (self.new / name).is_file() and name.split("/")[0] not in leave:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.new / name).replace(self.root / name)
        for name in plan["obsolete"]:
            if name.split("/")[0] not in leave:
                (self.root / name).unlink(missing_ok=True)
        (self.work / _PLAN).unlink()


@contextmanager
def publication(root: Path) -> Iterator[Publication]:
    """Give the work folder of a collection, and remove it afterwards.

    Raises:
        DataError: another run is making a collection of this root.
    """
    made = Publication(root)
    made.work.mkdir(exist_ok=True)
    lock = os.open(made.work, os.O_RDONLY)
    try:
        # The lock goes away with the process, so that a killed run never blocks the next.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise DataError(f"{made.work}: another run of prepare is working on this folder; "
                        "wait for it or stop it") from error
    try:
        made.recover()
        yield made
    finally:
        # The plan is there only while files are moved; then the next run needs the rest.
        if not (made.work / _PLAN).exists():
            shutil.rmtree(made.work, ignore_errors=True)
        os.close(lock)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, or "" when there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
