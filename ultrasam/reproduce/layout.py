"""What a table is made of. A new row is a name, the paper's numbers, and what `tools/test.py` must be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ultrasam.errors import ConfigError

OURS, PUBLISHED = "ours", "published"


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        group: what one test gives, such as a data set or a task; the columns of a group are filled together.
        title: name of the number, such as ``mAP``.
        metric: its name in ``metrics.json``, such as ``segm_mAP``.
    """

    group: str
    title: str
    metric: str


@dataclass(frozen=True)
class Source:
    """The test that fills a group of columns.

    Attributes:
        config: configuration.
        weights: name of weights, see ``ultrasam.reproduce.weights``.
        dataset: slug of the data set to test on.
        prompt: ``point``, ``centroid`` or ``box``; empty for tests without prompts.
        options: ``KEY=VALUE`` for the configuration.
        classes: whether objects keep their classes, ``test.SLUG.json``, or are all one, ``test.SLUG.agnostic.json``.
    """

    config: str
    weights: str
    dataset: str
    prompt: str
    options: tuple[str, ...] = ()
    classes: bool = False

    @property
    def annotations(self) -> str:
        """The annotation file below the data root."""
        return f"{self.dataset}/annotations/test.{self.dataset}{'' if self.classes else '.agnostic'}.json"


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        id: words that select it, joined by slashes, such as ``box/sam``.
        labels: texts of the leading columns.
        paper: the paper's numbers in percent, one a column; None where it has none.
        sources: group to the test that fills it; every group, or none where there can be no number.
        unsupported: why there can be no number.
        protocol: ``ours``, or ``published`` for the released order of masks and centroid clicks.
        metric: name in ``metrics.json`` that takes the place of the columns', where rows have different ones.
    """

    id: str
    labels: tuple[str, ...]
    paper: tuple[float | None, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)
    unsupported: str = ""
    protocol: str = OURS
    metric: str = ""


@dataclass(frozen=True)
class Table:
    """A table or a figure made of numbers.

    Attributes:
        name: as on the command line, such as ``table2``.
        title: one line.
        heads: names of the leading columns.
        columns: columns of numbers, those of a group next to each other.
        rows: lines.
        groups: group to its heading.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    groups: Mapping[str, str]

    def __post_init__(self) -> None:
        ids = [row.id for row in self.rows]
        wrong = [
            row.id
            for row in self.rows
            if (len(row.paper), len(row.labels)) != (len(self.columns), len(self.heads))
            or set(row.sources) != (set() if row.unsupported else set(self.groups))
        ]
        if wrong or len(set(ids)) != len(ids) or {column.group for column in self.columns} != set(self.groups):
            raise ConfigError(f"{self.name} does not fit together; look at the rows {wrong or ids}")

    def columns_of(self, group: str) -> list[int]:
        """Return the numbers of a group's columns."""
        return [number for number, column in enumerate(self.columns) if column.group == group]


Selection = Sequence[tuple[Row, str]]


def select(table: Table, only: Sequence[str], protocols: Sequence[str]) -> Selection:
    """Return the chosen (row, group) pairs of a table.

    Args:
        table: the table.
        only: words of row ids and groups. Words of one kind (such as two data sets) add up, words of different
            kinds (a data set and a prompt) narrow the choice. None takes everything.
        protocols: which of the protocols.

    Raises:
        ConfigError: a word that the table does not have.
    """
    kinds: dict[str | int, set[str]] = {"group": set(table.groups)}
    for row in table.rows:
        for place, word in enumerate(row.id.split("/")):
            kinds.setdefault(place, set()).add(word)
    known = sorted(set().union(*kinds.values()))
    unknown = [word for word in only if word not in known]
    if unknown:
        raise ConfigError(f"--only {unknown[0]} is not in {table.name}; it has {', '.join(known)}")
    wanted = {kind: words & set(only) for kind, words in kinds.items() if words & set(only)}

    def chosen(row: Row, group: str) -> bool:
        parts = row.id.split("/")
        tags: dict[str | int, str] = {"group": group, **dict(enumerate(parts))}
        return row.protocol in protocols and all(tags.get(kind) in words for kind, words in wanted.items())

    return [(row, group) for row in table.rows for group in table.groups if chosen(row, group)]
