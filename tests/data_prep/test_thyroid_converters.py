"""Converters of the thyroid sets, each on a miniature of its raw layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from converting import load
from PIL import Image

from data_prep.catalogue import find_converter
from data_prep.listing import find_pair, numbered
from data_prep.pipeline import convert
from data_prep.splits import SplitPlan
from ultrasam.errors import DataError

RNG = np.random.default_rng(11)


def noise(height: int = 64, width: int = 64) -> np.ndarray:
    """Return a picture without dark parts, so that nothing of it counts as background."""
    return RNG.integers(60, 256, (height, width), dtype=np.uint8)


def box(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 90} if path.suffix.lower() == ".jpg" else {}
    Image.fromarray(pixels).save(path, **options)
    return path


def grey(mask: np.ndarray, value: int = 255) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(value)


def jpeg_mask(mask: np.ndarray) -> np.ndarray:
    """Return what compression makes of a mask: a grey veil, and a speck that no threshold removes."""
    drawn = grey(mask)
    drawn[0:8, 0:8] = 40
    drawn[56:58, 56:58] = 255
    return drawn


def run(slug: str, source: Path, out: Path, *, keep_going: bool = False, fraction: float = 0.0) -> dict:
    plan = SplitPlan(validation_fraction=fraction)
    return convert(find_converter(slug), source, out, plan=plan, workers=1, keep_going=keep_going)


def one_mask(image: dict) -> np.ndarray:
    ((_, mask),) = image["objects"]
    return mask


# The archive of tn3k, tg3k and ddti.

NODULE = box(64, 64, slice(16, 32), slice(16, 48))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A miniature of TN3K.zip, unpacked, with DDTI.zip unpacked beside itself."""
    root = tmp_path / "raw/Thyroid Dataset"
    for part, count in (("trainval", 4), ("test", 2)):
        for number in range(count):
            save(root / f"tn3k/{part}-image/{number:04d}.jpg", noise())
            save(root / f"tn3k/{part}-mask/{number:04d}.jpg", jpeg_mask(np.roll(NODULE, 8 * number, axis=0)))
        lines = [f"{number:04d}.jpg,{number % 2}\n" for number in range(count)]
        (root / f"tn3k/label4{part}.csv").write_text("".join(lines))
    for fold in range(5):
        lists = {"train": [n for n in range(4) if n % 5 != fold], "val": [n for n in range(4) if n % 5 == fold]}
        (root / f"tn3k/tn3k-trainval-fold{fold}.json").write_text(json.dumps(lists))
    for number, width in enumerate((64, 64, 64, 72, 72, 64, 64)):
        save(root / f"tg3k/thyroid-image/{number:04d}.jpg", noise(64, width))
        gland = box(64, width, slice(16, 32), slice(8, 32)) | box(64, width, slice(40, 56), slice(8, 32))
        save(root / f"tg3k/thyroid-mask/{number:04d}.jpg", jpeg_mask(gland))
    (root / "tg3k/tg3k-trainval.json").write_text(json.dumps({"train": [0, 1, 2, 3], "val": [4, 5, 6]}))
    ddti = root / "DDTI dataset/DDTI"
    for number in (1, 2):
        drawn = grey(NODULE)
        drawn[15, 16:48], drawn[32, 16:48], drawn[60, 60] = 90, 200, 1
        for folder in ("2_preprocessed_data/stage1", "2_preprocessed_data/stage2"):
            save(ddti / folder / f"p_image/{number}.PNG", noise())
            save(ddti / folder / f"p_mask/{number}.PNG", drawn)
        save(ddti / f"1_or_data/image/{number}.PNG", noise(80, 80))
        save(ddti / f"1_or_data/mask/{number}.PNG", grey(np.ones((80, 80), bool)))
    (ddti / "category.csv").write_text("ID,CATE\n1.PNG,1\n2.PNG,0\n")
    save(tmp_path / "raw/__MACOSX/tn3k/trainval-image/0000.jpg", noise())
    save(tmp_path / "raw/__MACOSX/tn3k/trainval-mask/0000.jpg", noise())
    return tmp_path / "raw"


