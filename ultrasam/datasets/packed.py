"""A list of records in one block of memory, which the workers of a loader share for good.

Python writes a count into every object that it touches. In a worker, which starts with its parent's memory, each
touched page becomes a copy of the worker's own: a list of 187,000 records slowly exists once in every worker. Here
records are bytes in one array, and become objects when they are asked for.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

import numpy as np

Record = TypeVar("Record")


class PackedList(Sequence[Record]):
    """An unchangeable sequence of records; each access makes a new object.

    Args:
        records: anything that pickle takes. The bytes never leave this process and its children.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        parts = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(parts), np.uint8)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = int(index)
        if number < 0:
            number += len(self)
        if not 0 <= number < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        start = int(self._ends[number - 1]) if number else 0
        # Our own bytes, made in the constructor.
        record: Record = pickle.loads(self._bytes[start : int(self._ends[number])].data)  # noqa: S301
        return record

    def __iter__(self) -> Iterator[Record]:
        for number in range(len(self)):
            yield self[number]
