"""Archives of every kind, in parts, in one another and in folders; what is refused, and that nothing stays behind."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import py7zr
import pytest
import rarfile
from raw_archives import split_zip, write_rar

from data_prep.archives import rar, unpacking
from data_prep.archives.reader import StaysPackedError
from data_prep.sources import find_one, is_archive, open_source, unpack
from ultrasam.errors import DataError

FILES = {"top/a.txt": b"first", "top/deep/b.bin": bytes(range(256)) * 40, "c.txt": b""}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_7z(path: Path, files: dict[str, bytes], **options) -> Path:
    with py7zr.SevenZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writef(io.BytesIO(data), name)
    return path


def packed(kind: str, folder: Path) -> Path:
    """Pack FILES."""
    if kind == "rar":
        return write_rar(folder / "x.rar", FILES)
    if kind == "7z":
        return write_7z(folder / "x.7z", FILES)
    return Path(shutil.make_archive(str(folder / "x"), kind, write_tree(folder / "loose", FILES)))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar", "rar", "7z"])
def test_every_kind_is_told_by_its_content_and_unpacked_as_it_was(tmp_path, kind):
    archive = packed(kind, tmp_path).rename(tmp_path / "download")
    os.utime(archive, ns=(10**18, 10**18 + 7))
    assert is_archive(archive)
    with open_source(archive, tmp_path / "scratch") as raw:
        assert tree(raw) == FILES
        # The time of the archive, so that an interrupted conversion knows the files again.
        assert {path.stat().st_mtime_ns for path in raw.rglob("*") if path.is_file()} == {10**18 + 7}
    assert not (tmp_path / "scratch").exists()


def test_a_tar_whose_last_member_is_a_zip_is_a_tar(tmp_path):
    write_tree(tmp_path / "in", {"a.txt": b"a", "z.zip": zipped({"inner.txt": b"i"})})
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "tar", tmp_path / "in"))
    assert zipfile.is_zipfile(archive)
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.txt": b"a", "z/inner.txt": b"i"}


def noise(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()


@pytest.mark.parametrize("last", ["x.zip", "x.change2zip"])
def test_a_split_zip_is_read_from_its_parts(tmp_path, last):
    files = {f"d/{size}.bin": noise(size) for size in (900, 3000, 10, 4001)}
    *parts, end = split_zip(write_zip(tmp_path / "x.zip", files), 1000)
    assert len(parts) > 5
    end.rename(tmp_path / last)
    for given in (tmp_path / last, parts[0]):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        unpack(given, tmp_path / "out")
        assert tree(tmp_path / "out") == files
    parts[2].rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"x\.z03 of this split archive is not there"):
        unpack(tmp_path / last, tmp_path / "none")
    for part in tmp_path.glob("x.z*"):
        part.unlink() if part.name != last else None
    (tmp_path / "away").rename(tmp_path / "x.z01")
    if last == "x.zip":
        (tmp_path / last).unlink()
        with pytest.raises(DataError, match=r"the last part x\.zip"):
            unpack(tmp_path / "x.z01", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(shutil.which("zip") is None, reason="the program zip, which splits archives, is not installed")
def test_a_zip_that_info_zip_split_is_read(tmp_path):
    files = {f"d/{number}.bin": noise(50_000 + number) for number in range(5)}
    write_tree(tmp_path / "in", files)
    subprocess.run(["zip", "-q", "-r", "-s", "64k", tmp_path / "x.zip", "d"], cwd=tmp_path / "in", check=True)
    assert len(list(tmp_path.glob("x.z*"))) == 4
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == files


@pytest.mark.parametrize("kind", ["zip", "7z", "gztar"])
def test_an_archive_in_plain_pieces_is_read(tmp_path, kind):
    archive = packed(kind, tmp_path)
    data = archive.read_bytes()
    pieces = [archive.with_name(f"{archive.name}.{number:03d}") for number in (1, 2, 3)]
    for number, piece in enumerate(pieces):
        piece.write_bytes(data[number * 100:(number + 1) * 100 if number < 2 else None])
    archive.unlink()
    with open_source(write_tree(tmp_path / "folder", {"note.txt": b"n"}), tmp_path / "scratch"):
        pass
    unpack(pieces[1], tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    pieces[1].unlink()
    with pytest.raises(DataError, match=r"\.002 of this split archive is not there"):
        unpack(pieces[0], tmp_path / "none")


def test_archives_in_archives_go_beside_into_folders_of_their_names(tmp_path):
    inner = write_7z(tmp_path / "i.7z", {"x.txt": b"x"}).read_bytes()
    archive = write_zip(tmp_path / "x.zip", {
        "data/Benign.v1.zip": zipped({"Benign/1.txt": b"1", "more.tar.gz": _targz({"t.txt": b"t"})}),
        "data/Malignant.7z": inner,
        "data/readme.txt": b"r",
        "__MACOSX/data/._readme.txt": b"junk",
        "data/._readme.txt": b"junk",
    })
    with open_source(archive, tmp_path / "scratch") as raw:
        assert tree(raw) == {"data/Benign.v1/Benign/1.txt": b"1", "data/Benign.v1/more/t.txt": b"t",
                             "data/Malignant/x.txt": b"x", "data/readme.txt": b"r"}


def _targz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_four_archives_in_one_another_are_unpacked_and_five_refused(tmp_path):
    data = b"deep"
    for depth in range(5):
        (tmp_path / f"{depth}.zip").write_bytes(zipped({"n.txt" if depth == 0 else "n.zip": data}))
        data = (tmp_path / f"{depth}.zip").read_bytes()
    unpack(tmp_path / "3.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == {"n/n/n/n.txt": b"deep"}
    with pytest.raises(DataError, match=r"4\.zip/n\.zip/n\.zip/n\.zip/n\.zip: at most 4 archives in one another"):
        unpack(tmp_path / "4.zip", tmp_path / "none")


def test_a_folder_of_archives_is_read_without_a_trace_in_it(tmp_path):
    folder = write_tree(tmp_path / "raw", {"list.csv": b"l", "sub/b.txt": b"b"})
    write_zip(folder / "sub/US.zip", {"US/1.png": b"1"})
    for part in split_zip(write_zip(folder / "big.zip", {"2.bin": noise(3000)}), 1000):
        part.chmod(0o444)
    (folder / "shortcut").symlink_to(folder / "sub", target_is_directory=True)
    (folder / ".set.partial").mkdir()
    (folder / ".set.partial/left.txt").write_bytes(b"left")
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    with open_source(folder, tmp_path / "scratch") as raw:
        assert tree(raw) == {"list.csv": b"l", "sub/b.txt": b"b", "sub/US/US/1.png": b"1",
                             "big/2.bin": noise(3000)}
        assert find_one(raw, "1.png") == raw / "sub/US/US/1.png"
        assert (raw / "shortcut/b.txt").read_bytes() == b"b"
        assert (raw / "list.csv").stat().st_mtime_ns == before[folder / "list.csv"]
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("where", ["", "US"])
def test_a_folder_is_used_as_it_is_when_its_archives_lie_there_unpacked(tmp_path, where):
    files = {"US/1.png": b"one", "US/2.png": b"two"}
    folder = write_tree(tmp_path / "raw" / where, files)
    folder = tmp_path / "raw"
    write_zip(folder / "US.zip", files)
    with open_source(folder, tmp_path / "scratch") as raw:
        assert raw == folder
    (folder / where / "US/1.png").write_bytes(b"another")
    if where:
        with pytest.raises(DataError, match=r"US\.zip: its files would go to US/ beside it.*first: US/1\.png"), \
                open_source(folder, tmp_path / "scratch"):
            pass
        assert not (tmp_path / "scratch").exists()


def test_a_folder_without_archives_is_used_as_it_is(tmp_path):
    folder = write_tree(tmp_path / "raw", {"a.npz": b"PK\x03\x04", "b.nii.gz": b"\x1f\x8b", "c.r01": b"c",
                                             "d.zip.txt": b"d"})
    with open_source(folder, tmp_path / "scratch") as raw:
        assert raw == folder
    with pytest.raises(DataError, match="found nothing there"), open_source(tmp_path / "no", tmp_path / "scratch"):
        pass


def encrypted_zip(path: Path) -> Path:
    data = bytearray(write_zip(path, {"a.txt": b"a"}).read_bytes())
    for magic, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + place] |= 1
    path.write_bytes(data)
    return path


def deflate64_zip(path: Path) -> Path:
    data = bytearray(write_zip(path, {"a.txt": b"a" * 99}).read_bytes())
    for magic, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(magic) + place] = 9
    path.write_bytes(data)
    return path


def pointer(path: Path) -> Path:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9999\n")
    return path


def page(path: Path) -> Path:
    path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    return path


STAY_PACKED = [
    ("x.zip", encrypted_zip, "encrypted files; unpack it with its password"),
    ("x.7z", lambda path: write_7z(path, {"a.txt": b"a"}, password="p"), "encrypted files"),
    ("x.7z", lambda path: write_7z(path, {"a.txt": b"a"}, password="p", header_encryption=True), "encrypted files"),
    ("x.rar", lambda path: write_rar(path, {"a.txt": b"a"}, flags=0x04), "encrypted files"),
    ("x.rar", lambda path: write_rar(path, {"a.txt": b"a"}, method=0x33), "none of them is there; install one"),
    ("x.zip", deflate64_zip, "9 is Deflate64"),
    ("x.zip", pointer, "Git-LFS pointer"),
    ("x.tar.gz", page, "web page"),
]


@pytest.mark.parametrize(("name", "make", "words"), STAY_PACKED)
def test_what_cannot_be_unpacked_here_is_named_and_stops_only_where_it_is_needed(
    tmp_path, monkeypatch, capsys, name, make, words
):
    monkeypatch.setattr(rar.shutil, "which", lambda program: None)
    folder = write_tree(tmp_path / "raw", {"list.csv": b"l"})
    archive = make(folder / name)
    with pytest.raises(StaysPackedError, match=words) as caught, open_source(archive, tmp_path / "scratch"):
        pass
    assert str(archive) in str(caught.value)
    with open_source(folder, tmp_path / "scratch") as raw:
        assert raw == folder
    assert words in capsys.readouterr().err
    with pytest.raises(DataError, match=rf"images\.csv was expected.*left packed: .*{words}"), \
            open_source(folder, tmp_path / "scratch") as raw:
        find_one(raw, "images.csv")
    outer = write_zip(tmp_path / "outer.zip", {"list.csv": b"l", f"in/{name}": archive.read_bytes()})
    with open_source(outer, tmp_path / "scratch") as raw:
        assert sorted(tree(raw)) == [f"in/{name}", "list.csv"]
    assert f"left packed: {outer}/in/{name}" in capsys.readouterr().err


@pytest.mark.parametrize("works", [True, False])
def test_rar_programs_are_tried_until_one_unpacks_and_its_output_is_checked(tmp_path, monkeypatch, works):
    """The first program gives other bytes, as the 7z of Debian does; the second is right for some files only."""
    programs = tmp_path / "bin"
    programs.mkdir()
    good = b"".join(FILES.values()) if works else FILES["top/a.txt"] + bytes(10240)
    for name, output in (("unar", b"no rar here"), ("bsdtar", good)):
        (tmp_path / f"{name}.bin").write_bytes(output)
        (programs / name).write_text(f"#!/bin/sh\n/bin/cat '{tmp_path / name}.bin'\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    archive = write_rar(tmp_path / "x.rar", FILES, method=0x33)
    if works:
        unpack(archive, tmp_path / "out")
        assert tree(tmp_path / "out") == FILES
    else:
        with pytest.raises(DataError, match=r"x\.rar: .*top/deep/b\.bin did not come out whole"):
            unpack(archive, tmp_path / "out")
    (programs / "bsdtar").unlink()
    with pytest.raises(StaysPackedError, match="unar cannot unpack this one; install one"):
        unpack(archive, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_program_that_only_has_the_name_of_unrar_is_not_run_on_archives(tmp_path, monkeypatch):
    program = tmp_path / "unrar"
    program.write_text(f'#!/bin/sh\n[ $# = 0 ] || /bin/touch "{tmp_path}/ran"\necho "Usage: unrar-free"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StaysPackedError, match="none of them is there"):
        unpack(write_rar(tmp_path / "x.rar", {"a.txt": b"a"}, method=0x33), tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def evil_7z(path: Path, name: str, kind: int | None = None) -> None:
    if kind is not None:
        (path.parent / "target").write_bytes(b"t")
        (path.parent / "evil.txt").symlink_to("target")
        with py7zr.SevenZipFile(path, "w") as archive:
            archive.write(path.parent / "evil.txt", "evil.txt")
        (path.parent / "evil.txt").unlink()
        (path.parent / "target").unlink()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(py7zr.SevenZipFile, "_sanitize_archive_arcname", staticmethod(lambda arcname: arcname))
        patch.setattr("py7zr.py7zr.check_archive_path", lambda arcname: True)
        write_7z(path, {"good.txt": b"g", name: b"/etc"})


def evil_rar(path: Path, name: str, mode: int = stat.S_IFREG | 0o644) -> None:
    write_rar(path, {"good.txt": b"g", name: b"/etc"}, mode=mode)


@pytest.mark.parametrize(("make", "details"), [
    (evil_7z, ("../evil.txt",)), (evil_7z, ("/evil.txt",)), (evil_7z, ("evil.txt", 1)),
    (evil_rar, ("../evil.txt",)), (evil_rar, ("/evil.txt",)), (evil_rar, ("C:\\evil.txt",)),
    (evil_rar, ("good.txt", stat.S_IFLNK | 0o777)),
])
def test_unsafe_7z_and_rar_leave_no_trace(tmp_path, make, details):
    archive = tmp_path / "evil.archive"
    make(archive, *details)
    with pytest.raises(DataError, match="refused, because its member") as caught, \
            open_source(archive, tmp_path / "in/scratch"):
        pass
    assert Path(details[0].replace("\\", "/")).name in str(caught.value)
    assert "nothing was unpacked" in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]


@pytest.mark.parametrize(("files", "words"), [
    ({"a": b"1", "a/b": b"2"}, "'a' is a file and a folder"),
    ({"ok.txt": b"1", "x" * 300: b"2"}, "has a name that no disk takes"),
    ({"__MACOSX/._a.png": b"1"}, "found no file in it"),
    ({}, "found no file in it"),
])
def test_archives_that_cannot_be_files_are_refused(tmp_path, files, words):
    with pytest.raises(DataError, match=words):
        unpack(write_zip(tmp_path / "x.zip", files), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unsafe_archive_inside_leaves_no_trace_either(tmp_path):
    inner = zipped({"../../../evil.txt": b"e"})
    write_zip(tmp_path / "raw/x.zip", {"a/b/in.zip": inner})
    with pytest.raises(DataError, match=r"x\.zip/a/b/in\.zip: refused"), \
            open_source(tmp_path / "raw", tmp_path / "scratch"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["raw", "x.zip"]


@pytest.mark.parametrize("kind", ["zip", "gztar", "rar", "7z"])
def test_more_than_the_disk_holds_is_refused(tmp_path, monkeypatch, kind):
    archive = packed(kind, tmp_path)
    usage = namedtuple("usage", "total used free")
    size = sum(map(len, FILES.values()))
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: usage(0, 0, size - 1))
    with pytest.raises(DataError, match=r"need .* GB, the disk of .* free; make room"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: usage(0, 0, size))
    unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "bztar", "xztar", "rar", "7z"])
def test_cut_off_and_changed_archives_are_named(tmp_path, kind):
    archive = packed(kind, tmp_path)
    data = archive.read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1:]
    spoilt = [data[:middle], data[:-30] if kind != "tar" else data[:middle + 100]]
    # An uncompressed tar has no checksum of its contents.
    spoilt += [] if kind == "tar" else [flipped]
    for number, bytes_ in enumerate(spoilt):
        archive.write_bytes(bytes_)
        with pytest.raises(DataError, match=r"download it again|found another kind of file") as caught, \
                open_source(archive, tmp_path / f"scratch{number}"):
            pass
        assert str(archive) in str(caught.value)


def test_damage_and_faults_of_the_disk_are_told_apart(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    archive = packed("zip", tmp_path)
    monkeypatch.setattr("data_prep.archives.reader.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left") as caught:
        unpack(archive, tmp_path / "out")
    assert not isinstance(caught.value, DataError)


def test_rar_and_7z_are_imported_when_they_are_needed():
    code = "import sys, data_prep.sources; sys.exit(any(name in sys.modules for name in ('rarfile', 'py7zr')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.shared
def test_a_real_rar(shared, tmp_path):
    folder = shared / "data/fast_u_net/Dataset/AC"
    if not any(rar._is_there(program) for program in ("unrar", "unar", "bsdtar")):
        with pytest.raises(StaysPackedError, match="apt install unar"):
            unpack(folder / "AC_mask.rar", tmp_path / "out")
        assert rarfile.is_rarfile(folder / "AC_mask.rar")
        return
    unpack(folder / "AC_mask.rar", tmp_path / "out")
    found = {Path(name).name: data for name, data in tree(tmp_path / "out").items()}
    samples = {Path(name).name: data for name, data in tree(folder / "AC_mask_extracted_sample").items()}
    assert len(found) == 412
    assert len(samples) == 25
    assert samples.items() <= found.items()