def test_tn3k_keeps_both_parts_apart_and_drops_specks(archive, tmp_path):
    manifest = run("tn3k", archive, tmp_path / "out")
    images = load(tmp_path / "out", "tn3k")
    assert sorted(images) == [f"test_{n:04d}" for n in range(2)] + [f"trainval_{n:04d}" for n in range(4)]
    for name, image in images.items():
        ((category, mask),) = image["objects"]
        assert category == "thyroid_nodule"
        np.testing.assert_array_equal(mask, np.roll(NODULE, 8 * int(name[-1]), axis=0))
        assert image["group"] == f"tn3k/{name}"
        assert image["split"] == "train"
        assert image["official_split"] == name.split("_")[0]
        assert image["class"] == ("malignant" if int(name[-1]) % 2 else "benign")
    assert [images[f"trainval_{n:04d}"]["official_fold"] for n in range(4)] == [0, 1, 2, 3]
    assert "official_fold" not in images["test_0000"]
    assert manifest["changes"]["components_dropped"] == 6


def test_tn3k_names_missing_partners_and_goes_on_when_told_to(archive, tmp_path, capsys):
    folder = archive / "Thyroid Dataset/tn3k"
    (folder / "trainval-mask/0001.jpg").unlink()
    (folder / "test-image/0000.jpg").unlink()
    with pytest.raises(DataError, match="2 of 6 images could not be converted"):
        run("tn3k", archive, tmp_path / "out")
    message = capsys.readouterr().err
    assert "trainval-mask/0001.jpg: the file is not there" in message
    assert "test-image/0000.jpg: the file is not there" in message
    assert run("tn3k", archive, tmp_path / "out", keep_going=True)["counts"]["images"] == 4


@pytest.mark.parametrize(("name", "text", "words"), [
    ("label4test.csv", "0000.jpg,2\n", "'0000.jpg,2'"),
    ("tn3k-trainval-fold3.json", '{"train": [], "val": [0]}', "fold 0"),
])
def test_tn3k_refuses_contradictory_tables(archive, tmp_path, name, text, words):
    (archive / "Thyroid Dataset/tn3k" / name).write_text(text)
    with pytest.raises(DataError, match=words):
        run("tn3k", archive, tmp_path / "out")


def test_tg3k_videos_are_runs_of_one_size_and_stay_whole(archive, tmp_path):
    run("tg3k", archive, tmp_path / "out", fraction=0.2)
    images = load(tmp_path / "out", "tg3k")
    assert [images[f"{n:04d}"]["group"][-2:] for n in range(7)] == ["01"] * 3 + ["02"] * 2 + ["03"] * 2
    # The shipped split cuts between frames 3 and 4; it is told, not followed.
    assert [images[f"{n:04d}"]["official_split"] for n in range(7)] == ["train"] * 4 + ["val"] * 3
    assert images["0003"]["split"] == images["0004"]["split"]
    assert {image["split"] for image in images.values()} == {"train", "val"}
    for image in images.values():
        assert [category for category, _ in image["objects"]] == ["thyroid_gland"] * 2
        upper, lower = (mask for _, mask in image["objects"])
        np.testing.assert_array_equal(upper, box(64, image["width"], slice(16, 32), slice(8, 32)))
        np.testing.assert_array_equal(lower, box(64, image["width"], slice(40, 56), slice(8, 32)))


