"""Going through datasets below the wrappers that MMEngine and this project put around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def indexed_leaves(dataset: Any) -> Iterator[Any]:
    """Yield the datasets below wrappers and concatenations in the order of the indices, as often as they are repeated.

    Joining the samples of what is yielded gives the samples of ``dataset``, index by index.
    """
    if hasattr(dataset, "datasets"):
        for part in dataset.datasets:
            yield from indexed_leaves(part)
        return
    # Of the wrapper itself: some wrappers answer for what is inside of them.
    own = getattr(dataset, "__dict__", {})
    if own.get("dataset") is None:
        yield dataset
        return
    for _ in range(own.get("times", 1)):
        yield from indexed_leaves(own["dataset"])


def leaves(dataset: Any) -> list[Any]:
    """Return the datasets below wrappers and concatenations, each once."""
    return list({id(leaf): leaf for leaf in indexed_leaves(dataset)}.values())


def source_name(leaf: Any) -> str:
    """Return what a dataset without image records is called: ``source`` of its ``metainfo``, else its class."""
    return str((getattr(leaf, "metainfo", None) or {}).get("source") or type(leaf).__name__)
