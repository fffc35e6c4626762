"""Filling a table: what can be tested is tested, what cannot is listed with what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrasam.engine.commands import sentence_of
from ultrasam.errors import ConfigError, DataError, UltraSamError
from ultrasam.evaluation.results import read_metrics
from ultrasam.reproduce.layout import Row, Selection, Source, Table
from ultrasam.reproduce.runs import Setting, result_folder
from ultrasam.reproduce.weights import WEIGHTS

FILLED, OPEN, FAILED, UNSUPPORTED = "filled", "open", "failed", "unsupported"


@dataclass(frozen=True)
class Need:
    """What an open cell waits for: a sentence, and commands."""

    what: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One number of a table, in percent.

    Attributes:
        row: its row.
        column: number of its column.
        status: filled, open, failed or unsupported.
        value: ours; None unless filled.
        low: lower end of the 95 % interval, where it is known.
        high: upper end.
        needs: what an open one waits for.
        problem: why a failed one failed.
        folder: its result folder.
    """

    row: Row
    column: int
    status: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    needs: tuple[Need, ...] = ()
    problem: str = ""
    folder: Path | None = None

    @property
    def paper(self) -> float | None:
        """The paper's number."""
        return self.row.paper[self.column]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.value is None or self.paper is None else self.value - self.paper


@dataclass(frozen=True)
class Filled:
    """A table with its cells.

    Attributes:
        table: the table.
        cells: those chosen, by row and column.
        records: the content of ``metrics.json`` by result folder.
    """

    table: Table
    cells: Sequence[Cell]
    records: Mapping[Path, dict[str, Any]] = field(default_factory=dict)

    def count(self, status: str) -> int:
        """Return the number of cells of a status."""
        return sum(cell.status == status for cell in self.cells)

    def needs(self) -> dict[Need, list[Cell]]:
        """Return the open cells by what they wait for, first what can be done about."""
        found: dict[Need, list[Cell]] = {}
        for cell in self.cells:
            for need in cell.needs:
                found.setdefault(need, []).append(cell)
        return dict(sorted(found.items(), key=lambda item: not item[0].commands))


def fill(table: Table, chosen: Selection, setting: Setting, given: Mapping[str, Path] | None = None) -> Filled:
    """Fill the chosen parts of a table.

    Args:
        table: the table.
        chosen: (row, group) pairs.
        setting: weights, data and the folder to write.
        given: result folders by ``ROW/GROUP`` that take the place of a test.

    Raises:
        ConfigError: a result folder for a part that the table does not have or that was not chosen.
    """
    given = dict(given or {})
    unknown = sorted(set(given) - {f"{row.id}/{group}" for row, group in chosen})
    if unknown:
        names = ", ".join(f"{row.id}/{group}" for row, group in chosen if not row.unsupported)
        raise ConfigError(f"--results {unknown[0]} is no chosen part of {table.name}; those are {names}")
    records: dict[Path, dict[str, Any]] = {}
    cells: list[Cell] = []
    tests = sum(_can_run(row, group, setting) and f"{row.id}/{group}" not in given for row, group in chosen)
    started = 0
    for row, group in chosen:
        columns = table.columns_of(group)
        part = f"{row.id}/{group}"
        if part in given:
            cells += _read(table, row, group, given[part], records, check=True)
        elif _can_run(row, group, setting):
            started += 1
            print(f"{table.name}: test {started} of {tests}, {part}", file=sys.stderr, flush=True)
            cells += _tested(table, row, group, setting, records)
        elif row.unsupported:
            cells += [Cell(row, column, UNSUPPORTED) for column in columns]
        else:
            needs = needs_of(table, row, group, setting)
            cells += [Cell(row, column, OPEN, needs=needs) for column in columns]
    order = {row.id: number for number, row in enumerate(table.rows)}
    return Filled(table, sorted(cells, key=lambda cell: (order[cell.row.id], cell.column)), records)


