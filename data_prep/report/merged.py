"""The merged collection: its files, near duplicates, and groups that must not be on two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from data_prep.report.annotations import read_outline
from data_prep.report.markup import numbers
from data_prep.splits import SPLITS


@dataclass(frozen=True)
class MergedSplit:
    """What a merged file holds."""

    images: int
    masks: int
    groups: int
    sets: int


@dataclass(frozen=True)
class Merged:
    """The merged files of a folder.

    Attributes:
        splits: what is in ``train.agnostic.json``, ``val.agnostic.json`` and ``test.agnostic.json``, by side.
        torn: groups that are on more than one side, alone or through near duplicates.
        manifest: ``ROOT/manifest.json``; empty when there is none.
    """

    splits: Mapping[str, MergedSplit] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=dict)


def read_merged(root: Path, manifest: Mapping[str, Any]) -> Merged:
    """Count what the merged files hold, one file after the other.

    Args:
        root: folder of converted datasets.
        manifest: content of its ``manifest.json``; the near duplicates that it lists are one group here.
    """
    near = manifest.get("near_duplicates") or {}
    joined = {group: groups[0] for groups in near.get("joined_groups") or () for group in groups}
    splits: dict[str, MergedSplit] = {}
    sides: dict[str, set[str]] = defaultdict(set)
    for split in SPLITS:
        path = root / f"{split}.agnostic.json"
        if not path.is_file():
            continue
        outline = read_outline(path)
        groups = {image.group or image.file_name for image in outline.images}
        for group in groups:
            sides[joined.get(group, group)].add(split)
        splits[split] = MergedSplit(len(outline.images), len(outline.objects), len(groups),
                                    len({image.dataset for image in outline.images}))
    torn = tuple(sorted(group for group, names in sides.items() if len(names) > 1))
    return Merged(splits, torn, manifest)


def merged_section(merged: Merged) -> str:
    """Return the page's part on the merged files."""
    if not merged.splits:
        return ('<h2 id="merged">Merged collection</h2><p class="muted">The sets are not merged yet; '
                "<code>python -m data_prep prepare</code> writes <code>train.agnostic.json</code>, "
                "<code>val.agnostic.json</code> and <code>test.agnostic.json</code>.</p>")
    rows = "".join(
        f"<tr><th scope=row>{split}.agnostic.json</th>"
        f"{numbers(f'{number:,}' for number in (part.sets, part.images, part.masks, part.groups))}</tr>"
        for split, part in merged.splits.items())
    torn = (f'<span class="badge bad">{len(merged.torn):,} groups are on two sides</span> '
            f"first: {escape(merged.torn[0])}" if merged.torn
            else '<span class="badge good">no group is on two sides</span>')
    facts = "".join(f"<li>{fact}</li>" for fact in (torn, *(escape(fact) for fact in _facts(merged.manifest))))
    return (
        '<h2 id="merged">Merged collection</h2><div class="card scroll"><table><thead><tr><th>file</th>'
        "<th class=n>sets</th><th class=n>images</th><th class=n>masks</th><th class=n>groups</th></tr></thead>"
        f"<tbody>{rows}</tbody></table><ul>{facts}</ul>{_other_files(merged)}</div>"
    )


def _facts(manifest: Mapping[str, Any]) -> list[str]:
    """Return sentences on near duplicates, excluded images and sets that were not taken."""
    facts = []
    near = manifest.get("near_duplicates") or {}
    if near:
        between = "; ".join(f"{name}: {count:,}" for name, count in (near.get("pairs_by_sets") or {}).items())
        facts.append(f"{near.get('pairs', 0):,} pairs of near duplicates in different groups join "
                     f"{sum(map(len, near.get('joined_groups') or ())):,} groups into "
                     f"{len(near.get('joined_groups') or ()):,}" + (f" ({between})" if between else ""))
    out = manifest.get("excluded") or []
    if out:
        facts.append(f"{sum(entry.get('images', 0) for entry in out):,} images with "
                     f"{sum(entry.get('masks', 0) for entry in out):,} masks are on no side, because they show what "
                     "is on the test side")
    facts += [f"{slug} was not taken: {reason}" for slug, reason in (manifest.get("not_taken") or {}).items()]
    return facts


def _other_files(merged: Merged) -> str:
    """Return the files of parts of the collection, folded away."""
    main = {f"{split}.agnostic.json" for split in SPLITS}
    others = {name: entry for name, entry in (merged.manifest.get("files") or {}).items() if name not in main}
    if not others:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th>"
        f"{numbers(f'{number:,}' for number in _file_numbers(entry))}</tr>" for name, entry in others.items())
    return (f"<details><summary>{len(others):,} files with parts of it, for training without an application or with "
            "some of it</summary><table><thead><tr><th>file</th><th class=n>images</th><th class=n>masks</th>"
            f"<th class=n>images left out</th></tr></thead><tbody>{rows}</tbody></table></details>")


def _file_numbers(entry: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return images, masks and left-out images of a file that the manifest lists."""
    return entry.get("images", 0), entry.get("masks", 0), sum((entry.get("left_out_images") or {}).values())
