"""Volumes against nibabel and SimpleITK: order of axes, directions, spacing; and what is refused."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ultrasam.errors import DataError
from ultrasam.io.volumes import frames_to_uint8, is_volume, read_volume, suffix_of

BLOCK = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # x, y, z


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def affine_of(codes: str, zooms: tuple[float, ...] = (1, 1, 1)) -> np.ndarray:
    """Return the affine of a volume whose axes point to the directions of the letters."""
    matrix = np.eye(4)
    for axis, letter in enumerate(codes):
        place = next(number for number, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        matrix[:3, axis] = 0
        matrix[place, axis] = zooms[axis] * (1 if letter in "RAS" else -1)
    return matrix


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL", "IRP"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_nifti_has_its_last_axis_first_and_the_directions_of_nibabel(tmp_path, codes, suffix):
    path = write_nifti(tmp_path / f"v{suffix}", BLOCK, affine_of(codes, (0.5, 2, 3)))
    found = read_volume(path)
    assert (is_volume(path), suffix_of(path)) == (True, suffix)
    np.testing.assert_array_equal(found.array, BLOCK.transpose(2, 1, 0))
    assert found.array.dtype == np.int16
    assert found.directions == nibabel.aff2axcodes(nibabel.load(path).affine)[::-1] == tuple(codes[::-1])
    assert found.spacing == (3, 2, 0.5)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_mha_mhd_and_nrrd_agree_with_the_nifti_that_simpleitk_makes_of_them(tmp_path, codes):
    nifti = write_nifti(tmp_path / "v.nii.gz", BLOCK, affine_of(codes, (0.5, 2, 3)))
    image = SimpleITK.ReadImage(str(nifti))
    truth = read_volume(nifti)
    for name in ("v.mha", "v.mhd", "v.nrrd"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found.array, truth.array)
        assert found.directions == truth.directions
        assert found.spacing == pytest.approx(truth.spacing)


@pytest.mark.parametrize(("degrees", "named"), [(30, True), (45, False)])
def test_oblique_axes_are_named_only_when_they_are_near_one(tmp_path, degrees, named):
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    expected = ("S", "A", "R") if named else ("S", "", "")
    nifti = write_nifti(tmp_path / "v.nii", BLOCK, affine)
    assert read_volume(nifti).directions == expected
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(nifti)), str(tmp_path / "v.mha"))
    assert read_volume(tmp_path / "v.mha").directions == expected


def test_a_nifti_without_affine_has_no_directions(tmp_path):
    image = nibabel.Nifti1Image(BLOCK, None)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (0, 0)
    nibabel.save(image, tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii").directions == ("", "", "")


def test_two_four_and_five_dimensions(tmp_path):
    flat = read_volume(write_nifti(tmp_path / "2.nii", BLOCK[..., 0]))
    np.testing.assert_array_equal(flat.array, BLOCK[..., 0].T[None])
    channels = np.stack([BLOCK, BLOCK + 100], axis=-1)
    for name, array in (("4.nii", channels), ("5.nii", channels[:, :, :, None])):
        np.testing.assert_array_equal(read_volume(write_nifti(tmp_path / name, array)).array,
                                      channels.transpose(2, 1, 0, 3))
    with pytest.raises(DataError, match="2 to 4 dimensions were expected"):
        read_volume(write_nifti(tmp_path / "6.nii", np.stack([channels] * 2, axis=3)))
    colours = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    packed = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for number, name in enumerate("RGB"):
        packed[name] = colours[..., number]
    np.testing.assert_array_equal(read_volume(write_nifti(tmp_path / "c.nii", packed)).array,
                                  colours.transpose(2, 1, 0, 3))
    np.testing.assert_array_equal(read_volume(write_nifti(tmp_path / "f.nii", packed[..., 0])).array,
                                  colours[:, :, 0].transpose(1, 0, 2)[None])
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(BLOCK[0].astype(np.float32)), str(tmp_path / "2.mha"))
    cine = read_volume(tmp_path / "2.mha")
    np.testing.assert_array_equal(cine.array, BLOCK[0][None])
    assert cine.directions == ("", "", "")
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(colours, isVector=True), str(tmp_path / "c.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "c.mha").array, colours)


@pytest.mark.parametrize(("slope", "intercept", "scaled"), [
    (2.0, -5.0, True), (1.0, 0.0, False), (0.0, 7.0, False), (np.nan, np.nan, False)])
def test_the_slope_of_a_nifti_is_applied_where_it_has_one(tmp_path, slope, intercept, scaled):
    path = write_nifti(tmp_path / "v.nii", BLOCK)
    data = bytearray(path.read_bytes())
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(data)
    expected = BLOCK * slope + intercept if scaled else BLOCK
    np.testing.assert_array_equal(read_volume(path).array, expected.transpose(2, 1, 0))


@pytest.mark.parametrize("array", [BLOCK, BLOCK[0], np.stack([BLOCK] * 3, axis=-1), BLOCK > 5])
def test_npy_is_read_as_it_lies(tmp_path, array):
    np.save(tmp_path / "v.npy", array)
    found = read_volume(tmp_path / "v.npy")
    np.testing.assert_array_equal(found.array, array[None] if array.ndim == 2 else array)
    assert (found.spacing, found.directions) == (None, ("", "", ""))


class Payload:
    """What must never be run by reading."""

    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def test_npy_is_never_unpickled_and_holds_real_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for array, words in (
        (np.array([[Payload()]], object), "found damage"), (np.zeros(5), "2 to 4 dimensions"),
        (np.zeros((0, 4, 4)), "real numbers were expected"), (np.array([["a", "b"]]), "real numbers were expected"),
        (np.zeros((2, 2), complex), "real numbers were expected"),
    ):
        np.save("v.npy", array, allow_pickle=True)
        with pytest.raises(DataError, match=words):
            read_volume("v.npy")
    assert not Path("pwned").exists()
    with pytest.raises(DataError, match="real numbers were expected"):
        read_volume(write_nifti(tmp_path / "v.nii", np.zeros((2, 2, 2), np.complex64)))


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "v.mha", "v.mhd", "v.nrrd", "v.npy"])
def test_cut_off_and_spoilt_files_are_named(tmp_path, name):
    path = tmp_path / name
    values = np.random.default_rng(0).integers(0, 999, (9, 9, 9), dtype=np.int16)
    if name == "v.npy":
        np.save(path, values)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path), useCompression=name[:4] == "v.mh")
    path = tmp_path / "v.zraw" if name == "v.mhd" else path
    data = path.read_bytes()
    spoilt = [data[:len(data) // 2], data[:30], b"garbage" * 99]
    if name in ("v.nii.gz", "v.mha", "v.mhd"):
        middle = len(data) // 2
        spoilt.append(data[:middle] + bytes(byte ^ 0x5A for byte in data[middle:middle + 8]) + data[middle + 8:])
    for content in spoilt:
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: a readable volume was expected, found damage"):
            read_volume(tmp_path / name)


def test_nifti_of_the_second_version(tmp_path):
    for name in ("v.nii", "v.nii.gz"):
        nibabel.save(nibabel.Nifti2Image(BLOCK, affine_of("LPS")), tmp_path / name)
        found = read_volume(tmp_path / name)
        np.testing.assert_array_equal(found.array, BLOCK.transpose(2, 1, 0))
        assert found.directions == ("S", "P", "L")


def test_what_is_not_a_volume_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_volume(tmp_path / "no.mha")
    for name, content, words in (
        ("a.mha", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git-LFS pointer"),
        ("a.nii.gz", b"", "is empty"), ("a.txt", b"text", r"found '\.txt'"), ("a.gz", b"text", r"found '\.gz'"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_volume(tmp_path / name)


NUMBERS = arrays(st.sampled_from([np.int16, np.uint16, np.int32, np.float32]),
                 array_shapes(min_dims=1, max_dims=3, max_side=4), elements=st.integers(0, 30000))


@settings(max_examples=100, deadline=None)
@given(NUMBERS)
def test_scaling_keeps_the_order_and_uses_the_whole_range(array):
    found = frames_to_uint8(array, "v")
    assert (found.dtype, found.shape) == (np.uint8, array.shape)
    if 1 < array.max() <= 255:
        np.testing.assert_array_equal(found, array)
        return
    if array.min() == array.max():
        assert not found.any()
        return
    assert (found.min(), found.max()) == (0, 255)
    order = np.argsort(array, axis=None, kind="stable")
    assert (np.diff(found.ravel()[order].astype(int)) >= 0).all()
    exact = (array.astype(float) - array.min()) * 255 / (float(array.max()) - array.min())
    assert np.abs(found - exact).max() <= 0.51


@pytest.mark.parametrize(("values", "expected"), [
    (np.array([0, 255, 256, 300, 65535], np.uint16), [0, 1, 1, 1, 255]),
    (np.array([-1024, 0, 1024], np.int16), [0, 128, 255]),
    (np.array([0, 0.5, 1], np.float64), [0, 128, 255]),
    (np.array([0, 1, 1], np.uint16), [0, 255, 255]),
    (np.array([False, True]), [0, 255]),
    (np.array([3, 200], np.uint8), [3, 200]),
    (np.array([0, 1], np.uint8), [0, 1]),
    (np.array([3.0, 200.0]), [3, 200]),
    (np.array([7.5, 7.5]), [0, 0]),
    (np.array([-2**62, 2**62]), [0, 255]),
])
def test_nothing_wraps_around(values, expected):
    assert frames_to_uint8(values, "v").tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(DataError, match=r"x\.nii: finite intensities were expected"):
        frames_to_uint8(np.array([0, bad]), "x.nii")
