"""What the doctor found, counted by fault, and the table that it prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_SHOWN = 60


@dataclass
class Finding:
    """One kind of fault.

    Attributes:
        count: how often it was met.
        example: id or file of the first one.
        changed: how it is repaired, in words, and how often.
        left: why it is not repaired, in words, and how often.
    """

    count: int = 0
    example: str = ""
    changed: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)


class Report:
    """All findings, in the order in which they were met first."""

    def __init__(self) -> None:
        self.findings: dict[str, Finding] = {}

    def changed(self, fault: str, where: str, what: str) -> None:
        """Count a fault that is repaired; ``what`` follows a number ("3 clipped to the image")."""
        self._count(fault, where).changed[what] += 1

    def left(self, fault: str, where: str, why: str) -> None:
        """Count a fault that cannot be repaired; ``why`` follows a number."""
        self._count(fault, where).left[why] += 1

    def _count(self, fault: str, where: str) -> Finding:
        finding = self.findings.setdefault(fault, Finding(example=where))
        finding.count += 1
        return finding

    @property
    def total(self) -> int:
        """How many faults there are."""
        return sum(finding.count for finding in self.findings.values())

    @property
    def remaining(self) -> int:
        """How many of them cannot be repaired."""
        return sum(finding.left.total() for finding in self.findings.values())

    def rows(self, *, fixed: bool) -> list[tuple[str, ...]]:
        """Return the table, the header first; ``fixed`` says whether the repairs were written."""
        verb = "" if fixed else "would be "
        rows: list[tuple[str, ...]] = [("fault", "how many", "example", f"{verb}changed", f"{verb}left")]
        rows += [
            (fault, str(finding.count), finding.example, _joined(finding.changed), _joined(finding.left))
            for fault, finding in self.findings.items()
        ]
        return rows


@dataclass
class LeftOut:
    """Every record that is not in the repaired copy, with the reason.

    Attributes:
        records: ``images``, ``annotations`` or ``categories`` to their records.
    """

    records: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, kind: str, record: Any, reason: str) -> None:
        """Keep a record as it was."""
        self.records.setdefault(kind, []).append({"reason": reason, "record": record})

    def count(self, kind: str) -> int:
        """How many records of a kind are left out."""
        return len(self.records.get(kind, ()))


def shown(value: object) -> str:
    """Return a value as one short printable line; texts come without quotes."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
                   for letter in text[:1000])
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN // 2 - 3]} ... {text[-_SHOWN // 2 + 2:]}"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns of equal width; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _joined(texts: Counter[str]) -> str:
    return "; ".join(f"{count} {text}" for text, count in texts.items()) or "-"
