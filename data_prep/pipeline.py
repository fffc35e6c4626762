"""Converting one dataset: everything that is the same for all of them."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import cv2
from tqdm import tqdm

from data_prep.journal import Journal
from data_prep.listing import IMAGE_SUFFIXES
from data_prep.processing import Converted, Failure, Outcome, Unlabelled, convert_record
from data_prep.records import Converter, DatasetInfo, Record
from data_prep.sources import open_source
from data_prep.splits import SplitPlan, official_sides, with_validation
from data_prep.staging import staging
from data_prep.writer import write_set
from ultrasam.errors import DataError

_SHOWN = 10
_TABLE_SLIPS = 0.01


def convert(
    converter: Converter,
    source: Path,
    root: Path,
    *,
    plan: SplitPlan | None = None,
    workers: int | None = None,
    keep_going: bool = False,
) -> dict[str, object]:
    """Convert a dataset into ``root/<slug>`` and return its manifest.

    The folder appears when it is complete; until then, and after any error, an earlier folder stays.
    Problems of single files are printed to the standard error stream.

    Args:
        converter: the dataset.
        source: folder or archive of its raw files.
        root: folder of all converted datasets; made when absent.
        plan: folds, validation fraction and seed.
        workers: processes; None for one per usable core.
        keep_going: leave out images that cannot be converted instead of failing at the end.

    Raises:
        DataError: the raw files do not fit, or single images failed and ``keep_going`` is not set.
        ConfigError: a choice of ``plan`` does not fit the set.
    """
    info, plan = converter.info, plan or SplitPlan()
    with staging(root, info.slug) as place, open_source(source, place.scratch) as raw:
        records = _read_records(converter, raw)
        sides = official_sides(records, info, plan)
        chosen = [record for record in records if record.key in sides]
        images = place.folder / "images"
        images.mkdir(exist_ok=True)
        journal = Journal(place.journal, info, source, raw, images)
        outcomes = _convert_all(chosen, info, raw, images, journal, workers or usable_cores())
        _remove_strays(images, outcomes)
        converted = [outcome for outcome in outcomes if isinstance(outcome, Converted)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
        unlabelled = [outcome.key for outcome in outcomes if isinstance(outcome, Unlabelled)]
        _judge(failures, [record for record in chosen if record.key not in set(unlabelled)], info, keep_going)
        _judge_unlabelled(unlabelled, converted, info)
        _judge_tables(converted, info.slug, keep_going)
        done = {outcome.key for outcome in converted}
        kept = [record for record in chosen if record.key in done]
        sides = with_validation(kept, sides, plan, info.slug)
        manifest = write_set(
            place.folder, info, plan,
            records=kept, converted=converted, sides=sides, failures=failures,
            unlabelled=unlabelled, not_asked_for=len(records) - len(chosen),
            unused=_unused_files(records, raw, info.ignored), raw=raw,
        )
        place.publish()
    return manifest


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_keys(records: Sequence[Record], slug: str) -> None:
    """Raise DataError for no records, for keys given twice and for keys that are not plain file names."""
    if not records:
        raise DataError(f"{slug}: at least one image was expected, found none; check the source")
    for key, count in Counter(record.key for record in records).items():
        if count > 1 or not re.fullmatch(r"\w[\w.+-]*", key):
            raise DataError(f"{slug}: unique plain image names were expected, found {key!r} ({count} times)")


def _read_records(converter: Converter, raw: Path) -> list[Record]:
    """Return the records sorted by key; a complaint about an unsure layout says that it is unsure."""
    info = converter.info
    try:
        records = sorted(converter.records(raw), key=lambda record: record.key)
        _check_keys(records, info.slug)
    except DataError as error:
        raise DataError(f"{error}{_unsure(info)}") from error
    return records


def _unsure(info: DatasetInfo) -> str:
    """Return what is not certain of the set's layout, as an addition to a complaint; empty when all is known."""
    if not info.unsure:
        return ""
    return (f" (the layout of {info.slug} is known from descriptions only: {info.unsure}; "
            "please report what the download holds)")


def _convert_all(
    records: Sequence[Record], info: DatasetInfo, raw: Path, images: Path, journal: Journal, workers: int
) -> list[Outcome]:
    """Return the outcome of every record in order; those of an interrupted run are taken from its journal."""
    outcomes: dict[str, Outcome] = {}
    for record in records:
        earlier = journal.finished(record)
        if earlier is not None:
            outcomes[record.key] = earlier
    if outcomes:
        print(f"{info.slug}: {len(outcomes)} of {len(records)} images were converted by an interrupted run",
              file=sys.stderr)
    tasks = _tasks([record for record in records if record.key not in outcomes])
    work = partial(convert_task, info=info, raw=raw, images=images)
    with (
        tqdm(total=len(records), initial=len(outcomes), desc=info.slug, unit="image", disable=None) as bar,
        _mapper(workers) as mapper,
    ):
        try:
            for task, found in zip(tasks, mapper(work, tasks), strict=True):
                journal.add(task, found)
                outcomes.update(zip((record.key for record in task), found, strict=True))
                bar.update(len(task))
        except BrokenProcessPool as error:
            raise DataError(f"{info.slug}: a worker process was killed, perhaps for want of memory; "
                            "nothing was written, try fewer --workers") from error
    return [outcomes[record.key] for record in records]


