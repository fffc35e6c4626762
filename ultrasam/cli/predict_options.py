"""Options of ``ultrasam predict`` and what their values mean."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ultrasam.errors import ConfigError, PromptError
from ultrasam.io.prompts_file import Wanted

FORMATS = ("png", "coco", "csv", "volume", "nifti", "seg")
DEFAULT_FORMATS = "png,coco,csv"
# Of what a Mask2Former finds, which gives an image a hundred objects, most of them hardly probable.
DETECTION_SCORE = 0.5
_SIGNS = {"pos": 1, "neg": 0}


class _Step(argparse.Action):
    """Keep --object, --box and --point in the order in which they were given."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        steps: list[tuple[str, Any]] = getattr(namespace, "steps", None) or []
        namespace.steps = [*steps, (str(option_string).lstrip("-"), values)]


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="ultrasam predict",
        description="Segment what points and boxes show, in images, DICOM, volumes and videos. Coordinates are pixels "
        "of the original image, x to the right and y down.",
        epilog="Several boxes are several objects; points, with a box or without, are one. For more, start each object "
        "with --object. The exit status is 2 when anything could not be done.",
    )
    parser.add_argument("scans", nargs="+", metavar="SCAN", help="files, folders or patterns such as 'scans/*.png'")
    parser.add_argument("--box", action=_Step, metavar="X1,Y1,X2,Y2",
                        help="a box around an object, half-open; may be repeated")  # fmt: skip
    parser.add_argument("--point", action=_Step, metavar="X,Y[:neg]",
                        help="a point in the object, with :neg one outside of it; may be repeated")  # fmt: skip
    parser.add_argument("--object", action=_Step, nargs=0,
                        help="the boxes and points that follow, up to the next --object, are one object")  # fmt: skip
    parser.add_argument("--prompts", metavar="FILE",
                        help="prompts for many scans: a table (CSV) or COCO JSON of any detector")  # fmt: skip
    parser.add_argument("--prompt-images", metavar="FILE",
                        help="COCO document with the images that a list of detections refers to")  # fmt: skip
    parser.add_argument("--min-score", type=float, default=-math.inf, metavar="S",
                        help="leave out boxes of --prompts with a lower score (default: take all), or objects that a "
                        f"Mask2Former finds (default: {DETECTION_SCORE})")  # fmt: skip
    parser.add_argument("--frame", type=int, metavar="N", help="frame of a cine or volume, from 0 (default: 0)")
    parser.add_argument("--frames", metavar="A:B",
                        help="frames A up to but without B, each with the same prompts")  # fmt: skip
    parser.add_argument("--propagate", action="store_true",
                        help="follow the objects of --frame through the cine or volume")  # fmt: skip
    parser.add_argument("--direction", choices=("both", "forward", "backward"), default="both",
                        help="where --propagate goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--weights", metavar="W",
                        help="weight file or name (default: the model that comes with the package)")  # fmt: skip
    parser.add_argument("--config", metavar="FILE",
                        help="configuration of a classifier, regressor or Mask2Former whose checkpoint does not hold "
                        "it as plain values; it is executed")  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is a GPU)")
    parser.add_argument("--crop", action="store_true",
                        help="show the network the field of view alone; masks are put back into the whole image")
    parser.add_argument("--no-clip", action="store_true",
                        help="let masks and prompts leave the field of view, where it was found wrongly")  # fmt: skip
    parser.add_argument("--name", default="object",
                        help="class of the objects of --box and --point in JSON and table (default: %(default)s)")
    parser.add_argument("--spacing", metavar="ROWS[,COLUMNS]",
                        help="millimetres between pixels of scans that do not say it themselves")  # fmt: skip
    parser.add_argument("--out", default="predictions", metavar="FOLDER",
                        help="where results go; folders below those given are kept (default: %(default)s)")  # fmt: skip
    parser.add_argument("--format", default=DEFAULT_FORMATS, metavar="LIST",
                        help=f"what is written, with commas: {', '.join(FORMATS)} (default: %(default)s)")  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist; else they are an error")
    return parser


@dataclass(frozen=True)
class Asked:
    """What the options ask for, checked as far as that is possible without a scan.

    Attributes:
        objects: prompts for every scan; empty where a file gives them.
        frame: number of the frame, where given.
        frames: first and last + 1, where given.
        formats: what is written.
        spacing: mm along (rows, columns), where given.
    """

    objects: list[Wanted]
    frame: int | None
    frames: tuple[int, int] | None
    formats: frozenset[str]
    spacing: tuple[float, float] | None = None


def parse(options: argparse.Namespace) -> Asked:
    """Check options that depend on each other.

    Raises:
        ConfigError: they contradict each other, or a value does not exist.
        PromptError: a point or box is not written as one.
    """
    steps = getattr(options, "steps", None) or []
    if bool(steps) == (options.prompts is not None):
        raise ConfigError("give prompts by --box and --point or by --prompts FILE, found "
                          + ("both" if steps else "neither"))  # fmt: skip
    if options.prompts is None and options.prompt_images is not None:
        raise ConfigError("--prompt-images goes with --prompts")
    if options.propagate and (options.frames is not None or options.crop):
        given = "--crop" if options.crop else "--frames"
        raise ConfigError(f"--propagate starts from --frame and sees whole images; leave out {given}")
    return _checked(options, _objects(steps, options.name))


