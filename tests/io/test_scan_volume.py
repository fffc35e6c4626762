"""Volumes as scans, from files and from bytes that may be hostile."""

from __future__ import annotations

import gzip
import tempfile

import nibabel
import numpy as np
import pytest
import SimpleITK

from ultrasam.errors import DataError
from ultrasam.io.scan import open_scan, scan_from_bytes

ARRAY = np.random.default_rng(0).integers(0, 255, (4, 5, 6)).astype(np.uint8)


def itk(path, array=ARRAY, compressed=False, vector=False):
    image = SimpleITK.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.3, 0.2, 0.9))
    SimpleITK.WriteImage(image, str(path), compressed)
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a (1).mha", "ü.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_slices_by_path_and_by_bytes(tmp_path, name, compressed):
    data = itk(tmp_path / name, compressed=compressed)
    for scan in (open_scan(tmp_path / name), scan_from_bytes(data, name)):
        assert (scan.kind, scan.frames, scan.size) == ("volume", 4, (5, 6))
        assert scan.spacing == pytest.approx((0.2, 0.3))
        for number, frame in enumerate(scan):
            np.testing.assert_array_equal(frame, np.repeat(ARRAY[number][..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii"])
def test_colour(tmp_path, name):
    colour = np.stack([ARRAY, 255 - ARRAY, ARRAY // 2], axis=-1)
    data = itk(tmp_path / name, colour, vector=True)
    for scan in (open_scan(tmp_path / name), scan_from_bytes(data, name)):
        np.testing.assert_array_equal(np.stack(list(scan)), colour)


def test_a_cine_in_nifti_and_several_volumes(tmp_path):
    nibabel.save(nibabel.Nifti1Image(ARRAY.T[:, :, None], np.eye(4)), tmp_path / "cine.nii")
    scan = open_scan(tmp_path / "cine.nii")
    np.testing.assert_array_equal(np.stack(list(scan))[..., 0], ARRAY)
    nibabel.save(nibabel.Nifti1Image(np.zeros((6, 5, 4, 7), np.uint8), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(DataError, match=r"b\.nii: .* found volumes at 7 times"):
        open_scan(tmp_path / "b.nii")


def test_numbers_are_scaled_over_the_whole_volume(tmp_path):
    deep = ARRAY.astype(np.int16) * 100 - 3000
    itk(tmp_path / "a.mha", deep)
    found = np.stack(list(open_scan(tmp_path / "a.mha")))[..., 0]
    low, high = deep.min(), deep.max()
    np.testing.assert_array_equal(found, np.rint((deep.astype(float) - low) * 255 / (float(high) - low)))


@pytest.mark.parametrize(("shape", "frames", "size"), [((5, 6), 1, (5, 6)), ((5, 6, 3), 1, (5, 6)),
                                                       ((4, 5, 6), 4, (5, 6)), ((4, 5, 6, 3), 4, (5, 6)),
                                                       ((1, 5, 6, 3), 1, (5, 6))])  # fmt: skip
def test_npy(tmp_path, shape, frames, size):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    scan = open_scan(tmp_path / "a.npy")
    assert (scan.frames, scan.size, scan.kind) == (frames, size, "volume")
    assert scan_from_bytes((tmp_path / "a.npy").read_bytes(), "a.npy").size == size


def test_npy_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        scan_from_bytes((tmp_path / "a.npy").read_bytes(), "a.npy")


@pytest.fixture
def secret(tmp_path):
    """A file of another, large enough to be pixels."""
    path = tmp_path / "secret.raw"
    path.write_bytes(b"S" * 200)
    return path


@pytest.mark.parametrize("line", ["ElementDataFile = {}", "ElementDataFile={}", "ElementDataFile = LIST\n{}",
                                  "ElementDataFile = {}\nElementDataFile = LOCAL"])  # fmt: skip
def test_a_metaimage_from_a_client_opens_no_other_file(secret, line):
    head = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_UCHAR\n"
    data = (head + line.format(secret) + "\n").encode() + ARRAY.tobytes()
    with pytest.raises(DataError, match="whose pixels lie in another"):
        scan_from_bytes(data, "a.mha")


@pytest.mark.parametrize("field", ["Comment", "elementdatafile", "Name", "ElementDataFile2"])
def test_fields_that_are_not_known_are_not_passed_on(secret, field):
    head = f"ObjectType = Image\nNDims = 3\n{field} = {secret}\nDimSize = 6 5 4\nElementType = MET_UCHAR\n"
    scan = scan_from_bytes((head + "ElementDataFile = LOCAL\n").encode() + ARRAY.tobytes(), "a.mha")
    np.testing.assert_array_equal(np.stack(list(scan))[..., 0], ARRAY)
    hidden = head.replace("6 5 4", f"6 5 4 {secret}") + "ElementDataFile = LOCAL\n"
    with pytest.raises(DataError, match="numbers or words were expected in the field DimSize"):
        scan_from_bytes(hidden.encode() + ARRAY.tobytes(), "a.mha")


@pytest.mark.parametrize("line", ["data file: {}", "datafile: {}", "DATA FILE: {}", "data file: LIST"])
def test_an_nrrd_from_a_client_opens_no_other_file(secret, line):
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 6 5 4\nencoding: raw\n" + line.format(secret) + "\n\n"
    with pytest.raises(DataError, match="whose pixels lie in another"):
        scan_from_bytes(head.encode() + ARRAY.tobytes(), "a.nrrd")
    with pytest.raises(DataError, match="whose pixels lie in another"):
        scan_from_bytes(head.rstrip().encode(), "a.nrrd")


def test_no_copy_stays_behind(tmp_path, monkeypatch):
    data = itk(tmp_path / "a.mha")
    private = tmp_path / "private"
    private.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(private))
    scan_from_bytes(data, "a.mha")
    with pytest.raises(DataError, match=r"^a\.mha") as caught:
        scan_from_bytes(data[:-50], "a.mha")
    assert str(private) not in str(caught.value)
    assert not list(private.iterdir())


def nifti_claiming(shape):
    header = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes()
    changed = bytearray(header)
    changed[40:48] = np.array([3, *shape], "<i2").tobytes()
    return bytes(changed)


@pytest.mark.parametrize(("name", "data"), [
    ("a.nii", nifti_claiming((30000, 30000, 30000))),
    ("a.nii.gz", gzip.compress(nifti_claiming((30000, 30000, 30000)), mtime=0)),
    ("a.mha", b"ObjectType = Image\nNDims = 3\nDimSize = 60000 60000 60000\nElementType = MET_UCHAR\n"
              b"ElementDataFile = LOCAL\n1234"),
    ("a.nrrd", b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 60000 60000 60000\nencoding: raw\n\n1234"),
    ("a.npy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 60000, 60000), }"
              .ljust(117) + b"\n1234"),
])  # fmt: skip
def test_sizes_that_no_volume_has(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name} claims \d+ x \d+ x \d+.* values"):
        open_scan(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name} claims"):
        scan_from_bytes(data, name)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("ultrasam.io.volumes.MAX_VALUES", 1000)
    data = gzip.compress(nifti_claiming((2, 2, 2)) + bytes(100_000))
    with pytest.raises(DataError, match="unpacks to more than 8000 bytes"):
        scan_from_bytes(data, "a.nii.gz")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"<html></html>", b"rubbish" * 90, "half"])
def test_damage_is_named(tmp_path, name, content):
    if content == "half":
        if name == "a.npy":
            np.save(tmp_path / name, ARRAY)
            data = (tmp_path / name).read_bytes()
        else:
            data = itk(tmp_path / name)
        content = data[:len(data) * 2 // 3]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}"):
        open_scan(tmp_path / name)
    with pytest.raises(DataError, match=rf"^{name}"):
        scan_from_bytes(content, name)
