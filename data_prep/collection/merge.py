"""Making one collection of the converted sets of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_prep.collection import manifest as manifests
from data_prep.collection.export import export, write_json
from data_prep.collection.publish import publication
from data_prep.collection.sets import SIDES, Json, annotation_file, converted_slugs
from data_prep.collection.survey import decide, near_duplicates, survey
from data_prep.pipeline import usable_cores
from data_prep.records import DatasetInfo
from data_prep.splits import SPLITS
from ultrasam.errors import DataError


def merge(
    root: Path,
    slugs: Sequence[str] | None = None,
    *,
    infos: Mapping[str, DatasetInfo],
    confirm: bool = True,
    workers: int | None = None,
) -> Json:
    """Decide the sides of all converted sets together, and write the files of the collection.

    All files are written out of sight and moved into place when all are complete. A second run gives the same bytes.

    Args:
        root: folder of the converted sets.
        slugs: the sets to take; None for all that are there.
        infos: catalogue entries by slug; sets that have none are described by their own records.
        confirm: open images with near hashes and compare them; without it every near hash counts as a near duplicate.
        workers: threads that open images; None for one per usable core.

    Returns:
        the content of ``root/manifest.json``.

    Raises:
        DataError: no set is there, a set is damaged, an image cannot be read, or another run is at work.
    """
    if not root.is_dir():
        raise DataError(f"{root}: a folder of converted sets was expected, found nothing there; convert a set or name "
                        "the --source of the downloads")
    with publication(root) as target:
        there = converted_slugs(root)
        wanted = there if slugs is None else [slug for slug in there if slug in set(slugs)]
        not_taken = {slug: "not asked for" for slug in there if slug not in wanted}
        not_taken |= twins(wanted, infos)
        taken = [slug for slug in wanted if slug not in not_taken]
        if not taken:
            raise DataError(f"{root}: at least one converted set was expected, found none"
                            f"{' of those asked for' if there else ''}; convert a set or name the --source of the "
                            "downloads")
        found = survey(root, taken, infos)
        near = near_duplicates(root, found.pictures, confirm=confirm, workers=workers or usable_cores())
        decisions = decide(found, near)
        facts, written = export(root, found, decisions, target)
        content = manifests.collection_manifest(found, near, decisions, facts, written, infos=infos,
                                                not_taken=not_taken)
        write_json(target.path(manifests.NAME), content)
        target.publish(_obsolete(root, taken), found.manifests)
    return content


def twins(slugs: Sequence[str], infos: Mapping[str, DatasetInfo]) -> dict[str, str]:
    """Return, with the reason, the sets that have the images of another one of these sets."""
    return {slug: f"it has the images of {infos[slug].alias_of}, which is taken" for slug in slugs
            if slug in infos and infos[slug].alias_of in slugs}


def _obsolete(root: Path, slugs: Sequence[str]) -> list[str]:
    """Return the files of an earlier collection, as far as they exist, that a new one replaces or removes."""
    names = [annotation_file(slug, side, twin) for slug in slugs for side in SIDES for twin in ("", ".agnostic")]
    names += [f"{slug}/classification/{name}.txt" for slug in slugs for name in (*SPLITS, "classes")]
    path = root / manifests.NAME
    if path.is_file():
        try:
            names += manifests.earlier_files(path, json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise DataError(f"{path}: the manifest of a collection was expected, found {error}; "
                            "move it away") from error
    return [name for name in names if (root / name).is_file()]
