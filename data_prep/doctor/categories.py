"""Categories: ids 1, 2, ... and one name each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from data_prep.doctor.document import Record
from data_prep.doctor.report import Report, shown
from data_prep.doctor.values import key_of
from ultrasam.datasets.coco_ids import IdValue


class Categories:
    """The repaired categories, to which unknown ones are added when an annotation needs them.

    Args:
        records: the categories of the file.
        report: takes the faults.

    Attributes:
        records: the repaired categories, in the order of their ids 1, 2, ...
    """

    def __init__(self, records: Sequence[Record], report: Report) -> None:
        self.records: list[Record] = []
        self._report = report
        self._ids: dict[IdValue, int] = {}
        self._by_name: dict[str, int] = {}
        for key, group in _by_id(records, report):
            self._add(key, group)
        self._report_ids(records)

    def label(self, record: Record, where: str) -> int:
        """Return the new category id of an annotation; an unknown one gets a category of its own."""
        key = key_of(record.get("category_id"))
        if key is not None and key in self._ids:
            return self._ids[key]
        where = f"{where}: {shown(record.get('category_id'))}"
        fault = "category_id missing or not an id" if key is None else "category_id that is no category"
        if key is None and len(self.records) == 1:
            self._report.changed(fault, where, "given the only category")
            return 1
        self._report.changed(fault, where, "given a category of their own")
        if key is not None:
            return self._append(key, {}, self._free_name(f"category_{key}"))
        return self._by_name.get("unknown") or self._append(None, {}, "unknown")

    def complete(self) -> None:
        """Make sure that there is a category."""
        if not self.records:
            self._report.changed("no category at all", "categories", "given the category 'object'")
            self._append(None, {}, "object")

    def _add(self, key: IdValue | None, group: Sequence[Record]) -> None:
        """Add the category of one id; several records of one id become one category."""
        names = list(dict.fromkeys(name for record in group if (name := _name(record.get("name")))))
        where = f"category {shown(group[0].get('id'))}"
        for record in group:
            if not isinstance(record.get("name"), str) or not record["name"]:
                self._report.changed("category without a name", where, "named after their id or value")
        for _ in group[1:]:
            self._report.changed("category id used twice", f"{where}: {shown(' and '.join(names))}",
                                 "made one category with both names")
        name = " or ".join(names) or self._free_name(f"category_{key}")
        if name in self._by_name:
            self._report.changed("category name used twice", shown(name), "made one category")
            if key is not None:
                self._ids[key] = self._by_name[name]
        else:
            self._append(key, group[0], name)

    def _append(self, key: IdValue | None, record: Record, name: str) -> int:
        number = len(self.records) + 1
        made: dict[str, Any] = {**record, "id": number, "name": name}
        if isinstance(record.get("id"), (int, str)) and record["id"] != number:
            made.setdefault("source_id", record["id"])
        self.records.append(made)
        self._by_name[name] = number
        if key is not None:
            self._ids[key] = number
        return number

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._by_name:
            count += 1
            name = f"{wanted}_{count}"
        return name

    def _report_ids(self, records: Sequence[Record]) -> None:
        """Report ids that are not 1, 2, ... as they stand in the file."""
        what = "numbered 1, 2, ... in the order of the ids"
        raw = [record.get("id") for record in records]
        for value in raw:
            if type(value) is not int:
                self._report.changed("category id missing or not a whole number", shown(value), what)
        keys = sorted({value for value in raw if type(value) is int})
        if keys and keys[0] == 0:
            self._report.changed("category ids from 0", shown(keys), what)
        elif keys and (keys[0] < 0 or keys[-1] >= 2**63):
            self._report.changed("category id negative or of more than 63 bits", shown(keys), what)
        if keys and (keys[0] > 1 or keys != list(range(keys[0], keys[0] + len(keys)))):
            self._report.changed("category ids with gaps", shown(keys), what)


def _by_id(records: Sequence[Record], report: Report) -> list[tuple[IdValue | None, list[Record]]]:
    """Return the records by id, in the order of the ids that the reader of annotation files uses."""
    groups: dict[IdValue, list[Record]] = {}
    without: list[tuple[IdValue | None, list[Record]]] = []
    for record in records:
        key = key_of(record.get("id"))
        if key is None:
            without.append((None, [record]))
        else:
            groups.setdefault(key, []).append(record)
    order = sorted(groups, key=lambda key: (0, key, "") if isinstance(key, int) else (1, 0, key))
    return [*((key, groups[key]) for key in order), *without]


def _name(value: Any) -> str:
    """Return a name as text; empty where there is none."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
