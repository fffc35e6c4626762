"""Videos that PyAV writes, whole and spoilt."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ultrasam.errors import DataError
from ultrasam.io.video import is_video, iterate_video, read_video

# Container, codec, kind of pixels, whether the codec is without loss.
KINDS = [("a.avi", "ffv1", "bgr0", True), ("b.avi", "rawvideo", "bgr24", True), ("c.avi", "mjpeg", "yuvj420p", False),
         ("d.mp4", "mpeg4", "yuv420p", False), ("e.mkv", "ffv1", "bgr0", True)]


def frames(count: int = 12) -> np.ndarray:
    """Return frames in which a bright square goes across a gradient."""
    made = np.zeros((count, 48, 64, 3), np.uint8)
    made[...] = np.linspace(0, 120, 64, dtype=np.uint8)[:, None]
    for number in range(count):
        made[number, 10:26, 4 * number:4 * number + 16] = (250, 130, 20)
    return made


def write_video(
    path: Path, codec: str, pixels: str, pictures: np.ndarray, options: dict[str, str] | None = None
) -> Path:
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt, stream.bit_rate = pixels, 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("name", "codec", "pixels", "exact"), KINDS)
def test_every_frame_comes_in_order_as_rgb(tmp_path, name, codec, pixels, exact):
    path = write_video(tmp_path / name, codec, pixels, frames())
    assert is_video(path)
    found = read_video(path)
    assert (found.shape, found.dtype) == ((12, 48, 64, 3), np.uint8)
    if exact:
        np.testing.assert_array_equal(found, frames())
    else:
        assert np.abs(found.astype(int) - frames()).mean() < 6
        centres = [np.flatnonzero((frame[12:24, :, 0] > 185).all(axis=0)).mean() for frame in found]
        assert np.diff(centres) == pytest.approx(4, abs=1)


def test_frames_are_decoded_one_by_one(tmp_path):
    path = write_video(tmp_path / "a.avi", "ffv1", "bgr0", frames())
    stream = iterate_video(path)
    np.testing.assert_array_equal(next(stream), frames()[0])
    np.testing.assert_array_equal(next(stream), frames()[1])
    stream.close()


@pytest.mark.parametrize(("name", "codec", "pixels", "_"), KINDS[:4])
@pytest.mark.parametrize("share", [0.3, 0.62, 0.93])
def test_a_cut_off_video_is_named_and_not_taken_for_a_short_one(tmp_path, name, codec, pixels, _, share):
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    options = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = write_video(tmp_path / name, codec, pixels, noise, options)
    assert len(read_video(path)) == 20
    data = path.read_bytes()
    path.write_bytes(data[:int(share * len(data))])
    with pytest.raises(DataError, match=rf"{name}: .*(damage after \d+ frames|the file is cut off)"):
        read_video(path)


def test_what_is_not_a_video_is_named(tmp_path):
    for name, content, words in (
        ("a.avi", b"", "is empty"), ("b.avi", b"no video" * 99, "found damage after 0 frames"),
        ("c.mp4", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git-LFS pointer"),
        ("d.mp4", b"<html>Sign in</html>", "web page"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}.* {words}"):
            read_video(tmp_path / name)
    with pytest.raises(DataError, match="does not exist"):
        read_video(tmp_path / "no.avi")
    assert not is_video(tmp_path / "a.png")


def test_a_file_with_sound_only_is_not_a_video(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(DataError, match="found a file without pictures"):
        read_video(path)


def test_frames_of_several_sizes_are_refused(monkeypatch):
    sizes = iter([(4, 6), (4, 6), (8, 6)])
    monkeypatch.setattr("ultrasam.io.video.iterate_video",
                        lambda path: (np.zeros((*size, 3), np.uint8) for size in sizes))
    with pytest.raises(DataError, match=r"found the sizes \(height, width\) \[\(4, 6\), \(8, 6\)\]"):
        read_video("x.avi")
