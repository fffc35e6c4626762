"""Complete or not at all: determinism, killed runs, archives."""

from __future__ import annotations

import io
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.cli import main
from data_prep.staging import Staging, staging
from ultrasam.errors import DataError

KILLED = """
import os, signal, sys
import data_prep.{module} as module
from data_prep.cli import main
def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
module.{name} = kill
main(sys.argv[1:])
"""


def arguments(source: Path, out: Path, *more: str) -> list[str]:
    return ["convert", "bus_bra", "--source", str(source), "--out", str(out), "--workers", "1", *more]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_bytes_from_one_or_two_processes_and_from_archives(mini, tmp_path):
    assert main(arguments(mini.source, tmp_path / "a")) == 0
    first = snapshot(tmp_path / "a")
    assert len(first) == 17 + 6 + 1
    for number, kind in enumerate(("zip", "gztar")):
        archive = shutil.make_archive(str(tmp_path / "download"), kind, mini.source)
        out = tmp_path / f"b{number}"
        assert main(arguments(Path(archive), out)) == 0
        assert snapshot(out) == first
        assert sorted(path.name for path in out.iterdir()) == ["bus_bra"]
    assert main([*arguments(mini.source, tmp_path / "a"), "--workers", "2"]) == 0
    assert snapshot(tmp_path / "a") == first


def test_another_seed_chooses_other_patients(mini, tmp_path):
    picked = set()
    for seed in range(6):
        assert main(arguments(mini.source, tmp_path, "--seed", str(seed))) == 0
        picked.add((tmp_path / "bus_bra/annotations/val.bus_bra.json").read_text())
    assert len(picked) > 1


@pytest.mark.parametrize(("module", "name"), [("pipeline", "write_set"), ("writer", "coco_dict")])
def test_a_killed_run_leaves_the_old_folder_and_the_next_run_works(mini, tmp_path, module, name):
    out = tmp_path / "out"
    assert main(arguments(mini.source, out)) == 0
    before = snapshot(out / "bus_bra")
    mini.image("bus_0003-s").write_bytes(mini.image("bus_0004-l").read_bytes())
    code = KILLED.format(module=module, name=name)
    done = subprocess.run([sys.executable, "-c", code, *arguments(mini.source, out, "--keep-going")],
                          check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert snapshot(out / "bus_bra") == before
    assert main(arguments(mini.source, out, "--keep-going")) == 0
    assert snapshot(out / "bus_bra") != before
    assert sorted(path.name for path in out.iterdir()) == ["bus_bra"]


def test_a_run_killed_between_the_two_renames_is_undone(tmp_path):
    place = Staging(tmp_path, "bus_bra")
    place.old.mkdir(parents=True)
    (place.old / "manifest.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), staging(tmp_path, "bus_bra"):
        raise KeyboardInterrupt
    assert snapshot(tmp_path) == {"bus_bra/manifest.json": b"old"}


def test_two_runs_into_one_folder_are_refused(tmp_path):
    with (
        staging(tmp_path, "bus_bra"),
        pytest.raises(DataError, match="another conversion"),
        staging(tmp_path, "bus_bra"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_someone_else_is_not_replaced(mini, tmp_path, capsys):
    (tmp_path / "out/bus_bra").mkdir(parents=True)
    (tmp_path / "out/bus_bra/thesis.txt").write_text("precious")
    assert main(arguments(mini.source, tmp_path / "out")) == 2
    assert "manifest.json" in capsys.readouterr().err
    assert snapshot(tmp_path / "out") == {"bus_bra/thesis.txt": b"precious"}


def _zip(path: Path, name: str, mode: int = stat.S_IFREG) -> None:
    member = zipfile.ZipInfo(name)
    member.external_attr = (mode | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BUSBRA/bus_data.csv", "ID\n")
        archive.writestr(member, "/etc")


def _tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, "/etc/passwd", 4 if kind == tarfile.REGTYPE else 0
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("BUSBRA/bus_data.csv"))
        archive.addfile(member, io.BytesIO(b"/etc"))


@pytest.mark.parametrize(("make", "details"), [
    (_zip, ("../evil.txt",)), (_zip, ("/tmp/evil.txt",)), (_zip, ("BUSBRA/../../evil.txt",)),
    (_zip, ("..\\evil.txt",)), (_zip, ("C:\\evil.txt",)), (_zip, ("evil.txt", stat.S_IFLNK)),
    (_tar, ("../evil.txt",)), (_tar, ("/tmp/evil.txt",)), (_tar, ("evil.txt", tarfile.SYMTYPE)),
    (_tar, ("evil.txt", tarfile.LNKTYPE)), (_tar, ("evil.txt", tarfile.FIFOTYPE)),
])
def test_unsafe_archives_leave_no_trace(tmp_path, capsys, make, details):
    archive = tmp_path / "evil.archive"
    make(archive, *details)
    assert main(arguments(archive, tmp_path / "new/out", "--keep-going")) == 2
    message = capsys.readouterr().err
    assert "refused" in message
    assert repr(details[0]) in message
    assert list(tmp_path.iterdir()) == [archive]


def test_damaged_archives_and_wrong_sources_are_named(mini, tmp_path, capsys):
    archive = Path(shutil.make_archive(str(tmp_path / "download"), "gztar", mini.source))
    archive.write_bytes(archive.read_bytes()[:-400])
    sources = {archive: "download it again", tmp_path / "nothing": "found nothing there",
               mini.image("bus_0004-l"): "another kind of file", tmp_path: "download.tar.gz"}
    for source, words in sources.items():
        shutil.rmtree(mini.raw) if source == tmp_path else None
        assert main(arguments(source, tmp_path / "out")) == 2
        message = capsys.readouterr().err
        assert words in message
        assert str(source) in message
        assert not (tmp_path / "out").exists()
