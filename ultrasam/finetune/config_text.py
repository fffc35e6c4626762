"""A configuration as a Python file that people read: one assignment a section, with a comment that says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 100


class Name(str):
    """A value that is written as it is: the name of an earlier assignment."""


@dataclass(frozen=True)
class Section:
    """One assignment.

    Attributes:
        name: left of the equals sign.
        value: plain values, dictionaries and lists of them, and ``Name``.
        comment: lines above it, without the sign; "" for none.
    """

    name: str
    value: Any
    comment: str = ""


def literal(value: Any, indent: int = 0, used: int = 0) -> str:
    """Return a value as Python source: dictionaries as ``dict(key=...)``, broken over lines where they are long.

    Args:
        value: what to write.
        indent: blanks before a broken value's closing bracket.
        used: columns taken on the first line.
    """
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, str):
        return '"' + value.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        parts, left, right = [(f"{key}=", child) for key, child in value.items()], "dict(", ")"
    elif isinstance(value, Sequence):
        parts, left, right = [("", child) for child in value], "[", "]"
    else:
        return repr(value)
    line = left + ", ".join(key + literal(child) for key, child in parts) + right
    if "\n" not in line and used + len(line) <= WIDTH:
        return line
    inner = " " * (indent + 4)
    lines = [f"{inner}{key}{literal(child, indent + 4, indent + 5 + len(key))}," for key, child in parts]
    return "\n".join([left, *lines, " " * indent + right])


def config_text(title: str, sections: Sequence[Section]) -> str:
    """Return the source of a configuration.

    Args:
        title: its docstring.
        sections: in order.
    """
    lines = [f'"""{title}\n"""' if "\n" in title else f'"""{title}"""', ""]
    for section in sections:
        if section.comment:
            lines += [f"# {line}" for line in section.comment.splitlines()]
        lines.append(f"{section.name} = {literal(section.value, 0, len(section.name) + 3)}")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"
