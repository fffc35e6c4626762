"""What the values or colours of masks mean, as the command line and the tables of ``to-masks`` say it."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.mask_files import Colour
from ultrasam.errors import ConfigError, DataError

# File name of the table beside the masks, and its columns.
TABLE = "ids.csv"
COLUMNS = ("mask_file", "image_file", "value", "annotation_id", "category_id", "category", "iscrowd", "area")
_COLOUR = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*=\s*([^,=]+?)\s*(?:,|$)")
_LARGEST_VALUE = 65535


@dataclass(frozen=True)
class Labels:
    """Value to category, for all masks or for each by its path below the folder of masks.

    Attributes:
        everywhere: the meaning of values in every mask; empty where it is given file by file.
        by_file: mask file (forward slashes) to the meaning of its values.
        categories: all names in the order of their ids.
    """

    categories: tuple[str, ...]
    everywhere: Mapping[int, str] = field(default_factory=dict)
    by_file: Mapping[str, Mapping[int, str]] = field(default_factory=dict)

    def of(self, mask_file: str) -> Mapping[int, str]:
        """Return the meaning of the values of one mask."""
        return self.everywhere or self.by_file.get(mask_file, {})


def parse_labels(text: str) -> Labels:
    """Return the labels of a text ``1=liver,2=mass``, or of the table that ``to-masks`` wrote.

    Raises:
        ConfigError: the text is no such list.
        DataError: the table cannot be used.
    """
    if text.lower().endswith(".csv"):
        return read_table(Path(text))
    names: dict[int, str] = {}
    for part in text.split(","):
        value, sign, name = (piece.strip() for piece in part.partition("="))
        if not (sign and name and value.isascii() and value.isdigit() and 0 < int(value) <= _LARGEST_VALUE):
            raise ConfigError(f"--labels: value=name pairs such as 1=liver,2=mass were expected (values from 1 to "
                              f"{_LARGEST_VALUE}, 0 is background), or a table ending in .csv; found {part!r}")
        if int(value) in names:
            raise ConfigError(f"--labels: the value {value} is given twice in {text!r}; give it once")
        names[int(value)] = name
    return Labels(tuple(dict.fromkeys(names.values())), names)


def parse_colours(text: str) -> dict[str, Colour]:
    """Return category to RGB of a text ``255,0,0=liver,0,255,0=mass``.

    Raises:
        ConfigError: the text is no such list, or a name or colour is given twice.
    """
    colours: dict[str, Colour] = {}
    position = 0
    while position < len(text):
        match = _COLOUR.match(text, position)
        red, green, blue = (int(value) for value in match.groups()[:3]) if match else (256, 0, 0)
        if match is None or max(red, green, blue) > 255:
            raise ConfigError("--colours: red,green,blue=name such as 255,0,0=liver,0,255,0=mass was expected "
                              f"(0 to 255), found {text[position:]!r}")
        if match[4] in colours or (red, green, blue) in colours.values():
            raise ConfigError(f"--colours: {match[0].strip(' ,')!r} repeats a name or a colour; give each once")
        colours[match[4]] = (red, green, blue)
        position = match.end()
    if not colours or text.rstrip().endswith(","):
        raise ConfigError(f"--colours: red,green,blue=name was expected, found {text!r}")
    return colours


def read_table(path: Path) -> Labels:
    """Return the labels of a table that ``to-masks`` wrote.

    Raises:
        DataError: the file is missing or no such table, or gives a value of a mask two categories.
    """
    by_file: dict[str, dict[int, str]] = {}
    ids: dict[str, int] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for number, row in enumerate(csv.DictReader(stream, strict=True), start=2):
                value, name, where = int(row["value"]), row["category"], f"{path}, line {number}"
                ids.setdefault(name, int(row["category_id"]))
                meaning = by_file.setdefault(row["mask_file"], {})
                if meaning.setdefault(value, name) != name:
                    raise DataError(f"{where}: the value {value} of {row['mask_file']} is {meaning[value]} and "
                                    f"{name}; binary masks hold no categories, leave out --labels")
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: a table with the columns {', '.join(COLUMNS)} was expected, found: "
                        f"{type(error).__name__} {error}; take the {TABLE} that to-masks wrote") from error
    if not by_file:
        raise DataError(f"{path}: at least one labelled object was expected, found none")
    return Labels(tuple(sorted(ids, key=lambda name: ids[name])), by_file=by_file)
