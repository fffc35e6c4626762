"""DICOM of every photometric interpretation, its frames and its pixel size, on files that the test writes."""

import io

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, UltrasoundImageStorage, generate_uid

from ultrasam.errors import DataError
from ultrasam.io.dicom import is_dicom, read_dicom
from ultrasam.io.volumes import read_volume

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
RGB = np.stack([GREY, 255 - GREY, np.full_like(GREY, 40)], axis=-1)


def region(dy=0.02, dx=0.01, units=3, space=1):
    item = Dataset()
    item.RegionSpatialFormat = space
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = units
    item.PhysicalDeltaX, item.PhysicalDeltaY = dx, -dy
    return item


def written(path, pixels, photometric, *, frames=1, data=None, syntax=ExplicitVRLittleEndian, **more):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = syntax
    colour = photometric in ("RGB", "YBR_FULL", "YBR_FULL_422")
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = pixels.tobytes() if data is None else data
    for name, value in more.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_grey_of_both_kinds_and_several_frames(tmp_path):
    path = tmp_path / "a.dcm"
    np.testing.assert_array_equal(read_dicom(written(path, GREY, "MONOCHROME2"))[0], GREY[None])
    np.testing.assert_array_equal(read_dicom(written(path, GREY, "MONOCHROME1"))[0], 255 - GREY[None])
    movie = np.stack([GREY, GREY[::-1], GREY[:, ::-1]])
    np.testing.assert_array_equal(read_dicom(written(path, movie, "MONOCHROME2", frames=3))[0], movie)
    deep = GREY.astype(np.uint16) * 100
    found = read_dicom(written(path, deep, "MONOCHROME1"))[0]
    assert found.argmax() == deep.argmin() and found.max() == deep.max()


def test_colour(tmp_path):
    path = tmp_path / "a.dcm"
    np.testing.assert_array_equal(read_dicom(written(path, RGB, "RGB"))[0], RGB[None])
    ybr = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
    found = read_dicom(written(path, ybr, "YBR_FULL"))[0]
    assert np.abs(found[0].astype(int) - RGB).max() <= 3
    movie = np.stack([RGB, RGB[::-1]])
    np.testing.assert_array_equal(read_dicom(written(path, movie, "RGB", frames=2))[0], movie)


def test_palette(tmp_path):
    path = tmp_path / "a.dcm"
    table = np.arange(256, dtype=np.uint16)
    more = {}
    for name, values in (("Red", table), ("Green", 255 - table), ("Blue", table // 2)):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        more[f"{name}PaletteColorLookupTableData"] = (values * 257).astype(np.uint16).tobytes()
    found = read_dicom(written(path, GREY, "PALETTE COLOR", **more))[0]
    np.testing.assert_array_equal(found[0], np.stack([GREY, 255 - GREY, GREY // 2], axis=-1))


def test_jpeg_frames(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    coded = []
    for frame in (smooth, smooth[:, ::-1]):
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(frame)).save(stream, "JPEG", quality=95)
        coded.append(stream.getvalue())
    path = written(tmp_path / "a.dcm", np.stack([smooth] * 2), "MONOCHROME2", frames=2, data=encapsulate(coded),
                   syntax=JPEGBaseline8Bit)  # fmt: skip
    found = read_dicom(path)[0]
    assert found.shape == (2, 64, 64)
    assert np.abs(found[1].astype(int) - smooth[:, ::-1]).max() <= 4


@pytest.mark.parametrize(("more", "spacing"), [
    ({"SequenceOfUltrasoundRegions": [region()]}, (0.2, 0.1)),
    ({"SequenceOfUltrasoundRegions": [region(), region(units=4, space=2)]}, (0.2, 0.1)),
    ({"SequenceOfUltrasoundRegions": [region(), region(dx=0.03)]}, None),
    ({"SequenceOfUltrasoundRegions": [region(units=4)]}, None),
    ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
    ({"PixelSpacing": [0.5, 0.25], "SequenceOfUltrasoundRegions": [region()]}, (0.2, 0.1)),
    ({}, None),
])  # fmt: skip
def test_pixel_size_is_never_guessed(tmp_path, more, spacing):
    path = written(tmp_path / "a.dcm", GREY, "MONOCHROME2", **more)
    found = read_dicom(path)[1]
    assert found == pytest.approx(spacing) if spacing else found is None
    volume = read_volume(path)
    assert volume.array.shape == (1, 6, 8)
    assert volume.spacing == (pytest.approx((1.0, *spacing)) if spacing else None)


def test_files_without_a_telling_name(tmp_path):
    path = written(tmp_path / "1.2.840.113", GREY, "MONOCHROME2")
    assert is_dicom(path) and not is_dicom(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(path).array, GREY[None])


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.dcm"
    with pytest.raises(DataError, match="does not exist"):
        read_dicom(path)
    path.write_bytes(b"\0" * 400)
    with pytest.raises(DataError, match=r"a\.dcm"):
        read_dicom(path)
    written(path, GREY, "MONOCHROME2")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"a\.dcm: a readable DICOM"):
        read_dicom(path)
    written(path, GREY, "HSV")
    with pytest.raises(DataError, match="HSV"):
        read_dicom(path)
