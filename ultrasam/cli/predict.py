"""``ultrasam predict``: masks of points and boxes in any ultrasound file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrasam.cli.errors import about_file, complain, guarded
from ultrasam.cli.predict_options import Asked, build_parser, parse
from ultrasam.errors import ConfigError, DataError, PromptError, UltraSamError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ultrasam.cli.predict_results import Frame, Results
    from ultrasam.downstream.checkpoint import TaskCheckpoint
    from ultrasam.inference.model import UltraSam
    from ultrasam.io.prompts_file import Wanted
    from ultrasam.io.scan_base import Scan

    Objects = Mapping[int | None, Sequence[Wanted]]


def main(argv: Sequence[str] | None = None) -> int:
    """Predict and write; return 0, or 2 where anything could not be done."""
    options = build_parser().parse_args(argv)
    return guarded(lambda: _dispatch(options))


def _dispatch(options: argparse.Namespace) -> int:
    """Choose by the weights what is to be done."""
    from ultrasam.downstream.checkpoint import NAMES, recognise, require_no_config

    checkpoint = recognise(options.weights)
    if checkpoint is None:
        require_no_config(options.config)
    elif checkpoint.task != "prompted-classify":
        from ultrasam.cli.predict_whole import run

        return run(options, checkpoint)
    elif options.propagate:
        raise ConfigError(f"{checkpoint.path} is {NAMES[checkpoint.task]}, which looks at single frames; leave out "
                          "--propagate, or give weights of segmentation")  # fmt: skip
    return _run(options, parse(options), checkpoint)


def _model(options: argparse.Namespace, checkpoint: TaskCheckpoint | None) -> UltraSam:
    from ultrasam.inference.model import UltraSam

    if checkpoint is None:
        return UltraSam.from_checkpoint(options.weights, device=options.device)
    from ultrasam.downstream.checkpoint import rebuild
    from ultrasam.downstream.prompted import PromptedUltraSam

    return PromptedUltraSam(rebuild(checkpoint, options.config, options.device))


def _run(options: argparse.Namespace, asked: Asked, checkpoint: TaskCheckpoint | None) -> int:
    from ultrasam.cli.predict_results import Results
    from ultrasam.io.scan import listed_scans

    listed = listed_scans(options.scans)
    tasks, problems, notes = _tasks(options, asked, listed)
    names = names_of(listed)
    single = names[listed[0][0]] if len(listed) == 1 else None
    results = Results(Path(options.out), asked.formats, options.overwrite, single, classified=checkpoint is not None)
    if not options.propagate:
        results.require_free_tables()
    for note in notes:
        print(note)
    failures = [complain(problem) for problem in problems]
    model = _model(options, checkpoint) if tasks else None
    if model is not None:
        card = model.card
        results.info = about(str(card.get("name") or card.get("architecture")), str(card.get("licence", "")))
    done = 0
    for path, relative in listed:
        if path not in tasks or model is None:
            continue
        try:
            _predict_scan(model, path, relative, names[path], tasks[path], options, asked, results)
            done += 1
        except UltraSamError as error:
            failures.append(complain(about_file(path, error)))
    results.finish()
    return _said(results, done, len(listed), len(failures))


def _said(results: Results, done: int, scans: int, failures: int) -> int:
    """Print the last line; return the exit status."""
    masks, answered = results.masks, bool(results.masks or results.class_rows)
    if not results.written:
        complain(f"nothing was written of {counted(scans, 'scan')}; {counted(failures, 'error')}, see above")
        return 2
    missed = f"; {counted(failures, 'error')}, see above" if failures else ""
    empty = "" if answered else ", but no mask has a pixel: give other prompts"
    of = "" if scans == 1 else f" of {done} of {scans} scans"
    print(f"wrote {counted(masks, 'mask')}{of} to {results.folder} ({counted(len(results.written), 'file')}){empty}"
          f"{missed}")  # fmt: skip
    return 2 if failures or not answered else 0


def counted(number: int, thing: str) -> str:
    """Return a number with its noun."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def names_of(listed: Sequence[tuple[Path, str]]) -> dict[Path, str]:
    """Return the stem of every scan's results."""
    from ultrasam.cli.predict_results import stems_of
    from ultrasam.io.scan_base import stem_of

    stems = stems_of([(relative, stem_of(path.name)) for path, relative in listed])
    if len({stem.casefold() for stem in stems}) < len(stems):
        common = Path(os.path.commonpath([path.absolute() for path, _ in listed]))
        apart = [(path.absolute().relative_to(common).as_posix(), stem_of(path.name)) for path, _ in listed]
        stems = stems_of(apart)
    return {path: stem for (path, _), stem in zip(listed, stems, strict=True)}


