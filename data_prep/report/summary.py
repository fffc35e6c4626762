"""What is under ROOT: one row per dataset, converted or not, and the merged collection."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_prep.catalogue import catalogue
from data_prep.records import DatasetInfo
from data_prep.report.annotations import Outline, read_masks, read_outline
from data_prep.report.examples import Candidate, choose
from data_prep.report.merged import Merged, read_merged
from data_prep.report.paper import table1
from data_prep.splits import SPLITS
from ultrasam.errors import DataError

OWN_DATA = "own data"
# Side of the square that the network sees; sizes of objects are told in its pixels.
NETWORK_SIDE = 1024


@dataclass(frozen=True)
class Example:
    """An image to show.

    Attributes:
        path: the image file.
        name: its file name without folders.
        split: its side.
        masks: category name and COCO ``segmentation`` of each object.
        size: height and width in pixels.
    """

    path: Path
    name: str
    split: str
    masks: tuple[tuple[str, Any], ...]
    size: tuple[int, int]


@dataclass(frozen=True)
class Content:
    """What the annotation files of a set hold.

    Attributes:
        categories: names in the order of their ids.
        diameters: float32 (objects,), diameter in pixels of a disc of the object's area, after the long side of
            its image is scaled to 1024.
        image_sizes: number of images by (width, height) in pixels.
        examples: images to show.
        problems: where files and manifest disagree, one sentence each.
    """

    categories: tuple[str, ...]
    diameters: NDArray[np.float32]
    image_sizes: Counter[tuple[int, int]]
    examples: tuple[Example, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class SetRow:
    """A dataset of the catalogue or of the disk.

    Attributes:
        slug: folder name.
        name: what people call it.
        application: clinical application.
        licence: in words; empty when not known.
        home: link; empty when not known.
        info: catalogue entry; None for own data.
        paper: images and masks of its row in Table 1; None where it has no row of its own.
        manifest: None when the set is not converted.
        content: None when the set is not converted.
        counted: False for a set whose images another converted set has as well.
    """

    slug: str
    name: str
    application: str
    licence: str
    home: str
    info: DatasetInfo | None = None
    paper: tuple[int, int] | None = None
    manifest: Mapping[str, Any] | None = None
    content: Content | None = None
    counted: bool = True

    def count(self, name: str) -> int:
        """Return a count of the manifest (``images``, ``masks``, ``groups``, ``failed``, ...); 0 without one."""
        return 0 if self.manifest is None else int(self.manifest["counts"].get(name, 0))

    def split(self, split: str, name: str = "images") -> int:
        """Return a count of one side."""
        return 0 if self.manifest is None else int(self.manifest["splits"].get(split, {}).get(name, 0))

    @property
    def excluded(self) -> int:
        """Images that merging put on no side, because they show what is on the test side."""
        return 0 if self.manifest is None else int(self.manifest.get("excluded", {}).get("images", 0))

    @property
    def state(self) -> str:
        """What is on the disk, in a few words."""
        if self.manifest is None or self.content is None:
            return "not converted"
        if self.content.problems:
            return "files and manifest differ"
        images, failed, skipped = self.count("images"), self.count("failed"), self.count("not_asked_for")
        if failed:
            return f"{failed:,} of {images + failed + skipped:,} images failed"
        if skipped:
            return f"{skipped:,} images not asked for"
        published = self.manifest.get("published", {})
        differing = [name for name, number in published.items() if self.count(name) != number]
        if differing:
            return "not as published: " + ", ".join(
                f"{self.count(name):,} of {published[name]:,} {name}" for name in differing)
        if not self.counted and self.info is not None:
            return f"same images as {self.info.alias_of}"
        return "complete" if published else "converted"


@dataclass(frozen=True)
class Summary:
    """Everything that the report tells.

    Attributes:
        rows: converted sets and those of the catalogue, by slug.
        merged: the merged files.
    """

    rows: tuple[SetRow, ...]
    merged: Merged

    @property
    def converted(self) -> tuple[SetRow, ...]:
        """The rows that are on the disk."""
        return tuple(row for row in self.rows if row.manifest is not None)

    @property
    def infos(self) -> tuple[DatasetInfo, ...]:
        """The catalogue."""
        return tuple(row.info for row in self.rows if row.info is not None)

    def total(self, name: str) -> int:
        """Return a count over the converted sets; sets that repeat another one's images do not count."""
        return sum(row.count(name) for row in self.converted if row.counted)

    def split_total(self, split: str) -> int:
        """Return the images of one side over the converted sets."""
        return sum(row.split(split) for row in self.converted if row.counted)

    def masks_by_application(self) -> Counter[str]:
        """Return the masks on the disk by clinical application."""
        total: Counter[str] = Counter()
        for row in self.converted:
            if row.counted:
                total[row.application] += row.count("masks")
        return total


