"""Converters of muscles, nerves, spine, carotid and lung, on miniatures of their raw layouts and on real files."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from converting import block, converted, groups, noise, save
from PIL import Image

from ultrasam.errors import DataError


def white(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.uint8) * 255


# ASUS


@pytest.fixture
def asus(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    folder = tmp_path / "raw/ASUS/DataArrays"
    folder.mkdir(parents=True)
    # A dark scan: its brightest pixel is half of what can be.
    images = np.random.default_rng(1).uniform(0.2, 0.5, (3, 20, 24, 1)).astype(np.float16)
    labels = np.zeros((3, 20, 24, 1), np.uint8)
    labels[1, 2:5, 3:9] = labels[1, 12:15, 16:20] = labels[2, 4:9, 4:7] = 1
    for scan in ("q000", "q012"):
        np.save(folder / f"{scan}_ultrasound.npy", images)
        np.save(folder / f"{scan}_segmentation.npy", labels)
    return folder, images[..., 0], labels[..., 0] > 0


def test_asus_frames_keep_their_scale_and_are_turned_with_their_labels(asus, tmp_path):
    folder, images, labels = asus
    found = converted("asus", folder.parent.parent, tmp_path / "out")
    # The first frame has no label.
    assert groups(found) == {f"{scan}_{index:05d}": scan for scan in ("q000", "q012") for index in (1, 2)}
    for index in (1, 2):
        image, masks = found[f"q012_{index:05d}"]
        stored = np.array(Image.open(tmp_path / "out" / image["file_name"]))[..., 0]
        expected = np.rint(np.float32(images[index]) * 255)[::-1, ::-1]
        np.testing.assert_array_equal(stored, expected)
        assert stored.max() <= 128
        assert image["frame"] == index
        assert {name for name, _ in masks} == {"vertebral_surface"}
        np.testing.assert_array_equal(np.logical_or.reduce([mask for _, mask in masks]), labels[index][::-1, ::-1])
    assert len(found["q000_00001"][1]) == 2


def test_asus_names_what_is_missing_damaged_or_does_not_belong_together(asus, tmp_path, capsys):
    folder, images, _ = asus
    np.save(folder / "q000_ultrasound.npy", images[:2, ..., None])
    (folder / "q012_segmentation.npy").unlink()
    np.save(folder / "q013_segmentation.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)
    np.save(folder / "q013_ultrasound.npy", images[..., None])
    with pytest.raises(DataError, match="4 of 4 images"):
        converted("asus", folder, tmp_path / "out")
    message = capsys.readouterr().err
    for words in ("q000_ultrasound.npy: 3 frames were expected", "found 2", "q013_segmentation.npy",
                  "q012_segmentation.npy: the file is not there"):
        assert words in message


def test_asus_refuses_another_scale(asus, tmp_path, capsys):
    folder, images, _ = asus
    np.save(folder / "q000_ultrasound.npy", images[..., None] * np.float16(100))
    faulty = images[..., None].copy()
    faulty[1, 3, 3] = np.nan
    np.save(folder / "q012_ultrasound.npy", faulty)
    assert converted("asus", folder, tmp_path / "out", keep_going=True).keys() == {"q012_00002"}
    assert "one intensity from 0 to 1" in capsys.readouterr().err


# Common carotid artery


def test_ccaui_groups_the_frames_of_an_examination(tmp_path, capsys):
    folder = tmp_path / "raw/Common Carotid Artery Ultrasound Images"
    mask = block(40, 50, 10, 12, 9, 11)
    names = ["202201121748100022VAS_slice_1069", "202201121748100022VAS_slice_24", "202201121806070027VAS_slice_24"]
    for number, name in enumerate(names):
        save(folder / f"US images/{name}.png", np.dstack([noise(40, 50, number)] * 3))
        save(folder / f"Expert mask images/{name}.png", white(mask))
    found = converted("ccaui", tmp_path / "raw", tmp_path / "out")
    assert groups(found) == {name: name.split("_")[0] for name in names}
    assert [found[name][0]["frame"] for name in names] == [1069, 24, 24]
    for _, [(category, decoded)] in found.values():
        assert category == "carotid_artery"
        np.testing.assert_array_equal(decoded, mask)
    (folder / f"US images/{names[0]}.png").unlink()
    with pytest.raises(DataError, match="1 of 3 images"):
        converted("ccaui", tmp_path / "raw", tmp_path / "out")
    assert f"US images/{names[0]}.png: the file is not there" in capsys.readouterr().err


@pytest.mark.shared
def test_ccaui_real_files(shared, tmp_path):
    source = shared / "data/cca"
    found = converted("ccaui", source, tmp_path)
    assert len(found) == 20
    assert len(set(groups(found).values())) == 8
    for key, (image, [(_, mask)]) in found.items():
        truth = np.array(Image.open(source / f"Common Carotid Artery Ultrasound Images/Expert mask images/{key}.png"))
        x1, y1, x2, y2 = image.get("crop", [0, 0, 709, 749])
        np.testing.assert_array_equal(mask, truth[y1:y2, x1:x2] > 0)
        assert mask.sum() == (truth > 0).sum()


# FALLMUD


@pytest.fixture
def fallmud(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    folder = tmp_path / "raw/FALLMUD"
    bands = block(40, 60, 4, 3, 5, 40) | block(40, 60, 30, 20, 5, 40)
    fibres = block(40, 60, 15, 10, 2, 20) | block(40, 60, 20, 30, 2, 20)
    for source, stems in (("NeilCronin", ["img_00049", "img_00050"]), ("RyanCunningham", ["img_00049"])):
        suffix = "tif" if source == "NeilCronin" else "png"
        for number, stem in enumerate(stems):
            save(folder / f"{source}/images/{stem}.{suffix}", noise(40, 60, number))
            soft = white(fibres)
            soft[36:38, 2:4] = 200
            save(folder / f"{source}/fascicle_masks/{stem}.{suffix}", soft)
            lying = np.rot90(white(bands)) if source == "RyanCunningham" else white(bands)
            save(folder / f"{source}/aponeurosis_masks/{stem}.png", lying)
    return folder, bands, fibres


def test_fallmud_has_fascicles_and_stands_turned_masks_up(fallmud, tmp_path, capsys):
    folder, bands, fibres = fallmud
    save(folder / "RyanCunningham/images/img_00051.png", noise(40, 60))
    save(folder / "RyanCunningham/aponeurosis_masks/img_00051.png", np.rot90(white(bands)))
    found = converted("fallmud", folder.parent, tmp_path / "out")
    # Blocks of 50 numbers of one laboratory; the image with one kind of mask is left out.
    assert groups(found) == {"NeilCronin_img_00049": "NeilCronin_000", "NeilCronin_img_00050": "NeilCronin_001",
                             "RyanCunningham_img_00049": "RyanCunningham_000"}
    for _, masks in found.values():
        assert [name for name, _ in masks] == ["aponeurosis"] * 2 + ["fascicle"] * 2
        np.testing.assert_array_equal(masks[0][1] | masks[1][1], bands)
        # A speck of four pixels is dropped.
        np.testing.assert_array_equal(masks[2][1] | masks[3][1], fibres)
    assert "1 images have no annotation" in capsys.readouterr().err


def test_fallmud_turns_square_masks_as_the_others_of_their_folder(fallmud, tmp_path):
    folder, _, fibres = fallmud
    band = block(40, 40, 4, 3, 5, 30)
    for source in ("NeilCronin", "RyanCunningham"):
        save(folder / f"{source}/images/img_00007.png", noise(40, 40))
        save(folder / f"{source}/fascicle_masks/img_00007.png", white(fibres[:, :40]))
        lying = np.rot90(white(band)) if source == "RyanCunningham" else white(band)
        save(folder / f"{source}/aponeurosis_masks/img_00007.png", lying)
    found = converted("fallmud", folder, tmp_path / "out")
    for source in ("NeilCronin", "RyanCunningham"):
        np.testing.assert_array_equal(found[f"{source}_img_00007"][1][0][1], band)
    upright = save(folder / "RyanCunningham/aponeurosis_masks/img_00052.png", white(np.zeros((40, 60), bool)))
    for kind in ("images", "fascicle_masks"):
        save(folder / f"RyanCunningham/{kind}/img_00052.png", noise(40, 60) if kind == "images" else white(fibres))
    with pytest.raises(DataError, match="cannot be told whether the square ones are turned"):
        converted("fallmud", folder, tmp_path / "out")
    upright.unlink()


# LUSS phantom


def test_luss_phantom_names_on_both_sides_are_two_images_of_one_clip(tmp_path, capsys):
    folder = tmp_path / "raw/data_luss"
    labels = np.zeros((40, 60), np.uint8)
    for value in range(1, 6):
        labels[6 * value:6 * value + 3, 5:35] = value
    labels[2, 50:53] = 4
    for number, (side, name) in enumerate((("train", "clip 1-F12"), ("test", "clip 1-F12"), ("test", "clip 2-F3"))):
        save(folder / f"{side}/images/{name}.png", noise(40, 60, number))
        save(folder / f"{side}/masks/{name}.png", labels if side == "train" else labels[:, ::-1])
    found = converted("luss_phantom", tmp_path / "raw", tmp_path / "out")
    assert groups(found) == {"train_clip-1-F12": "clip 1", "test_clip-1-F12": "clip 1", "test_clip-2-F3": "clip 2"}
    for key, (image, masks) in found.items():
        side = key.split("_")[0]
        assert (image["official_split"], image["frame"]) == (side, 3 if "2-F3" in key else 12)
        assert [name for name, _ in masks] == ["rib", "pleural_line", "a_line", "b_line", "b_line_confluence"]
        for value, (_, mask) in enumerate(masks, start=1):
            truth = block(40, 60, 6 * value, 5, 3, 30)
            np.testing.assert_array_equal(mask, truth if side == "train" else truth[:, ::-1])
    labels[0, 0] = 6
    save(folder / "train/masks/clip 1-F12.png", labels)
    with pytest.raises(DataError, match="1 of 3 images"):
        converted("luss_phantom", tmp_path / "raw", tmp_path / "out")
    assert "found also 6" in capsys.readouterr().err


# Transverse muscles


def test_stmus_nda_keeps_equal_names_of_different_muscles_apart(tmp_path, capsys):
    folder = tmp_path / "raw/Polito-Radboud-DeepLearningUS"
    masks = {}
    names = {"BB/Healthy": ["0012_1", "0013_1"], "BB/Pathological": ["0012_1"], "GM/Healthy": ["0012_1"],
             "TA/Pathological": ["0020_1", "0021_1"]}
    for number, (place, stems) in enumerate(names.items()):
        for stem in stems:
            masks[place, stem] = block(40, 50, 3 + number, 5, 12, 20 + number)
            save(folder / f"{place}/Images/{stem}.png", noise(40, 50, number))
            empty = stem == "0021_1"
            save(folder / f"{place}/Masks/{stem}.png", white(masks[place, stem] & (not empty)))
    for side, stem in (("train", "0012_1"), ("val", "0013_1"), ("test", "0020_1")):
        save(folder / f"Segmentation_models/data/MuscleCNN/{side}/{stem}.png", noise(40, 50))
        save(folder / f"Segmentation_models/data/MuscleCNN/{side}annot/{stem}.png", np.zeros((40, 50), np.uint8))
    found = converted("stmus_nda", tmp_path / "raw", tmp_path / "out")
    muscles = {"BB": "biceps_brachii", "GM": "gastrocnemius_medialis", "TA": "tibialis_anterior"}
    assert len(found) == 5
    for (place, stem), mask in masks.items():
        muscle, state = place.split("/")
        key = f"{muscle}_{state.lower()}_{stem}"
        if stem == "0021_1":
            assert key not in found
            continue
        image, [(category, decoded)] = found[key]
        assert (category, image["class"]) == (muscles[muscle], state.lower())
        np.testing.assert_array_equal(decoded, mask)
        # One subject over all muscles.
        assert image["group"] == f"stmus_nda/{stem[:4]}"
    # The folders of the official split do not tell which of three images 0012_1 is meant.
    assert {key: image.get("official_split") for key, (image, _) in found.items()} == {
        "BB_healthy_0012_1": None, "BB_pathological_0012_1": None, "GM_healthy_0012_1": None,
        "BB_healthy_0013_1": "val", "TA_pathological_0020_1": "test"}
    assert "1 images have no annotation" in capsys.readouterr().err


# UBPD


def labelme(path: Path, shapes: list[tuple[str, list]], encoding: str = "utf-8", **more: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"imagePath": "臂丛神经誠.jpg", "imageHeight": 40, "imageWidth": 50, **more,
               "shapes": [{"label": label, "points": points, "shape_type": "polygon"} for label, points in shapes]}
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode(encoding))


def corners(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    return [[left, top], [right, top], [right + 0.2, bottom], [left, bottom - 0.2]]


@pytest.fixture
def ubpd(tmp_path: Path) -> Path:
    folder = tmp_path / "raw/UBPD"
    pinyin = ["dongmai", "jingmai", "jirouzuzhi", "shenjing", "zhifang", "jizhu"]
    shapes = [(name, corners(5 * number + 2, 10, 5 * number + 8, 30)) for number, name in enumerate(pinyin)]
    for number, (stem, encoding) in enumerate((("12_a_1", "utf-8"), ("12_b_2", "gbk"), ("7_a_1", "utf-8-sig"))):
        save(folder / f"JPEGImages/{stem}.jpg", noise(40, 50, number))
        labelme(folder / f"json_train/{stem}.json", shapes, encoding)
    save(folder / "JPEGImages/99_hidden_1.jpg", noise(40, 50, 9))
    return folder


def test_ubpd_reads_pinyin_labels_in_every_encoding(ubpd, tmp_path, capsys):
    # The name in it is chosen so that its GBK bytes are neither UTF-8 nor, read byte by byte, JSON.
    data = (ubpd / "json_train/12_b_2.json").read_bytes()
    with pytest.raises(UnicodeDecodeError):
        data.decode("utf-8")
    with pytest.raises(json.JSONDecodeError):
        json.loads(data.decode("latin-1"))
    found = converted("ubpd", ubpd.parent, tmp_path / "out")
    assert groups(found) == {"12_a_1": "12", "12_b_2": "12", "7_a_1": "7"}
    for _, masks in found.values():
        assert [name for name, _ in masks] == ["artery", "vein", "muscle", "nerve", "fat", "spine"]
        for number, (_, mask) in enumerate(masks):
            # Neighbours overlap, and each keeps all of its pixels.
            np.testing.assert_array_equal(mask, block(40, 50, 5 * number + 2, 10, 7, 21))
    assert "1 images have no annotation" in capsys.readouterr().err


def test_ubpd_names_odd_annotations(ubpd, tmp_path, capsys):
    labelme(ubpd / "json_train/12_a_1.json", [("gutou", corners(2, 2, 9, 9))])
    labelme(ubpd / "json_train/12_b_2.json", [("shenjing", corners(2, 2, 9, 9))], imageHeight=80)
    (ubpd / "json_train/7_a_1.json").write_bytes(b'{"shapes": [')
    labelme(ubpd / "json_train/8_a_1.json", [("shenjing", corners(2, 2, 9, 9))])
    with pytest.raises(DataError, match="4 of 4 images"):
        converted("ubpd", ubpd, tmp_path / "out")
    message = capsys.readouterr().err
    for words in ("'gutou'", "50 x 80", "in UTF-8 or GBK", "JPEGImages/8_a_1.jpg: the file is not there"):
        assert words in message


# Nerves


def view(seed: int, grain: int | None = None, shift: int = 0) -> np.ndarray:
    """A smooth picture of its own for every seed, with grain of its own for every number."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.uniform(60, 230, (7, 9)).astype(np.float32), (116, 84), interpolation=cv2.INTER_CUBIC)
    speckle = np.random.default_rng(grain).normal(0, 8, smooth.shape) if grain is not None else 0
    return np.clip(np.roll(smooth, shift, axis=1) + speckle, 40, 255).astype(np.uint8)


