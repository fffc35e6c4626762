"""Pickled dictionaries of arrays against NumPy's own reader, and hostile pickles that must not run."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pytest

from data_prep.restricted_pickle import read_pickled_dict
from ultrasam.errors import DataError


def wrapped(path: Path, content: bytes) -> Path:
    """A .npy file of one object whose pickle is given."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    path.write_bytes(stream.getvalue() + content)
    return path


def saved(path: Path, value: object) -> Path:
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    return path


def example() -> dict:
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (7, 9, 3), dtype=np.uint8),
        "note": "käse", "count": 3, "scale": 0.5, "absent": None,
        "structures": {
            "liver": rng.integers(0, 2, (7, 9), dtype=np.uint8),
            "by column": np.asfortranarray(rng.normal(size=(4, 5)).astype(np.float32)),
            "big endian": np.arange(6, dtype=">i4").reshape(2, 3),
            "flags": np.array([True, False]),
            "half": np.linspace(0, 1, 5, dtype=np.float16),
            "empty": np.zeros((0, 4), np.int64),
        },
    }


def assert_same(found: object, truth: object) -> None:
    assert type(found) is type(truth)
    if isinstance(truth, dict):
        assert list(found) == list(truth)
        for name in truth:
            assert_same(found[name], truth[name])
    elif isinstance(truth, np.ndarray):
        assert (found.dtype, found.shape) == (truth.dtype.newbyteorder("="), truth.shape)
        assert found.flags.writeable
        np.testing.assert_array_equal(found, truth)
    else:
        assert found == truth


def test_a_saved_dictionary_comes_back_as_numpy_reads_it(tmp_path):
    path = saved(tmp_path / "a.npy", example())
    assert_same(read_pickled_dict(path), np.load(path, allow_pickle=True).item())