def summarize(root: Path, samples: int) -> Summary:
    """Read manifests and annotation files under ``root``.

    Args:
        root: folder of converted datasets.
        samples: number of example images per set.

    Raises:
        DataError: nothing is converted there, or a file is not as ``convert`` writes it.
    """
    if not root.is_dir():
        raise DataError(f"{root}: a folder of converted datasets was expected, found none there; "
                        "run python -m data_prep convert first")
    known = {slug: converter.info for slug, converter in catalogue().items()}
    manifests = {path.parent.name: read_manifest(path) for path in sorted(root.glob("*/manifest.json"))
                 if not path.parent.name.startswith(".")}
    if not manifests:
        raise DataError(f"{root}: at least one converted dataset (a folder with manifest.json) was expected, "
                        "found none; run python -m data_prep convert first")
    rows = [_row(root, slug, known, manifests, samples) for slug in sorted({*known, *manifests})]
    top = root / "manifest.json"
    return Summary(tuple(rows), read_merged(root, read_json(top) if top.is_file() else {}))


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; DataError names the file when it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: a readable JSON file was expected, found: {error}; "
                        "convert the set again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: a JSON object was expected, found a {type(found).__name__}; convert the set again")
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest of a set; DataError when it lacks what every manifest has."""
    found = read_json(path)
    for name, keys in (("counts", ("images", "masks", "groups")), ("splits", ())):
        part = found.get(name)
        if not isinstance(part, dict) or any(not isinstance(part.get(key), int) for key in keys):
            raise DataError(f"{path}: the manifest of a converted set was expected, but its {name!r} are not there; "
                            "convert the set again")
    return found


def _row(
    root: Path, slug: str, known: Mapping[str, DatasetInfo], manifests: Mapping[str, dict[str, Any]], samples: int
) -> SetRow:
    """Return the row of one set."""
    info, manifest = known.get(slug), manifests.get(slug)
    content = None if manifest is None else read_content(root, slug, manifest, samples)
    if info is not None:
        return SetRow(slug, info.name, info.application, info.licence, info.home, info, table1(info, known),
                      manifest, content, counted=info.alias_of not in manifests)
    said = manifest or {}
    return SetRow(slug, str(said.get("name", slug)), str(said.get("application") or OWN_DATA),
                  str(said.get("licence", "")), str(said.get("home", "")), None, None, manifest, content)


def read_content(root: Path, slug: str, manifest: Mapping[str, Any], samples: int) -> Content:
    """Read the annotation files of a set, one after the other."""
    categories: tuple[str, ...] = ()
    diameters, problems = [], []
    sizes: Counter[tuple[int, int]] = Counter()
    candidates: list[Candidate] = []
    names: dict[str, dict[int, str]] = {}
    for split in SPLITS:
        path = annotation_file(root, slug, split)
        said = manifest["splits"].get(split, {})
        outline = read_outline(path) if path.is_file() else Outline([], [], {})
        for name, number in (("images", len(outline.images)), ("masks", len(outline.objects))):
            if number != said.get(name, 0):
                problems.append(f"{path.name}: {number:,} {name} found, the manifest says {said.get(name, 0):,}")
        names[split] = outline.categories
        categories = tuple(outline.categories.values()) or categories
        diameters.append(_diameters(outline))
        sizes.update((image.width, image.height) for image in outline.images)
        candidates += _candidates(outline, split)
    chosen = choose(candidates, samples)
    return Content(categories, np.concatenate(diameters), sizes, _examples(root, slug, chosen, names), tuple(problems))


def annotation_file(root: Path, slug: str, split: str) -> Path:
    """Return the class-labelled annotation file of one side."""
    return root / slug / "annotations" / f"{split}.{slug}.json"


def _diameters(outline: Outline) -> NDArray[np.float32]:
    """Return the diameters of the objects at the network's resolution."""
    longest = {image.id: max(image.width, image.height) for image in outline.images}
    areas = np.array([item.area for item in outline.objects], np.float64)
    sides = np.array([longest[item.image_id] for item in outline.objects], np.float64)
    return (2 * np.sqrt(areas / np.pi) * NETWORK_SIDE / np.maximum(sides, 1)).astype(np.float32)


def _candidates(outline: Outline, split: str) -> list[Candidate]:
    """Return the images that have objects, as candidates for the strip of examples."""
    shown: dict[int, set[int]] = defaultdict(set)
    for item in outline.objects:
        shown[item.image_id].add(item.category_id)
    return [
        Candidate(split, image, tuple(outline.categories[number] for number in sorted(shown[image.id])))
        for image in outline.images if shown[image.id]
    ]


def _examples(
    root: Path, slug: str, chosen: list[Candidate], names: Mapping[str, Mapping[int, str]]
) -> tuple[Example, ...]:
    """Return the chosen images with their masks; an annotation file is read again only where one was chosen."""
    examples: dict[tuple[str, int], Example] = {}
    for split in SPLITS:
        ids = {item.image.id for item in chosen if item.split == split}
        if not ids:
            continue
        masks = read_masks(annotation_file(root, slug, split), ids)
        for item in chosen:
            if item.split == split:
                image = item.image
                labelled = tuple((names[split][number], mask) for number, mask in masks[image.id])
                examples[split, image.id] = Example(root / image.file_name, Path(image.file_name).name, split,
                                                    labelled, (image.height, image.width))
    return tuple(examples[item.split, item.image.id] for item in chosen)