@pytest.fixture
def nerves(tmp_path: Path) -> tuple[Path, np.ndarray]:
    folder = tmp_path / "raw/train"
    mask = block(84, 116, 20, 30, 25, 30)
    frames = {
        "1_1": (view(1), True), "1_2": (view(1, grain=3), False), "1_3": (view(1, grain=4, shift=1), False),
        "1_4": (view(2), False), "1_5": (view(2, grain=5), False), "1_10": (view(1, grain=6), True),
        # Another subject: the same picture is no contradiction there.
        "2_1": (view(1, grain=7), False), "2_2": (view(3), True),
    }
    for name, (pixels, annotated) in frames.items():
        save(folder / f"{name}.tif", pixels)
        save(folder / f"{name}_mask.tif", white(mask & annotated))
    save(folder.with_name("test") / "1.tif", view(8))
    return folder, mask


def test_us_nerve_drops_empty_frames_that_an_annotated_one_contradicts(nerves, tmp_path, capsys):
    folder, mask = nerves
    found = converted("us_nerve", folder.parent, tmp_path / "out")
    assert groups(found) == {"1_1": "1", "1_4": "1", "1_5": "1", "1_10": "1", "2_1": "2", "2_2": "2"}
    for key, (_, masks) in found.items():
        if key in ("1_1", "1_10", "2_2"):
            [(category, decoded)] = masks
            assert category == "brachial_plexus"
            np.testing.assert_array_equal(decoded, mask)
        else:
            assert masks == []
    assert "2 frames with an empty mask look like an annotated frame" in capsys.readouterr().err


def test_us_nerve_names_what_is_missing(nerves, tmp_path, capsys):
    folder, _ = nerves
    (folder / "1_4_mask.tif").unlink()
    (folder / "2_2.tif").write_bytes(b"no picture")
    assert "1_4" not in converted("us_nerve", folder.parent, tmp_path / "out", keep_going=True)
    message = capsys.readouterr().err
    assert "train/1_4_mask.tif: the file is not there" in message
    assert "2_2.tif" in message
