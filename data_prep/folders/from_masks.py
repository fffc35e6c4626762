"""A user's own images and masks through the pipeline that converts the public sets."""

from __future__ import annotations

import hashlib
import os
import pkgutil
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

from data_prep import converters
from data_prep.folders.labels import Labels
from data_prep.folders.pairing import ENDINGS, Pair, Pairing, pair_files
from data_prep.folders.sources import OBJECT, LinkedImage, LinkedMask, ValueMask
from data_prep.frames import ImageFile
from data_prep.mask_files import BinaryMask, Colour, ColourMask, GreyMask, ThresholdMask
from data_prep.pipeline import convert
from data_prep.records import Converter, DatasetInfo, MaskRules, MaskSource, Record
from data_prep.splits import SplitPlan
from ultrasam.errors import ConfigError, DataError

Instances = Literal["components", "values", "single"]

_JPEG = (".jpg", ".jpeg")
# In a JPEG file colours differ by so much (of 255), and at borders by more in this share of the pixels.
_JPEG_TOLERANCE, _JPEG_STRAYS = 48, 0.05


@dataclass(frozen=True)
class Meaning:
    """How the mask files are to be read.

    Attributes:
        labels: names of values; None where values are not categories.
        colours: category to RGB; empty where masks are grey.
        threshold: foreground is above it; None where values are exact.
        instances: ``components`` makes every 8-connected region an object, ``values`` every value,
            ``single`` everything of a category in a mask file.
        min_area: smaller regions, in pixels, are dropped.
    """

    labels: Labels | None = None
    colours: Mapping[str, Colour] | None = None
    threshold: int | None = None
    instances: Instances = "components"
    min_area: int = 1

    @property
    def categories(self) -> tuple[str, ...]:
        """The names in the order of their ids."""
        if self.labels is not None:
            return self.labels.categories
        return tuple(self.colours) if self.colours else (OBJECT,)

    def check(self) -> None:
        """Raise ConfigError for choices that exclude each other."""
        given = [name for name, value in (("--labels", self.labels), ("--colours", self.colours),
                                          ("--threshold", self.threshold)) if value is not None]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} were given; masks are read in one way only, give one of them")
        if self.instances == "values" and given in (["--colours"], ["--threshold"]):
            raise ConfigError(f"--instances values takes every value for an object, which {given[0]} leaves none of; "
                              "choose components or single")
        if self.threshold is not None and not 0 <= self.threshold < 255:
            raise ConfigError(f"--threshold: a grey value from 0 to 254 was expected, found {self.threshold}")
        if self.min_area < 1:
            raise ConfigError(f"--min-area: at least 1 pixel was expected, found {self.min_area}")

    def source(self, path: Path, folder: Path) -> MaskSource:
        """Return how one mask file is read."""
        jpeg = path.suffix.lower() in _JPEG
        if self.colours:
            return ColourMask(path, self.colours, tolerance=_JPEG_TOLERANCE if jpeg else 0,
                              strays=_JPEG_STRAYS if jpeg else 0.0)
        if self.threshold is not None:
            return ThresholdMask(path, OBJECT, self.threshold)
        if jpeg:
            return self._jpeg_source(path)
        names = None if self.labels is None else self.labels.of(path.relative_to(folder).as_posix())
        if names is None and self.instances != "values":
            return BinaryMask(path, OBJECT)
        return ValueMask(path, names, merge=self.instances != "values")

    def _jpeg_source(self, path: Path) -> MaskSource:
        """Return how a JPEG file is read without a threshold: by grey levels that its noise cannot exchange."""
        levels = {} if self.labels is None else {name: value for value, name in self.labels.everywhere.items()}
        steps = sorted({0, *levels.values()})
        apart = min((b - a for a, b in pairwise(steps)), default=0)
        if self.instances == "values" or apart < 24 or self.labels is None or len(levels) < len(
                self.labels.everywhere):
            raise ConfigError(f"{path}: JPEG does not keep the exact values of a mask; give --threshold 127 for black "
                              "and white masks, or save them as PNG")
        return GreyMask(path, levels)


def convert_folders(
    images: Path,
    masks: Path,
    root: Path,
    meaning: Meaning,
    *,
    slug: str = "",
    suffix: str = "",
    groups: str = "",
    val_fraction: float = 0.05,
    test_fraction: float = 0.0,
    seed: int = 0,
    workers: int | None = None,
    keep_going: bool = False,
) -> dict[str, object]:
    """Convert folders of images and masks into ``root/<slug>`` and return the manifest.

    Args:
        images: folder of images; folders in it are kept apart.
        masks: folder of masks of the same names.
        root: folder of converted datasets.
        meaning: how masks are read.
        slug: name of the set; empty takes that of the folder that holds both.
        suffix: what the names of masks have after those of their images.
        groups: regular expression whose first group (or whole match), found in the image's path without
            suffix, names the patient or video; empty makes every image a group of its own.
        val_fraction: part of the images for validation, whole groups at a time.
        test_fraction: part of the images for test, whole groups at a time.
        seed: of both choices.
        workers: processes, as in `pipeline.convert`.
        keep_going: leave out what cannot be converted.

    Raises:
        DataError: files that do not pair, or that cannot be converted.
        ConfigError: choices that do not fit.
    """
    meaning.check()
    _check_fractions(val_fraction, test_fraction)
    images, masks = images.resolve(), masks.resolve()
    pairs = _complete(pair_files(images, masks, suffix), suffix)
    common = Path(os.path.commonpath([images, masks]))
    name = checked_slug(slug or re.sub(r"\W+", "_", common.name.lower()).strip("_") or "images")
    info = DatasetInfo(
        slug=name, name=name, home="", licence="", application="", organ="",
        categories=meaning.categories, group_key=f"group of {groups}" if groups else "image",
        rules=MaskRules(split_components=meaning.instances == "components", min_area=meaning.min_area,
                        crop_background=False),
    )

    def listed(raw: Path) -> Iterator[Record]:
        found = _records(pairs, images, masks, raw, meaning, groups)
        sides = _test_side(found, test_fraction, seed, name)
        return (replace(record, split=sides[record.group]) for record in found)

    plan = SplitPlan(validation_fraction=val_fraction / (1 - test_fraction), seed=seed)
    # The pipeline wants one source folder and unpacks archives in it. The folder that happens to hold both may be
    # a whole disk, so it gets one with two links.
    with tempfile.TemporaryDirectory(prefix="from_masks_") as links:
        Path(links, "images").symlink_to(images)
        Path(links, "masks").symlink_to(masks)
        return convert(Converter(info, listed), Path(links), root, plan=plan, workers=workers, keep_going=keep_going)


