"""DICOM as scans: every photometric interpretation and compression that pydicom can write or brings along."""

from __future__ import annotations

import io
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pydicom
import pytest
from dicom_files import ultrasound
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from ultrasam.errors import DataError
from ultrasam.io.dicom import read_dicom
from ultrasam.io.scan import open_scan, scan_from_bytes

FRAMES = np.random.default_rng(0).integers(0, 255, (5, 12, 17), dtype=np.uint8)
SMOOTH = np.stack([np.roll(np.tile(np.linspace(0, 250, 64, dtype=np.uint8), (48, 1)), 9 * n, 1) for n in range(3)])
OWN = Path(pydicom.__file__).parent / "data" / "test_files"


def check(path, expected, tolerance=0):
    """Require frames, in any order, by path, by bytes and streamed; expected is (F, H, W[, 3])."""
    expected = np.repeat(expected[..., None], 3, axis=-1) if expected.ndim == 3 else expected
    for scan in (open_scan(path), scan_from_bytes(path.read_bytes(), path.name)):
        assert (scan.kind, scan.frames, scan.size) == ("dicom", len(expected), expected.shape[1:3])
        for number in [len(expected) - 1, 0, *range(len(expected))]:
            found = scan.read(number)
            assert found.dtype == np.uint8
            assert np.abs(found.astype(int) - expected[number]).max() <= tolerance
        assert len(list(scan)) == len(expected)
        for one, other in zip(scan.iterate(1), expected[1:], strict=True):
            assert np.abs(one.astype(int) - other).max() <= tolerance
    return scan


def test_plain_frames_with_pixel_size_and_rate(tmp_path):
    scan = check(ultrasound(tmp_path / "a.dcm", FRAMES), FRAMES)
    assert scan.spacing == pytest.approx((0.2, 0.1)) and scan.rate == pytest.approx(25)
    assert open_scan(ultrasound(tmp_path / "b.dcm", FRAMES[:1], region=False)).spacing is None
    assert scan.header.PatientID == "P1" and "PixelData" not in scan.header
    assert open_scan(ultrasound(tmp_path / "1.2.840.5", FRAMES)).stem == "1.2.840.5"


def test_inverted_and_deep_values_are_scaled_over_all_frames(tmp_path):
    check(ultrasound(tmp_path / "a.dcm", FRAMES, "MONOCHROME1"), 255 - FRAMES)
    deep = FRAMES.astype(np.uint16) * 16
    deep[0] //= 4  # a dark first frame stays dark
    low, high = float(deep.min()), float(deep.max())
    expected = np.rint((deep - low) * 255 / (high - low)).astype(np.uint8)
    check(ultrasound(tmp_path / "b.dcm", deep), expected)
    check(ultrasound(tmp_path / "c.dcm", deep, "MONOCHROME1"), 255 - expected, tolerance=1)
    check(ultrasound(tmp_path / "d.dcm", FRAMES.astype(np.uint16)), FRAMES)  # whole numbers to 255 are kept