def test_tg3k_survives_a_damaged_frame(archive, tmp_path):
    (archive / "Thyroid Dataset/tg3k/thyroid-image/0004.jpg").write_bytes(b"no image")
    manifest = run("tg3k", archive, tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["0004"]
    assert load(tmp_path / "out", "tg3k")["0003"]["group"] == "tg3k/video_02"


def test_ddti_takes_the_first_stage_without_the_made_up_classes(archive, tmp_path):
    run("ddti", archive, tmp_path / "out")
    images = load(tmp_path / "out", "ddti")
    truth = box(64, 64, slice(16, 33), slice(16, 48))
    assert sorted(images) == ["0001", "0002"]
    for image in images.values():
        assert image["objects"][0][0] == "thyroid_nodule"
        np.testing.assert_array_equal(one_mask(image), truth)
        assert "/stage1/p_image/" in image["source"]
        assert "class" not in image
    assert images["0001"]["group"] != images["0002"]["group"]


def test_an_archive_of_one_set_is_found_by_any_of_its_folders(archive, tmp_path):
    for place in (archive, archive / "Thyroid Dataset", archive / "Thyroid Dataset/tn3k"):
        assert find_pair(place, ("tn3k/trainval-image", "trainval-mask"))[0].name == "trainval-image"
    shutil.copytree(archive / "Thyroid Dataset", archive / "copy")
    with pytest.raises(DataError, match="found 2"):
        find_pair(archive, ("tn3k/trainval-image", "trainval-mask"))
    with pytest.raises(DataError, match="found none"):
        find_pair(tmp_path / "raw/copy", ("JPEGImages", "SegmentationClass"))


def test_numbers_order_the_files_and_stand_for_one_file_each(tmp_path):
    for name in ("10.png", "9.png", "011.PNG", "readme.txt", "._9.png"):
        (tmp_path / name).touch()
    assert list(numbered(tmp_path)) == [9, 10, 11]
    (tmp_path / "009.jpg").touch()
    with pytest.raises(DataError, match=r"9\.png: one file with the number 9 was expected, found also 009\.jpg"):
        numbered(tmp_path)
    (tmp_path / "009.jpg").rename(tmp_path / "copy of 9.jpg")
    with pytest.raises(DataError, match="begins with a number"):
        numbered(tmp_path)


def tnscui_release(root: Path, value: int = 255) -> None:
    for number in (2, 4):
        save(root / f"TNSCUI2020_train/image/{number}.PNG", noise())
        save(root / f"TNSCUI2020_train/mask/{number}.PNG", grey(NODULE, value))
    (root / "TNSCUI2020_train/train.csv").write_text("ID,CATE\n2.PNG,0\n4.PNG,1\n")
    save(root / "tnscui2020_testset/image/1.PNG", noise())


def tnscui_repack(root: Path, palette: bool) -> None:
    for number in (2, 4):
        save(root / f"tnscui/JPEGImages/{number}.jpg", noise())
        drawn = Image.fromarray(grey(NODULE, 1), mode="L")
        if palette:
            drawn = Image.fromarray(grey(NODULE, 1), mode="P")
            drawn.putpalette([0, 0, 0, 128, 0, 0])
        (root / "tnscui/SegmentationClass").mkdir(exist_ok=True)
        drawn.save(root / f"tnscui/SegmentationClass/{number}.png")


@pytest.mark.parametrize(("make", "classes"), [
    (tnscui_release, ["benign", "malignant"]),
    (lambda root: tnscui_repack(root, palette=False), [None, None]),
    (lambda root: tnscui_repack(root, palette=True), [None, None]),
])
def test_tnscui_reads_release_and_repack_alike(tmp_path, make, classes):
    make(tmp_path / "raw")
    run("tnscui", tmp_path / "raw", tmp_path / "out")
    images = load(tmp_path / "out", "tnscui")
    assert sorted(images) == ["0002", "0004"]
    for image in images.values():
        assert image["objects"][0][0] == "thyroid_nodule"
        np.testing.assert_array_equal(one_mask(image), NODULE)
    assert [images[name].get("class") for name in ("0002", "0004")] == classes
    assert images["0002"]["group"] == "tnscui/0002"


def test_tnscui_refuses_a_third_value(tmp_path, capsys):
    tnscui_release(tmp_path / "raw")
    drawn = grey(NODULE)
    drawn[0, 0] = 7
    save(tmp_path / "raw/TNSCUI2020_train/mask/4.PNG", drawn)
    assert run("tnscui", tmp_path / "raw", tmp_path / "out", keep_going=True)["counts"]["images"] == 1
    assert "found the values 0, 7, 255" in capsys.readouterr().err


# The Stanford clips.

CLIPS = [("12_", 3), ("7_", 0), ("12_", 1), ("12_2", 0), ("7_", 1)]


def cineclip(root: Path, **changes: np.ndarray) -> list[np.ndarray]:
    """Write the two files and return the truth by row; masks have a hole that belongs to the nodule."""
    root.mkdir(parents=True, exist_ok=True)
    truth = [np.roll(box(48, 40, slice(8, 20), slice(8, 30)), 2 * row, axis=0) for row in range(len(CLIPS))]
    masks = np.stack([grey(mask) for mask in truth])
    for row in range(len(CLIPS)):
        masks[row, 12 + 2 * row, 14] = 0
    arrays = {
        "annot_id": np.array([[name.encode()] for name, _ in CLIPS]),
        "frame_num": np.array([[frame] for _, frame in CLIPS]),
        "image": np.stack([noise(48, 40) for _ in CLIPS]),
        "mask": masks,
    } | changes
    with h5py.File(root / "dataset.hdf5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    (root / "metadata.csv").write_text("annot_id,age,histopath_diagnosis\n12_,40,0\n12_2,40,1\n7_,51,1\n")
    return truth


def test_cineclip_frames_are_nodules_of_patients(tmp_path):
    truth = cineclip(tmp_path / "raw/thyroidultrasoundcineclip")
    run("thyroid_cineclip", tmp_path / "raw", tmp_path / "out", fraction=0.2)
    images = load(tmp_path / "out", "thyroid_cineclip")
    names = ["12_00003", "7_00000", "12_00001", "12_2_00000", "7_00001"]
    assert sorted(images) == sorted(names)
    with h5py.File(tmp_path / "raw/thyroidultrasoundcineclip/dataset.hdf5") as file:
        pictures = file["image"][:]
    for row, name in enumerate(names):
        image = images[name]
        assert image["objects"][0][0] == "thyroid_nodule"
        np.testing.assert_array_equal(one_mask(image), truth[row])
        picture = np.array(Image.open(tmp_path / "out" / image["file_name"]))
        np.testing.assert_array_equal(picture, np.repeat(pictures[row][..., None], 3, axis=2))
        assert image["frame"] == CLIPS[row][1]
        # Two nodules of patient 12 have two clips, which must not be parted.
        assert image["group"] == f"thyroid_cineclip/{name.split('_')[0]}"
    sides = {group: {image["split"] for image in images.values() if image["group"].endswith(group)}
             for group in ("/12", "/7")}
    assert all(len(side) == 1 for side in sides.values())
    assert [images[name]["class"] for name in names] == ["benign", "malignant", "benign", "malignant", "malignant"]


def test_cineclip_file_replaced_in_between_is_read_anew(tmp_path):
    cineclip(tmp_path / "raw")
    run("thyroid_cineclip", tmp_path / "raw", tmp_path / "out")
    bright = np.full((len(CLIPS), 48, 40), 200, np.uint8)
    (tmp_path / "raw/dataset.hdf5").unlink()
    cineclip(tmp_path / "raw", image=bright)
    run("thyroid_cineclip", tmp_path / "raw", tmp_path / "out")
    picture = np.array(Image.open(tmp_path / "out/thyroid_cineclip/images/7_00000.png"))
    assert (picture == 200).all()


@pytest.mark.parametrize(("changes", "words"), [
    ({"annot_id": np.array([b"99_"] * 5)}, "'99_'"),
    ({"annot_id": np.array([b"nodule"] * 5)}, "'nodule'"),
    ({"frame_num": np.array([1, 2])}, "5 and 2"),
    ({"image": np.full((5, 48, 40), 900, np.uint16)}, "5 of 5 images"),
    ({"mask": np.full((5, 48, 40), 9, np.uint8)}, "5 of 5 images"),
    ({"mask": np.zeros((5, 40, 48), np.uint8)}, "5 of 5 images"),
])
def test_cineclip_refuses_what_it_does_not_know(tmp_path, changes, words):
    cineclip(tmp_path / "raw", **changes)
    with pytest.raises(DataError, match=words):
        run("thyroid_cineclip", tmp_path / "raw", tmp_path / "out")


def test_cineclip_says_that_a_file_is_cut_off(tmp_path):
    cineclip(tmp_path / "raw")
    path = tmp_path / "raw/dataset.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="get the file again"):
        run("thyroid_cineclip", tmp_path / "raw", tmp_path / "out")


# SegThy.

def sweep(folder: Path, name: str, codes: str, extra: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Write a sweep of 5 slices, the middle three labelled; return picture and labels as (x, y, z)."""
    affine = np.diag([0.5 if codes[0] == "R" else -0.5, 0.25 if codes[1] == "A" else -0.25, 2.0, 1.0])
    picture = RNG.integers(60, 256, (48, 40, 5), dtype=np.uint8)
    labels = np.zeros((48, 40, 5), np.uint8)
    labels[8:20, 6:18, 1:4], labels[30:36, 6:14, 1:4], labels[38:44, 20:30, 2] = 1, 2, 3
    labels[0, 0, 4] = extra
    for path, values in ((folder / f"US/{name}_US.nii", picture), (folder / f"US_thyroid_label/{name}.nii", labels)):
        path.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return picture, labels


@pytest.fixture
def sweeps(tmp_path: Path) -> Path:
    return tmp_path / "raw/US_data/US_volunteer_dataset/ground_truth_data"


def test_segthy_slices_are_upright_and_of_volunteers(sweeps, tmp_path):
    forward = sweep(sweeps, "001_P1_1_left", "RAS")
    backward = sweep(sweeps, "001_P2_1_right", "LPS")
    sweep(sweeps, "002_P1_1_left", "RAS")
    other = sweeps.parent / "unlabelled/US"
    other.mkdir(parents=True)
    shutil.copy(sweeps / "US/002_P1_1_left_US.nii", other / "009_P1_1_left_US.nii")
    run("segthy", tmp_path / "raw", tmp_path / "out")
    images = load(tmp_path / "out", "segthy")
    assert len(images) == 9
    assert {image["group"] for image in images.values()} == {"segthy/001", "segthy/002"}
    # Rows count up to the front in the first sweep and to the back in the second: only the first is turned.
    for name, (picture, labels), step in (("001_P1_1_left", forward, -1), ("001_P2_1_right", backward, 1)):
        for number in (1, 2, 3):
            image = images[f"{name}_{number:05d}"]
            assert image["frame"] == number
            assert image["spacing_mm"] == [0.25, 0.5]
            shown = np.array(Image.open(tmp_path / "out" / image["file_name"]))[..., 0]
            np.testing.assert_array_equal(shown, picture[:, :, number].T[::step, ::step])
            expected = ["thyroid", "carotid_artery"] + ["jugular_vein"] * (number == 2)
            assert [category for category, _ in image["objects"]] == expected
            for value, (_, mask) in enumerate(image["objects"], start=1):
                np.testing.assert_array_equal(mask, labels[:, :, number].T[::step, ::step] == value)


def test_segthy_refuses_values_that_no_description_names(sweeps, tmp_path, capsys):
    sweep(sweeps, "001_P1_1_left", "RAS", extra=5)
    manifest = run("segthy", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["001_P1_1_left_00004"]
    assert "found also [5]" in capsys.readouterr().err


def test_segthy_names_missing_and_damaged_volumes(sweeps, tmp_path, capsys):
    for name in ("001_P1_1_left", "002_P1_1_left", "003_P1_1_left", "004_P1_1_left"):
        sweep(sweeps, name, "RAS")
    (sweeps / "US_thyroid_label/001_P1_1_left.nii").unlink()
    (sweeps / "US/002_P1_1_left_US.nii").unlink()
    (sweeps / "US_thyroid_label/003_P1_1_left.nii").write_bytes(b"damage")
    manifest = run("segthy", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert manifest["counts"]["images"] == 3
    assert sorted({item["key"][:3] for item in manifest["failures"]}) == ["001", "002", "003"]
    message = capsys.readouterr().err
    for words in ("001_P1_1_left.nii: the file is not there", "002_P1_1_left_US.nii: the file is not there",
                  "003_P1_1_left.nii"):
        assert words in message


def test_segthy_says_that_its_layout_is_not_certain(sweeps, tmp_path):
    sweep(sweeps, "left", "RAS")
    with pytest.raises(DataError, match=r"number of a volunteer.*known from descriptions only"):
        run("segthy", tmp_path / "raw", tmp_path / "out")