def _can_run(row: Row, group: str, setting: Setting) -> bool:
    """Return whether weights and data of a part are there."""
    source = row.sources.get(group)
    return source is not None and source.weights in setting.weights and setting.annotations(source.dataset).is_file()


def _tested(
    table: Table, row: Row, group: str, setting: Setting, records: dict[Path, dict[str, Any]]
) -> list[Cell]:
    """Return the cells of a part after its test; one that cannot be run fails alone."""
    try:
        return _read(table, row, group, result_folder(row.sources[group], setting), records)
    except UltraSamError as error:
        print(f"error: {sentence_of(error)}", file=sys.stderr, flush=True)
        return [Cell(row, column, FAILED, problem=sentence_of(error)) for column in table.columns_of(group)]


def _read(
    table: Table, row: Row, group: str, folder: Path, records: dict[Path, dict[str, Any]], check: bool = False
) -> list[Cell]:
    """Return the cells that a result folder fills."""
    record = read_metrics(folder)
    source = row.sources.get(group)
    if check and source is not None:
        _check_given(record, source, folder)
    records[folder] = record
    cells = []
    for column in table.columns_of(group):
        value, low, high = score(record, row.metric or table.columns[column].metric, folder)
        cells.append(Cell(row, column, FILLED, value, low, high, folder=folder))
    return cells


def score(record: Mapping[str, Any], name: str, folder: Path) -> tuple[float, float | None, float | None]:
    """Return a score of a ``metrics.json`` and its interval, in percent.

    Args:
        record: its content.
        name: such as ``segm_mAP``; looked for among the scores with intervals, then among the others.
        folder: of the record, for the message.

    Raises:
        DataError: it is not there, or undefined.
    """
    overall = (record.get("breakdown") or {}).get("overall") or {}
    metrics = record["metrics"]
    found = overall.get(name) or {"mean": metrics.get(f"coco/{name}", metrics.get(name))}
    numbers = [found.get(key) for key in ("mean", "low", "high")]
    if not isinstance(numbers[0], int | float):
        raise DataError(f"{folder / 'metrics.json'} has no score {name}; test again with this version")
    value, low, high = (None if number is None else 100 * float(number) for number in numbers)
    assert value is not None
    return value, low, high


def _check_given(record: Mapping[str, Any], source: Source, folder: Path) -> None:
    """Refuse a result folder of another data set or prompt."""
    wanted = f"test.{source.dataset}.agnostic.json"
    names = [str(entry.get("file", "")).rsplit("/", 1)[-1] for entry in record.get("annotations", [])]
    if names != [wanted] or record.get("prompt") != [source.prompt]:
        raise DataError(
            f"{folder} holds a test of {', '.join(names) or 'nothing'} with {record.get('prompt')} prompts, but "
            f"{wanted} with {source.prompt} prompts was expected; test with --datasets {source.dataset}"
        )


def needs_of(table: Table, row: Row, group: str, setting: Setting) -> tuple[Need, ...]:
    """Return what an open part waits for."""
    source = row.sources.get(group)
    if source is None:
        return (Need(row.pending or f"{row.id} has no test for {group}"),)
    needs = []
    annotations = setting.annotations(source.dataset)
    if not annotations.is_file():
        command = f"python -m data_prep convert {source.dataset} --source DOWNLOAD --out {setting.data}"
        what = f"{annotations} does not exist; `python -m data_prep list` says where the set is"
        needs.append(Need(what, (command,)))
    if source.weights not in setting.weights:
        known = WEIGHTS[source.weights]
        again = (
            f"python tools/reproduce.py {table.name} --data {setting.data} --out {setting.out} "
            f"--weights {source.weights}=FILE"
        )
        train = (f"ULTRASAM_DATA={setting.data} {known.command}",) if known.command else ()
        needs.append(Need(f"the weights {source.weights} are not given: {known.what}", (*train, again)))
    return tuple(needs)