def _tasks(
    options: argparse.Namespace, asked: Asked, listed: Sequence[tuple[Path, str]]
) -> tuple[dict[Path, Objects], list[str], list[str]]:
    """Return the objects of every scan that has any, problems, and notes."""
    if options.prompts is None:
        return {path: {None: asked.objects} for path, _ in listed}, [], []
    from ultrasam.io.prompts_file import read_prompts

    prompts = read_prompts(options.prompts, options.min_score, options.prompt_images)
    found, problems = prompts.of(listed)
    tasks: dict[Path, Objects] = {path: frames for path, frames in found.items() if any(frames.values())}
    notes = []
    if prompts.left_out:
        notes.append(f"{prompts.left_out} boxes have a score below {options.min_score:g} and are left out")
    idle = [relative for path, relative in listed if path not in tasks]
    if idle:
        more = ", ..." if len(idle) > 3 else ""
        notes.append(f"{len(idle)} of {len(listed)} scans have no prompt in {options.prompts} and are left out: "
                     f"{', '.join(idle[:3])}{more}")  # fmt: skip
    return tasks, problems, notes


def _predict_scan(
    model: UltraSam,
    path: Path,
    relative: str,
    stem: str,
    objects: Objects,
    options: argparse.Namespace,
    asked: Asked,
    results: Results,
) -> None:
    """Predict one scan and write its results."""
    from ultrasam.cli.predict_follow import follow
    from ultrasam.io.scan import open_scan

    with open_scan(path) as scan:
        scan.spacing = scan.spacing or asked.spacing
        wanted = _by_frame(objects, asked, scan)
        if options.propagate:
            follow(model, scan, stem, wanted, results, direction=options.direction, clip=not options.no_clip)
            return
        results.require_free_scan(stem, scan, sorted(wanted))
        masks: dict[int, NDArray[np.bool_]] = {}
        names: list[str] = []
        for frame in _predicted(model, scan, wanted, options):
            print(results.write_frame(stem, scan, relative, frame))
            names = [*names, *(item.name for item in frame.objects[len(names):])]
            if {"volume", "seg"} & set(results.formats):
                masks[frame.number] = frame.masks
        if masks:
            results.write_scan(stem, scan, masks, names)


def _by_frame(objects: Objects, asked: Asked, scan: Scan) -> dict[int, list[Wanted]]:
    """Return the objects of every frame that is to be predicted.

    Raises:
        DataError: the scan has no such frame.
    """
    chosen = [asked.frame or 0] if asked.frames is None else list(range(*asked.frames))
    found: dict[int, list[Wanted]] = {}
    for frame, items in objects.items():
        for number in chosen if frame is None else [frame]:
            found.setdefault(number, []).extend(items)
    outside = [frame for frame in sorted(found) if frame >= scan.frames]
    if outside:
        raise DataError(f"{scan.path or scan.name} has the frames 0 to {scan.frames - 1}, found prompts for frame "
                        f"{outside[0]}")  # fmt: skip
    return {frame: items for frame, items in found.items() if items}


def _predicted(
    model: UltraSam, scan: Scan, wanted: Mapping[int, Sequence[Wanted]], options: argparse.Namespace
) -> Iterator[Frame]:
    from ultrasam.cli.predict_results import Frame, prompts_of
    from ultrasam.downstream.prompted import PromptedUltraSam

    for number in sorted(wanted):
        session = model.open(scan, frame=number, crop=options.crop, clip=not options.no_clip)
        prompts = prompts_of(wanted[number])
        for item, prompt in zip(wanted[number], prompts, strict=True):
            try:
                session.check(prompt)
            except PromptError as error:
                raise PromptError(f"{item.where}: {error}" if item.where else str(error)) from error
        masks = session.predict(prompts=prompts)
        classes = model.classify(session, prompts) if isinstance(model, PromptedUltraSam) else ()
        yield Frame(number, session.image, masks.masks, masks.scores, wanted[number], classes)


def about(model: str, licence: str = "") -> dict[str, Any]:
    """Return what the JSON says of the run."""
    import ultrasam

    return {"description": "masks predicted by UltraSam, not for diagnosis", "version": ultrasam.__version__,
            "model": model, "licence": licence,
            "coordinates": "pixels of the original image, x right, y down"}  # fmt: skip
