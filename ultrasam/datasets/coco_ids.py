"""Ids and categories of COCO files as they are met in practice, mapped to dense integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrasam.errors import ConfigError, DataError

IdValue = int | str
_MAX_ID = 2**63 - 1


def id_key(value: Any, what: str) -> IdValue:
    """The value under which an id is looked up: 7, 7.0 and "7" are one id.

    Raises:
        DataError: the id is neither a whole number nor a text.
    """
    if type(value) is int:
        return value
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 40 else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise DataError(f"{what}: an id must be a whole number or a text, found {value!r}")


def dense_ids(values: Sequence[Any], lowest: int) -> tuple[list[int], bool]:
    """Ids for all records: the given ones if they can be used, else 1, 2, 3, ... in the order given.

    Args:
        values: ids as found.
        lowest: smallest id that can be used. Zero is wrong for annotations: pycocotools takes it for
            "no match".

    Returns:
        unique integers, and whether they are new.
    """
    usable = all(type(value) is int and lowest <= value <= _MAX_ID for value in values)
    if usable and len(set(values)) == len(values):
        return list(values), False
    return list(range(1, len(values) + 1)), True


def category_labels(
    records: Sequence[Mapping[str, Any]], classes: Sequence[str] | None, source: Path
) -> tuple[list[str], dict[IdValue, int]]:
    """Class names and the label (index of the class) of every category id.

    Args:
        records: the categories of the file.
        classes: names in the order wanted, None for the order of the category ids.
        source: the file, for messages.

    Raises:
        DataError: a category without a name, or an id or name used twice.
        ConfigError: ``classes`` are not exactly the names of the file.
    """
    names: dict[IdValue, str] = {}
    for index, record in enumerate(records):
        what = f"{source}, category number {index + 1}"
        key, name = id_key(record.get("id"), what), record.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{what}: a category needs a name, found {name!r}")
        if key in names or name in names.values():
            raise DataError(f"{what}: the id {key!r} or the name {name!r} is used twice among the categories")
        names[key] = name
    if not names:
        raise DataError(f"{source}: 'categories' is empty; at least one category is needed")
    order = sorted(names, key=lambda key: (0, key, "") if isinstance(key, int) else (1, 0, key))
    in_file = [names[key] for key in order]
    if classes is None:
        return in_file, {key: label for label, key in enumerate(order)}
    wanted = list(classes)
    if isinstance(classes, str) or sorted(wanted) != sorted(in_file):
        raise ConfigError(
            f"the classes {classes!r} of the configuration are not those of {source}, which are {in_file}; "
            "leave the classes out to take them from the file"
        )
    return wanted, {key: wanted.index(name) for key, name in names.items()}
