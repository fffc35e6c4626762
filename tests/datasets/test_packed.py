"""Packed records come back equal, by any index, and do not share state."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultrasam.datasets.packed import PackedList


@given(st.lists(st.one_of(st.integers(), st.text(), st.lists(st.floats(allow_nan=False)), st.none())))
def test_records_come_back(records):
    packed = PackedList(records)
    assert list(packed) == records and len(packed) == len(records)
    for index in range(-len(records), len(records)):
        assert packed[index] == records[index]
    assert packed[1:] == records[1:] and packed[::-2] == records[::-2]
    assert list(pickle.loads(pickle.dumps(packed))) == records
    for index in (len(records), -len(records) - 1):
        with pytest.raises(IndexError, match=f"of {len(records)}"):
            packed[index]


def test_a_change_stays_with_the_one_who_made_it():
    packed = PackedList([{"a": [1]}])
    packed[0]["a"].append(2)
    assert packed[0] == {"a": [1]}