def checked_slug(slug: str) -> str:
    """Return the slug; ConfigError where it is no plain name or that of a public set."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", slug):
        raise ConfigError(f"--slug: a name of lower-case letters, digits and _ was expected, found {slug!r}")
    # The modules of converters are called after their sets; importing all of them would take long.
    if slug in {module.name for module in pkgutil.iter_modules(converters.__path__)}:
        raise ConfigError(f"--slug: {slug!r} is a public set of the catalogue; choose a name of your own")
    return slug


def _check_fractions(val: float, test: float) -> None:
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ConfigError("--val-fraction and --test-fraction: 0 or more each and below 1 together were expected, "
                          f"found {val} and {test}")


def _complete(pairing: Pairing, suffix: str) -> list[Pair]:
    """Return the pairs; DataError where any file is in none."""
    alone = (("images have no mask", pairing.without_mask), ("masks have no image", pairing.without_image))
    problems = [f"{len(found)} {what} (first: {found[0]})" for what, found in alone if found]
    problems += [f"{len(pairing.ambiguous)} names stand for several files (first: "
                 f"{', '.join(str(path) for path in files)})" for files in list(pairing.ambiguous.values())[:1]]
    if not problems:
        return pairing.pairs
    raise DataError(f"every image with a mask of the same name was expected, found {'; '.join(problems)}; "
                    f"{_hint(pairing, suffix)}")


def _hint(pairing: Pairing, suffix: str) -> str:
    """Return what to do about files without a partner."""
    missing = {path.stem for path in pairing.without_mask}
    stray = [path.stem for path in pairing.without_image]
    likely = [ending for ending in ENDINGS if ending and any(
        stem.endswith(ending) and stem[:-len(ending)] in missing for stem in stray)]
    if likely and not suffix:
        return f"the names of masks seem to end in {likely[0]}: pass --suffix {likely[0]}"
    return "an image without objects needs a black mask, anything else a rename (--suffix states an ending of masks)"


def _records(
    pairs: Sequence[Pair], images: Path, masks: Path, raw: Path, meaning: Meaning, groups: str
) -> list[Record]:
    """Return one record per pair; ``raw`` holds links to the two folders."""
    pattern = _pattern(groups)
    records = []
    for key, pair in zip(_keys([pair.stem for pair in pairs]), pairs, strict=True):
        sources = tuple(LinkedMask(meaning.source(path, masks), raw / "masks" / path.relative_to(masks))
                        for path in pair.masks)
        image = LinkedImage(ImageFile(pair.image), raw / "images" / pair.image.relative_to(images))
        records.append(Record(key, image, sources, key if pattern is None else _group(pattern, pair)))
    return records


def _keys(stems: Sequence[str]) -> list[str]:
    """Return a plain and unique file name for every stem."""
    plain = [re.sub(r"[^\w.+-]", "_", stem.replace("/", "__")) for stem in stems]
    plain = [key if re.match(r"\w", key) else f"_{key}" for key in plain]
    # File systems of Windows and macOS take Ab and aB for one name.
    twice = {key for key, count in Counter(key.lower() for key in plain).items() if count > 1}
    return [f"{key}_{hashlib.sha256(stem.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
            if key.lower() in twice else key for key, stem in zip(plain, stems, strict=True)]


def _pattern(groups: str) -> re.Pattern[str] | None:
    try:
        return re.compile(groups) if groups else None
    except re.error as error:
        raise ConfigError(f"--groups: a regular expression was expected, found {groups!r} ({error})") from error


def _group(pattern: re.Pattern[str], pair: Pair) -> str:
    match = pattern.search(pair.stem)
    found = (match[1] if pattern.groups else match[0]) if match else None
    if not found:
        raise DataError(f"{pair.image}: a group was expected in {pair.stem!r} by --groups {pattern.pattern!r}, found "
                        "none; every image needs one, correct the expression")
    return found


def _test_side(records: Sequence[Record], fraction: float, seed: int, slug: str) -> dict[str, str]:
    """Return the side of every group; the test side gets whole groups until the fraction of images is reached."""
    sizes: dict[str, int] = defaultdict(int)
    for record in records:
        sizes[record.group] += 1
    sides = dict.fromkeys(sizes, "train")
    taken, groups = 0, 0
    for group in sorted(sizes, key=lambda name: hashlib.sha256(f"test/{seed}/{slug}/{name}".encode()).digest()):
        # Training is never left without a group.
        if taken >= fraction * len(records) or groups == len(sizes) - 1:
            break
        sides[group] = "test"
        taken, groups = taken + sizes[group], groups + 1
    return sides
