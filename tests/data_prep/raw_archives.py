"""Archives for tests that no library of the project writes: rar, and zip split over several files."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

_CENTRAL = struct.Struct("<4s6H3L5H2L")


def write_rar(path: Path, files: Mapping[str, bytes], *, mode: int = stat.S_IFREG | 0o644, flags: int = 0,
              method: int = 0x30) -> Path:
    """Write a rar of the third version; ``method`` 0x30 stores, any other only says that it compresses."""
    def block(kind: int, flags: int, body: bytes, data: bytes = b"") -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head + data

    made = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data in files.items():
        coded = name.encode()
        body = struct.pack("<LLBLLBBHL", len(data), len(data), 3, zlib.crc32(data), 0x58000000, 20, method,
                           len(coded), mode) + coded
        made += block(0x74, 0x8000 | flags, body, data)
    path.write_bytes(made + block(0x7B, 0x4000, b""))
    return path


def split_zip(whole: Path, size: int) -> list[Path]:
    """Split a zip into parts of ``size`` bytes, x.z01, x.z02, ... and x.zip, as Info-ZIP does; return them.

    The directory then gives the places of members as part and place in the part.
    """
    with zipfile.ZipFile(whole) as archive:
        start = archive.start_dir
        entries = len(archive.infolist())
    data = b"PK\x07\x08" + whole.read_bytes()
    body, directory, end = data[:start + 4], bytearray(data[start + 4:-22]), data[-22:]
    place = 0
    while place < len(directory):
        fields = list(_CENTRAL.unpack_from(directory, place))
        fields[13], fields[16] = (fields[16] + 4) // size, (fields[16] + 4) % size
        _CENTRAL.pack_into(directory, place, *fields)
        place += _CENTRAL.size + sum(fields[10:13])
    disk, there = divmod(len(body), size)
    last = (len(body) + len(directory)) // size
    end = struct.pack("<4s4H2LH", end[:4], last, disk, entries, entries, len(directory), there, 0)
    stream = body + bytes(directory)
    parts = []
    for number in range(last + 1):
        part = whole.with_suffix(".zip" if number == last else f".z{number + 1:02d}")
        piece = stream[number * size:(number + 1) * size]
        part.write_bytes(piece + end if number == last else piece)
        parts.append(part)
    return parts
