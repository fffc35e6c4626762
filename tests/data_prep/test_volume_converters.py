"""Brachial plexus, micro-ultrasound, mu-RegPro and ACOUSLIC from raw files to COCO, on miniatures of their layouts."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import nibabel
import numpy as np
import pytest
import SimpleITK
from converting import run_for_pixels as run
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from data_prep.catalogue import find_converter
from ultrasam.errors import DataError


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 256, shape, dtype=np.uint8)


def box(rows: slice, columns: slice, height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


# Brachial plexus -----------------------------------------------------------------------------------------------------

H, W = 64, 80
PLEXUS = box(slice(16, 40), slice(8, 32), H, W)


def needle_at(frame: int) -> np.ndarray:
    """Return the needle of a frame; it moves by a JPEG block a frame, so that its mask tells the frame."""
    return box(slice(48, 56), slice(8 * frame, 8 * frame + 8), H, W)


def save_mp4(path: Path, count: int) -> None:
    """Write frames whose brightness is 60 + 10 times their number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for number in range(count):
            pixels = np.full((H, W, 3), 60 + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def save_jpeg(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path, quality=90)


@pytest.fixture
def plexus(tmp_path: Path) -> Path:
    """s071 with a needle (from frame 1, frames 3 and 4 missing), a plexus out of view in frame 6, and a demo."""
    data = tmp_path / "raw/brachial_plexus-main/data"
    scanner = data / "Sonosite"
    save_mp4(scanner / "videos/s071.mp4", 8)
    for frame in range(8):
        save_jpeg(scanner / f"ac_masks/s071/s071_{frame:03d}.jpg", PLEXUS & (frame != 6))
        if frame not in (0, 3, 4):
            save_jpeg(scanner / f"needle/needle_masks/s071/s071_{frame:03d}.jpg", needle_at(frame))
    (scanner / "needle/needle_masks/s071/readme.md").write_text("160 frames\n")
    save_mp4(data / "demo/P_021_09.mp4", 2)
    for frame in range(2):
        save_jpeg(data / f"demo/P_021_09_masks/P_021_09_{frame:03d}.jpg", PLEXUS)
    return tmp_path / "raw"


def test_brachial_plexus_needles_are_on_the_frames_that_their_names_number(plexus, tmp_path):
    found, manifest = run("brachial_plexus", plexus, tmp_path / "out")
    assert sorted(found) == [*(f"Sonosite_s071_{frame:05d}" for frame in range(8)),
                             "demo_P_021_09_00000", "demo_P_021_09_00001"]
    for frame in range(8):
        image, pixels, masks = found[f"Sonosite_s071_{frame:05d}"]
        assert image["frame"] == frame == round((float(pixels.mean()) - 60) / 10)
        assert image["group"] == "brachial_plexus/Sonosite_s071"
        named = dict(masks)
        assert ("needle" in named) == (frame not in (0, 3, 4)) == ("needle" in image["labelled"])
        if "needle" in named:
            np.testing.assert_array_equal(named["needle"], needle_at(frame))
        # Frame 6 stays, as a frame that was looked at and shows no plexus.
        assert ("brachial_plexus" in named) == (frame != 6)
        assert "brachial_plexus" in image["labelled"]
    np.testing.assert_array_equal(dict(found["demo_P_021_09_00001"][2])["brachial_plexus"], PLEXUS)
    assert found["demo_P_021_09_00001"][0]["group"] == "brachial_plexus/demo_P_021_09"
    assert manifest["counts"]["failed"] == 0


def test_brachial_plexus_frames_beyond_999_keep_their_place(tmp_path):
    for frame in ("999", "1000", "101"):
        save_jpeg(tmp_path / f"data/Butterfly/ac_masks/b1/b1_{frame}.jpg", PLEXUS)
    found = list(find_converter("brachial_plexus").records(tmp_path))
    assert [(record.key, record.frame, record.masks[0].path.name) for record in found] == [
        ("Butterfly_b1_00101", 101, "b1_101.jpg"), ("Butterfly_b1_00999", 999, "b1_999.jpg"),
        ("Butterfly_b1_01000", 1000, "b1_1000.jpg")]


def test_brachial_plexus_masks_beyond_the_video_and_specks(plexus, tmp_path):
    folder = plexus / "brachial_plexus-main/data/Sonosite/ac_masks/s071"
    save_jpeg(folder / "s071_008.jpg", PLEXUS)
    save_jpeg(folder / "s071_000.jpg", PLEXUS | box(slice(4, 7), slice(60, 63), H, W))
    found, manifest = run("brachial_plexus", plexus, tmp_path / "out", keep_going=True)
    (failure,) = manifest["failures"]
    assert failure["key"] == "Sonosite_s071_00008"
    assert "frame 8 (counted from 0) was expected, the file has 8 frames" in failure["reason"]
    ((_, mask),) = found["Sonosite_s071_00000"][2]
    np.testing.assert_array_equal(mask, PLEXUS)
    assert manifest["changes"]["components_dropped"] == 1


@pytest.mark.parametrize(("name", "words"), [
    ("s071_01.jpg", "one mask a frame was expected"), ("s072_001.jpg", "a mask named s071_<frame>.jpg was expected"),
])
def test_brachial_plexus_masks_of_other_names_are_refused(plexus, tmp_path, name, words):
    save_jpeg(plexus / f"brachial_plexus-main/data/Sonosite/ac_masks/s071/{name}", PLEXUS)
    with pytest.raises(DataError, match=words):
        run("brachial_plexus", plexus, tmp_path / "out")


# Micro-ultrasound ----------------------------------------------------------------------------------------------------

EXPERT = box(slice(12, 30), slice(20, 44), 48, 64)
OTHERS = box(slice(2, 8), slice(50, 60), 48, 64)
# Voxels of 0.1 mm along columns and 0.2 mm along rows, slices 1 mm apart.
LPS, RAS = np.diag([-0.1, -0.2, 1, 1]), np.diag([0.1, 0.2, 1, 1])
# Columns to the back, rows to the head, slices to the right: a viewer turns the rows only.
SAGITTAL = np.array([[0, 0, 1, 0], [-0.1, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, 0, 1]])


def save_nifti(path: Path, frames: np.ndarray, affine: np.ndarray) -> None:
    """Write (frames, rows, columns) as the x, y, z of a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(frames.transpose(2, 1, 0), affine), path)


def save_mup(raw: Path, side: str, number: str, seed: int, affine: np.ndarray = LPS, flip=(1, 1)) -> np.ndarray:
    """Write a scan of three slices as seen on the screen, the last without prostate, and all its annotations."""
    folder = raw / "Micro_Ultrasound_Prostate_Segmentation_Dataset" / side
    frames = noise(seed, 3, 48, 64)
    truth = np.stack([EXPERT, EXPERT, EXPERT & False]).astype(np.uint8)
    other = np.stack([OTHERS] * 3).astype(np.uint8)
    step = np.s_[:, ::flip[0], ::flip[1]]
    save_nifti(folder / f"micro_ultrasound_scans/microUS_{side}_{number}.nii.gz", frames[step], affine)
    save_nifti(folder / f"expert_annotations/expert_annotation_{side}_{number}.nii.gz", truth[step], affine)
    rest = {"train": ["non_expert_annotations/nonexpert"], "test": [
        "clinician_annotations/clinician", "master_student_annotations/master_student",
        "medical_student_annotations/medical_student"]}
    for name in rest[side]:
        save_nifti(folder / f"{name}_annotation_{side}_{number}.nii.gz", other[step], affine)
    return frames


@pytest.mark.parametrize("slug", ["mup", "microseg"])
def test_micro_ultrasound_takes_the_expert_and_keeps_restarting_numbers_apart(tmp_path, slug):
    frames = {side: save_mup(tmp_path / "raw", side, "01", seed) for seed, side in enumerate(("train", "test"))}
    found, manifest = run(slug, tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == [f"{side}_01_{frame:05d}" for side in ("test", "train") for frame in range(3)]
    for name, (image, pixels, masks) in found.items():
        side, frame = name.split("_")[0], int(name[-5:])
        np.testing.assert_array_equal(pixels[..., 0], frames[side][frame])
        assert (image["group"], image["official_split"]) == (f"{slug}/{side}_01", side)
        assert image["frame"] == frame
        assert image["split"] in ("train", "val")
        assert image["spacing_mm"] == pytest.approx([0.2, 0.1])
        # The last slice has no prostate and stays.
        assert len(masks) == (frame < 2)
        for category, mask in masks:
            assert category == "prostate"
            np.testing.assert_array_equal(mask, EXPERT)
    assert manifest["counts"]["groups"] == 2


def test_microseg_is_another_name_of_mup():
    mup, microseg = find_converter("mup"), find_converter("microseg")
    assert (mup.info.alias_of, microseg.info.alias_of) == ("", "mup")
    assert microseg.records is mup.records
    assert microseg.info.categories == mup.info.categories == ("prostate",)


@pytest.mark.parametrize(("affine", "flip", "reversed_axes"), [
    (LPS, (1, 1), None), (RAS, (-1, -1), ["rows", "columns"]), (SAGITTAL, (-1, 1), ["rows"]),
])
def test_mup_slices_stand_as_a_viewer_shows_them(tmp_path, affine, flip, reversed_axes):
    frames = save_mup(tmp_path / "raw", "train", "07", 5, affine, flip)
    found, _ = run("mup", tmp_path / "raw", tmp_path / "out")
    image, pixels, masks = found["train_07_00001"]
    np.testing.assert_array_equal(pixels[..., 0], frames[1])
    np.testing.assert_array_equal(masks[0][1], EXPERT)
    assert image.get("reversed_axes") == reversed_axes
    assert image["spacing_mm"] == pytest.approx([0.2, 0.1])


def test_mup_missing_damaged_and_misplaced_files(tmp_path, capsys):
    for number in ("01", "02", "03"):
        save_mup(tmp_path / "raw", "train", number, 1)
    folder = tmp_path / "raw/Micro_Ultrasound_Prostate_Segmentation_Dataset/train"
    (folder / "expert_annotations/expert_annotation_train_01.nii.gz").unlink()
    damaged = folder / "micro_ultrasound_scans/microUS_train_02.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    found, manifest = run("mup", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert {name[:8] for name in found} == {"train_03"}
    assert [item["key"] for item in manifest["failures"]] == ["train_01_00000", *(
        f"train_02_{frame:05d}" for frame in range(3))]
    assert "expert_annotation_train_01.nii.gz: the file is not there" in capsys.readouterr().err
    with pytest.raises(DataError, match="the folder above was expected as the source"):
        run("mup", folder / "micro_ultrasound_scans", tmp_path / "out2")


# mu-RegPro -----------------------------------------------------------------------------------------------------------

# Slices to the left, rows to the feet, columns to the back, 0.5, 0.7 and 0.9 mm apart.
SCREEN = np.array([[-0.5, 0, 0, 0], [0, 0, -0.9, 0], [0, -0.7, 0, 0], [0, 0, 0, 1.0]])


def save_regpro(path: Path, screen: np.ndarray, codes: str) -> None:
    """Write an array (slices, rows, columns[, channels]) of the screen with its axes laid out as the codes say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert nibabel.aff2axcodes(SCREEN) == ("L", "I", "P")
    turn = ornt_transform(io_orientation(SCREEN), axcodes2ornt(tuple(codes)))
    nibabel.save(nibabel.Nifti1Image(screen, SCREEN).as_reoriented(turn), path)


def gland_and_landmarks() -> np.ndarray:
    """Return labels (6 slices, 40 rows, 50 columns, 3 channels): the second landmark lies inside the gland."""
    labels = np.zeros((6, 40, 50, 3), np.uint8)
    labels[1:4, 10:30, 12:40, 0] = 1
    labels[2, 15:20, 20:30, 1] = 1
    labels[4, 5:9, 6:12, 2] = 255
    return labels


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSL", "SRA"])
def test_regpro_is_cut_sagittally_whatever_the_axes_of_the_file(tmp_path, codes):
    # "mr" is part of the folder's name, and volumes of MR lie beside those of ultrasound.
    raw = tmp_path / "raw/mr_to_us/train"
    frames, labels = noise(8, 6, 40, 50), gland_and_landmarks()
    save_regpro(raw / "us_images/case000003.nii.gz", frames, codes)
    save_regpro(raw / "us_labels/case000003.nii.gz", labels, codes)
    save_regpro(raw / "mr_images/case000003.nii.gz", frames[:, ::2], codes)
    save_regpro(raw / "mr_labels/case000003.nii.gz", labels[:, ::2], codes)
    found, manifest = run("regpro", tmp_path / "raw", tmp_path / "out")
    assert sorted(found) == [f"train_case000003_{frame:05d}" for frame in (1, 2, 3, 4)]
    for image, pixels, masks in found.values():
        frame = image["frame"]
        np.testing.assert_array_equal(pixels[..., 0], frames[frame])
        expected = [("prostate_gland" if channel == 0 else "landmark", labels[frame, ..., channel] > 0)
                    for channel in range(3) if labels[frame, ..., channel].any()]
        assert [name for name, _ in masks] == [name for name, _ in expected]
        for (_, mask), (_, truth) in zip(masks, expected, strict=True):
            np.testing.assert_array_equal(mask, truth)
        assert image["spacing_mm"] == pytest.approx([0.7, 0.9])
        assert (image["group"], image["official_split"]) == ("regpro/train_case000003", "train")
    assert manifest["counts"]["masks"] == 5


def test_regpro_label_of_one_structure_and_missing_labels(tmp_path):
    raw = tmp_path / "raw"
    for case in ("val/us_images/case000065", "us_images/case000066", "us_images/case000067"):
        save_regpro(raw / f"{case}.nii.gz", noise(2, 6, 40, 50), "RAS")
    save_regpro(raw / "val/us_labels/case000065.nii.gz", gland_and_landmarks()[..., 0], "RAS")
    save_regpro(raw / "us_labels/case000066.nii.gz", gland_and_landmarks(), "RAS")
    found, manifest = run("regpro", raw, tmp_path / "out", keep_going=True)
    assert {name.rsplit("_", 1)[0] for name in found} == {"val_case000065", "case000066"}
    assert [name for name, _ in found["val_case000065_00001"][2]] == ["prostate_gland"]
    (failure,) = manifest["failures"]
    assert failure["reason"] == "us_labels/case000067.nii.gz: the file is not there"


@pytest.mark.shared
def test_regpro_on_volumes_of_the_same_group(shared, tmp_path):
    source = shared / "data/deepreg_us_simulated_nifti/data/test/nifti/paired/train"
    if not source.is_dir():
        pytest.skip(f"{source} is not present")
    shutil.copytree(source / "fixed_images", tmp_path / "raw/train/us_images")
    shutil.copytree(source / "fixed_labels", tmp_path / "raw/train/us_labels")
    found, manifest = run("regpro", tmp_path / "raw", tmp_path / "out")
    expected = 0
    for path in sorted((source / "fixed_labels").iterdir()):
        labels = nibabel.load(path).get_fdata()
        labels = labels if labels.ndim == 4 else labels[..., None]
        expected += int((labels != 0).any(axis=(1, 2, 3)).sum())
        # File axes grow to the right, front and head: the screen has them all reversed.
        image, _, masks = found[min(name for name in found if path.name.split(".")[0] in name)]
        screen = labels[::-1, ::-1, ::-1].transpose(0, 2, 1, 3)[image["frame"]]
        assert sum(int(mask.sum()) for _, mask in masks) == int((screen != 0).sum())
        assert "crop" in image or (image["width"], image["height"]) == (59, 41)
    assert len(found) == expected
    assert manifest["counts"]["groups"] == 6


# ACOUSLIC ------------------------------------------------------------------------------------------------------------

ABDOMEN = box(slice(10, 30), slice(20, 50), 48, 64)
SCANS = ("0a1b-c2", "11ff-d0", "9e9e-e9")


def save_mha(path: Path, frames: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(frames)
    image.SetSpacing((0.28, 0.28, 1))
    SimpleITK.WriteImage(image, str(path), useCompression=True)


@pytest.fixture
def acouslic(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Three scans of six frames, of which 1 and 4 are labelled; the first two are of one subject."""
    raw = tmp_path / "raw/acouslic-ai-train-set"
    frames, labels = noise(4, 6, 48, 64), np.zeros((6, 48, 64), np.uint8)
    frames[:, :, :10] = 0
    labels[1][ABDOMEN], labels[4][ABDOMEN] = 1, 2
    labels[4, 10:30, 2:20] = 2
    for scan in SCANS:
        save_mha(raw / f"images/stacked_fetal_ultrasound/{scan}.mha", frames)
        save_mha(raw / f"masks/stacked_fetal_abdomen/{scan}.mha", labels)
    table = raw / "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
    table.parent.mkdir()
    table.write_text(f"uuid,subject_id,sweep_1_ac_mm\n{SCANS[0]},7,201.5\n{SCANS[1]},7,\n")
    return tmp_path / "raw", frames


def test_acouslic_keeps_the_quality_of_the_plane_and_joins_scans_of_a_subject(acouslic, tmp_path):
    source, frames = acouslic
    found, manifest = run("acouslic", source, tmp_path / "out")
    assert sorted(found) == [f"{scan}_{frame:05d}" for scan in SCANS for frame in (1, 4)]
    groups = dict(zip(SCANS, ("acouslic/subject_7", "acouslic/subject_7", f"acouslic/{SCANS[2]}"), strict=True))
    for name, (image, pixels, masks) in found.items():
        frame = int(name[-5:])
        np.testing.assert_array_equal(pixels[..., 0], frames[frame])
        assert image["plane"] == {1: "optimal", 4: "suboptimal"}[frame]
        assert image["group"] == groups[name[:-6]]
        assert image["spacing_mm"] == pytest.approx([0.28, 0.28])
        ((category, mask),) = masks
        assert category == "fetal_abdomen"
        # Labels end where the field of view ends, at column 10.
        truth = ABDOMEN.copy()
        truth[10:30, 10:20] = frame == 4
        np.testing.assert_array_equal(mask, truth)
    assert manifest["counts"]["groups"] == 2
    assert manifest["changes"]["pixels_outside_fov"] == 3 * 20 * 8


def test_acouslic_unknown_labels_and_missing_images_fail_alone(acouslic, tmp_path):
    raw = acouslic[0] / "acouslic-ai-train-set"
    labels = np.zeros((6, 48, 64), np.uint8)
    labels[1][ABDOMEN], labels[2][ABDOMEN] = 1, 3
    save_mha(raw / f"masks/stacked_fetal_abdomen/{SCANS[0]}.mha", labels)
    (raw / f"images/stacked_fetal_ultrasound/{SCANS[1]}.mha").unlink()
    found, manifest = run("acouslic", acouslic[0], tmp_path / "out", keep_going=True)
    assert sorted(found) == [f"{SCANS[0]}_00001", *(f"{SCANS[2]}_{frame:05d}" for frame in (1, 4))]
    reasons = {item["key"]: item["reason"] for item in manifest["failures"]}
    assert "found also [3]" in reasons[f"{SCANS[0]}_00002"]
    assert f"images/stacked_fetal_ultrasound/{SCANS[1]}.mha: the file is not there" in reasons[f"{SCANS[1]}_00001"]


@pytest.mark.parametrize(("slug", "application"), [
    ("brachial_plexus", "plexus"), ("mup", "prostate"), ("microseg", "prostate"), ("regpro", "prostate"),
    ("acouslic", "fetal abdomen"),
])
def test_volume_sets_and_what_they_say_to_an_empty_folder(slug, application, tmp_path):
    assert find_converter(slug).info.application == application
    with pytest.raises(DataError, match="expected"):
        list(find_converter(slug).records(tmp_path))
