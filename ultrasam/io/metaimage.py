"""MetaImage and NRRD that came from elsewhere, brought into a form that names no other file."""

from __future__ import annotations

import re
from pathlib import Path

from ultrasam.errors import DataError

# The head is written anew from these fields alone, so that nothing of it can make the library open another file.
_META_FIELDS = (
    "ObjectType", "NDims", "BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData",
    "TransformMatrix", "Rotation", "Orientation", "Offset", "Position", "Origin", "CenterOfRotation",
    "AnatomicalOrientation", "ElementSpacing", "ElementSize", "DimSize", "ElementNumberOfChannels", "ElementType",
)  # fmt: skip
_NRRD_FIELDS = (
    "type", "dimension", "space", "space dimension", "sizes", "space directions", "kinds", "endian", "encoding",
    "space origin", "spacings", "space units", "centerings", "axis mins", "axis maxs",
)  # fmt: skip
_NUMBERS_AND_WORDS = re.compile(r"[\w\s.,()+-]*")
_MAX_HEAD = 65536


def self_contained(data: bytes, name: Path) -> tuple[str, bytes]:
    """Return the suffix and content of a file that says the same and refers to no other.

    Args:
        data: of a .mha, .mhd or .nrrd file with its pixels.
        name: names it in errors.

    Raises:
        DataError: its pixels lie in another file, or its head is damaged.
    """
    return _nrrd(data, name) if data[:4] == b"NRRD" else _meta(data, name)


def _meta(data: bytes, name: Path) -> tuple[str, bytes]:
    lines, place = ["ObjectType = Image"], 0
    while True:
        end = data.find(b"\n", place, _MAX_HEAD)
        if end < 0:
            raise DataError(f"{name}: a MetaImage was expected, found no line ElementDataFile; get it again")
        field, _, value = (part.strip() for part in data[place:end].decode("latin-1").partition("="))
        place = end + 1
        if field == "ElementDataFile":
            break
        if field in _META_FIELDS[1:]:
            lines.append(f"{field} = {_plain(value, field, name)}")
    if value.lower() != "local":
        raise _elsewhere(name, value)
    lines.append(f"CompressedDataSize = {len(data) - place}")
    return ".mha", "\n".join([*lines, "ElementDataFile = LOCAL", ""]).encode("ascii") + data[place:]


def _nrrd(data: bytes, name: Path) -> tuple[str, bytes]:
    match = re.search(rb"\r?\n\r?\n", data[:_MAX_HEAD])
    if match is None:
        raise _elsewhere(name, "none")
    lines = ["NRRD0004"]
    for line in data[:match.start()].decode("latin-1").splitlines()[1:]:
        field, _, value = (part.strip() for part in line.partition(":"))
        if field.lower().replace(" ", "") == "datafile":
            raise _elsewhere(name, value)
        if field.lower() in _NRRD_FIELDS and not value.startswith("="):
            lines.append(f"{field.lower()}: {_plain(value, field, name)}")
    return ".nrrd", "\n".join([*lines, "", ""]).encode("ascii") + data[match.end():]


def _plain(value: str, field: str, name: Path) -> str:
    # The units of NRRD are in quotation marks.
    if not _NUMBERS_AND_WORDS.fullmatch(value.replace('"', "")) or not value.isascii():
        raise DataError(f"{name}: numbers or words were expected in the field {field}, found {value[:40]!r}")
    return value


def _elsewhere(name: Path, value: str) -> DataError:
    return DataError(f"{name}: a volume in one file was expected, found one whose pixels lie in another "
                     f"({value[:40]!r}); save it as .mha")  # fmt: skip
