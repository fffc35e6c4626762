"""MATLAB files of both kinds give the same arrays."""

import h5py
import numpy as np
import pytest
import scipy.io

from ultrasam.errors import DataError
from ultrasam.io.matlab import read_mat

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def test_old_and_new_files_give_the_same_arrays(tmp_path):
    old, new = tmp_path / "old.mat", tmp_path / "new.mat"
    scipy.io.savemat(old, {"volume": ARRAY, "name": "text", "cells": np.array([[1], "a"], dtype=object)})
    with h5py.File(new, "w", userblock_size=512) as file:
        file["volume"] = ARRAY.T
        file["name"] = np.frombuffer(b"t\0e\0", np.uint16)
        file["name"].attrs["MATLAB_class"] = np.bytes_(b"char")
        file.create_group("#refs#")
    with new.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    for path in (old, new):
        found = read_mat(path)
        assert found.keys() == {"volume"}
        np.testing.assert_array_equal(found["volume"], ARRAY)


def test_what_is_no_matlab_file_is_named(tmp_path):
    path = tmp_path / "a.mat"
    with pytest.raises(DataError, match="does not exist"):
        read_mat(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_mat(path)
    path.write_bytes(b"no matlab file" * 40)
    with pytest.raises(DataError, match=r"a\.mat: a readable MATLAB file"):
        read_mat(path)
    scipy.io.savemat(path, {"name": "text"})
    with pytest.raises(DataError, match="none in it"):
        read_mat(path)
    scipy.io.savemat(path, {"volume": ARRAY})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.mat"):
        read_mat(path)
