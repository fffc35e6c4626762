"""Opening scans: kinds told by content, pictures and arrays, bytes of clients, and lists of files."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from ultrasam.errors import DataError
from ultrasam.io.scan import find_scans, open_scan, scan_from_array, scan_from_bytes
from ultrasam.io.scan_base import stem_of

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.stack([GREY, 255 - GREY, np.full_like(GREY, 40)], axis=-1)


def coded(pixels: np.ndarray, kind: str, **more: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **more)
    return buffer.getvalue()


def read_both(path):
    """Read a file by its path and by its bytes, which must not differ."""
    by_path, by_bytes = open_scan(path), scan_from_bytes(path.read_bytes(), path.name)
    assert (by_path.kind, by_path.frames, by_path.size) == (by_bytes.kind, by_bytes.frames, by_bytes.size)
    assert (by_path.path, by_bytes.path, by_path.name) == (path, None, path.name)
    np.testing.assert_array_equal(by_path.read(), by_bytes.read())
    return by_path


@pytest.mark.parametrize(("name", "kind"), [("a b (1).png", "PNG"), ("münchen é.bmp", "BMP"), ("扫描.tiff", "TIFF"),
                                            ("no_suffix", "PNG"), ("wrong.jpg", "PNG"), ("wrong.dcm", "PNG"),
                                            ("A.PNG", "PNG")])  # fmt: skip
def test_pictures_whatever_their_names(tmp_path, name, kind):
    (tmp_path / name).write_bytes(coded(RGB, kind))
    scan = read_both(tmp_path / name)
    assert (scan.kind, scan.frames, scan.size, scan.spacing, len(scan)) == ("image", 1, (6, 8), None, 1)
    np.testing.assert_array_equal(scan.read(), RGB)
    assert [frame.shape for frame in scan] == [(6, 8, 3)]


def test_depths_colours_and_orientation(tmp_path):
    def shown(pixels, kind="PNG", **more):
        (tmp_path / "a").write_bytes(coded(pixels, kind, **more))
        return read_both(tmp_path / "a").read()

    np.testing.assert_array_equal(shown(GREY), np.repeat(GREY[..., None], 3, axis=2))
    deep = (GREY.astype(np.uint16) * 200) + 1000
    np.testing.assert_array_equal(shown(deep)[..., 0], np.rint((deep - 1000.0) * 255 / (47 * 5 * 200)))
    alpha = np.dstack([RGB, np.where(GREY > 100, 255, 0)]).astype(np.uint8)
    np.testing.assert_array_equal(shown(alpha), RGB * (GREY > 100)[..., None])
    palette = Image.fromarray(RGB).quantize(48)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG")
    (tmp_path / "p.png").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(read_both(tmp_path / "p.png").read(), np.asarray(palette.convert("RGB")))
    exif = Image.Exif()
    exif[274] = 6
    assert shown(RGB, "JPEG", exif=exif).shape == (8, 6, 3)
    np.testing.assert_array_equal(shown(GREY[:1, :1]), np.zeros((1, 1, 3)))
    np.testing.assert_array_equal(shown(GREY > 100)[..., 0], (GREY > 100) * np.uint8(255))


def png_claiming(width: int, height: int) -> bytes:
    data = bytearray(coded(GREY, "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(("content", "words"), [
    (b"", "is empty"),
    (coded(RGB, "PNG")[:60], "damaged or truncated"),
    (coded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), "JPEG")[:600], "damaged"),
    (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n", "Git-LFS pointer"),
    (b"nothing at all" * 50, "not an image in a known format"),
    (png_claiming(200_000, 200_000), "claims"),
])  # fmt: skip
def test_what_is_no_picture_is_named(tmp_path, content, words):
    path = tmp_path / "ä (2).png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"ä \(2\)\.png.*{words}"):
        open_scan(path)
    with pytest.raises(DataError, match=rf"ä \(2\)\.png.*{words}"):
        scan_from_bytes(content, path.name)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(DataError, match=r"no\.png does not exist"):
        open_scan(tmp_path / "no.png")
    with pytest.raises(DataError, match="is a folder"):
        open_scan(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        open_scan("a\0b")


@pytest.mark.parametrize("frame", [-1, 1, 1.0, True, None])
def test_frames_that_do_not_exist(frame):
    with pytest.raises(DataError, match="has the frames 0 only, found"):
        scan_from_array(RGB).read(frame)


def test_arrays():
    np.testing.assert_array_equal(scan_from_array(RGB).read(), RGB)
    np.testing.assert_array_equal(scan_from_array(RGB.tolist()).read(), RGB)
    assert scan_from_array(np.stack([GREY] * 5)).frames == 5
    assert scan_from_array(np.stack([RGB] * 5)).frames == 5
    half = np.dstack([RGB, np.full_like(GREY, 51)])
    np.testing.assert_array_equal(scan_from_array(half).read(), np.rint(RGB * 0.2))
    unit = scan_from_array(GREY / 255.0).read()
    assert (unit.min(), unit.max()) == (0, 255)
    assert scan_from_array(GREY, (0.5, 0.25)).spacing == (0.5, 0.25)
    scan = scan_from_array(RGB)
    scan.read()[:] = 0
    np.testing.assert_array_equal(scan.read(), RGB)
    assert "array" in repr(scan)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(5), np.zeros((2, 3, 4, 5, 6)), np.array([["a"]]),
                                 np.full((4, 4), np.nan), np.zeros((2, 4, 4, 2))])  # fmt: skip
def test_arrays_that_are_no_pictures(bad):
    with pytest.raises(DataError):
        scan_from_array(bad)


@pytest.mark.parametrize("spacing", [(0, 1), (1,), (1, float("nan")), (1, -1)])
def test_spacings_that_are_none(spacing):
    with pytest.raises(DataError, match="two positive numbers"):
        scan_from_array(GREY, spacing)


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "C:\\Users\\x\\scan.png", "/etc/hostname", "a\0b.png",
                                  "", ".."])  # fmt: skip
def test_names_of_clients_are_names_only(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scan = scan_from_bytes(coded(RGB, "PNG"), name)
    assert scan.path is None and "/" not in scan.name and "\\" not in scan.name and scan.name
    assert not list(tmp_path.iterdir())


def test_find_scans(tmp_path):
    for name in ("b.png", "a.png", "sub/c (1).jpg", "sub/notes.txt", ".hidden/d.png", "._a.png", "DICOMDIR",
                 "x[1].png"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(coded(RGB, "PNG"))
    (tmp_path / "1.2.840").write_bytes(b"\0" * 128 + b"DICM")

    def names(*patterns):
        return [path.relative_to(tmp_path).as_posix() for path in find_scans([tmp_path / one for one in patterns])]

    assert names("") == ["1.2.840", "a.png", "b.png", "sub/c (1).jpg", "x[1].png"]
    assert names("b.png", "a.png", "b.png") == ["b.png", "a.png"]
    assert names("*.png") == ["a.png", "b.png", "x[1].png"]
    assert names("x[1].png") == ["x[1].png"]  # a file of this name goes before the pattern
    assert names("sub/notes.txt") == ["sub/notes.txt"]
    assert names("**/*.jpg") == ["sub/c (1).jpg"]
    assert names("su*") == ["sub/c (1).jpg"]
    assert find_scans(str(tmp_path / "a.png")) == [tmp_path / "a.png"]
    for pattern, words in (("no.png", "does not exist"), ("*.mp4", "matches no file")):
        with pytest.raises(DataError, match=words):
            names("a.png", pattern)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="found none in it"):
        names("empty")
    with pytest.raises(DataError, match="no scan was given"):
        find_scans([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_files_that_may_not_be_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(coded(RGB, "PNG"))
    path.chmod(0)
    with pytest.raises(DataError, match="check path and permissions"):
        open_scan(path)


@pytest.mark.parametrize(("name", "stem"), [
    ("a.png", "a"), ("a.nii.gz", "a"), ("A.NII.GZ", "A"), ("1.2.840.113", "1.2.840.113"), ("1.2.dcm", "1.2"),
    ("scan", "scan"), ("v1.5 scan.mp4", "v1.5 scan"),
])  # fmt: skip
def test_stems(name, stem):
    assert stem_of(name) == stem