def test_colours(tmp_path):
    rgb = np.stack([SMOOTH, 255 - SMOOTH, SMOOTH // 2], axis=-1)
    check(ultrasound(tmp_path / "a.dcm", rgb, "RGB"), rgb)
    ybr = np.stack([np.asarray(Image.fromarray(frame).convert("YCbCr")) for frame in rgb])
    check(ultrasound(tmp_path / "b.dcm", ybr, "YBR_FULL"), rgb, tolerance=3)
    more = {}
    table = np.arange(256, dtype=np.uint16)
    for name, values in (("Red", table), ("Green", 255 - table), ("Blue", table // 2)):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        more[f"{name}PaletteColorLookupTableData"] = (values * 257).astype(np.uint16).tobytes()
    check(ultrasound(tmp_path / "c.dcm", SMOOTH, "PALETTE COLOR", **more), rgb)


def test_rle_and_jpeg_2000_frames(tmp_path):
    path = ultrasound(tmp_path / "a.dcm", FRAMES)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "rle.dcm")
    check(tmp_path / "rle.dcm", FRAMES)
    coded = []
    for frame in FRAMES:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
        coded.append(stream.getvalue())
    check(ultrasound(tmp_path / "j2k.dcm", FRAMES, data=encapsulate(coded), syntax=JPEG2000Lossless), FRAMES)


@pytest.mark.parametrize("has_table", [True, False])
def test_jpeg_frames_with_and_without_a_table_of_offsets(tmp_path, has_table):
    coded = []
    for frame in SMOOTH:
        stream = io.BytesIO()
        Image.fromarray(frame).save(stream, "JPEG", quality=95)
        coded.append(stream.getvalue())
    data = encapsulate(coded, has_bot=has_table)
    check(ultrasound(tmp_path / "a.dcm", SMOOTH, data=data, syntax=JPEGBaseline8Bit), SMOOTH, tolerance=40)


@pytest.mark.parametrize("deep", [False, True])
def test_jpeg_ls_frames(tmp_path, deep):
    frames = FRAMES.astype(np.uint16) * 250 + 7 if deep else FRAMES
    coded = []
    for frame in frames:
        encoder = av.CodecContext.create("jpegls", "w")
        encoder.height, encoder.width = frame.shape
        encoder.pix_fmt, encoder.time_base = ("gray16le" if deep else "gray"), Fraction(1, 25)
        picture = av.VideoFrame.from_ndarray(frame, format=encoder.pix_fmt)
        picture.pts = 0
        coded.append(b"".join(bytes(packet) for packet in encoder.encode(picture) + encoder.encode(None)))
    path = ultrasound(tmp_path / "a.dcm", frames, data=encapsulate(coded), syntax=JPEGLSLossless)
    np.testing.assert_array_equal(read_dicom(path)[0], frames)


def test_lossless_jpeg_and_others_of_other_makers():
    def first(name):
        return read_dicom(OWN / name)[0][0]

    np.testing.assert_array_equal(first("SC_rgb_jpeg_gdcm.dcm"), first("SC_rgb_rle.dcm"))
    np.testing.assert_array_equal(first("MR_small_jpeg_ls_lossless.dcm"), first("MR_small.dcm"))
    np.testing.assert_array_equal(first("MR_small_RLE.dcm"), first("MR_small.dcm"))
    assert open_scan(OWN / "image_dfl.dcm").read().shape == (512, 512, 3)  # deflated
    assert open_scan(OWN / "examples_palette.dcm").read().max() == 255
    scan = open_scan(OWN / "examples_ybr_color.dcm")
    np.testing.assert_array_equal(scan.read(29), read_dicom(OWN / "examples_ybr_color.dcm")[0][29])


def test_films(tmp_path):
    stream = io.BytesIO()
    with av.open(stream, "w", format="h264") as container:
        encoder = container.add_stream("libx264", rate=25, options={"crf": "5", "bf": "0"})
        encoder.height, encoder.width, encoder.pix_fmt = 48, 64, "yuv420p"
        for frame in SMOOTH:
            picture = np.repeat(frame[..., None], 3, axis=2)
            container.mux(encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(encoder.encode())
    colour = np.repeat(SMOOTH[..., None], 3, axis=-1)
    path = ultrasound(tmp_path / "a.dcm", colour, "YBR_PARTIAL_420", syntax="1.2.840.10008.1.2.4.102",
                      data=encapsulate([stream.getvalue()]))  # fmt: skip
    scan = open_scan(path)
    assert np.abs(scan.read(2).astype(int) - colour[2]).mean() < 6
    assert np.abs(scan.read(0).astype(int) - colour[0]).mean() < 6


def test_what_cannot_be_shown_is_named(tmp_path):
    path = tmp_path / "ö (1).dcm"
    with pytest.raises(DataError, match="without any"):
        open_scan(OWN / "test-SR.dcm")
    path.write_bytes(b"\0" * 400)
    with pytest.raises(DataError, match=r"ö \(1\)\.dcm: a DICOM file was expected"):
        open_scan(path)
    path.write_bytes(ultrasound(tmp_path / "a.dcm", FRAMES).read_bytes()[:-30])
    scan = open_scan(path)
    np.testing.assert_array_equal(scan.read(3)[..., 0], FRAMES[3])  # whole frames before the damage are there
    with pytest.raises(DataError, match=r"ö \(1\)\.dcm: a readable DICOM"):
        scan.read(4)
    with pytest.raises(DataError, match="frames 0 to 4, found 5"):
        scan.read(5)
    ultrasound(path, FRAMES, Rows=60000, Columns=60000)
    with pytest.raises(DataError, match="found 60000 x 60000"):
        open_scan(path)
    ultrasound(path, FRAMES, "HSV")
    with pytest.raises(DataError, match="'HSV' with 1 samples"):
        open_scan(path)
    ultrasound(path, FRAMES[:1], data=encapsulate([zlib.compress(b"x")]), syntax=JPEGBaseline8Bit)
    with pytest.raises(DataError, match="a readable DICOM file was expected, found:"):
        open_scan(path).read()
    ultrasound(path, FRAMES, NumberOfFrames=2_000_000_000)
    with pytest.raises(DataError):
        open_scan(path).read(1_999_999_999)
