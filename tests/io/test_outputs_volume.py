"""Label volumes lie where their scans lie, on oblique and flipped axes, as nibabel and SimpleITK see it."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK
from dicom_files import ultrasound

from ultrasam.errors import DataError
from ultrasam.io.outputs_volume import label_volume, volume_suffix, write_label_volume
from ultrasam.io.scan import open_scan, scan_from_array, scan_from_bytes

# Slowest axis first: 4 slices of 5 x 6; a bright asymmetric block.
ARRAY = np.random.default_rng(0).integers(0, 60, (4, 5, 6)).astype(np.uint8)
ARRAY[1:3, 1:4, 3:6] = 200


def turned(flip: bool) -> np.ndarray:
    """Return a direction matrix (3, 3) that no axis lies along, with or without a mirror."""
    a, b, c = 0.4, -0.7, 1.1
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return x @ y @ z @ np.diag([1, -1 if flip else 1, 1])


def bright(scan):
    """Return what a perfect network would: the bright block of every frame, as one object."""
    return {frame: (pixels[None, ..., 0] > 150) for frame, pixels in enumerate(scan)}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_keeps_affine_codes_and_axes(tmp_path, flip, suffix):
    affine = np.eye(4)
    affine[:3, :3] = turned(flip) @ np.diag([0.3, 0.2, 0.9])
    affine[:3, 3] = (12, -30, 7)
    image = nibabel.Nifti1Image(ARRAY.T.astype(np.int16), affine)
    image.header.set_slope_inter(2.0, -3.0)
    image.set_qform(affine, 1)
    image.set_sform(affine, 2)
    nibabel.save(image, tmp_path / f"a{suffix}")
    scan = open_scan(tmp_path / f"a{suffix}")
    assert volume_suffix(scan) == ".nii.gz" and scan.spacing == pytest.approx((0.2, 0.3))
    write_label_volume(tmp_path / f"out{suffix}", bright(scan), scan)
    found = nibabel.load(tmp_path / f"out{suffix}")
    source = nibabel.load(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert int(found.header["qform_code"]) == 1 and int(found.header["sform_code"]) == 2
    assert found.shape == source.shape and found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.get_fdata(), source.get_fdata() > 150)
    # Another library puts both at the same places too.
    a, b = (SimpleITK.ReadImage(str(tmp_path / f"{name}{suffix}")) for name in ("a", "out"))
    np.testing.assert_allclose(a.GetDirection(), b.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(a.GetOrigin(), b.GetOrigin(), atol=1e-4)


def test_a_sheared_affine_is_kept(tmp_path):
    affine = np.array([[0.3, 0.1, 0, 1], [0, 0.2, 0, 2], [0.05, 0, 0.9, 3], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(ARRAY.T, affine), tmp_path / "a.nii.gz")
    scan = scan_from_bytes((tmp_path / "a.nii.gz").read_bytes(), "a.nii.gz")
    write_label_volume(tmp_path / "out.nii.gz", bright(scan), scan)
    np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii.gz").affine, affine, atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 1, 4), (6, 5, 4, 3), "rgb"])
def test_nifti_of_other_dimensions(tmp_path, shape):
    rng = np.random.default_rng(1)
    if shape == "rgb":
        kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
        array = np.zeros((6, 5, 4), kind)
        array["R"] = rng.integers(0, 255, (6, 5, 4))
        expected = (6, 5, 4)
    else:
        array = rng.integers(0, 255, shape).astype(np.uint8)
        expected = shape[:3] if shape == (6, 5, 4, 3) else shape
    nibabel.save(nibabel.Nifti1Image(array, np.diag([0.3, 0.2, 0.9, 1])), tmp_path / "a.nii.gz")
    scan = open_scan(tmp_path / "a.nii.gz")
    assert scan.size == (5, 6)
    write_label_volume(tmp_path / "out.nii.gz", bright(scan), scan)
    found = nibabel.load(tmp_path / "out.nii.gz")
    assert found.shape == expected
    first = array["R"] if shape == "rgb" else array[..., 0] if shape == (6, 5, 4, 3) else array
    np.testing.assert_array_equal(found.get_fdata(), first > 150)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("suffix", "out"), [(".mha", ".mha"), (".mhd", ".mha"), (".nrrd", ".nrrd")])
def test_itk_formats_keep_origin_spacing_and_directions(tmp_path, flip, suffix, out):
    image = SimpleITK.GetImageFromArray(ARRAY)
    image.SetSpacing((0.3, 0.2, 0.9))
    image.SetOrigin((12, -30, 7))
    image.SetDirection(turned(flip).ravel().tolist())
    SimpleITK.WriteImage(image, str(tmp_path / f"a{suffix}"))
    scan = open_scan(tmp_path / f"a{suffix}")
    assert volume_suffix(scan) == out and scan.spacing == pytest.approx((0.2, 0.3))
    write_label_volume(tmp_path / f"out{out}", bright(scan), scan)
    found = SimpleITK.ReadImage(str(tmp_path / f"out{out}"))
    for one, other in ((found.GetSpacing(), image.GetSpacing()), (found.GetOrigin(), image.GetOrigin()),
                       (found.GetDirection(), image.GetDirection())):  # fmt: skip
        np.testing.assert_allclose(one, other, atol=1e-9)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), ARRAY > 150)
    # The same physical point has the same label: ITK says where.
    point = image.TransformIndexToPhysicalPoint((4, 2, 1))
    assert found[found.TransformPhysicalPointToIndex(point)] == 1


def test_a_flat_itk_image(tmp_path):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ARRAY[2]), str(tmp_path / "a.mha"))
    scan = open_scan(tmp_path / "a.mha")
    write_label_volume(tmp_path / "out.mha", bright(scan), scan)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "out.mha"))),
                                  ARRAY[2] > 150)  # fmt: skip


def test_dicom_gives_nifti_with_the_size_of_a_pixel_and_no_place_in_space(tmp_path):
    scan = open_scan(ultrasound(tmp_path / "cine.dcm", ARRAY))
    write_label_volume(tmp_path / "out.nii.gz", bright(scan), scan)
    found = nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(found.get_fdata(), ARRAY.T > 150)
    assert found.header.get_zooms() == pytest.approx((0.1, 0.2, 1.0))
    assert int(found.header["qform_code"]) == int(found.header["sform_code"]) == 0
    assert found.header.get_xyzt_units()[0] == "mm"


def test_frames_without_masks_are_zero_and_wrong_ones_are_refused(tmp_path):
    scan = scan_from_array(ARRAY)
    two = np.zeros((2, 5, 6), bool)
    two[1, 0, 0] = True
    volume = label_volume({2: two}, scan)
    assert volume.shape == (4, 5, 6) and volume[2, 0, 0] == 2 and volume.sum() == 2
    with pytest.raises(DataError, match="found masks of frame 4"):
        label_volume({4: two}, scan)
    with pytest.raises(DataError, match=r"written as \.nii\.gz, found another suffix"):
        write_label_volume(tmp_path / "a.mha", {2: two}, scan)
