"""Where images come from: turned files, frames of volumes and videos, and sagittal views of any orientation."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from data_prep.frames import ImageFile, VideoFrame, VolumeFrame, sagittal, volume
from data_prep.mask_shapes import VolumeLabels
from ultrasam.errors import DataError
from ultrasam.io.volumes import Volume

# Every way to lay the axes of a volume along right-left, front-back and head-foot.
ORIENTATIONS = ["".join(letters) for order in itertools.permutations(("RL", "AP", "SI"))
                for letters in itertools.product(*order)]


def block_in_ras() -> np.ndarray:
    """Return a head-like volume (left to right, back to front, foot to head) that is like none of its mirror images."""
    made = np.zeros((6, 7, 8), np.uint8)
    made[4:, :, :] = 50  # the right side
    made[:, 5:, :] += 70  # the front
    made[:, :, 6:] += 100  # the head
    made[0, 0, 0] = 9
    return made


def reoriented(ras: nibabel.Nifti1Image, codes: str) -> nibabel.Nifti1Image:
    """Return the same volume with axes in other directions."""
    codes_to = nibabel.orientations.axcodes2ornt
    return ras.as_reoriented(nibabel.orientations.ornt_transform(codes_to("RAS"), codes_to(tuple(codes))))


def write_oriented(folder: Path, codes: str) -> Path:
    """Write the block as a NIfTI whose axes have the given directions."""
    ras = nibabel.Nifti1Image(block_in_ras(), np.diag([1.0, 2.0, 3.0, 1.0]))
    turned = reoriented(ras, codes)
    assert "".join(nibabel.aff2axcodes(turned.affine)) == codes
    nibabel.save(turned, folder / "v.nii.gz")
    return folder / "v.nii.gz"


def sagittal_truth(path: Path) -> np.ndarray:
    """Return right to left, head to foot, front to back from nibabel's canonical array, which runs the other way."""
    canonical = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    return canonical.transpose(0, 2, 1)[::-1, ::-1, ::-1]


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_sagittal_view_is_the_same_from_every_orientation(tmp_path, codes):
    path = write_oriented(tmp_path, codes)
    view = volume(path, "sagittal")
    np.testing.assert_array_equal(view.array, sagittal_truth(path))
    assert (view.directions, view.spacing) == (("L", "I", "P"), (1, 3, 2))
    # In words: the right slice first, the head up, the front to the left.
    assert view.array[0, 7, 6] == 50
    assert view.array[5, 0, 6] == 100
    assert view.array[5, 7, 0] == 70


@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
def test_mha_and_nifti_have_the_same_sagittal_view(tmp_path, codes):
    path = write_oriented(tmp_path, codes)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path)), str(tmp_path / "v.mha"))
    view = volume(tmp_path / "v.mha", "sagittal")
    np.testing.assert_array_equal(view.array, sagittal_truth(path))
    assert view.spacing == pytest.approx((1, 3, 2))


def test_image_and_labels_stay_together_in_the_sagittal_view(tmp_path):
    path = write_oriented(tmp_path, "SAL")
    for index, truth in enumerate(sagittal_truth(path)):
        pixels = VolumeFrame(path, index, "sagittal").read()
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, np.repeat(truth[..., None], 3, axis=2))
        found = VolumeLabels(path, index, {220: "head"}, ignored=tuple(range(1, 220)), view="sagittal").read(8, 7)
        np.testing.assert_array_equal(found[0][1] if found else np.zeros((8, 7), bool), truth == 220)


