"""Videos as scans: any frame in any order is the one of a decoding from the start."""

from __future__ import annotations

import numpy as np
import pytest
from test_video import frames, write_video

from ultrasam.errors import DataError
from ultrasam.io import scan_video
from ultrasam.io.scan import open_scan, scan_from_bytes
from ultrasam.io.video import iterate_video

MOVIE = np.concatenate([frames(40)[:, :, ::1 if turn else -1] for turn in range(3)])
# With and without pictures that refer to later ones, and with time stamps out of order (H.264 in AVI).
KINDS = [("a.avi", "mjpeg", "yuvj420p"), ("b.mp4", "mpeg4", "yuv420p"), ("c.mp4", "libx264", "yuv420p"),
         ("d.avi", "libx264", "yuv420p"), ("e.mkv", "ffv1", "bgr0")]  # fmt: skip


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return {name: write_video(folder / name, codec, pixels, MOVIE) for name, codec, pixels in KINDS}


@pytest.mark.parametrize("name", [kind[0] for kind in KINDS])
@pytest.mark.parametrize("kept", [scan_video.KEPT_BYTES, 4 * 48 * 64 * 3])
def test_any_frame_in_any_order(videos, name, kept, monkeypatch):
    monkeypatch.setattr(scan_video, "KEPT_BYTES", kept)
    path = videos[name]
    every = list(iterate_video(path))
    order = [119, 3, 90, 89, 88, 118, 0, *range(70, 60, -1), 0, 1, 2]
    for scan in (open_scan(path), scan_from_bytes(path.read_bytes(), name)):
        assert (scan.kind, scan.frames, scan.size, scan.spacing) == ("video", 120, (48, 64), None)
        assert scan.rate == pytest.approx(25)
        for number in order:
            np.testing.assert_array_equal(scan.read(number), every[number])
        assert len(scan._kept) * 48 * 64 * 3 <= max(kept, 48 * 64 * 3)
        scan.close()
        np.testing.assert_array_equal(scan.read(5), every[5])


def test_frames_are_streamed(videos):
    scan = open_scan(videos["c.mp4"])
    every = list(iterate_video(videos["c.mp4"]))
    stream = iter(scan)
    np.testing.assert_array_equal(next(stream), every[0])
    np.testing.assert_array_equal(scan.read(100), every[100])  # does not disturb the stream
    np.testing.assert_array_equal(next(stream), every[1])
    for number, frame in enumerate(scan.iterate(80, 90), 80):
        np.testing.assert_array_equal(frame, every[number])
    assert sum(1 for _ in scan.iterate(0, 7)) == 7 and sum(1 for _ in scan) == 120


def test_going_backwards_decodes_no_part_for_every_frame(videos, monkeypatch):
    scan = open_scan(videos["b.mp4"])
    starts = []
    real = scan._start_near
    monkeypatch.setattr(scan, "_start_near", lambda frame: (starts.append(frame), real(frame)))
    for number in range(119, -1, -1):
        scan.read(number)
    assert len(starts) <= 120 / 12


def test_damage_is_named(videos, tmp_path):
    data = videos["a.avi"].read_bytes()
    for content, words in ((data[:len(data) // 2], "cut off"), (b"", "is empty"), (b"RIFF\0\0\0\0AVI ", "damage"),
                           (b"<html></html>", "web page")):  # fmt: skip
        (tmp_path / "ü.avi").write_bytes(content)
        with pytest.raises(DataError, match=rf"ü\.avi.*{words}"):
            open_scan(tmp_path / "ü.avi")
        with pytest.raises(DataError, match=rf"ü\.avi.*{words}"):
            scan_from_bytes(content, "ü.avi")
