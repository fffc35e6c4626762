"""The page: one HTML file that needs nothing else, with the table, the figure and the sets."""

from __future__ import annotations

from html import escape

from data_prep.report.cards import badge, set_cards
from data_prep.report.figure import figure2_rows, subtitle
from data_prep.report.markup import link, numbers, sides
from data_prep.report.merged import merged_section
from data_prep.report.paper import MASKS_IN_TEXT
from data_prep.report.sizes import size_section
from data_prep.report.summary import SetRow, Summary
from data_prep.report.terminal import compared, total_cells
from data_prep.splits import SPLITS
from ultrasam.visualization.style import CSS

_SECTIONS = (("composition", "Composition"), ("applications", "Applications"), ("merged", "Merged"), ("sizes", "Sizes"),
             ("sets", "Sets"), ("missing", "Not converted"), ("licences", "Licences"))


def page(summary: Summary, name: str) -> str:
    """Return the page.

    Args:
        summary: what is on the disk.
        name: of the folder, for the title.
    """
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in _SECTIONS)
    body = "".join((
        _tiles(summary), _composition(summary), _applications(summary), merged_section(summary.merged),
        size_section(summary), set_cards(summary), _missing(summary), _licences(summary),
    ))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>US-43d in {escape(name)}</title><style>{CSS}</style></head>\n<body><main>\n"
        f'<h1>US-43d in {escape(name)}</h1><p class="muted">What is converted here, beside what the paper lists; '
        f"{subtitle(summary)}.</p><nav>{links}</nav>\n{body}\n</main></body></html>\n"
    )


def _tiles(summary: Summary) -> str:
    """Return the large numbers at the top."""
    failed = sum(row.count("failed") for row in summary.converted)
    tiles = [(f"{summary.total('images'):,}", "images"), (f"{summary.total('masks'):,}", "masks"),
             (f"{summary.total('groups'):,}", "groups (patients, videos, volumes)")]
    tiles += [(f"{summary.split_total(split):,}", f"images for {words}")
              for split, words in zip(SPLITS, ("training", "validation", "test"), strict=True)]
    tiles.append((f"{failed:,}", "images failed"))
    excluded = sum(row.excluded for row in summary.converted)
    if excluded:
        tiles.append((f"{excluded:,}", "images on no side"))
    return f'<div class="tiles">{"".join(f"<div class=tile><b>{n}</b>{words}</div>" for n, words in tiles)}</div>'


def _composition(summary: Summary) -> str:
    """Return the large table."""
    head = (
        "<thead><tr><th rowspan=2>set</th><th rowspan=2>application</th><th class=group colspan=3>images</th>"
        "<th class=group colspan=3>masks</th><th rowspan=2 class=n>groups</th><th rowspan=2>train / val / test</th>"
        "<th rowspan=2>licence</th><th rowspan=2>state</th></tr><tr>"
        + "<th class=n>here</th><th class=n>paper</th><th class=n>+/-</th>" * 2 + "</tr></thead>"
    )
    rows = "".join(_composition_row(row) for row in summary.rows)
    note = (
        f"“Paper” is Table 1. Its rows add up to {_paper_total(summary, 0):,} images and "
        f"{_paper_total(summary, 1):,} masks over the sets listed here; the paper's text says {MASKS_IN_TEXT:,} masks. "
        "The last but one row compares the converted sets only."
    )
    return (
        '<h2 id="composition">Composition</h2>'
        f'<p class="muted">{note}</p><p class="legend"><span><i class="key ours"></i>train</span>'
        '<span><i class="key val"></i>val</span><span><i class="key test"></i>test</span></p>'
        f'<div class="card scroll composition"><table>{head}<tbody>{rows}</tbody>'
        f"<tfoot>{_totals(summary)}</tfoot></table></div>"
    )