def test_channels_follow_their_voxels(tmp_path):
    channels = np.stack([block_in_ras(), block_in_ras() // 2], axis=-1)
    turned = reoriented(nibabel.Nifti1Image(channels, np.eye(4)), "ILA")
    nibabel.save(turned, tmp_path / "v.nii")
    found = volume(tmp_path / "v.nii", "sagittal").array
    truth = np.asarray(nibabel.as_closest_canonical(turned).dataobj).transpose(0, 2, 1, 3)[::-1, ::-1, ::-1]
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("directions", [("", "", ""), ("S", "", ""), ("L", "P", "P")])
def test_a_sagittal_view_needs_directions(directions):
    with pytest.raises(DataError, match=r"v\.mha: a header that names left, head and front was expected"):
        sagittal(Volume(np.zeros((2, 2, 2)), None, directions), Path("v.mha"))


@pytest.mark.parametrize("turn", [-1, 0, 1, 2, 3, 4, 5])
def test_images_are_turned_clockwise(tmp_path, turn):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255  # the upper left corner, which goes round clockwise
    pixels[0, 5] = (9, 8, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = ImageFile(tmp_path / "a.png", turn)
    found = source.read()
    assert found.shape == ((4, 6, 3), (6, 4, 3))[turn % 2]
    assert found.flags.c_contiguous
    white = tuple(int(place[0]) for place in np.nonzero((found == 255).all(axis=2)))
    height, width = found.shape[:2]
    assert white == [(0, 0), (0, width - 1), (height - 1, width - 1), (height - 1, 0)][turn % 4]
    np.testing.assert_array_equal(found, np.array(Image.fromarray(pixels).rotate(-90 * turn, expand=True)))
    assert source.copied == (None if turn % 4 else tmp_path / "a.png")
    assert source.paths == (tmp_path / "a.png",)


def test_frames_of_a_volume_share_one_scale_and_can_be_turned(tmp_path):
    values = np.zeros((3, 4, 5), np.int16)
    values[0, 0, 0], values[1, 1, 2], values[2, 3, 4] = -1000, 500, 1000
    np.save(tmp_path / "v.npy", values)
    path = tmp_path / "v.npy"
    frames = [VolumeFrame(path, index).read() for index in range(3)]
    for frame, raw in zip(frames, values, strict=True):
        assert (frame.shape, frame.dtype) == ((4, 5, 3), np.uint8)
        np.testing.assert_array_equal(frame[..., 0], np.rint((raw + 1000.0) * 255 / 2000).astype(int))
        assert (frame == frame[..., :1]).all()
    turned = VolumeFrame(path, 1, flips=(True, True)).read()
    np.testing.assert_array_equal(turned, frames[1][::-1, ::-1])
    assert turned.flags.c_contiguous


def test_colours_of_a_volume_are_kept_and_other_channels_refused(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    np.save(tmp_path / "c.npy", colours)
    np.testing.assert_array_equal(VolumeFrame(tmp_path / "c.npy", 1).read(), colours[1])
    np.save(tmp_path / "g.npy", colours[..., :1])
    np.testing.assert_array_equal(VolumeFrame(tmp_path / "g.npy", 1).read(), np.repeat(colours[1, ..., :1], 3, axis=2))
    np.save(tmp_path / "two.npy", colours[..., :2])
    with pytest.raises(DataError, match=r"two\.npy: 1 or 3 channels were expected, found 2"):
        VolumeFrame(tmp_path / "two.npy", 0).read()


def write_video(path: Path, pictures: np.ndarray) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "bgr0"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_frames_of_a_video_are_picked_by_number(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    path = write_video(tmp_path / "a.avi", pictures)
    for index in (3, 0, 4):
        found = VideoFrame(path, index).read()
        np.testing.assert_array_equal(found, pictures[index])
        assert found.flags.c_contiguous
    assert VideoFrame(path, 0).paths == (path,)
    assert VideoFrame(path, 0).copied is None


@pytest.mark.parametrize("index", [-1, 5])
def test_a_frame_that_does_not_exist_is_named(tmp_path, index):
    pictures = np.zeros((5, 32, 48, 3), np.uint8)
    np.save(tmp_path / "a.npy", pictures)
    for source in (VideoFrame(write_video(tmp_path / "a.avi", pictures), index), VolumeFrame(tmp_path / "a.npy", index),
                   VolumeLabels(tmp_path / "a.npy", index, {1: "x"})):
        with pytest.raises(DataError, match=rf"a\.\w+: frame {index} \(counted from 0\) .* has 5 frames"):
            source.read(32, 48) if isinstance(source, VolumeLabels) else source.read()


def test_a_file_that_was_replaced_is_read_again(tmp_path):
    for number in (1, 2):
        np.save(tmp_path / "v.npy", np.full((1, 2, number), 100 * number, np.uint8))
        write_video(tmp_path / "a.avi", np.full((number, 32, 48, 3), 100 * number, np.uint8))
        assert VolumeFrame(tmp_path / "v.npy", 0).read().shape == (2, number, 3)
        assert (VolumeFrame(tmp_path / "v.npy", 0).read() == 100 * number).all()
        assert (VideoFrame(tmp_path / "a.avi", number - 1).read() == 100 * number).all()


def test_sources_can_be_sent_to_a_process(tmp_path):
    for source in (ImageFile(tmp_path / "a.png", 1), VolumeFrame(tmp_path / "v.nii", 3, "sagittal", flips=(True, True)),
                   VideoFrame(tmp_path / "a.avi", 2)):
        assert pickle.loads(pickle.dumps(source)) == source
