"""Breast sets whose classes are in tables, colours and grey levels, from miniatures of their raw layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from converting import run, save
from openpyxl import Workbook

from ultrasam.errors import DataError

BENIGN, MALIGNANT = "benign_breast_lesion", "malignant_breast_lesion"


def sheet(path: Path, rows: list[tuple]) -> None:
    """Write a workbook with a title sheet and a sheet of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    book.active.append(["About"])
    page = book.create_sheet("data")
    for row in rows:
        page.append(row)
    book.save(path)


def noise(seed: int) -> np.ndarray:
    """Return 40 x 48 pixels of bright noise, so that nothing is taken for background."""
    return np.random.default_rng(seed).integers(90, 256, (40, 48), dtype=np.uint8)


def box(top: int, left: int, side: int = 10) -> np.ndarray:
    """Return a bool mask of 40 x 48 pixels with one square."""
    mask = np.zeros((40, 48), bool)
    mask[top:top + side, left:left + side] = True
    return mask


def grey(mask: np.ndarray, value: int = 255) -> np.ndarray:
    return mask.astype(np.uint8) * np.uint8(value)


def same(image: dict, *expected: tuple[str, np.ndarray]) -> bool:
    """Whether the objects of an image are these categories and masks, in this order."""
    return [name for name, _ in image["objects"]] == [name for name, _ in expected] and all(
        np.array_equal(mask, truth) for (_, mask), (_, truth) in zip(image["objects"], expected, strict=True))


@pytest.fixture
def dataset_b(tmp_path: Path) -> Path:
    raw = tmp_path / "raw/BUS"
    for number in (1, 2, 10):
        save(raw / f"original/{number:06d}.png", noise(number))
        save(raw / f"GT/{number:06d}.png", grey(box(number, number)))
    sheet(raw / "DatasetB.xlsx", [("Image ", "Type", "Diagnosis"), (1, "Benign", "CYST"), (2, "Malignant", "IDC"),
                                  (10.0, "Malignant", None), (None, None, None)])
    return raw


def test_dataset_b_classes_come_from_the_spreadsheet(dataset_b, tmp_path):
    images, _ = run("bus_dataset_b", tmp_path / "raw", tmp_path / "out")
    assert {key: image["class"] for key, image in images.items()} == {
        "000001": "benign", "000002": "malignant", "000010": "malignant"}
    for key, image in images.items():
        assert same(image, ("breast_lesion", box(int(key), int(key))))
        assert image["group"] == f"bus_dataset_b/{key}"
        assert image["source"] == f"BUS/original/{key}.png"


def test_dataset_b_without_the_spreadsheet_has_no_classes(dataset_b, tmp_path):
    (dataset_b / "DatasetB.xlsx").unlink()
    images, _ = run("bus_dataset_b", tmp_path / "raw", tmp_path / "out")
    assert len(images) == 3
    assert all("class" not in image and len(image["objects"]) == 1 for image in images.values())