def _composition_row(row: SetRow) -> str:
    """Return one set of the large table."""
    done = row.manifest is not None
    paper = row.paper or (None, None)
    cells = (*compared(row.count("images") if done else None, paper[0]),
               *compared(row.count("masks") if done else None, paper[1]),
               f"{row.count('groups'):,}" if done else "-")
    name = f'<a href="#set-{escape(row.slug)}">{escape(row.name)}</a>' if done else escape(row.name)
    counts = [row.split(split) for split in SPLITS]
    return (
        f"<tr{'' if done else ' class=absent'}><th scope=row>{name}<br><small>{escape(row.slug)}</small></th>"
        f"<td>{escape(row.application)}</td>{numbers(cells)}"
        f"<td>{sides(counts) if done else '-'}</td><td>{escape(row.licence)}</td><td>{badge(row)}</td></tr>"
    )


def _totals(summary: Summary) -> str:
    """Return the last rows of the large table."""
    done = [row for row in summary.converted if row.counted]
    cells = [*total_cells(summary, "images"), *total_cells(summary, "masks"), f"{summary.total('groups'):,}"]
    counts = [summary.split_total(split) for split in SPLITS]
    every = ("", f"{_paper_total(summary, 0):,}", "", "", f"{_paper_total(summary, 1):,}", "", "")
    return (
        f"<tr><th scope=row>{len(done)} converted</th><td></td>{numbers(cells)}"
        f"<td>{sides(counts)}</td><td></td><td></td></tr>"
        f"<tr><th scope=row>paper, all rows</th><td></td>{numbers(every)}<td></td><td></td><td></td></tr>"
    )


def _applications(summary: Summary) -> str:
    """Return Figure 2 with bars of the page's own colours."""
    rows = figure2_rows(summary)
    most = max(max(row[1:]) for row in rows) or 1
    lines = "".join(
        f'<tr><th scope=row>{escape(name)}</th><td class=plot><i style="width:{100 * ours / most:.2f}%"></i>'
        f'<i class=paper style="width:{100 * paper / most:.2f}%"></i></td>'
        f"{numbers((f'{ours:,}', f'{paper:,}'))}</tr>"
        for name, ours, paper in rows)
    return (
        '<h2 id="applications">Masks by clinical application</h2>'
        '<p class="muted">The paper\'s Figure 2. STU-Hospital, which the paper files under “other”, shows breast '
        "tumours and counts as breast here. The same figure is in <code>figure2.png</code> and "
        "<code>figure2.svg</code>.</p>"
        '<div class="card scroll"><p class="legend"><span><i class="key ours"></i>here</span>'
        '<span><i class="key paper"></i>paper, Table 1</span></p><table class=bars><thead><tr><th>application</th>'
        f"<th></th><th class=n>here</th><th class=n>paper</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _missing(summary: Summary) -> str:
    """Return the sets of the catalogue that are not there, and how to get them."""
    rows = "".join(
        f"<tr><th scope=row>{escape(row.name)}<br><small>{escape(row.slug)}</small></th>"
        f"<td>{escape(row.application)}</td><td>{link(row.home)}</td>"
        f"<td>{escape(row.info.access if row.info else '')}</td></tr>"
        for row in summary.rows if row.manifest is None)
    if not rows:
        return '<h2 id="missing">Not converted</h2><p class="muted">Every set of the catalogue is converted.</p>'
    return (
        '<h2 id="missing">Not converted</h2><div class="card scroll"><table><thead><tr><th>set</th>'
        f"<th>application</th><th>link</th><th>how to get it</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _licences(summary: Summary) -> str:
    """Return the converted sets by licence."""
    by_licence: dict[str, list[str]] = {}
    for row in summary.converted:
        by_licence.setdefault(row.licence or "not stated", []).append(row.name)
    rows = "".join(f"<tr><th scope=row>{escape(licence)}</th><td>{escape(', '.join(names))}</td></tr>"
                   for licence, names in sorted(by_licence.items()))
    return (
        '<h2 id="licences">Licences of the converted sets</h2><p class="muted">As their authors state them. A '
        "collection may be used only in ways that all of its parts allow.</p>"
        f'<div class="card scroll"><table><tbody>{rows}</tbody></table></div>'
    )


def _paper_total(summary: Summary, column: int) -> int:
    """Return the images (0) or masks (1) of all rows of Table 1 that belong to the catalogue."""
    return sum(row.paper[column] for row in summary.rows if row.paper)
