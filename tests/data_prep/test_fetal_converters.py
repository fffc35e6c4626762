"""Converters of fetal and abdominal sets, on miniatures of their raw layouts and on real files."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import SimpleITK
from converting import block, converted, groups, noise, save
from PIL import Image
from scipy import ndimage

from data_prep.converters import kidney_us
from data_prep.masks import apply_rules
from ultrasam.errors import DataError

# HC18


def ellipse(height: int, width: int, centre: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    """The inside of an upright ellipse, by its equation; centre and half axes as (x, y)."""
    y, x = np.mgrid[:height, :width]
    return ((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 <= 1


@pytest.fixture
def hc18(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    source, truth = tmp_path / "raw", {}
    heads = {"000_HC": ((80, 50), (50, 30)), "000_2HC": ((70, 60), (40, 35)), "001_HC": ((80, 25), (60, 40))}
    lines = ["filename,pixel size(mm),head circumference (mm)"]
    for number, (name, (centre, axes)) in enumerate(heads.items()):
        truth[name] = ellipse(120, 160, centre, axes)
        line = truth[name] & ~ellipse(120, 160, centre, (axes[0] - 2, axes[1] - 2))
        save(source / f"training_set/training_set/{name}.png", noise(120, 160, number))
        save(source / f"training_set/training_set/{name}_Annotation.png", line.astype(np.uint8) * 255)
        lines.append(f"{name}.png,0.1{number},{40 + number}.5")
    (source / "training_set_pixel_size_and_HC.csv").write_text("\n".join(lines) + "\n")
    # The test part counts from 000 again.
    save(source / "test_set/test_set/000_HC.png", noise(120, 160, 99))
    return source, truth


def test_hc18_outlines_are_filled_and_fetuses_kept_together(hc18, tmp_path):
    source, truth = hc18
    found = converted("hc18", source, tmp_path / "out")
    assert groups(found) == {"000_HC": "000", "000_2HC": "000", "001_HC": "001"}
    for name, inside in truth.items():
        [(category, mask)] = found[name][1]
        assert category == "fetal_head"
        assert (mask & inside).sum() / (mask | inside).sum() > 0.97
    assert found["000_2HC"][0]["spacing_mm"] == [0.11, 0.11]
    assert found["000_2HC"][0]["head_circumference_mm"] == 41.5
    raw = source / "training_set/training_set/000_HC.png"
    assert (tmp_path / "out" / found["000_HC"][0]["file_name"]).read_bytes() == raw.read_bytes()
    # The third outline leaves the image; filling what the line encloses gives the line alone.
    line = np.array(Image.open(raw.with_name("001_HC_Annotation.png"))) > 0
    assert line[0].any()
    assert ndimage.binary_fill_holes(line).sum() < 0.2 * truth["001_HC"].sum()


def test_hc18_names_what_is_missing_or_odd(hc18, tmp_path, capsys):
    source, _ = hc18
    (source / "training_set/training_set/001_HC_Annotation.png").unlink()
    assert converted("hc18", source, tmp_path, keep_going=True).keys() == {"000_HC", "000_2HC"}
    assert "training_set/training_set/001_HC_Annotation.png: the file is not there" in capsys.readouterr().err
    table = source / "training_set_pixel_size_and_HC.csv"
    table.write_text(table.read_text() + "head.png,0.1,40\n")
    with pytest.raises(DataError, match=r"three digits.*'head.png'"):
        converted("hc18", source, tmp_path, keep_going=True)


@pytest.mark.shared
def test_hc18_real_files(shared, tmp_path):
    source = shared / "data/hc18"
    found = converted("hc18", source, tmp_path, keep_going=True)
    assert len(found) == 82
    assert all(len(masks) == 1 for _, masks in found.values())
    assert {"186_HC", "346_HC", "628_2HC", "787_HC", "352_2HC"} <= found.keys()
    assert groups(found) == {name: name[:3] for name in found}
    with (source / "training_set_pixel_size_and_HC.csv").open() as stream:
        rows = {row["filename"][:-4]: row for row in csv.DictReader(stream)}
    assert (len(rows), len({name[:3] for name in rows})) == (999, 806)
    for name, (image, [(_, mask)]) in found.items():
        # The circumference of the table is that of the middle of the line, which is two or three pixels wide.
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        contour = max(contours, key=len)[:, 0]
        inner = (contour > 0).all(axis=1) & (contour < (image["width"] - 1, image["height"] - 1)).all(axis=1)
        _, (across, down), _ = cv2.fitEllipseDirect(contour[inner].astype(np.float32))
        a, b = across / 2 - 1, down / 2 - 1
        squared = ((a - b) / (a + b)) ** 2
        length = np.pi * (a + b) * (1 + 3 * squared / (10 + np.sqrt(4 - 3 * squared)))
        stated = float(rows[name]["head circumference (mm)"])
        assert length * float(rows[name]["pixel size(mm)"]) == pytest.approx(stated, rel=0.005), name
        assert image["head_circumference_mm"] == stated


# Fast-U-Net


@pytest.fixture
def fast(tmp_path: Path) -> tuple[Path, np.ndarray]:
    source = tmp_path / "raw"
    mask = block(60, 80, 10, 20, 30, 40)
    soft = mask.astype(np.uint8) * 255
    soft[9, 20:60], soft[50, 5] = 100, 90
    soft[2:6, 2:6] = 255
    data = source / "Fast-U-Net/Dataset"
    lists = {("AC", "train"): ["0001"], ("AC", "val"): ["fa_0001", "0009"],
             ("HC", "train"): ["514_HC", "514_2HC"], ("HC", "val"): ["001_HC"]}
    for seed, ((organ, split), stems) in enumerate(lists.items()):
        suffix = "_Annotation" if organ == "HC" else ""
        text = "".join(f"resized_data/image/{stem}.png resized_data/mask/{stem}{suffix}.png\n" for stem in stems)
        (data / organ).mkdir(parents=True, exist_ok=True)
        (data / organ / f"{split}.txt").write_text(text)
        for number, stem in enumerate(stems):
            save(data / f"{organ}/{organ}_image{number + 1}/image/{stem}.png", noise(60, 80, 9 * seed + number))
            empty = stem == "0009"
            save(data / f"{organ}/{organ}_mask/mask/{stem}{suffix}.png", np.zeros_like(soft) if empty else soft)
    save(source / "Fast-U-Net/test_data/image/1576.png", noise(60, 80, 77))
    save(source / "Fast-U-Net/test_data/mask/1576.png", soft)
    return source, mask


def test_fast_unet_tells_organs_apart_and_ties_heads_to_hc18(fast, tmp_path, capsys):
    source, mask = fast
    found = converted("fast_unet", source, tmp_path / "out")
    assert {key: [name for name, _ in masks] for key, (_, masks) in found.items()} == {
        "AC_0001": ["fetal_abdomen"], "AC_fa_0001": ["fetal_abdomen"], "HC_001_HC": ["fetal_head"],
        "HC_514_HC": ["fetal_head"], "HC_514_2HC": ["fetal_head"], "test_1576": ["fetal_head"]}
    # Heads have the groups of hc18; an abdomen with the number 0001 is no relative of the head 001.
    assert groups(found) == {"AC_0001": "AC_0001", "AC_fa_0001": "AC_fa_0001", "HC_001_HC": "001",
                             "HC_514_HC": "514", "HC_514_2HC": "514", "test_1576": "test_1576"}
    assert [found[key][0].get("same_as") for key in ("HC_514_2HC", "AC_0001")] == ["hc18/514_2HC", None]
    assert [found[key][0]["official_split"] for key in ("AC_0001", "HC_001_HC", "test_1576")] == [
        "train", "val", "test"]
    # Soft borders, specks and pieces of tail are no part of the structure.
    for _, [(_, decoded)] in found.values():
        np.testing.assert_array_equal(decoded, mask)
    assert "1 images have no annotation" in capsys.readouterr().err


def test_fast_unet_accepts_a_second_copy_of_a_mask_but_not_another_one(fast, tmp_path):
    source, mask = fast
    folder = source / "Fast-U-Net/Dataset/AC"
    first = folder / "AC_mask/mask/0001.png"
    second = folder / "AC_mask_sample/mask/0001.png"
    second.parent.mkdir(parents=True)
    second.write_bytes(first.read_bytes())
    assert len(converted("fast_unet", source, tmp_path / "out")) == 6
    save(second, ~mask)
    with pytest.raises(DataError, match="one mask of this name"):
        converted("fast_unet", source, tmp_path / "out")


@pytest.mark.shared
def test_fast_unet_real_files(shared, tmp_path, capsys):
    source = shared / "data/fast_u_net"
    found = converted("fast_unet", source, tmp_path, keep_going=True)
    assert found.keys() == {"test_1576", "test_1582", "test_1588"}
    for key, (_, [(category, mask)]) in found.items():
        truth = np.array(Image.open(source / f"test_data/mask/{key[5:]}.jpg")) > 127
        assert category == "fetal_head"
        cut = found[key][0].get("crop", [0, 0, 472, 320])
        np.testing.assert_array_equal(mask, ndimage.binary_fill_holes(truth)[cut[1]:cut[3], cut[0]:cut[2]])
    manifest = json.loads((tmp_path / "fast_unet/manifest.json").read_text())
    failed = Counter(item["key"][:2] for item in manifest["failures"])
    assert failed == {"AC": 412, "HC": 999}
    assert all(item["missing"] for item in manifest["failures"])
    # 25 masks are there, of images that are not.
    only_image = [item for item in manifest["failures"] if " and " not in item["reason"]]
    assert len(only_image) == 25
    assert "1411 of 1414 images" in capsys.readouterr().err


# FH-PS-AOP


def mha(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))


@pytest.fixture
def aop(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    folder = tmp_path / "raw/Pubic Symphysis-Fetal Head Segmentation and Angle of Progression"
    picture = noise(64, 64, 4)
    picture[:, 44:] = 0
    labels = np.zeros((64, 64), np.uint8)
    labels[10:18, 8:20] = 1
    labels[26:50, 20:56] = 2
    labels[30, 30] = 0
    for name in ("00001", "00002"):
        mha(folder / f"image_mha/{name}.mha", np.stack([picture] * 3))
        mha(folder / f"label_mha/{name}.mha", labels)
    return folder, picture, labels


def test_fh_ps_aop_is_one_image_a_file_and_labels_end_with_the_sector(aop, tmp_path):
    folder, picture, labels = aop
    found = converted("fh_ps_aop", folder.parent, tmp_path / "out")
    assert groups(found) == {"00001": "00001", "00002": "00002"}
    for image, masks in found.values():
        stored = np.array(Image.open(tmp_path / "out" / image["file_name"]))
        np.testing.assert_array_equal(stored, np.repeat(picture[..., None], 3, axis=2))
        assert [name for name, _ in masks] == ["pubic_symphysis", "fetal_head"]
        np.testing.assert_array_equal(masks[0][1], labels == 1)
        np.testing.assert_array_equal(masks[1][1], block(64, 64, 26, 20, 24, 24))


def test_fh_ps_aop_refuses_planes_that_differ(aop, tmp_path, capsys):
    folder, picture, _ = aop
    mha(folder / "image_mha/00002.mha", np.stack([picture, picture, picture[::-1]]))
    (folder / "image_mha/00001.mha").unlink()
    with pytest.raises(DataError, match="2 of 2 images"):
        converted("fh_ps_aop", folder.parent, tmp_path / "out")
    message = capsys.readouterr().err
    assert "three equal ones" in message
    assert "image_mha/00001.mha: the file is not there" in message


# FASS


@pytest.fixture
def fass(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path / "raw/Fetal Abdominal Structures Segmentation Dataset Using Ultrasonic Images"
    masks = {"liver": block(40, 50, 5, 5, 20, 30), "vein": block(40, 50, 10, 10, 6, 6),
             "artery": block(40, 50, 30, 3, 4, 4) | block(40, 50, 30, 40, 5, 4), "stomach": np.zeros((40, 50), bool)}
    for number, stem in enumerate(("P01_IMG1", "P01_IMG2", "P12_IMG1")):
        pixels = noise(40, 50, number)
        save(folder / f"IMAGES/{stem}.png", pixels if number else np.dstack([pixels] * 3))
        save_fass(folder, stem, {name: mask.astype(np.uint8) for name, mask in masks.items()}, pixels)
    return folder, masks


def save_fass(folder: Path, stem: str, structures: object, pixels: object = None) -> None:
    (folder / "ARRAY_FORMAT").mkdir(exist_ok=True)
    content = np.array({"image": pixels, "structures": structures}, dtype=object)
    np.save(folder / f"ARRAY_FORMAT/{stem}.npy", content, allow_pickle=True)


def test_fass_structures_overlap_and_patients_stay_together(fass, tmp_path):
    folder, masks = fass
    found = converted("fass", folder.parent, tmp_path / "out")
    assert groups(found) == {"P01_IMG1": "P01", "P01_IMG2": "P01", "P12_IMG1": "P12"}
    for _, pairs in found.values():
        assert [name for name, _ in pairs] == ["artery", "artery", "liver", "vein"]
        np.testing.assert_array_equal(pairs[0][1] | pairs[1][1], masks["artery"])
        np.testing.assert_array_equal(pairs[2][1], masks["liver"])
        np.testing.assert_array_equal(pairs[3][1], masks["vein"])


class Evil:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_fass_runs_nothing_of_the_files_and_names_odd_ones(fass, tmp_path, capsys):
    folder, masks = fass
    save_fass(folder, "P01_IMG1", Evil(tmp_path / "trace"))
    save_fass(folder, "P01_IMG2", {"liver": masks["liver"].astype(np.uint8), "lung": masks["vein"].astype(np.uint8)})
    save_fass(folder, "P12_IMG1", {"liver": np.zeros((50, 40), np.uint8)})
    with pytest.raises(DataError, match="3 of 3 images"):
        converted("fass", folder.parent, tmp_path / "out")
    assert not (tmp_path / "trace").exists()
    message = capsys.readouterr().err
    for words in ("posix.mkdir", "['liver', 'lung']", "(50, 40)"):
        assert words in message


# AbdomenUS


@pytest.fixture
def abdomen(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path / "raw/abdominal_US/abdominal_US"
    organs = {"kidney": block(40, 50, 2, 2, 8, 8), "adrenal_gland": block(40, 50, 2, 20, 8, 8),
              "pancreas": block(40, 50, 20, 2, 8, 8), "vessel": block(40, 50, 20, 20, 8, 8),
              "liver": block(40, 50, 30, 30, 8, 8)}
    colours = {"kidney": (255, 255, 0), "adrenal_gland": (0, 255, 255), "pancreas": (0, 0, 255),
               "vessel": (255, 0, 0), "liver": (100, 0, 100)}
    painted = np.zeros((40, 50, 4), np.uint8)
    painted[..., 3] = 255
    for name, mask in organs.items():
        painted[mask, :3] = colours[name]
    for side in ("train", "test"):
        save(folder / f"RUS/images/{side}/001.jpg", noise(40, 50, len(side)))
        save(folder / f"RUS/annotations/{side}/001.png", painted if side == "train" else painted[..., :3])
        save(folder / f"RUS/images/{side}/002.jpg", noise(40, 50, 7 + len(side)))
        save(folder / f"AUS/images/{side}/003.png", noise(40, 50))
        save(folder / f"AUS/annotations/{side}/003.png", painted)
    return folder, organs


def test_abdomen_us_colours_are_red_green_blue(abdomen, tmp_path, capsys):
    folder, organs = abdomen
    found = converted("abdomen_us", folder.parent.parent, tmp_path / "out")
    # The stem is on both sides; simulated and unlabelled images are left out.
    assert groups(found) == {"train_001": "train_001", "test_001": "test_001"}
    for side in ("train", "test"):
        image, masks = found[f"{side}_001"]
        assert image["official_split"] == side
        assert image["source"].endswith(f"RUS/images/{side}/001.jpg")
        decoded = dict(masks)
        assert decoded.keys() == organs.keys()
        for name, mask in organs.items():
            np.testing.assert_array_equal(decoded[name], mask)
    assert "2 images have no annotation" in capsys.readouterr().err


def test_abdomen_us_stops_at_colours_that_are_not_in_the_table(abdomen, tmp_path, capsys):
    folder, _ = abdomen
    painted = np.array(Image.open(folder / "RUS/annotations/test/001.png"))
    painted[35, 3] = (0, 100, 200)
    save(folder / "RUS/annotations/test/001.png", painted)
    (folder / "RUS/images/train/001.jpg").unlink()
    with pytest.raises(DataError, match="2 of 2 images"):
        converted("abdomen_us", folder, tmp_path / "out")
    message = capsys.readouterr().err
    assert "(0, 100, 200)" in message
    assert "RUS/images/train/001.png: the file is not there" in message


# Kidney


SQUARE = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [5, 5, 25, 25]}
INNER = {"name": "polygon", "all_points_x": [15, 20, 20], "all_points_y": [10, 10, 15]}
RECTANGLE = {"name": "rect", "x": 3, "y": 1, "width": 20, "height": 2}


def kidney_table(path: Path, rows: list[tuple[str, dict, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id",
                         "region_shape_attributes", "region_attributes"])
        for name, shape, anatomy in rows:
            stated, region = {"Quality": "Fair", "View": "Longitudinal"}, {"Anatomy": anatomy} if anatomy else {}
            writer.writerow([name, 1, json.dumps(stated), 1, 0, json.dumps(shape), json.dumps(region)])


@pytest.fixture
def kidney(tmp_path: Path) -> Path:
    source = tmp_path / "raw"
    names = ["1_IM-0001-0059_anon.png", "100_IM-0246-0030_anon.png", "100_IM-0246-0082_anon.png"]
    rows = [(name, SQUARE, "Capsule") for name in names] + [(names[0], INNER, "Medulla")]
    rows += [("7_IM-0622-0020_anon.png", {}, ""), ("169_IM-0885-0035_anon.png", RECTANGLE, "Capsule")]
    kidney_table(source / "kidneyUS/labels/reviewed_labels_1.csv", rows)
    # The second rater drew something else.
    kidney_table(source / "kidneyUS/labels/reviewed_labels_2.csv", [(name, INNER, "Capsule") for name in names])
    for number, name in enumerate({name for name, _, _ in rows}):
        save(source / f"images/{name}", noise(40, 50, number))
        save(source / f"kidneyUS/labels/reviewed_masks_1/capsule/{name}", np.ones((40, 50), np.uint8))
    return source


def test_kidney_us_takes_the_capsule_of_the_first_rater(kidney, tmp_path, capsys):
    found = converted("kidney_us", kidney, tmp_path / "out")
    # Number 100 has two images; one file has no region, and one a slip of the tool.
    assert groups(found) == {"1_IM-0001-0059_anon": "1", "100_IM-0246-0030_anon": "100",
                             "100_IM-0246-0082_anon": "100"}
    for image, [(category, mask)] in found.values():
        assert category == "kidney"
        assert image["source"].startswith("images/")
        assert (image["view"], image["quality"]) == ("longitudinal", "fair")
        np.testing.assert_array_equal(mask, block(40, 50, 5, 10, 21, 21))
    assert "2 images have no annotation" in capsys.readouterr().err


def test_kidney_us_without_images_says_what_is_missing_and_where_to_get_it(kidney, tmp_path):
    for path in (kidney / "images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"3 images such as 1_IM-0001-0059_anon\.png.*register at https"):
        converted("kidney_us", kidney, tmp_path / "out", keep_going=True)


def test_kidney_us_refuses_two_releases_and_other_shapes(kidney, tmp_path):
    save(kidney / "newer/1_IM-0001-0059_anon.png", noise(40, 50))
    with pytest.raises(DataError, match="keep one release"):
        converted("kidney_us", kidney, tmp_path / "out")
    (kidney / "newer/1_IM-0001-0059_anon.png").unlink()
    table = kidney / "kidneyUS/labels/reviewed_labels_1.csv"
    kidney_table(table, [("1_IM-0001-0059_anon.png", RECTANGLE, "Capsule")])
    with pytest.raises(DataError, match=r"line 2: 1_IM-0001-0059_anon\.png: a polygon.*'rect'"):
        converted("kidney_us", kidney, tmp_path / "out")


@pytest.mark.shared
def test_kidney_us_real_labels_say_that_the_images_are_missing(shared, tmp_path):
    with pytest.raises(DataError, match=r"486 images such as 1_IM-0001-0059_anon\.png were expected"):
        converted("kidney_us", shared / "data/kidneyus", tmp_path, keep_going=True)
    assert not (tmp_path / "kidney_us").exists()


@pytest.mark.shared
def test_kidney_us_real_polygons_are_the_published_masks(shared, tmp_path):
    """The set's own label images are the truth for its table; the pictures are only names here."""
    real = shared / "data/kidneyus/labels"
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/reviewed_labels_1.csv").symlink_to((real / "reviewed_labels_1.csv").resolve())
    truth = {path.stem: np.array(Image.open(path)) for path in (real / "reviewed_masks_1/capsule").iterdir()}
    for stem in truth:
        save(tmp_path / f"images/{stem}.png", np.zeros((1, 1), np.uint8))
    everything = list(kidney_us.records(tmp_path))
    assert len(everything) == 534
    records = {record.key: record for record in everything if record.masks}
    assert (len(records), len({record.group for record in records.values()})) == (486, 469)
    # Of the 46, two are empty, and 169 is one pixel of the slip.
    assert truth.keys() - records.keys() == {stem for stem, mask in truth.items() if mask.sum() < 2}
    assert len(truth.keys() & records.keys()) == 43
    for stem in truth.keys() & records.keys():
        [(category, mask)] = records[stem].masks[0].read(*truth[stem].shape)
        assert category == "kidney"
        np.testing.assert_array_equal(mask, truth[stem] == 1)
        [part], changed = apply_rules(mask, kidney_us.INFO.rules)
        assert changed["pixels_filled"] == 0
        np.testing.assert_array_equal(part, mask)