def _tasks(records: Sequence[Record]) -> list[list[Record]]:
    """Return the records in the portions that a worker takes: up to 8 images, or the frames of one file together.

    A volume or video is then decoded once; those of more than 256 frames are shared out all the same.
    """
    tasks: list[list[Record]] = []
    for record in records:
        last = tasks[-1] if tasks else []
        same = bool(last) and last[-1].image.paths == record.image.paths
        single = bool(last) and last[0].image.paths == last[-1].image.paths and len(last) > 1
        if last and len(last) < (256 if same else 8) and (same or not single):
            last.append(record)
        else:
            tasks.append([record])
    return tasks


def convert_task(records: Sequence[Record], info: DatasetInfo, raw: Path, images: Path) -> list[Outcome]:
    """Convert the records of one portion, in order."""
    return [convert_record(record, info, raw, images) for record in records]


def _remove_strays(images: Path, outcomes: Sequence[Outcome]) -> None:
    """Delete images that an interrupted run wrote and that are not part of this one."""
    names = {outcome.file_name for outcome in outcomes if isinstance(outcome, Converted)}
    for path in images.iterdir():
        if path.name not in names:
            path.unlink()


@contextmanager
def _mapper(workers: int) -> Iterator:
    """Give a function like `map`, over processes when there are several workers."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: OpenCV and tqdm have threads, and a fork of those can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield partial(pool.map, chunksize=1)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker() -> None:
    """Keep a worker to one core, leave Ctrl-C to the parent, and end when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the parent to end, then end this process at once."""
    parent.join()
    os._exit(1)


def _judge(failures: Sequence[Failure], chosen: Sequence[Record], info: DatasetInfo, keep_going: bool) -> None:
    """Print what failed; raise DataError for it unless the run goes on, or when nothing is left."""
    if not failures:
        return
    missing = sum(failure.missing for failure in failures)
    summary = (f"{info.slug}: {len(failures)} of {len(chosen)} images could not be converted "
               f"({missing} with missing files, {len(failures) - missing} with unusable files"
               f"{_by_fold(failures, chosen)})")
    # Unusable files first: a long row of missing ones must not hide them.
    ordered = sorted(failures, key=lambda failure: failure.missing)
    for failure in ordered[:_SHOWN]:
        print(f"  {failure.key}: {failure.reason}", file=sys.stderr)
    if len(ordered) > _SHOWN:
        print(f"  ... and {len(ordered) - _SHOWN} more", file=sys.stderr)
    if len(failures) == len(chosen):
        raise DataError(f"{summary}; nothing is left to write, check the source folder{_unsure(info)}")
    if not keep_going:
        raise DataError(f"{summary}; nothing was written: complete the source, choose folds that are there, "
                        f"or pass --keep-going to leave these images out{_unsure(info)}")
    print(f"{summary}; left out because of --keep-going{_unsure(info)}", file=sys.stderr)


def _judge_unlabelled(unlabelled: Sequence[str], converted: Sequence[Converted], info: DatasetInfo) -> None:
    """Print how many images nobody annotated; raise DataError when no other is left."""
    if unlabelled:
        print(f"{info.slug}: {len(unlabelled)} images have no annotation and are left out", file=sys.stderr)
    if not converted:
        raise DataError(f"{info.slug}: at least one image with an annotation was expected, found none; "
                        f"check the source{_unsure(info)}")


def _judge_tables(converted: Sequence[Converted], slug: str, keep_going: bool) -> None:
    """Print where tables and files disagree; DataError when that is too often for slips of the tables."""
    notes = [note for outcome in converted for note in outcome.notes]
    for note in notes[:_SHOWN]:
        print(f"  {note}; the image and its mask are kept", file=sys.stderr)
    if len(notes) > max(_TABLE_SLIPS * len(converted), 1) and not keep_going:
        raise DataError(f"{slug}: tables and files disagree {len(notes)} times in {len(converted)} images, "
                        "so they may not belong together; take both from one download, or pass --keep-going")


def _by_fold(failures: Sequence[Failure], chosen: Sequence[Record]) -> str:
    """Return how the failures spread over folds, as text; empty for sets without folds."""
    folds = {record.key: record.fold for record in chosen}
    total = Counter(fold for fold in folds.values() if fold is not None)
    failed = Counter(folds[failure.key] for failure in failures)
    parts = [f"fold {fold}: {failed[fold]} of {total[fold]}" for fold in sorted(total) if failed[fold]]
    return "".join(f"; {part}" for part in parts)


def _unused_files(records: Sequence[Record], raw: Path, ignored: Sequence[str]) -> list[str]:
    """Return image files that lie beside the used ones but that no record names, relative to ``raw``.

    Args:
        records: all records of the set.
        raw: folder of the raw files.
        ignored: patterns of file names that are not listed, see `DatasetInfo`.
    """
    used = {path for record in records for path in record.paths}
    folders = {path.parent for path in used}
    beside = {path for folder in folders if folder.is_dir() and folder.is_relative_to(raw) for path in folder.iterdir()}
    return sorted(path.relative_to(raw).as_posix() for path in beside - used
                  if path.suffix.lower() in IMAGE_SUFFIXES
                  and not any(fnmatchcase(path.name.lower(), pattern) for pattern in ignored))
