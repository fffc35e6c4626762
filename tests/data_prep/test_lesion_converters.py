"""Converters of the liver, ovary and gastrointestinal sets, each on a miniature of its raw layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from converting import load
from PIL import Image

from data_prep.catalogue import find_converter
from data_prep.pipeline import convert
from data_prep.splits import SplitPlan
from ultrasam.errors import DataError

RNG = np.random.default_rng(17)


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    """Return a picture without dark parts, so that nothing of it counts as background."""
    return RNG.integers(60, 256, (height, width), dtype=np.uint8)


def box(rows: slice, columns: slice, height: int = 60, width: int = 80) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[rows, columns] = True
    return mask


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The sets write their suffixes in capitals, which Pillow does not mind.
    Image.fromarray(pixels).save(path)
    return path


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run(slug: str, source: Path, out: Path, *, keep_going: bool = False) -> dict:
    plan = SplitPlan(validation_fraction=0.0)
    return convert(find_converter(slug), source, out, plan=plan, workers=1, keep_going=keep_going)


# 105US.

TUMOUR = box(slice(10, 30), slice(20, 50))


@pytest.fixture
def us105(tmp_path: Path) -> Path:
    drawn = TUMOUR.astype(np.uint8) * np.uint8(254)
    drawn[9, 20:50], drawn[30, 20:50] = 100, 140
    for number in (1, 2, 3):
        save(tmp_path / f"raw/105US/105 US Images/{number:03d}.png", np.stack([noise()] * 3, axis=2))
        save(tmp_path / f"raw/105US/105 US Masks/{number:03d} G man.png", drawn)
    (tmp_path / "raw/105US/105 US Images/readme.txt").write_text("images")
    return tmp_path / "raw"


def test_us105_masks_need_not_be_white_to_count(us105, tmp_path):
    run("us105", us105, tmp_path / "out")
    images = load(tmp_path / "out", "us105")
    assert sorted(images) == ["001", "002", "003"]
    for name, image in images.items():
        ((category, mask),) = image["objects"]
        assert category == "liver_metastasis"
        np.testing.assert_array_equal(mask, box(slice(10, 31), slice(20, 50)))
        assert image["group"] == f"us105/{name}"
        assert image["split"] == "train"


def test_us105_names_what_is_missing_and_knows_the_other_folder_names(us105, tmp_path, capsys):
    (us105 / "105US/105 US Masks/002 G man.png").unlink()
    (us105 / "105US/105 US Images").rename(us105 / "105US/Images")
    (us105 / "105US/105 US Masks").rename(us105 / "105US/Masks")
    manifest = run("us105", us105, tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["002"]
    assert manifest["counts"]["images"] == 2


# AUL. The same numbers occur in every class.

def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


LIVER, MASS, FIELD = (5, 10, 60, 50), (20, 15, 40, 30), (0, 0, 79, 59)


def filled(corners: tuple[int, int, int, int]) -> np.ndarray:
    left, top, right, bottom = corners
    return box(slice(top, bottom + 1), slice(left, right + 1))


@pytest.fixture
def aul(tmp_path: Path) -> Path:
    """Unpacked archives, of which one holds another folder of its own name; with the slips of the release."""
    places = {"Benign": tmp_path / "raw/Benign", "Malignant": tmp_path / "raw/Malignant/Malignant",
              "Normal": tmp_path / "raw/Normal"}
    for name, numbers in (("Benign", (1, 2)), ("Malignant", (1, 229, 306, 374)), ("Normal", (1,))):
        for number in numbers:
            save(places[name] / f"image/{number}.jpg", noise())
            outline = LIVER if number in (229, 306) else FIELD
            write_json(places[name] / f"segmentation/outline/{number}.json", rectangle(*outline))
            if number < 200:
                write_json(places[name] / f"segmentation/liver/{number}.json", rectangle(*LIVER))
            if name != "Normal":
                write_json(places[name] / f"segmentation/mass/{number}.json", rectangle(*MASS))
    return tmp_path / "raw"


def test_aul_has_livers_and_masses_but_no_outlines(aul, tmp_path):
    manifest = run("aul", aul, tmp_path / "out")
    images = load(tmp_path / "out", "aul")
    assert sorted(images) == ["benign_001", "benign_002", "malignant_001", "malignant_229", "malignant_306",
                              "malignant_374", "normal_001"]
    assert manifest["counts"]["masks"] == 12
    for name, image in images.items():
        expected = {"liver": filled(LIVER), "liver_mass": filled(MASS)}
        if name == "malignant_374":
            del expected["liver"]
        if name == "normal_001":
            del expected["liver_mass"]
        assert [category for category, _ in image["objects"]] == list(expected)
        for category, mask in image["objects"]:
            np.testing.assert_array_equal(mask, expected[category])
        assert image["class"] == name.split("_")[0]
        assert image["group"] == f"aul/{name}"


def test_aul_refuses_other_absences_and_other_polygons(aul, tmp_path, capsys):
    (aul / "Malignant/Malignant/segmentation/liver/1.json").unlink()
    (aul / "Benign/segmentation/mass/1.json").unlink()
    write_json(aul / "Benign/segmentation/mass/2.json", {"polygon": rectangle(*MASS)})
    manifest = run("aul", aul, tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["benign_001", "benign_002", "malignant_001"]
    message = capsys.readouterr().err
    for words in ("liver/1.json: the file is not there", "mass/1.json: the file is not there",
                  "2.json: one polygon [[x, y], [x, y], ...] was expected"):
        assert words in message


def test_aul_normal_image_with_a_mass_is_a_contradiction(aul, tmp_path):
    write_json(aul / "Normal/segmentation/mass/1.json", rectangle(*MASS))
    with pytest.raises(DataError, match="a normal image without a mass"):
        run("aul", aul, tmp_path / "out")


# MMOTU.

NAMES = ("chocolate_cyst", "serous_cystadenoma", "teratoma", "theca_cell_tumor", "simple_cyst", "normal_ovary",
         "mucinous_cystadenoma", "high_grade_serous")
PALETTE = ((64, 0, 0), (0, 64, 0), (0, 0, 64), (64, 0, 64), (64, 64, 0), (64, 64, 64), (0, 128, 0), (0, 0, 128))
# Number, class, side; the lists are not in the order of the numbers.
OTU_2D = [(3, 7, "train"), (1, 0, "train"), (2, 3, "val"), (10, 5, "val"), (4, 3, "train")]
LESION = box(slice(20, 40), slice(25, 60))


def painted(mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    pixels[mask] = colour
    return pixels


@pytest.fixture
def otu(tmp_path: Path) -> Path:
    """A miniature of OTU_2d whose pictures are mostly black, with a speck beside each lesion."""
    root = tmp_path / "raw/MMOTU/OTU_2d"
    for number, label, _ in OTU_2D:
        picture = np.zeros((60, 80, 3), np.uint8)
        picture[18:42, 23:62] = noise()[18:42, 23:62, None]
        save(root / f"images/{number}.JPG", picture)
        mask = LESION | box(slice(2, 5), slice(2, 5))
        save(root / f"annotations/{number}.PNG", painted(mask, PALETTE[label]))
        for variant in ("binary", "binary_binary"):
            save(root / f"annotations/{number}_{variant}.PNG", np.ones((60, 80), np.uint8))
    for side in ("train", "val"):
        mine = [(number, label) for number, label, other in OTU_2D if other == side]
        (root / f"{side}.txt").write_text("".join(f"{number}\n" for number, _ in mine))
        (root / f"{side}_cls.txt").write_text("".join(f"{number}.JPG  {label}\n" for number, label in mine))
    return root


def test_mmotu_2d_classes_and_test_side_are_the_official_ones(otu, tmp_path):
    manifest = run("mmotu_2d", otu.parent.parent, tmp_path / "out")
    images = load(tmp_path / "out", "mmotu_2d")
    document = json.loads((tmp_path / "out/mmotu_2d/annotations/test.mmotu_2d.json").read_text())
    assert document["categories"] == [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    assert len(images) == len(OTU_2D)
    for number, label, side in OTU_2D:
        image = images[f"{number:04d}"]
        ((category, mask),) = image["objects"]
        assert category == image["class"] == NAMES[label]
        np.testing.assert_array_equal(mask, LESION)
        assert image["split"] == {"train": "train", "val": "test"}[side]
        assert image["official_split"] == side
        # Published scores are for whole pictures, whatever part of them is black.
        assert (image["height"], image["width"]) == (60, 80)
        assert "crop" not in image
        copied = (tmp_path / "out" / image["file_name"]).read_bytes()
        assert copied == (otu / f"images/{number}.JPG").read_bytes()
    assert manifest["changes"]["components_dropped"] == len(OTU_2D)


@pytest.mark.parametrize(("name", "text", "words"), [
    ("val_cls.txt", "2.JPG  3\n", r"none of 1 \(first: \['10'\]\)"),
    ("val_cls.txt", "2.JPG  3\n10.JPG  8\n", "found 10 8"),
    ("val_cls.txt", "2.JPG  3\n10.JPG  5\n3.JPG  7\n", "found 3 7"),
    ("val.txt", "2\n10\n3\n", "found 3 twice"),
    ("train.txt", "3\n1\nx4\n", "'x4'"),
])
def test_mmotu_2d_refuses_lists_that_leave_a_doubt(otu, tmp_path, name, text, words):
    (otu / name).write_text(text)
    with pytest.raises(DataError, match=words):
        run("mmotu_2d", otu, tmp_path / "out", keep_going=True)


def test_mmotu_2d_refuses_colours_of_no_class(otu, tmp_path, capsys):
    save(otu / "annotations/2.PNG", painted(LESION, (255, 255, 0)))
    save(otu / "annotations/10.PNG", painted(LESION[:, :70], PALETTE[5]))
    (otu / "annotations/4.PNG").unlink()
    manifest = run("mmotu_2d", otu, tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["0002", "0004", "0010"]
    message = capsys.readouterr().err
    assert "found also [(255, 255, 0)]" in message
    assert "the mask is 70 x 60 pixels" in message


def test_mmotu_3d_pictures_are_training_images_of_one_category(tmp_path):
    root = tmp_path / "raw/OTU_3d"
    for number in (1, 2, 3):
        save(root / f"images/{number}.JPG", noise())
        save(root / f"annotations/{number}.PNG", painted(LESION, PALETTE[number]))
        save(root / f"annotations/{number}_binary.PNG", np.ones((60, 80), np.uint8))
    (root / "train.txt").write_text("1\n3\n")
    (root / "val.txt").write_text("2\n")
    run("mmotu_3d", root, tmp_path / "out")
    images = load(tmp_path / "out", "mmotu_3d")
    assert {name: image["official_split"] for name, image in images.items()} == {
        "0001": "train", "0002": "val", "0003": "train"}
    for image in images.values():
        ((category, mask),) = image["objects"]
        assert category == "ovarian_tumor"
        np.testing.assert_array_equal(mask, LESION)
        assert image["split"] == "train"


# GIST514-DB.

LMYM, GIST = {"id": 1, "name": "lmym"}, {"id": 2, "name": "GIST"}


def polygon(left: int, top: int, right: int, bottom: int) -> list[int]:
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, image: int, category: int, *polygons: list[int]) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": list(polygons), "iscrowd": 0,
            "bbox": [0, 0, 1, 1], "area": 1}


@pytest.fixture
def gist(tmp_path: Path) -> Path:
    """A miniature of usd514_jpeg_roi; image ids start anew in each list."""
    root = tmp_path / "raw/GIST514-DB/usd514_jpeg_roi"
    lists = {
        "train": (["case 1.jpg", "b.jpg"], [annotation(1, 1, 2, polygon(10, 10, 20, 20), polygon(40, 10, 50, 30)),
                                            annotation(2, 2, 1, polygon(5, 5, 25, 45))]),
        "val": (["c.jpg", "d.jpg", "e.jpg"], [annotation(1, 1, 1, polygon(30, 20, 60, 40)),
                                              annotation(2, 2, 2, polygon(30, 20, 60, 40))]),
    }
    for side, (names, drawn) in lists.items():
        entries = []
        for number, name in enumerate(names, start=1):
            picture = np.zeros((60, 80), np.uint8)
            picture[15:45, 25:65] = noise()[15:45, 25:65]
            save(root / "images" / name, picture)
            entries.append({"id": number, "file_name": name, "height": 60, "width": 80, "anatomy_id": 1})
        content = {"images": entries, "annotations": drawn, "categories": [LMYM, GIST]}
        write_json(root / f"annotations/{side}_anno_crop_split_0.json", content)
        write_json(root / f"annotations/{side}_anno_crop_split_1.json", {})
    return root


def edit(path: Path, **changes: object) -> None:
    write_json(path, json.loads(path.read_text()) | changes)


def test_gist_lesions_stay_whole_and_the_val_list_is_the_test_side(gist, tmp_path):
    run("gist514_db", gist.parent.parent, tmp_path / "out")
    images = load(tmp_path / "out", "gist514_db")
    document = json.loads((tmp_path / "out/gist514_db/annotations/test.gist514_db.json").read_text())
    assert document["categories"] == [{"id": 1, "name": "lmym"}, {"id": 2, "name": "gist"}]
    assert [item["id"] for item in document["annotations"]] == [1, 2]
    assert {name: image["split"] for name, image in images.items()} == {
        "case_1": "train", "b": "train", "c": "test", "d": "test", "e": "test"}
    # COCO fills a polygon from its left and top border up to its right and bottom border.
    expected = {
        "case_1": [("gist", box(slice(10, 20), slice(10, 20)) | box(slice(10, 30), slice(40, 50)))],
        "b": [("lmym", box(slice(5, 45), slice(5, 25)))],
        "c": [("lmym", box(slice(20, 40), slice(30, 60)))],
        "d": [("gist", box(slice(20, 40), slice(30, 60)))],
        "e": [],
    }
    for name, image in images.items():
        assert [category for category, _ in image["objects"]] == [category for category, _ in expected[name]]
        for (_, mask), (_, truth) in zip(image["objects"], expected[name], strict=True):
            np.testing.assert_array_equal(mask, truth)
        assert image.get("class") == (expected[name][0][0] if expected[name] else None)
        assert (image["height"], image["width"]) == (60, 80)
        assert image["official_split"] == f"split_0 {'val' if image['split'] == 'test' else 'train'}"


def test_gist_follows_the_names_of_the_categories_not_their_numbers(gist, tmp_path):
    for side in ("train", "val"):
        edit(gist / f"annotations/{side}_anno_crop_split_0.json",
             categories=[{"id": 2, "name": "lmym"}, {"id": 1, "name": "GIST"}])
    run("gist514_db", gist, tmp_path / "out")
    images = load(tmp_path / "out", "gist514_db")
    assert {name: image.get("class") for name, image in images.items()} == {
        "case_1": "lmym", "b": "gist", "c": "gist", "d": "lmym", "e": None}


@pytest.mark.parametrize(("changes", "words"), [
    ({"categories": [LMYM, {"id": 2, "name": "schwannoma"}]}, "schwannoma"),
    ({"annotations": [annotation(1, 1, 3, polygon(30, 20, 60, 40))]}, "found 3"),
    ({"annotations": [annotation(1, 9, 1, polygon(30, 20, 60, 40))]}, r"first: \[9\]"),
    ({"images": [{"id": 1, "file_name": "b.jpg"}]}, "'b.jpg'"),
])
def test_gist_refuses_contradictory_lists(gist, tmp_path, changes, words):
    edit(gist / "annotations/val_anno_crop_split_0.json", **changes)
    with pytest.raises(DataError, match=words):
        run("gist514_db", gist, tmp_path / "out", keep_going=True)


def test_gist_names_images_that_are_not_there_and_masks_that_are_none(gist, tmp_path, capsys):
    (gist / "images/c.jpg").unlink()
    edit(gist / "annotations/train_anno_crop_split_0.json",
         annotations=[annotation(1, 1, 2, polygon(10, 10, 20, 20)), annotation(2, 2, 1)])
    manifest = run("gist514_db", gist, tmp_path / "out", keep_going=True)
    assert [item["key"] for item in manifest["failures"]] == ["b", "c"]
    message = capsys.readouterr().err
    assert "images/c.jpg: the file is not there" in message
    assert "annotation 2: the segmentation is an empty list" in message
