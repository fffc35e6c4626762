"""Breast sets whose class is in folder or file names, from miniatures of their raw layouts and from real files."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from converting import run, save
from PIL import Image

from data_prep.catalogue import find_converter
from ultrasam.errors import DataError


def noise(seed: int, height: int = 40, width: int = 48) -> np.ndarray:
    """Return bright noise, so that nothing is taken for background."""
    return np.random.default_rng(seed).integers(90, 256, (height, width), dtype=np.uint8)


def box(top: int, left: int, side: int = 10, height: int = 40, width: int = 48) -> np.ndarray:
    """Return a bool mask with one square."""
    mask = np.zeros((height, width), bool)
    mask[top:top + side, left:left + side] = True
    return mask


def grey(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


def same(image: dict, *expected: np.ndarray, category: str = "breast_lesion") -> bool:
    """Whether the objects of an image are the masks, in this order."""
    return len(image["objects"]) == len(expected) and all(
        name == category and np.array_equal(mask, truth)
        for (name, mask), truth in zip(image["objects"], expected, strict=True))


@pytest.fixture
def busi_raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw/Dataset_BUSI_with_GT"
    for number, name in enumerate(("benign (1)", "benign (10)", "malignant (1)", "normal (1)")):
        save(raw / name.split()[0] / f"{name}.png", noise(number), "RGB")
    holed = grey(box(5, 5))
    holed[8:10, 8:10] = 0
    holed[30, 40:43] = 255
    save(raw / "benign/benign (1)_mask.png", holed)
    save(raw / "benign/benign (1)_mask_1.png", grey(box(20, 30)), "RGBA")
    save(raw / "benign/benign (10)_mask.png", grey(box(12, 3)), "RGB")
    save(raw / "malignant/malignant (1)_mask.png", box(1, 9))
    save(raw / "normal/normal (1)_mask.png", np.zeros((40, 48), bool))
    save(tmp_path / "raw/__MACOSX/Dataset_BUSI_with_GT/benign/benign (1).png", noise(9))
    return raw


def test_busi_lesions_of_several_files_and_normal_negatives(busi_raw, tmp_path):
    images, manifest = run("busi", tmp_path / "raw", tmp_path / "out")
    assert {key: image["class"] for key, image in images.items()} == {
        "benign_1": "benign", "benign_10": "benign", "malignant_1": "malignant", "normal_1": "normal"}
    assert same(images["benign_1"], box(5, 5), box(20, 30))
    assert same(images["benign_10"], box(12, 3))
    assert same(images["malignant_1"], box(1, 9))
    assert same(images["normal_1"])
    assert images["benign_1"]["group"] == "busi/benign_1"
    assert images["benign_1"]["source"] == "Dataset_BUSI_with_GT/benign/benign (1).png"
    assert manifest["changes"]["components_dropped"] == 1
    assert manifest["changes"]["pixels_filled"] == 4
    assert manifest["unused_files"] == []


@pytest.mark.parametrize(("name", "mask", "words"), [
    ("benign/benign (1)_mask_1.png", grey(box(20, 30, height=80, width=96)), "the mask is 96 x 80 pixels"),
    ("benign/benign (1)_mask.png", np.zeros((40, 48), bool), "an object was expected because the image is benign"),
    ("normal/normal (1)_mask.png", box(3, 3), "an empty mask was expected because the image is normal"),
    ("malignant/malignant (1)_mask.png", None, "the file is not there"),
    ("malignant/malignant (1).png", None, "the file is not there"),
])
def test_busi_one_unfit_file_is_reported_and_nothing_else_is_lost(busi_raw, tmp_path, capsys, name, mask, words):
    (busi_raw / name).unlink()
    if mask is not None:
        save(busi_raw / name, mask)
    with pytest.raises(DataError, match="1 of 4 images could not be converted"):
        run("busi", tmp_path / "raw", tmp_path / "out")
    message = capsys.readouterr().err
    assert words in message
    assert Path(name).name in message
    images, manifest = run("busi", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert len(images) == 3
    assert len(manifest["failures"]) == 1


def test_busi_two_copies_are_refused(busi_raw, tmp_path):
    shutil.copytree(busi_raw, tmp_path / "raw/copy")
    with pytest.raises(DataError, match=r"one file of each name was expected.*benign \(1\)"):
        run("busi", tmp_path / "raw", tmp_path / "out")


def test_a_folder_of_something_else_is_refused(tmp_path):
    save(tmp_path / "raw/other.png", noise(1))
    for slug in ("busi", "buid", "bus_uc", "stu_hospital"):
        with pytest.raises(DataError, match=r"files like .* were expected, found none"):
            run(slug, tmp_path / "raw", tmp_path / "out")


def test_stu_masks_are_of_other_sizes_and_soft(tmp_path):
    raw = tmp_path / "raw/STU-Hospital-master/Hospital"
    for number in (1, 2, 10):
        save(raw / f"Test_Image_{number}.png", noise(number, 64, 64))
    truth = box(20, 25, 12, 64, 64)
    soft = grey(np.kron(truth, np.ones((3, 3), bool)))
    # Grey 100 reaches two of three pixels outwards, 200 two inwards: the border is where it was.
    inside = np.kron(box(21, 26, 10, 64, 64), np.ones((3, 3), bool))
    soft[(soft == 255) & ~inside] = 200
    soft[58:98, 73:113] = np.maximum(soft[58:98, 73:113], 100)
    save(raw / "mask_1.png", soft)
    save(raw / "mask_2.png", grey(box(3, 4, 9, 64, 64)))
    save(raw / "mask_10.png", grey(np.kron(box(30, 8, 20, 64, 64), np.ones((2, 2), bool))))
    images, _ = run("stu_hospital", tmp_path / "raw", tmp_path / "out")
    assert images.keys() == {"Test_Image_1", "Test_Image_2", "Test_Image_10"}
    assert same(images["Test_Image_1"], truth)
    assert same(images["Test_Image_2"], box(3, 4, 9, 64, 64))
    assert same(images["Test_Image_10"], box(30, 8, 20, 64, 64))
    assert all("class" not in image for image in images.values())
    assert find_converter("stu_hospital").info.application == "breast lesions"


def test_stu_mask_of_another_shape_is_refused(tmp_path, capsys):
    raw = tmp_path / "raw/Hospital"
    for number, shape in ((1, (64, 64)), (2, (128, 64))):
        save(raw / f"Test_Image_{number}.png", noise(number, 64, 64))
        save(raw / f"mask_{number}.png", grey(box(9, 9, 20, *shape)))
    images, _ = run("stu_hospital", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert images.keys() == {"Test_Image_1"}
    assert "mask_2.png: the mask is 64 x 128 pixels" in capsys.readouterr().err


def test_bus_uc_classes_share_names_and_the_folder_all_repeats_them(tmp_path):
    raw = tmp_path / "raw/BUS_UC"
    truth = {"Benign/01": box(5, 5), "Malignant/01": box(20, 30), "Malignant/010": box(9, 12)}
    for number, (name, mask) in enumerate(truth.items()):
        label, stem = name.split("/")
        for folder in (label, "All"):
            save(raw / folder / f"images/{stem}.png", noise(number))
            save(raw / folder / f"masks/{stem}.png", grey(mask))
    # The mask of one image is larger than the image, that of another was never drawn.
    save(raw / "Malignant/masks/010.png", grey(np.kron(box(9, 12), np.ones((2, 2), bool))))
    save(raw / "Benign/images/02.png", noise(8))
    save(raw / "Benign/masks/02.png", grey(np.zeros((40, 48), bool)))
    images, manifest = run("bus_uc", tmp_path / "raw", tmp_path / "out")
    assert {key: image["class"] for key, image in images.items()} == {
        "benign_01": "benign", "malignant_01": "malignant", "malignant_010": "malignant"}
    for key, image in images.items():
        label, stem = key.split("_")
        assert same(image, truth[f"{label.capitalize()}/{stem}"])
        assert (tmp_path / "out" / image["file_name"]).read_bytes() == (
            raw / f"{label.capitalize()}/images/{stem}.png").read_bytes()
    assert manifest["unlabelled"] == ["benign_02"]
    assert manifest["counts"]["unlabelled"] == 1


def test_bus_uc_damaged_and_missing_masks_are_reported(tmp_path, capsys):
    raw = tmp_path / "raw/BUS_UC/Benign"
    for stem in ("1", "2", "3"):
        save(raw / f"images/{stem}.png", noise(int(stem)))
        save(raw / f"masks/{stem}.png", grey(box(5, 5)))
    (raw / "masks/2.png").write_bytes(b"not an image")
    (raw / "masks/3.png").unlink()
    images, manifest = run("bus_uc", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert images.keys() == {"benign_1"}
    assert [item["key"] for item in manifest["failures"]] == ["benign_2", "benign_3"]
    assert "masks/3.png: the file is not there" in capsys.readouterr().err


def test_buid_numbers_begin_again_and_drawn_images_are_not_used(tmp_path):
    raw, truth = tmp_path / "raw/buid", {}
    for number, label, place in ((1, "Benign", 5), (1, "Malignant", 12), (12, "Malignant", 20)):
        base = raw / label
        save(base / f"{number} {label} Image.bmp", noise(place), "RGB")
        save(base / f"{number} {label} Lesion.bmp", noise(place + 1), "RGB")
        # A soft border: 100 outside, 180 inside.
        mask = grey(box(place, place))
        mask[place - 1, place:place + 10] = 100
        mask[place, place:place + 10] = 180
        save(base / f"{number} {label} Mask.tif", mask)
        truth[f"{label.lower()}_{number}"] = box(place, place)
    save(raw / "Benign/9 Benign Picture.bmp", noise(9), "RGB")
    images, manifest = run("buid", tmp_path / "raw", tmp_path / "out")
    assert manifest["unused_files"] == ["buid/Benign/9 Benign Picture.bmp"]
    assert images.keys() == truth.keys()
    for key, image in images.items():
        assert same(image, truth[key])
        assert image["class"] == key.split("_")[0]
        assert image["source"].endswith("Image.bmp")
        assert image["group"] == f"buid/{key}"
    pixels = np.array(Image.open(tmp_path / "out" / images["benign_1"]["file_name"]))
    np.testing.assert_array_equal(pixels[..., 0], noise(5))


def test_buid_a_lost_mask_is_reported(tmp_path, capsys):
    raw = tmp_path / "raw"
    for number in (1, 2):
        save(raw / f"Benign/{number} Benign Image.bmp", noise(number), "RGB")
    save(raw / "Benign/2 Benign Mask.tif", grey(box(4, 4)))
    images, _ = run("buid", raw, tmp_path / "out", keep_going=True)
    assert images.keys() == {"benign_2"}
    assert "1 Benign Mask.tif: the file is not there" in capsys.readouterr().err


@pytest.mark.shared
def test_real_busi(shared, tmp_path):
    source = shared / "data/busi"
    images, manifest = run("busi", source, tmp_path, keep_going=True)
    (failure,) = manifest["failures"]
    assert failure["key"] == "benign_4"
    assert "benign (4)_mask_1.png: the mask is 555 x 465" in failure["reason"]
    # 149 images but one; 151 mask files but two of that one and fifty black ones.
    assert Counter(image["class"] for image in images.values()) == {"benign": 48, "malignant": 50, "normal": 50}
    assert manifest["counts"]["masks"] == 151 - 2 - 50
    assert {key for key, image in images.items() if len(image["objects"]) > 1} == {"benign_25"}
    assert all(not image["objects"] for key, image in images.items() if key.startswith("normal"))
    for key in sorted(images)[::7]:
        label, number = key.split("_")
        files = source.rglob(f"{label} ({number})_mask*.png")
        raw = np.logical_or.reduce([np.array(Image.open(path).convert("L")) > 127 for path in files])
        found = np.logical_or.reduce([mask for _, mask in images[key]["objects"]] or [np.zeros_like(raw)])
        # Specks dropped and holes filled are of a few pixels.
        assert (raw != found).sum() <= 10


@pytest.mark.shared
def test_real_stu_hospital(shared, tmp_path):
    source = shared / "data/stu_hospital"
    images, manifest = run("stu_hospital", source, tmp_path)
    assert (manifest["counts"]["images"], manifest["counts"]["masks"], manifest["counts"]["failed"]) == (42, 42, 0)
    assert manifest["changes"]["images_cropped"] == 0
    for key, image in images.items():
        raw = Image.open(source / f"Hospital/mask_{key.split('_')[-1]}.png").resize((128, 128), Image.Resampling.BOX)
        truth = np.array(raw) > 127
        ((_, mask),) = image["objects"]
        assert (truth & mask).sum() / (truth | mask).sum() > 0.9


@pytest.mark.shared
def test_real_bus_uc_as_jpeg(shared, tmp_path):
    source = shared / "data/bus_uc_jpg"
    for part in ("images", "masks"):
        shutil.copytree(source / "mini_test" / part, tmp_path / "raw/BUS_UC/Malignant" / part)
    images, manifest = run("bus_uc", tmp_path / "raw", tmp_path / "out")
    assert (manifest["counts"]["images"], manifest["counts"]["masks"], manifest["counts"]["failed"]) == (20, 20, 0)
    rows = [line.split("\t") for line in (shared / "data/PAIRS.tsv").read_text().splitlines()]
    fractions = {Path(row[1]).stem: float(row[10]) for row in rows if row[0] == "bus_uc_jpg"}
    assert len(fractions) == 20
    for name, fraction in fractions.items():
        image = images[f"malignant_{name}"]
        assert image["class"] == "malignant"
        ((_, mask),) = image["objects"]
        assert mask.mean() == pytest.approx(fraction, abs=2e-3)
