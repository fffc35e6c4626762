"""Every fault of a folder of images and masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from test_doctor import rows, run

from ultrasam.datasets.coco import read_coco

HEIGHT, WIDTH = 48, 64


def disc(radius: float = 14, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    y, x = np.mgrid[:shape[0], :shape[1]]
    return (y - shape[0] // 2) ** 2 + (x - shape[1] // 2) ** 2 <= radius**2


def save(path: Path, values: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs with nothing to repair; c is an image without objects."""
    made = tmp_path / "in"
    for number, name in enumerate("abc"):
        save(made / f"images/{name}.png", np.full((HEIGHT, WIDTH, 3), 60 * number, np.uint8))
        save(made / f"masks/{name}.png", np.where(disc() & (name != "c"), 255, 0).astype(np.uint8))
    return made


def repaired(folder: Path, out: Path, capsys, status: int) -> tuple[dict, dict[str, np.ndarray], list[str]]:
    """Repair; return the table, the mask of every image that has one, and all images of the copy."""
    assert run(folder) == 1
    diagnosed = rows(capsys.readouterr().out)
    assert run(folder, "--fix", out) == status
    table = rows(capsys.readouterr().out)
    assert table == diagnosed
    read_coco(out / "annotations.json", out)
    assert run(out) == 0
    capsys.readouterr()
    document = json.loads((out / "annotations.json").read_text())
    names = {image["id"]: image["file_name"].removeprefix("images/") for image in document["images"]}
    masks = {}
    for record in document["annotations"]:
        assert names[record["image_id"]] not in masks
        masks[names[record["image_id"]]] = coco_mask.decode(record["segmentation"]).astype(bool)
    return table, masks, sorted(names.values())


def test_healthy_folder(folder, tmp_path, capsys):
    assert run(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing needs repair"
    assert run(folder, "--fix", tmp_path / "out") == 0
    collection = read_coco(tmp_path / "out/annotations.json", tmp_path / "out")
    assert [len(image.objects) for image in collection.images] == [1, 1, 0]
    assert collection.classes == ["object"]


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P"])
def test_masks_of_every_usual_kind_are_sound(folder, top, mode, capsys):
    grey = Image.fromarray(np.where(disc(), top, 0).astype(np.uint8))
    grey.convert(mode).save(folder / "masks/a.png")
    assert run(folder) == 0, capsys.readouterr().out


def test_jpeg_mask_is_cut_at_the_middle(folder, tmp_path, capsys):
    (folder / "masks/a.png").unlink()
    save(folder / "masks/a.jpg", np.where(disc(), 255, 0).astype(np.uint8), quality=60)
    assert len(np.unique(np.array(Image.open(folder / "masks/a.jpg")))) > 10
    table, masks, _ = repaired(folder, tmp_path / "out", capsys, 0)
    assert table == {"mask with grey values between black and white": (1, "1 made black and white at 127", "-")}
    assert (masks["a.png"] ^ disc()).sum() <= 3
    np.testing.assert_array_equal(masks["b.png"], disc())


def test_stray_values_and_unusual_foreground(folder, tmp_path, capsys):
    values = np.where(disc(), 255, 3).astype(np.uint8)
    save(folder / "masks/a.png", values)
    save(folder / "masks/b.png", np.where(disc(), 200, 0).astype(np.uint8))
    table, masks, _ = repaired(folder, tmp_path / "out", capsys, 0)
    assert table["mask with grey values between black and white"][0] == 1
    assert table["mask whose foreground is neither 1 nor 255"][0] == 1
    for name in "ab":
        np.testing.assert_array_equal(masks[f"{name}.png"], disc())


@pytest.mark.parametrize("values", [(128, 255), (1, 2)])
def test_grey_levels_that_may_be_labels_are_not_guessed(folder, values, tmp_path, capsys):
    labelled = np.where(disc(), values[1], 0)
    labelled[:10, :10] = values[0]
    save(folder / "masks/a.png", labelled.astype(np.uint8))
    table, _, names = repaired(folder, tmp_path / "out", capsys, 1)
    assert table["mask with several grey levels"][0] == 1
    assert "from-masks --labels" in table["mask with several grey levels"][2]
    assert names == ["b.png", "c.png"]


def test_label_maps_of_small_values_give_categories(folder, tmp_path, capsys):
    labelled = np.where(disc(), 2, 0)
    labelled[:10, :10] = 1
    for name in "abc":
        save(folder / f"masks/{name}.png", (labelled if name == "a" else labelled * (labelled == 1)).astype(np.uint8))
    assert run(folder, "--fix", tmp_path / "out") == 0
    collection = read_coco(tmp_path / "out/annotations.json", tmp_path / "out")
    assert collection.classes == ["label_1", "label_2"]
    assert [[(item.label, item.area) for item in image.objects] for image in collection.images] == [
        [(0, 100), (1, int(disc().sum()))], [(0, 100)], [(0, 100)]]


def test_mask_of_another_size_is_resized_if_it_has_the_same_shape(folder, tmp_path, capsys):
    save(folder / "masks/a.png", np.where(disc(), 255, 0).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1))
    save(folder / "masks/b.png", np.where(disc(shape=(50, 50)), 255, 0).astype(np.uint8))
    table, masks, names = repaired(folder, tmp_path / "out", capsys, 1)
    count, changed, left = table["mask of another size than its image"]
    assert (count, changed) == (2, "1 resized (nearest pixel)")
    assert left.startswith("1 set aside")
    np.testing.assert_array_equal(masks["a.png"], disc())
    assert names == ["a.png", "c.png"]