@pytest.mark.parametrize("protocol", [3, 4])
@pytest.mark.parametrize("core", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_protocols_and_the_names_of_both_numpy_versions_are_read(tmp_path, protocol, core):
    content = pickle.dumps(np.array(example(), dtype=object), protocol)
    named = b"numpy._core.multiarray" if b"numpy._core.multiarray" in content else b"numpy.core.multiarray"
    if protocol == 4:
        # Here a name stands behind its length, in a frame that states its length too.
        assert content[2:3] == b"\x95"
        changed = content[11:].replace(bytes([len(named)]) + named, bytes([len(core)]) + core)
        content = content[:3] + len(changed).to_bytes(8, "little") + changed
    else:
        content = content.replace(named, core)
    assert core in content
    assert_same(read_pickled_dict(wrapped(tmp_path / "a.npy", content)), example())


class Evil:
    """What `pickle.load` would run."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_a_malicious_pickle_is_not_run(tmp_path):
    trace = tmp_path / "trace"
    evil = {"structures": {"liver": Evil(os.mkdir, str(trace))}}
    path = saved(tmp_path / "evil.npy", evil)
    with pytest.raises(DataError, match=r"evil\.npy.*posix\.mkdir.*nothing of it was run"):
        read_pickled_dict(path)
    assert not trace.exists()
    # The file is a working weapon: the reader that trusts it makes the folder.
    np.load(path, allow_pickle=True)
    assert trace.is_dir()


@pytest.mark.parametrize(("function", "arguments"), [
    (eval, ("1",)), (getattr, (1, "real")), (np.load, ("x",)), (np.ones, (3,)), (os.system, ("true",)),
    (np.core.multiarray.scalar if hasattr(np, "core") else np.ones, (np.dtype("u1"), b"1")),
    (io.open, ("x",)), (pickle.loads, (b"N.",)),
])
def test_no_other_name_is_known(tmp_path, function, arguments):
    with pytest.raises(DataError, match="could run code"):
        read_pickled_dict(saved(tmp_path / "a.npy", {"a": Evil(function, *arguments)}))


def test_a_pickle_cannot_change_what_the_reader_is_made_of(tmp_path):
    # GLOBAL, then BUILD with attributes: on a shared class or function this would stay for the next file.
    content = (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}(X\x05\x00\x00\x00poisoK\x01u"
               b"N\x86b.")
    assert "BUILD" in [code.name for code, _, _ in pickletools.genops(content)]
    with pytest.raises(DataError):
        read_pickled_dict(wrapped(tmp_path / "a.npy", content))
    assert_same(read_pickled_dict(saved(tmp_path / "b.npy", example())), example())


def array_pickle(shape: tuple, kind: str, content: object) -> bytes:
    """A pickle of an array whose parts need not fit together."""

    class Loose:
        def __reduce__(self):
            return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, shape, np.dtype(kind), False, content)

    return pickle.dumps({"a": Loose()}, 3)


def whole(inner: bytes) -> bytes:
    """A pickle of a 0-d object array around another pickle's one object."""
    shell = pickle.dumps(np.array(None, dtype=object), 3)
    head, tail = shell.split(b"]", 1)
    assert b"Na" in tail
    return head + b"]" + tail.replace(b"Na", inner[2:-1] + b"a", 1)


@pytest.mark.parametrize(("shape", "kind", "content"), [
    ((4,), "u1", b"abc"), ((2**40, 2**40), "u1", b"abc"), ((-1,), "u1", b"abc"), ((3,), "u1", [1, 2, 3]),
    ((True,), "u1", b"a"), ((1,), "U1", b"abcd"), ((1,), "M8[s]", b"12345678"), ((1,), "V1", b"a"),
])
def test_arrays_that_do_not_fit_are_refused(tmp_path, shape, kind, content):
    with pytest.raises(DataError, match="a dictionary of arrays"):
        read_pickled_dict(wrapped(tmp_path / "a.npy", whole(array_pickle(shape, kind, content))))


def test_the_helpers_of_that_test_make_files_that_are_otherwise_fine(tmp_path):
    found = read_pickled_dict(wrapped(tmp_path / "a.npy", whole(array_pickle((3,), "u1", b"abc"))))
    np.testing.assert_array_equal(found["a"], [97, 98, 99])


@pytest.mark.parametrize("value", [
    [1, 2], 3, "text", {1: 2}, {"a": [1]}, {"a": {1, 2}}, {"a": np.array([None, "x"])}, {"a": b"bytes"},
])
def test_other_contents_are_refused(tmp_path, value):
    shell = np.empty((), object)
    shell[()] = value
    path = tmp_path / "a.npy"
    np.save(path, shell, allow_pickle=True)
    with pytest.raises(DataError, match="a dictionary of arrays"):
        read_pickled_dict(path)


def test_plain_arrays_and_other_files_are_refused(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros((3, 4)))
    with pytest.raises(DataError, match=r"plain\.npy.*float64 and shape \(3, 4\)"):
        read_pickled_dict(tmp_path / "plain.npy")
    (tmp_path / "text.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"text\.npy"):
        read_pickled_dict(tmp_path / "text.npy")
    whole_file = saved(tmp_path / "cut.npy", example())
    whole_file.write_bytes(whole_file.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.npy"):
        read_pickled_dict(whole_file)
    with pytest.raises(DataError, match="does not exist"):
        read_pickled_dict(tmp_path / "absent.npy")


def test_one_dictionary_named_over_and_over_takes_no_time(tmp_path):
    value: dict = {"a": 1}
    for _ in range(6):
        value = dict.fromkeys([str(number) for number in range(200)], value)
    assert read_pickled_dict(saved(tmp_path / "a.npy", value))["7"]["7"]["7"]["7"]["7"]["7"] == {"a": 1}


def test_a_dictionary_inside_itself_is_refused(tmp_path):
    value: dict = {}
    value["a"] = value
    with pytest.raises(DataError):
        read_pickled_dict(saved(tmp_path / "a.npy", value))
