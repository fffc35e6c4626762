"""The page's cards: one per converted set, with examples, rules, changes, failures and terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from data_prep.report.markup import link
from data_prep.report.pictures import colour_of, data_uri, draw_example
from data_prep.report.summary import Content, Example, SetRow, Summary
from data_prep.splits import SPLITS

_LISTED = 20
_CHANGES = {
    "components_dropped": "components dropped as too small",
    "images_cropped": "images cropped to the field of view",
    "pixels_filled": "pixels of holes filled",
    "pixels_outside_fov": "label pixels cleared outside the field of view",
}


def badge(row: SetRow) -> str:
    """Return the state of a set, coloured by how well it is."""
    state = row.state
    kind = "none" if row.manifest is None else "good" if state in ("complete", "converted") else "warn"
    if row.content is not None and row.content.problems:
        kind = "bad"
    return f'<span class="badge {kind}">{escape(state)}</span>'


def set_cards(summary: Summary) -> str:
    """Return the cards of the converted sets."""
    cards = "".join(_card(row, row.content, row.manifest) for row in summary.converted
                    if row.content is not None and row.manifest is not None)
    return f'<h2 id="sets">Sets</h2>{cards}'


def rules_in_words(rules: Mapping[str, Any]) -> list[str]:
    """Return the mask rules of a manifest as short sentences."""
    words = ["every connected component is an object" if rules.get("split_components", True)
             else "one object per mask, however many components it has"]
    if rules.get("fill_holes"):
        words.append("holes are filled")
    if rules.get("min_area", 1) > 1:
        words.append(f"components of fewer than {rules['min_area']} pixels are dropped")
    if rules.get("clip_to_fov"):
        words.append("labels outside the field of view are cleared")
    words.append("images that are more than half background are cropped" if rules.get("crop_background")
                 else "images are not cropped")
    if rules.get("drop_empty"):
        words.append("images whose masks are all empty are left out: nobody annotated them")
    known = {"split_components", "fill_holes", "min_area", "clip_to_fov", "crop_background", "drop_empty"}
    words += [f"{name.replace('_', ' ')}: {value}" for name, value in rules.items() if name not in known]
    return words


def changes_in_words(changes: Mapping[str, Any]) -> list[str]:
    """Return what the rules changed, as short sentences; empty when they changed nothing."""
    return [f"{count:,} {_CHANGES.get(name, name.replace('_', ' '))}" for name, count in changes.items() if count]


def _card(row: SetRow, content: Content, manifest: Mapping[str, Any]) -> str:
    """Return the card of one set."""
    facts = [row.application]
    if row.info is not None:
        facts += [row.info.organ, row.info.view]
    facts += [f"{row.count(name):,} {name}" for name in ("images", "masks", "groups")]
    words = " · ".join(dict.fromkeys(fact for fact in facts if fact))
    problems = "".join(f'<p><span class="badge bad">{escape(problem)}</span></p>' for problem in content.problems)
    strip = "".join(_figure(example, content.categories) for example in content.examples)
    return (
        f'<article class="card set" id="set-{escape(row.slug)}"><header><h3>{escape(row.name)} '
        f'<small>{escape(row.slug)}</small></h3>{badge(row)}</header><p class="muted">{escape(words)}</p>{problems}'
        f'{f"<div class=strip>{strip}</div>" if strip else ""}{_categories(content, manifest)}'
        f'<dl>{"".join(_facts(row, manifest))}</dl>{_lists(manifest)}</article>\n'
    )


def _figure(example: Example, categories: Sequence[str]) -> str:
    """Return one example image."""
    pixels = draw_example(example, categories)
    shown = Counter(name for name, _ in example.masks)
    text = ", ".join(f"{count} {name}" if count > 1 else name for name, count in shown.items())
    return (f'<figure><img src="{data_uri(pixels)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}" '
            f'alt="{escape(example.name)}: {escape(text)}" title="{escape(text)}">'
            f"<figcaption>{escape(example.name)} · {example.split}</figcaption></figure>")


def _categories(content: Content, manifest: Mapping[str, Any]) -> str:
    """Return the categories with their colours and numbers of objects."""
    counts: Counter[str] = Counter()
    for split in SPLITS:
        counts.update(manifest["splits"].get(split, {}).get("by_category", {}))
    keys = "".join(
        f'<span><i class=key style="background:{colour_of(name, content.categories)}"></i>{escape(name)} '
        f"<small>{counts[name]:,}</small></span>" for name in content.categories)
    return f"<p class=legend>{keys}</p>"


def _facts(row: SetRow, manifest: Mapping[str, Any]) -> list[str]:
    """Return the lines of the description list."""
    sides = "; ".join(f"{split}: {row.split(split):,} images, {row.split(split, 'masks'):,} masks, "
                      f"{row.split(split, 'groups'):,} groups" for split in SPLITS if row.split(split))
    if row.excluded:
        sides += f"; on no side: {row.excluded:,} images, near duplicates of test images"
    choices = manifest.get("choices") or {}
    said = [f"official: {row.info.official_split}"] if row.info is not None and row.info.official_split else []
    if "validation_fraction" in choices:
        said.append(f"validation: {100 * choices['validation_fraction']:g} % of the training images, "
                    f"seed {choices.get('seed', 0)}")
    changes = changes_in_words(manifest.get("changes") or {})
    lines = [("sides", escape(sides)), ("split", escape("; ".join(said)))]
    if row.info is not None:
        lines.append(("group", escape(row.info.group_key)))
    lines += [("rules", _bullets(rules_in_words(manifest["rules"])) if manifest.get("rules") else ""),
              ("changed", _bullets(changes or ["nothing"])), ("licence", escape(row.licence)), ("link", _origin(row))]
    sources = manifest.get("sources") or {}
    if "files" in sources:
        lines.append(("raw files", f"{sources['files']:,}, SHA-256 over all <code>"
                                   f"{escape(str(sources.get('sha256', ''))[:16])}</code>"))
    return [f"<dt>{name}</dt><dd>{text}</dd>" for name, text in lines if text]


def _origin(row: SetRow) -> str:
    """Return the link to where the set comes from, with the words on how to get it."""
    access = escape(row.info.access) if row.info is not None else ""
    return "<br>".join(part for part in (link(row.home), access) if part)


def _lists(manifest: Mapping[str, Any]) -> str:
    """Return what was left out or looks wrong, folded away."""
    # Unusable files before missing ones, of which there can be very many.
    ordered = sorted(manifest.get("failures") or (), key=lambda item: bool(item.get("missing")))
    failures = [f"{item['key']}: {item['reason']}" for item in ordered]
    parts = (("images failed and were left out", failures),
             ("images differ from what the set's own tables say", manifest.get("table_disagreements") or []),
             ("image files of the source belong to no record", manifest.get("unused_files") or []))
    return "".join(_folded(title, texts) for title, texts in parts if texts)


def _folded(title: str, texts: Sequence[str]) -> str:
    """Return a list that opens with a click."""
    more = f"<li>and {len(texts) - _LISTED:,} more, see manifest.json</li>" if len(texts) > _LISTED else ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts[:_LISTED])
    return f"<details><summary>{len(texts):,} {title}</summary><ul>{items}{more}</ul></details>"


def _bullets(texts: Sequence[str]) -> str:
    """Return a list."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"
