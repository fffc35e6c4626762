"""The table of all datasets in the documentation, made from the catalogue.

``python -m data_prep.report.catalogue_page docs/data.md`` puts a fresh table into the page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_prep.catalogue import catalogue
from data_prep.records import DatasetInfo
from ultrasam.errors import ConfigError

BEGIN = "<!-- begin of the table of datasets, made by: python -m data_prep.report.catalogue_page docs/data.md -->"
END = "<!-- end of the table of datasets -->"
_HEADER = ("slug", "dataset", "application", "images, masks in the paper", "licence or terms", "how to get it")


def catalogue_table(infos: Iterable[DatasetInfo]) -> str:
    """Return a Markdown table with one line per dataset, by slug."""
    rows = [_HEADER, ("---",) * len(_HEADER)]
    for info in sorted(infos, key=lambda info: info.slug):
        paper = "-" if info.table1 is None else f"{info.table1[0]:,}, {info.table1[1]:,}"
        access = [f"same images as `{info.alias_of}`"] if info.alias_of else []
        access += [info.access.rstrip(".")] if info.access else []
        rows.append((f"`{info.slug}`", f"[{info.name}]({info.home})", info.application, paper, info.licence,
                     "; ".join(access) or "download at the link"))
    return "\n".join(f"| {' | '.join(_cell(text) for text in row)} |" for row in rows)


def with_table(page: str, table: str) -> str:
    """Return the text of the page with its table replaced.

    Raises:
        ConfigError: the page does not have the two lines between which the table stands.
    """
    head, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, tail = rest.partition(f"\n{END}")
    if not begin or not end:
        raise ConfigError(f"the page needs the lines {BEGIN!r} and {END!r}, between which the table stands; "
                          "put them back")
    return f"{head}{begin}{table}{end}{tail}"


def main(arguments: Sequence[str]) -> None:
    """Put a fresh table into the page that is named."""
    path = Path(arguments[0])
    table = catalogue_table(converter.info for converter in catalogue().values())
    path.write_text(with_table(path.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(f"wrote {path}")


def _cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


if __name__ == "__main__":
    main(sys.argv[1:])