def test_files_without_partner_and_names_used_twice(folder, tmp_path, capsys):
    save(folder / "images/d.png", np.zeros((8, 8), np.uint8))
    save(folder / "masks/e.png", np.zeros((8, 8), np.uint8))
    save(folder / "images/b.jpg", np.zeros((HEIGHT, WIDTH), np.uint8))
    table, _, names = repaired(folder, tmp_path / "out", capsys, 1)
    assert {fault: row[0] for fault, row in table.items()} == {
        "image without mask": 1, "mask without image": 1, "several files with one name": 1}
    assert names == ["a.png", "c.png"]
    left = json.loads((tmp_path / "out/left_out.json").read_text())
    assert [Path(item["record"]["file"]).name for item in left["images"]] == ["d.png", "b.jpg", "b.png"]
    assert [Path(item["record"]["file"]).name for item in left["masks"]] == ["e.png"]


MASK_FAULTS = {
    "empty": (b"", "mask file of 0 bytes"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "mask file is a Git-LFS or git-annex pointer"),
    "text": (b"hello", "mask truncated, damaged or no image"),
}


@pytest.mark.parametrize("name", MASK_FAULTS)
def test_mask_that_cannot_be_read(folder, name, tmp_path, capsys):
    data, fault = MASK_FAULTS[name]
    (folder / "masks/a.png").write_bytes(data)
    table, _, names = repaired(folder, tmp_path / "out", capsys, 1)
    assert table[fault][0] == 1
    assert names == ["b.png", "c.png"]


def test_coloured_mask_is_named(folder, tmp_path, capsys):
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[disc()] = 255, 0, 0
    save(folder / "masks/a.png", colours)
    table, _, _ = repaired(folder, tmp_path / "out", capsys, 1)
    assert "from-masks --colours" in table["mask with colours or NaN"][2]


def test_faults_of_the_images_themselves(folder, tmp_path, capsys):
    rgba = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    rgba[0, 0] = 200, 100, 50, 0
    save(folder / "images/a.png", rgba)
    (folder / "images/b.png").write_bytes((folder / "images/b.png").read_bytes()[:60])
    save(folder / "images/c.png", np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    table, masks, names = repaired(folder, tmp_path / "out", capsys, 1)
    assert {fault: row[0] for fault, row in table.items()} == {
        "image with an alpha channel (RGBA)": 1, "image truncated or damaged": 1, "image of more than 8 bits": 1}
    assert names == ["a.png", "c.png"]
    assert np.array(Image.open(tmp_path / "out/images/a.png"))[0, 0].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(masks["a.png"], disc())


def test_files_side_by_side_with_a_suffix_and_two_masks(tmp_path, capsys):
    folder = tmp_path / "in"
    for name in ("benign (1)", "benign (2)"):
        save(folder / f"{name}.png", np.zeros((HEIGHT, WIDTH), np.uint8))
        save(folder / f"{name}_mask.png", disc())
    save(folder / "benign (2)_mask_1.png", ~disc())
    assert run(folder, "--fix", tmp_path / "out") == 0
    assert "2 pairs" in capsys.readouterr().out
    collection = read_coco(tmp_path / "out/annotations.json", tmp_path / "out")
    assert [[item.area for item in image.objects] for image in collection.images] == [
        [disc().sum()], [disc().sum(), (~disc()).sum()]]


def test_images_may_lie_elsewhere(folder, tmp_path, capsys):
    (folder / "images").rename(tmp_path / "pictures")
    assert run(folder / "masks", "--images", tmp_path / "pictures") == 0
    assert run(folder / "masks", "--images", tmp_path / "nowhere") == 2
    assert "a folder of images was expected, found nothing" in capsys.readouterr().out


def test_options_of_coco_files_are_refused_for_folders(folder, capsys):
    assert run(folder, "--rescale") == 2
    assert "are for COCO files" in capsys.readouterr().out


def test_folder_of_neither_kind_is_said_in_one_sentence(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "a folder images and a folder masks were expected" in capsys.readouterr().out
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "images").mkdir()
    assert run(tmp_path) == 2
    assert "it holds x.json: give that file" in capsys.readouterr().out