def test_dataset_b_lost_files_and_empty_masks_are_reported(dataset_b, tmp_path):
    (dataset_b / "original/000001.png").unlink()
    (dataset_b / "GT/000001.png").unlink()
    save(dataset_b / "GT/000002.png", grey(np.zeros((40, 48), bool)))
    images, manifest = run("bus_dataset_b", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert images.keys() == {"000010"}
    reasons = {item["key"]: item["reason"] for item in manifest["failures"]}
    assert "BUS/GT/000001.png: the file is not there" in reasons["000001"]
    assert "an object was expected because the image is malignant" in reasons["000002"]


@pytest.mark.parametrize(("rows", "words"), [
    ([("Image", "Type"), (1, "Benign"), (2, "Cyst"), (10, "Benign")], "found 'Cyst'"),
    ([("Image", "Type"), (1, "Benign"), (2, "Benign")], "has no line for the image 000010"),
    ([("Image", "Type"), (1, "Benign"), (1, "Benign")], "stands in more than one line"),
    ([("Number", "Type"), (1, "Benign")], "a sheet with the columns"),
    ([("Image", "Type"), ("first", "Benign")], "found 'first'"),
])
def test_dataset_b_faulty_spreadsheets_are_refused(dataset_b, tmp_path, rows, words):
    sheet(dataset_b / "DatasetB.xlsx", rows)
    with pytest.raises(DataError, match=words):
        run("bus_dataset_b", tmp_path / "raw", tmp_path / "out", keep_going=True)


def test_dataset_b_a_spreadsheet_that_is_none_is_named(dataset_b, tmp_path):
    (dataset_b / "DatasetB.xlsx").write_text("<html>")
    with pytest.raises(DataError, match=r"DatasetB.xlsx: a readable XLSX workbook was expected"):
        run("bus_dataset_b", tmp_path / "raw", tmp_path / "out")


def painted(**lesions: np.ndarray) -> np.ndarray:
    """Return a black RGB mask with lesions in ``red``, ``green`` or ``blue``."""
    pixels = np.zeros((40, 48, 3), np.uint8)
    for colour, mask in lesions.items():
        pixels[mask] = np.eye(3, dtype=np.uint8)[("red", "green", "blue").index(colour)] * 255
    return pixels


@pytest.fixture
def uclm(tmp_path: Path) -> Path:
    raw = tmp_path / "raw/BUS-UCLM Breast ultrasound lesion segmentation dataset/BUS-UCLM"
    lesions = {"ALWI_000": {"green": box(4, 4)}, "ALWI_001": {}, "COPE_000": {"red": box(9, 20)},
               "COPE_012": {"green": box(4, 4), "red": box(20, 30)}}
    for number, (name, parts) in enumerate(lesions.items()):
        save(raw / f"images/{name}.png", noise(number))
        pixels = painted(**parts)
        if name == "ALWI_000":
            # Shades at the border: the brighter half belongs to the lesion.
            pixels[4, 4:14] = (0, 140, 0)
            pixels[3, 4:14] = (0, 110, 0)
        save(raw / f"masks/{name}.png", pixels)
    (raw / "INFO.csv").write_text(
        "Image;Marks;Label;Doppler\nALWI_000.png;No;Benign;No\nALWI_001.png;No;Normal;No\n"
        "COPE_000.png;No;Malignant;No\nCOPE_012.png;No;Malignant;Yes\n", encoding="utf-8-sig")
    return raw


def test_uclm_red_is_malignant_and_patients_stay_together(uclm, tmp_path):
    images, manifest = run("bus_uclm", tmp_path / "raw", tmp_path / "out")
    assert same(images["ALWI_000"], (BENIGN, box(4, 4)))
    assert same(images["ALWI_001"])
    assert same(images["COPE_000"], (MALIGNANT, box(9, 20)))
    assert same(images["COPE_012"], (BENIGN, box(4, 4)), (MALIGNANT, box(20, 30)))
    assert [images[key]["class"] for key in sorted(images)] == ["benign", "normal", "malignant", "malignant"]
    assert {key: image["group"] for key, image in images.items()} == {
        key: f"bus_uclm/{key[:4]}" for key in images}
    assert {key[:4]: image["official_split"] for key, image in images.items()} == {"ALWI": "train", "COPE": "test"}
    assert manifest["splits"]["test"]["images"] == 0
    assert len({image["split"] for image in images.values() if image["group"].endswith("COPE")}) == 1


def test_uclm_without_the_table_has_no_classes(uclm, tmp_path):
    (uclm / "INFO.csv").unlink()
    images, _ = run("bus_uclm", tmp_path / "raw", tmp_path / "out")
    assert [len(images[key]["objects"]) for key in sorted(images)] == [1, 0, 1, 2]
    assert all("class" not in image for image in images.values())


@pytest.mark.parametrize(("name", "parts", "words"), [
    ("ALWI_000", {"blue": box(4, 4)}, r"\(0, 0, 255\)"),
    ("COPE_000", {}, "an object was expected because the image is malignant"),
    ("ALWI_001", {"red": box(4, 4)}, "an empty mask was expected because the image is normal"),
    ("COPE_012", None, "the file is not there"),
])
def test_uclm_masks_that_do_not_fit_are_reported(uclm, tmp_path, capsys, name, parts, words):
    (uclm / f"masks/{name}.png").unlink()
    if parts is not None:
        save(uclm / f"masks/{name}.png", painted(**parts))
    images, manifest = run("bus_uclm", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert len(images) == 3
    (failure,) = manifest["failures"]
    assert failure["key"] == name
    assert words.replace("\\", "") in failure["reason"]


@pytest.mark.parametrize(("old", "new", "words"), [
    ("COPE_012.png;No;Malignant", "COPE_012.png;No;Suspicious", "COPE_012.png: a Label .* found 'Suspicious'"),
    ("COPE_012.png;No;Malignant;Yes\n", "", "has no line for the image COPE_012.png"),
    (";", ",", "the columns .* were expected"),
    ("COPE_012.png", "COPE_000.png", "stands in more than one line"),
])
def test_uclm_faulty_tables_are_refused(uclm, tmp_path, old, new, words):
    table = uclm / "INFO.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace(old, new))
    with pytest.raises(DataError, match=words):
        run("bus_uclm", tmp_path / "raw", tmp_path / "out", keep_going=True)


def s1_label(**lesions: np.ndarray) -> np.ndarray:
    """Return an RGB label with ``benign`` and ``malignant`` lesions."""
    pixels = np.zeros((40, 48), np.uint8)
    for label, mask in lesions.items():
        pixels[mask] = {"benign": 127, "malignant": 255}[label]
    return np.repeat(pixels[..., None], 3, axis=2)


@pytest.fixture
def s1_raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw/S1_Data/Data"
    train, test = raw / "TrainingDataSet", raw / "TestingDataSet"
    save(train / "BreastTumourImages/1.jpg", noise(1))
    save(train / "BreastTumourImages/2.jpg", noise(2))
    save(train / "Expanded-3-channel-Labels/1.png", s1_label(benign=box(5, 5), malignant=box(25, 30)))
    soft = s1_label(malignant=box(8, 8, 20))
    # A ramp around the white lesion: 127 is in it, and the border at half the height.
    for inset, value in ((1, 40), (0, 90), (-1, 160), (-2, 220)):
        ring = box(8 - inset, 8 - inset, 20 + 2 * inset) & ~box(9 - inset, 9 - inset, 18 + 2 * inset)
        soft[ring] = value
    save(train / "Expanded-3-channel-Labels/2.png", soft)
    save(train / "General-1-channel-Labels/1.png", grey(box(5, 5)))
    save(test / "Test-Expanded-BreastTumourImages/1.jpg", noise(3))
    save(test / "Test-Expanded-3-channel-Labels/1.png", s1_label(benign=box(12, 20)))
    save(test / "Test-General-1-BreastTumourImages/1.jpg", noise(4))
    save(test / "Test-General-1-channel-Labels/1.png", grey(box(1, 1)))
    return raw


def test_s1_numbers_begin_again_and_general_images_do_not_take_their_place(s1_raw, tmp_path):
    images, _ = run("s1", tmp_path / "raw", tmp_path / "out")
    assert {key: image["official_split"] for key, image in images.items()} == {
        "train_1": "train", "train_2": "train", "test_1": "test"}
    assert same(images["train_1"], (BENIGN, box(5, 5)), (MALIGNANT, box(25, 30)))
    assert same(images["test_1"], (BENIGN, box(12, 20)))
    assert "Test-Expanded-BreastTumourImages" in images["test_1"]["source"]
    assert {image["split"] for image in images.values()} <= {"train", "val"}


def test_s1_the_soft_border_of_a_malignant_lesion_is_not_a_benign_one(s1_raw, tmp_path):
    images, _ = run("s1", tmp_path / "raw", tmp_path / "out")
    assert same(images["train_2"], (MALIGNANT, box(9, 9, 18)))


@pytest.mark.parametrize(("label", "words"), [
    (s1_label(benign=box(5, 5)) // 2 * 3, "found one with the values [189]"),
    (s1_label(benign=box(5, 5), malignant=box(15, 5)), "found one with the values [127, 255]"),
    (s1_label(), "an object was expected"),
    (s1_label(benign=box(5, 5))[:30], "check that the two files belong together"),
])
def test_s1_labels_that_are_none_are_reported(s1_raw, tmp_path, label, words):
    save(s1_raw / "TrainingDataSet/Expanded-3-channel-Labels/1.png", label)
    images, manifest = run("s1", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert images.keys() == {"train_2", "test_1"}
    assert words in manifest["failures"][0]["reason"]


HEADER = ("CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename", "Pixel_size", "Classification")
ROWS = [
    HEADER,
    (1, "case001.png", "case001_tumor.png", None, 0.0075, "benign"),
    (2, "case002.png", "case002_tumor.png", "case002_other1.png&case002_other2.png", 0.9, "malignant"),
    (45, "case045.png", None, None, None, "normal"),
]


@pytest.fixture
def breast(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    images = raw / "BrEaST-Lesions_USG-images_and_masks-Dec-15-2023/BrEaST-Lesions_USG-images_and_masks"
    for key in ("case001", "case002", "case045"):
        save(images / f"{key}.png", noise(int(key[4:])), "RGBA")
    save(images / "case001_tumor.png", grey(box(5, 5)))
    save(images / "case002_tumor.png", grey(box(9, 9)), "RGBA")
    save(images / "case002_other1.png", grey(box(25, 2), 7))
    save(images / "case002_other2.png", grey(box(25, 30)))
    sheet(raw / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx", ROWS)
    return images


def test_breast_other_areas_are_no_cysts_and_normal_cases_are_negatives(breast, tmp_path):
    images, _ = run("breast_lesions_usg", tmp_path / "raw", tmp_path / "out")
    assert {key: image["class"] for key, image in images.items()} == {
        "case001": "benign", "case002": "malignant", "case045": "normal"}
    assert same(images["case001"], ("breast_lesion", box(5, 5)))
    assert same(images["case002"], ("breast_lesion", box(9, 9)), ("other_abnormality", box(25, 2)),
                ("other_abnormality", box(25, 30)))
    assert same(images["case045"])
    # 0.0075 cm; a pixel of 9 mm is not believed.
    assert images["case001"]["spacing_mm"] == pytest.approx([0.075, 0.075])
    assert "spacing_mm" not in images["case002"]
    assert images["case001"]["group"] == "breast_lesions_usg/case001"


def test_breast_without_the_table_a_lost_mask_is_no_normal_case(breast, tmp_path, capsys):
    (tmp_path / "raw/BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx").unlink()
    (breast / "case001_tumor.png").unlink()
    images, _ = run("breast_lesions_usg", tmp_path / "raw", tmp_path / "out", keep_going=True)
    assert {key: image.get("class") for key, image in images.items()} == {"case002": None, "case045": "normal"}
    assert len(images["case002"]["objects"]) == 3
    assert "case001_tumor.png: the file is not there" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "key"), [
    ("case002_other2.png", "case002"), ("case001.png", "case001"), ("case001_tumor.png", "case001")])
def test_breast_files_that_the_table_lists_must_be_there(breast, tmp_path, name, key):
    (breast / name).unlink()
    _, manifest = run("breast_lesions_usg", tmp_path / "raw", tmp_path / "out", keep_going=True)
    (failure,) = manifest["failures"]
    assert failure["key"] == key
    assert f"{name}: the file is not there" in failure["reason"]


@pytest.mark.parametrize(("row", "words"), [
    ((1, "case001.png", "case001_tumor.png", None, 0.0075, "unknown"), "case001: Classification .* found 'unknown'"),
    ((1, "case001.png", None, None, 0.0075, "normal"), "no tumour mask was expected because case001 is normal"),
    ((1, "case001.png", "case002_tumor.png", None, 0.0075, "benign"), "the table lists case002_tumor.png"),
    ((1, "case001.png", "case001_tumor.png", None, "small", "benign"), "found 'small'"),
    ((7, "case007.png", "case007_tumor.png", None, 0.0075, "benign"), "has no line for case001"),
])
def test_breast_tables_that_do_not_fit_are_refused(breast, tmp_path, row, words):
    sheet(tmp_path / "raw/BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx", [HEADER, row, *ROWS[2:]])
    with pytest.raises(DataError, match=words):
        run("breast_lesions_usg", tmp_path / "raw", tmp_path / "out", keep_going=True)
