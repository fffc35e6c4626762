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
from ultrasam.reproduce.weights import training_commands, what_to_get

FILLED, OPEN, FAILED, UNSUPPORTED = "filled", "open", "failed", "unsupported"
# What the metrics of the tasks put before the names that they log.
_PREFIXES = ("coco/", "classification/", "")


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
        again: the command that fills what waits for weights; empty where nothing does.
    """

    table: Table
    cells: Sequence[Cell]
    records: Mapping[Path, dict[str, Any]] = field(default_factory=dict)
    again: str = ""

    def count(self, status: str) -> int:
        """Return the number of cells of a status."""
        return sum(cell.status == status for cell in self.cells)

    def needs(self) -> dict[Need, list[Cell]]:
        """Return the open cells by what they wait for."""
        found: dict[Need, list[Cell]] = {}
        for cell in self.cells:
            for need in cell.needs:
                found.setdefault(need, []).append(cell)
        return found


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
    work = _Filling(table, setting)
    work.total = len({row.sources[group] for row, group in chosen
                      if f"{row.id}/{group}" not in given and _can_run(row, group, setting)})  # fmt: skip
    cells: list[Cell] = []
    for row, group in chosen:
        part = f"{row.id}/{group}"
        if part in given:
            cells += work.read(row, group, given[part], check=True)
        elif _can_run(row, group, setting):
            cells += work.test(row, group)
        elif row.unsupported:
            cells += [Cell(row, column, UNSUPPORTED) for column in table.columns_of(group)]
        else:
            needs = needs_of(row.sources[group], setting)
            cells += [Cell(row, column, OPEN, needs=needs) for column in table.columns_of(group)]
    order = {row.id: number for number, row in enumerate(table.rows)}
    cells.sort(key=lambda cell: (order[cell.row.id], cell.column))
    return Filled(table, cells, work.records, _again(table, cells, setting))


def _can_run(row: Row, group: str, setting: Setting) -> bool:
    """Return whether weights and data of a part are there."""
    source = row.sources.get(group)
    return source is not None and source.weights in setting.weights and setting.annotations(source).is_file()


@dataclass
class _Filling:
    """Filling in progress.

    Attributes:
        table: the table.
        setting: weights, data and the folder to write.
        total: number of different tests.
        records: content of ``metrics.json`` by result folder.
        tried: result folder of a test, or why it failed; several groups of columns may share a test.
    """

    table: Table
    setting: Setting
    total: int = 0
    records: dict[Path, dict[str, Any]] = field(default_factory=dict)
    tried: dict[Source, Path | str] = field(default_factory=dict)

    def test(self, row: Row, group: str) -> list[Cell]:
        """Return the cells of a part after its test; one that cannot be run or read fails alone."""
        source = row.sources[group]
        if source not in self.tried:
            place = f"test {len(self.tried) + 1} of {self.total}, {row.id}/{group}"
            print(f"{self.table.name}: {place}", file=sys.stderr, flush=True)
            self.tried[source] = self._run(source)
        done = self.tried[source]
        try:
            if isinstance(done, Path):
                return self.read(row, group, done)
        except UltraSamError as error:
            done = sentence_of(error)
            print(f"error: {done}", file=sys.stderr, flush=True)
        return [Cell(row, column, FAILED, problem=done) for column in self.table.columns_of(group)]

    def _run(self, source: Source) -> Path | str:
        try:
            return result_folder(source, self.setting)
        except UltraSamError as error:
            print(f"error: {sentence_of(error)}", file=sys.stderr, flush=True)
            return sentence_of(error)

    def read(self, row: Row, group: str, folder: Path, check: bool = False) -> list[Cell]:
        """Return the cells that a result folder fills.

        Args:
            row: their row.
            group: their columns.
            folder: it.
            check: whether it may be of another test, as one that was given.

        Raises:
            DataError: it is no result folder, of another test, or lacks a score.
        """
        record = read_metrics(folder)
        if check and group in row.sources:
            _check_given(record, row.sources[group], folder)
        self.records[folder] = record
        cells = []
        for column in self.table.columns_of(group):
            value, low, high = score(record, row.metric or self.table.columns[column].metric, folder)
            cells.append(Cell(row, column, FILLED, value, low, high, folder=folder))
        return cells


def score(record: Mapping[str, Any], name: str, folder: Path) -> tuple[float, float | None, float | None]:
    """Return a score of a ``metrics.json`` and its interval, in percent.

    Args:
        record: its content.
        name: such as ``segm_mAP``; looked for among the scores of prompted objects, then among those that were logged.
        folder: of the record, for the message.

    Raises:
        DataError: it is not there, or undefined.
    """
    overall = (record.get("breakdown") or {}).get("overall") or {}
    metrics = record["metrics"]
    prefix = next((start for start in _PREFIXES if f"{start}{name}" in metrics), "")
    logged = {"mean": f"{prefix}{name}", "low": f"{prefix}{name}_low", "high": f"{prefix}{name}_high"}
    found = overall.get(name) or {key: metrics.get(full) for key, full in logged.items()}
    numbers = [found.get(key) for key in ("mean", "low", "high")]
    if not isinstance(numbers[0], int | float):
        raise DataError(f"{folder / 'metrics.json'} has no score {name}; test again with this version")
    value, low, high = (None if number is None else 100 * float(number) for number in numbers)
    assert value is not None
    return value, low, high


def _check_given(record: Mapping[str, Any], source: Source, folder: Path) -> None:
    """Refuse a result folder of another data set or prompt."""
    wanted = source.annotations.rsplit("/", 1)[-1]
    names = [str(entry.get("file", "")).rsplit("/", 1)[-1] for entry in record.get("annotations", [])]
    prompts = [source.prompt] if source.prompt else []
    if names != [wanted] or record.get("prompt") != prompts:
        asked = source.prompt or "no"
        raise DataError(
            f"{folder} holds a test of {', '.join(names) or 'nothing'} with {record.get('prompt')} prompts, but "
            f"{wanted} with {asked} prompts was expected; test with --datasets {source.dataset}"
        )


def needs_of(source: Source, setting: Setting) -> tuple[Need, ...]:
    """Return what a test waits for."""
    needs = []
    annotations = setting.annotations(source)
    if not annotations.is_file():
        command = f"python -m data_prep convert {source.dataset} --source DOWNLOAD --out {setting.data}"
        what = f"{annotations} does not exist; `python -m data_prep list` says where the set is"
        needs.append(Need(what, (command,)))
    if source.weights not in setting.weights:
        what = f"the weights {source.weights} are not given: {what_to_get(source.weights, setting.weights)}"
        needs.append(Need(what, training_commands(source.weights, setting.weights, setting.data)))
    return tuple(needs)


def _again(table: Table, cells: Sequence[Cell], setting: Setting) -> str:
    """Return the command to call when the missing weights are there."""
    waiting = [cell.row.sources[table.columns[cell.column].group] for cell in cells if cell.status == OPEN]
    if all(source.weights in setting.weights for source in waiting):
        return ""
    weights = " ".join(["work_dirs", *(f"{name}={path}" for name, path in setting.weights.items())])
    return f"python tools/reproduce.py {table.name} --data {setting.data} --out {setting.out} --weights {weights}"
