"""Files that must be read, and files that must be refused without running anything in them."""

import argparse
import collections
import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ultrasam.checkpoints import safe_load, save_checkpoint, sha256_of
from ultrasam.checkpoints.hashing import tensors_sha256
from ultrasam.checkpoints.unpickle import CodeInFileError, Placeholder, RestrictedUnpickler
from ultrasam.errors import CheckpointError


class HistoryBuffer:
    """As MMEngine's: a class of the writing program, with arrays and a bound method in its state."""

    def __init__(self) -> None:
        self.history = np.arange(3.0)
        self.methods = [getattr]

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise AssertionError("the class of the file was used")


class Toucher:
    """Creates a file when it is unpickled in the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.target,)


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "plain": base,
        "transposed view": base.T[1:3],
        "shared": base[2],
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "flags": base > 0,
        "parameter": torch.nn.Parameter(base + 1),
    }


FOREIGN: dict[str, Callable[[], Any]] = {
    "history buffer": HistoryBuffer,
    "numpy scalar": lambda: np.float64(0.5),
    "numpy array": lambda: np.arange(4),
    "namespace": lambda: argparse.Namespace(lr=0.1),
    "getattr": lambda: getattr,
    "default dict": lambda: collections.defaultdict(list, {"a": [1]}),
    "set": lambda: {1, 2},
    "path": lambda: Path("a"),
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", ["nothing", *FOREIGN, "all"])
def test_tensors_are_read_beside_foreign_objects(tmp_path: Path, kind: str, legacy: bool) -> None:
    expected = weights()
    state = collections.OrderedDict(expected)
    state._metadata = {"": {"version": 1}}
    names = list(FOREIGN) if kind == "all" else [kind] if kind in FOREIGN else []
    content = {"state_dict": state, "meta": {"iter": 5, "nested": [FOREIGN[name]() for name in names]}}
    path = tmp_path / "mm.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)

    result = safe_load(path)

    assert result["meta"]["iter"] == 5
    assert list(result["state_dict"]) == list(expected)
    for name, value in expected.items():
        found = result["state_dict"][name]
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value.detach(), rtol=0, atol=0)


def test_foreign_objects_become_placeholders_that_name_their_class(tmp_path: Path) -> None:
    torch.save({"a": argparse.Namespace(lr=1), "b": HistoryBuffer(), "w": torch.ones(1)}, tmp_path / "a.pth")
    result = safe_load(tmp_path / "a.pth")
    assert isinstance(result["a"], Placeholder) and isinstance(result["b"], Placeholder)
    assert result["a"].qualified_name == "argparse.Namespace"
    assert not vars(result["a"])
    assert "HistoryBuffer, not loaded" in repr(result["b"])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_payload_does_not_run_and_its_file_is_refused(tmp_path: Path, legacy: bool) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "malicious.pth"
    torch.save({"w": torch.ones(2), "x": Toucher(target)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=rf"malicious\.pth names {os.mkdir.__module__}\.mkdir, code .* not run"):
        safe_load(path)
    assert not target.exists()
    # The payload is a real one: ordinary unpickling runs it.
    torch.load(path, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize(
    "name",
    ["os system", "posix popen", "subprocess Popen", "builtins exec", "__builtin__ eval", "builtins getattr.__import__",
     "torch os.system", "torch.hub load", "importlib import_module", "runpy run_path", "torch load", "shutil rmtree",
     "webbrowser open", "ctypes CDLL", "urllib.request urlretrieve", "builtins open"],
)  # fmt: skip
def test_names_of_code_are_refused(name: str) -> None:
    module, function = name.split()
    with pytest.raises(CodeInFileError, match=re.escape(f"{module}.{function}")):
        unpickle(f"c{module}\n{function}\n".encode())


@pytest.mark.parametrize(
    "name",
    ["builtins getattr", "mmengine.logging.history_buffer HistoryBuffer", "numpy.core.multiarray _reconstruct",
     "pathlib PosixPath", "argparse Namespace", "collections defaultdict", "_codecs encode", "torch.optim.adamw AdamW"],
)  # fmt: skip
def test_names_in_honest_training_files_are_not(name: str) -> None:
    module, function = name.split()
    assert issubclass(unpickle(f"c{module}\n{function}\n".encode()), Placeholder)


def test_a_payload_in_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "touched"
    path = tmp_path / "a.pth"
    path.write_bytes(pickle.dumps({"x": Toucher(target)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"a\.pth is no PyTorch or safetensors file but a bare pickle"):
        safe_load(path)
    assert not target.exists()


def unpickle(program: bytes) -> Any:
    return RestrictedUnpickler(io.BytesIO(b"\x80\x02" + program + b".")).load()


@pytest.mark.parametrize(
    "target",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"ctorch\nFloatStorage\n",
        b"cos\nsystem\n",
    ],
)
def test_a_file_cannot_write_attributes_to_the_reader(target: bytes) -> None:
    state = b"N}X\x04\x00\x00\x00evilK\x01s\x86"  # (None, {"evil": 1}): BUILD would call setattr
    with pytest.raises((pickle.UnpicklingError, TypeError, AttributeError)):
        unpickle(target + state + b"b")


def test_calls_in_a_pickle_reach_placeholders_only() -> None:
    assert isinstance(unpickle(b"cargparse\nNamespace\nX\x04\x00\x00\x00true\x85R"), Placeholder)
    bound = unpickle(
        b"c__builtin__\ngetattr\n" + b"ccollections\nCounter\n" + b"X\x04\x00\x00\x00read\x86R(X\x01\x00\x00\x00atR"
    )
    assert isinstance(bound, Placeholder)


def test_a_tensor_cannot_reach_beyond_its_storage(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.zeros(5), "x": argparse.Namespace()}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            if name.endswith("data.pkl"):
                assert data.count(b"K\x05\x85") == 1  # size (5,)
                data = data.replace(b"K\x05\x85", b"K\xff\x85")
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match=r"a\.pth is damaged"):
        safe_load(path)


def damaged(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    whole = io.BytesIO()
    torch.save({"w": torch.randn(1000)}, whole)
    foreign = io.BytesIO()
    torch.save(
        {"w": torch.randn(1000), "x": argparse.Namespace()}, foreign, _use_new_zipfile_serialization=False
    )
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("holiday/beach.jpg", b"picture")
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), script)
    number = io.BytesIO()
    torch.save([1, 2], number)
    save_file({"w": torch.ones(100)}, tmp_path / "whole.safetensors")
    tensors = (tmp_path / "whole.safetensors").read_bytes()
    contents = {
        "truncated": (whole.getvalue()[:-300], "damaged or cut off"),
        "truncated early": (whole.getvalue()[:100], "damaged or cut off"),
        "truncated legacy": (foreign.getvalue()[:-100], "damaged or cut off"),
        "truncated safetensors": (tensors[:-20], "damaged or cut off"),
        "html": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        "zero": (b"", "empty"),
        "pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
            "Git-LFS pointer",
        ),
        "zip": (other.getvalue(), r"no PyTorch file \(it holds holiday/beach.jpg\)"),
        "script": (script.getvalue(), "TorchScript program"),
        "list": (number.getvalue(), "holds a list"),
        "noise": (bytes(range(256)), "no PyTorch or safetensors file"),
    }
    cases = {}
    for name, (data, message) in contents.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        cases[name] = (path, message)
    cases["folder"] = (tmp_path, "is a folder")
    cases["missing"] = (tmp_path / "missing.pth", "does not exist")
    cases["null"] = (Path("a\0b"), "cannot be read|does not exist")
    return cases


def lying_header(**changes: Any) -> bytes:
    """A safetensors file of 4 numbers whose header says something else."""
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}
    header = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


@pytest.mark.parametrize(
    "data",
    [
        lying_header(shape=[1 << 40]),
        lying_header(data_offsets=[0, 1 << 40], shape=[1 << 38]),
        lying_header(data_offsets=[8, 24]),
        lying_header(data_offsets=[16, 0]),
        lying_header(shape=[-4]),
        lying_header(dtype="F99"),
        lying_header()[:-1],
        lying_header() + b"more",
        struct.pack("<Q", 90_000_000) + b'{"w":',
        struct.pack("<Q", 1 << 62) + b'{"w":{}}',
        struct.pack("<Q", 8) + b"{{{{{{{{",
    ],
)
def test_lying_safetensors_headers_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"damaged or cut off|no PyTorch or safetensors") as caught:
        safe_load(path)
    assert "a.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_archives_that_unpack_to_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match=r"bomb\.pth would unpack from 0\.1 to 100 MiB"):
        safe_load(path)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_tensors_that_repeat_one_number_forever_are_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "bomb.pth"
    content = {"state_dict": {"w": torch.zeros(1).expand(1 << 20, 1 << 20)}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match=r"claims 4,096 GiB of tensors"):
        safe_load(path)


def test_a_dictionary_that_holds_itself_is_read(tmp_path: Path) -> None:
    content: dict[str, Any] = {"w": torch.ones(1)}
    content["self"] = content
    torch.save(content, tmp_path / "a.pth")
    assert torch.equal(safe_load(tmp_path / "a.pth")["w"], torch.ones(1))


def test_files_that_are_no_weights_get_one_clear_sentence(tmp_path: Path) -> None:
    for name, (path, message) in damaged(tmp_path).items():
        with pytest.raises(CheckpointError, match=message) as caught:
            safe_load(path)
        text = str(caught.value)
        assert path.name in text or name == "null", text
        assert "\n" not in text


@pytest.mark.parametrize("share", range(30))
def test_every_truncation_is_refused(tmp_path: Path, share: int) -> None:
    data = io.BytesIO()
    torch.save({"w": torch.randn(100), "x": argparse.Namespace()}, data)
    path = tmp_path / "a.pth"
    whole = data.getvalue()
    path.write_bytes(whole[: len(whole) * share // 30])
    with pytest.raises(CheckpointError):
        safe_load(path)


def test_hash(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(path) == known
    torch.save({"w": torch.ones(1)}, path)
    assert safe_load(path, sha256=sha256_of(path).upper())
    with pytest.raises(CheckpointError, match=f"has the SHA-256 .*, expected {known}"):
        safe_load(path, sha256=known)
    with pytest.raises(CheckpointError, match="cannot be read"):
        sha256_of(tmp_path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_written_files_are_read_back(tmp_path: Path, ending: str) -> None:
    state = {name: value for name, value in weights().items() if name != "empty"}
    card = {"architecture": "vit_b", "training": {"datasets": {"busi": {"images": 647}}}, "note": "é"}
    path = tmp_path / "new folder" / f"a.{ending}"
    save_checkpoint(path, state, card)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    result = safe_load(path)
    assert result["card"] == {**card, "tensors_sha256": tensors_sha256(state)}
    for name, value in state.items():
        assert torch.equal(result["state_dict"][name], value.detach())
    if ending == "pth":
        assert torch.load(path, weights_only=True)["card"] == result["card"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    save_checkpoint(path, {"w": torch.ones(1)}, {})
    before = path.read_bytes()

    def fail(content: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(CheckpointError, match="no space left"):
        save_checkpoint(path, {"w": torch.zeros(1)}, {})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.pth"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\.pth or \.safetensors, got 'a\.bin'"):
        save_checkpoint(tmp_path / "a.bin", {"w": torch.ones(1)}, {})
    with pytest.raises(CheckpointError, match="'n' is no tensor"):
        save_checkpoint(tmp_path / "a.pth", {"n": 1}, {})  # type: ignore[dict-item]
    for value in (Path("x"), float("nan"), torch.ones(1)):
        with pytest.raises(CheckpointError, match="not plain"):
            save_checkpoint(tmp_path / "a.pth", {"w": torch.ones(1)}, {"x": value})
    assert list(tmp_path.iterdir()) == []