def parse_promptless(options: argparse.Namespace, model: str, scored: bool) -> Asked:
    """Check the options for a model of whole images.

    Args:
        options: as given.
        model: what it is, such as "x.pth is a regressor of whole images".
        scored: whether it gives objects with scores; else --min-score and pictures mean nothing.

    Raises:
        ConfigError: they contradict each other, or belong to a model with prompts; a value does not exist.
    """
    steps = getattr(options, "steps", None) or []
    given = [f"--{kind}" for kind, _ in steps]
    given += [f"--{name.replace('_', '-')}" for name in ("prompts", "prompt_images") if getattr(options, name)]
    if given:
        raise ConfigError(f"{model} and takes no prompts; leave out {given[0]}")
    given = [f"--{name.replace('_', '-')}" for name in ("propagate", "crop", "no_clip") if getattr(options, name)]
    given += ["--name"] if options.name != "object" else []
    given += ["--min-score"] if options.min_score != -math.inf and not scored else []
    if given:
        raise ConfigError(f"{model}, for which {given[0]} means nothing; leave it out")
    asked = _checked(options, [])
    if scored:
        return asked
    extra = sorted(asked.formats - {"coco", "csv"})
    if extra and options.format != DEFAULT_FORMATS:
        raise ConfigError(f"{model}, which gives no masks; --format takes coco (JSON) and csv then, found {extra[0]}")
    return replace(asked, formats=asked.formats & {"coco", "csv"})


def _checked(options: argparse.Namespace, objects: list[Wanted]) -> Asked:
    """Check what all models share."""
    if options.frame is not None and options.frame < 0:
        raise ConfigError(f"--frame counts from 0, got {options.frame}")
    if options.frame is not None and options.frames is not None:
        raise ConfigError("give --frame or --frames, not both")
    formats = [name.strip().lower() for name in options.format.split(",") if name.strip()]
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ConfigError(f"--format is a list of {', '.join(FORMATS)}, found {options.format!r}")
    names = frozenset("volume" if name == "nifti" else name for name in formats)
    frames = None if options.frames is None else _range(options.frames)
    return Asked(objects, options.frame, frames, names, _spacing(options.spacing))


def _spacing(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(0 < value < math.inf for value in values):
        raise ConfigError(f"--spacing is ROWS or ROWS,COLUMNS in mm, such as 0.1 or 0.12,0.1, found {text!r}")
    return values[0], values[-1]


def _range(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isascii() and first.isdigit() and last.isascii() and last.isdigit()) or \
            int(first) >= int(last):
        raise ConfigError(f"--frames is A:B with A less than B, such as 0:30, found {text!r}")
    return int(first), int(last)


def _objects(steps: Sequence[tuple[str, Any]], name: str) -> list[Wanted]:
    """Return the objects of the steps in order."""
    groups: list[Wanted] = []
    if any(kind == "object" for kind, _ in steps):
        if steps[0][0] != "object":
            raise ConfigError(f"--{steps[0][0]} stands before the first --object; start every object with --object")
        for kind, value in steps:
            if kind == "object":
                groups.append(Wanted(name=name))
            else:
                _add(groups[-1], kind, value)
        for number, wanted in enumerate(groups, 1):
            if wanted.box is None and not wanted.points:
                raise ConfigError(f"--object number {number} has no --box or --point")
        return groups
    boxes = [value for kind, value in steps if kind == "box"]
    points = [value for kind, value in steps if kind == "point"]
    if len(boxes) > 1 and points:
        raise ConfigError(f"{len(boxes)} boxes are {len(boxes)} objects, and the points may belong to any; start every "
                          "object with --object")  # fmt: skip
    for box in boxes or ([None] if points else []):
        wanted = Wanted(name=name)
        groups.append(wanted)
        for kind, value in [*([] if box is None else [("box", box)]), *(("point", point) for point in points)]:
            _add(wanted, kind, value)
    return groups


def _add(wanted: Wanted, kind: str, text: str) -> None:
    if kind == "box":
        if wanted.box is not None:
            raise ConfigError(f"one --box an --object was expected, found a second, {text!r}; start another --object")
        x1, y1, x2, y2 = _numbers(text, 4, "--box is X1,Y1,X2,Y2, such as 120,80,340,260")
        wanted.box = (x1, y1, x2, y2)
        return
    place, colon, sign = text.partition(":")
    if colon and sign not in _SIGNS:
        raise PromptError(f"--point is X,Y with :neg (or :pos) behind it, found {text!r}")
    x, y = _numbers(place, 2, "--point is X,Y or X,Y:neg, such as 200,150")
    wanted.points.append((x, y))
    wanted.labels.append(_SIGNS[sign] if colon else 1)


def _numbers(text: str, count: int, expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise PromptError(f"{expected}, found {text!r}")
    return values
