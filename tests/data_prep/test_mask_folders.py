"""A user's own folders of images and masks: to COCO, back, and back again."""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from data_prep.folders.command import add_parser
from data_prep.folders.labels import parse_colours, parse_labels
from ultrasam.errors import ConfigError, DataError, UltraSamError

SPLITS = ("train", "val", "test")


def run(*arguments: object) -> int:
    """Run the command as the command line does."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(required=True))
    options = parser.parse_args([*map(str, arguments)])
    try:
        return options.run(options) or 0
    except UltraSamError as error:
        print(f"error: {error}")
        return 2


def from_masks(images: Path, masks: Path, root: Path, *more: object) -> int:
    return run("from-masks", images, masks, "--out", root, "--slug", "own", "--workers", 1, *more)


def save(path: Path, values: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)


def load(root: Path) -> dict[str, dict]:
    """The COCO documents by split."""
    paths = {split: root / f"own/annotations/{split}.own.json" for split in SPLITS}
    return {split: json.loads(path.read_text()) for split, path in paths.items() if path.exists()}


def objects(document: dict, key=lambda image: Path(image["file_name"]).stem) -> dict[str, Counter]:
    """Image to its objects: category, pixels, box and area, each with how often."""
    names = {record["id"]: record["name"] for record in document["categories"]}
    images = {image["id"]: key(image) for image in document["images"]}
    found: dict[str, Counter] = {name: Counter() for name in images.values()}
    for item in document["annotations"]:
        rle = item["segmentation"]
        found[images[item["image_id"]]][
            names[item["category_id"]], tuple(rle["size"]), rle["counts"], tuple(item["bbox"]), item["area"]] += 1
    return found


def all_objects(root: Path) -> dict[str, Counter]:
    return {name: found for document in load(root).values() for name, found in objects(document).items()}


def decoded(root: Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Image to (category, mask) of its objects in their order."""
    found: dict[str, list] = defaultdict(list)
    for document in load(root).values():
        names = {record["id"]: record["name"] for record in document["categories"]}
        images = {image["id"]: Path(image["file_name"]).stem for image in document["images"]}
        for item in document["annotations"]:
            found[images[item["image_id"]]].append(
                (names[item["category_id"]], coco_mask.decode(item["segmentation"]).astype(bool)))
    return found


def coco(masks: list[list[tuple[int, np.ndarray]]], shape: tuple[int, int]) -> dict:
    """A document of (category id, mask) lists, one per image."""
    annotations = []
    for image_id, found in enumerate(masks, start=1):
        for category, mask in found:
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            box = [float(value) for value in coco_mask.toBbox(rle)]
            annotations.append({
                "id": len(annotations) + 1, "image_id": image_id, "category_id": category, "iscrowd": 0, "bbox": box,
                "area": int(mask.sum()), "segmentation": {"size": list(shape), "counts": rle["counts"].decode()}})
    return {
        "images": [{"id": number, "file_name": f"pictures/case {number}.png", "height": shape[0], "width": shape[1]}
                   for number in range(1, len(masks) + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "liver"}, {"id": 2, "name": "mass, large"}],
    }


def write(folder: Path, document: dict) -> tuple[Path, Path]:
    """Write a document and images of its sizes."""
    for image in document["images"]:
        save(folder / image["file_name"], np.zeros((image["height"], image["width"]), np.uint8))
    path = folder / "coco.json"
    path.write_text(json.dumps(document))
    return path, folder / "pictures"


def block(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = (20, 30)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


BITS = st.integers(0, 2**30 - 1)
SHAPE = (5, 6)


def pattern(bits: int) -> np.ndarray:
    return np.array([bits >> place & 1 for place in range(30)], bool).reshape(SHAPE)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.tuples(st.sampled_from([1, 2]), BITS.filter(bool).map(pattern)), max_size=4),
                min_size=1, max_size=2))
def test_round_trip_of_instances_is_exact(masks):
    # Objects of any form, that touch, overlap, and consist of several parts.
    document = coco(masks, SHAPE)
    with tempfile.TemporaryDirectory() as name:
        path, images = write(Path(name) / "in", document)
        assert run("to-masks", path, Path(name) / "masks", "--kind", "instance") == 0
        labels = ["--labels", Path(name) / "masks/ids.csv"] if any(masks) else []
        assert from_masks(images, Path(name) / "masks", Path(name) / "out", "--suffix", "_mask",
                          "--instances", "values", *labels) == 0
        truth = objects(document, lambda image: Path(image["file_name"]).stem.replace(" ", "_"))
        assert all_objects(Path(name) / "out") == truth


def regions(mask: np.ndarray) -> list[np.ndarray]:
    """The 8-connected regions, by flooding pixel by pixel."""
    left, found = mask.copy(), []
    while left.any():
        region, front = np.zeros_like(mask), [tuple(np.argwhere(left)[0])]
        while front:
            y, x = front.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                front += [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        found.append(region)
    return found


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.tuples(BITS, BITS), min_size=1, max_size=2))
def test_round_trip_of_labels_is_exact(pairs):
    masks = [[(category, region) for category, bits in zip((1, 2), pair, strict=True)
              for region in regions(pattern(bits))] for pair in pairs]
    document = coco(masks, SHAPE)
    # The text of --labels has no commas in names.
    document["categories"][1]["name"] = "mass"
    with tempfile.TemporaryDirectory() as name:
        path, images = write(Path(name) / "in", document)
        assert run("to-masks", path, Path(name) / "masks") == 0
        assert from_masks(images, Path(name) / "masks", Path(name) / "out", "--suffix", "_mask",
                          "--labels", "1=liver,2=mass") == 0
        truth = objects(document, lambda image: Path(image["file_name"]).stem.replace(" ", "_"))
        assert all_objects(Path(name) / "out") == truth
        for written in load(Path(name) / "out").values():
            assert written["categories"] == document["categories"]


def test_files_and_table_of_to_masks(tmp_path, capsys):
    first, second, third = block(0, 0, 10, 10), block(5, 5, 15, 15), block(16, 16, 18, 18)
    path, _ = write(tmp_path / "in", coco([[(2, first), (1, second), (2, third)], []], (20, 30)))
    for kind, values in (("label", (2, 1, 2)), ("instance", (1, 2, 3)), ("binary", (255, 255, 255))):
        out = tmp_path / kind
        assert run("to-masks", path, out, "--kind", kind) == 0
        files = {file.name: np.array(Image.open(file)) for file in out.glob("*.png")}
        base = np.zeros((20, 30), np.uint8)
        expected = base.copy()
        for mask, value in zip((first, second, third), values, strict=True):
            if kind == "binary" or mask is not second:
                expected[mask] = value
        np.testing.assert_array_equal(files.pop("case 1_mask.png"), expected)
        np.testing.assert_array_equal(files.pop("case 2_mask.png"), base)
        if kind != "binary":
            np.testing.assert_array_equal(files.pop("case 1_mask_1.png"), np.where(second, values[1], 0))
        assert not files
        with (out / "ids.csv").open(newline="") as stream:
            table = list(csv.DictReader(stream))
        assert sorted((row["annotation_id"], row["value"], row["category"], row["area"]) for row in table) == [
            ("1", str(values[0]), "mass, large", "100"), ("2", str(values[1]), "liver", "100"),
            ("3", str(values[2]), "mass, large", "4")]
        assert {row["image_file"] for row in table} == {"pictures/case 1.png"}
    assert "2 images" in capsys.readouterr().out


def test_more_than_255_objects_need_16_bits(tmp_path):
    masks = [block(y, x, y + 1, x + 1) for y in range(20) for x in range(15)]
    path, images = write(tmp_path / "in", coco([[(1, mask) for mask in masks]], (20, 30)))
    assert run("to-masks", path, tmp_path / "masks", "--kind", "instance") == 0
    with Image.open(tmp_path / "masks/case 1_mask.png") as image:
        assert image.mode == "I;16"
        assert np.array(image).max() == 300
    assert from_masks(images, tmp_path / "masks", tmp_path / "out", "--suffix", "_mask", "--instances", "values") == 0
    assert [mask.sum() for _, mask in decoded(tmp_path / "out")["case_1"]] == [1] * 300


def test_to_masks_refuses_what_cannot_be_written(tmp_path, capsys):
    document = coco([[(1, block(0, 0, 9, 9)), (2, block(5, 5, 12, 12))], []], (20, 30))
    path, _ = write(tmp_path / "in", document)
    assert run("to-masks", path, tmp_path / "out", "--suffix", "") == 2
    assert "--suffix _mask" in capsys.readouterr().out
    document["images"][1]["file_name"] = "pictures/Case 1.jpg"
    path.write_text(json.dumps(document))
    assert run("to-masks", path, tmp_path / "out") == 2
    assert "whose masks would be one file" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in"]


def test_names_stay_below_the_folder(tmp_path):
    document = coco([[(1, block(0, 0, 9, 9))], []], (20, 30))
    document["images"][0]["file_name"] = "../../x/a.b/c.png"
    document["images"][1]["file_name"] = "x\\d.png"
    (tmp_path / "coco.json").write_text(json.dumps(document))
    assert run("to-masks", tmp_path / "coco.json", tmp_path / "out") == 0
    assert sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.png")) == [
        "a.b/c_mask.png", "d_mask.png"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Ten images of five patients in folders, with one square each; some names have blanks."""
    for number in range(10):
        name = f"p{number // 2}/scan {number}"
        save(tmp_path / f"study/images/{name}.png", np.full((20, 30), 20 * number, np.uint8))
        save(tmp_path / f"study/masks/{name}.png", np.where(block(2, 3, 8, 9 + number), 255, 0).astype(np.uint8))
    return tmp_path / "study/images", tmp_path / "study/masks"


def test_two_valued_masks_and_their_images(folders, tmp_path):
    assert from_masks(*folders, tmp_path / "out") == 0
    found = decoded(tmp_path / "out")
    assert len(found) == 10
    for number in range(10):
        ((name, mask),) = found[f"p{number // 2}__scan_{number}"]
        assert name == "object"
        np.testing.assert_array_equal(mask, block(2, 3, 8, 9 + number))
        copied = tmp_path / f"out/own/images/p{number // 2}__scan_{number}.png"
        assert copied.read_bytes() == (folders[0] / f"p{number // 2}/scan {number}.png").read_bytes()
    manifest = json.loads((tmp_path / "out/own/manifest.json").read_text())
    assert manifest["counts"]["unused_files"] == 0
    assert {path.name for path in (tmp_path / "out/own").iterdir()} == {"images", "annotations", "manifest.json"}


def test_groups_are_never_divided_and_fractions_are_kept(folders, tmp_path, capsys):
    assert from_masks(*folders, tmp_path / "out", "--groups", r"^(p\d)/", "--val-fraction", 0.2,
                      "--test-fraction", 0.4, "--seed", 3) == 0
    assert "group of its own" not in capsys.readouterr().out
    documents = load(tmp_path / "out")
    assert {split: len(document["images"]) for split, document in documents.items()} == {
        "train": 4, "val": 2, "test": 4}
    groups = [{image["group"] for image in document["images"]} for document in documents.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 5
    for document in documents.values():
        assert all(image["group"] == f"own/{Path(image['file_name']).name[:2]}" for image in document["images"])


def test_training_keeps_a_group(folders, tmp_path):
    assert from_masks(*folders, tmp_path / "out", "--groups", "scan", "--test-fraction", 0.9, "--val-fraction", 0) == 0
    assert set(load(tmp_path / "out")) == {"train"}


@pytest.mark.parametrize(("more", "words"), [
    (["--groups", "q(.)"], "a group was expected in 'p0/scan 0'"), (["--groups", "("], "a regular expression"),
    (["--test-fraction", 0.6, "--val-fraction", 0.4], "below 1 together"), (["--val-fraction", -1], "0 or more each"),
    (["--threshold", 300], "from 0 to 254"), (["--min-area", 0], "at least 1 pixel"),
    (["--threshold", 9, "--instances", "values"], "choose components or single"),
    (["--labels", "0=x"], "0 is background"), (["--labels", "1=x,1=y"], "given twice"),
    (["--colours", "1,2=x"], "red,green,blue=name"), (["--labels", "nowhere.csv"], "the ids.csv that to-masks wrote"),
    (["--slug", "bus_bra"], "public set"), (["--slug", "A b"], "lower-case"),
])
def test_impossible_choices_are_refused(folders, tmp_path, capsys, more, words):
    assert from_masks(*folders, tmp_path / "out", *more) == 2
    assert words in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_slug_comes_from_the_folder_of_both(folders, tmp_path):
    assert run("from-masks", *folders, "--out", tmp_path / "out", "--workers", 1) == 0
    assert (tmp_path / "out/study/manifest.json").is_file()


def test_folders_far_apart_and_archives_beside_them(folders, tmp_path):
    # What else lies in the folder of both is no part of the data.
    (tmp_path / "study/old.zip").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "elsewhere").mkdir()
    folders[1].rename(tmp_path / "elsewhere/labels")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 broken")
    assert from_masks(folders[0], tmp_path / "elsewhere/labels", tmp_path / "out") == 0
    assert len(decoded(tmp_path / "out")) == 10


def test_files_without_partner_are_named(folders, tmp_path, capsys):
    (folders[1] / "p0/scan 1.png").unlink()
    save(folders[1] / "p9/x.png", block(0, 0, 2, 2))
    save(folders[0] / "p2/scan 4.jpg", np.zeros((20, 30), np.uint8))
    assert from_masks(*folders, tmp_path / "out") == 2
    message = capsys.readouterr().out
    for words in ("1 images have no mask", "scan 1.png", "1 masks have no image", "p9/x.png",
                  "1 names stand for several files", "scan 4.jpg"):
        assert words in message
    assert not (tmp_path / "out").exists()


def test_suffix_is_suggested_and_used_also_in_one_folder(tmp_path, capsys):
    folder = tmp_path / "busi like"
    for number in (1, 2):
        save(folder / f"benign ({number}).png", np.zeros((20, 30), np.uint8))
        save(folder / f"benign ({number})_mask.png", block(1, 1, 5, 5))
    save(folder / "benign (2)_mask_1.png", block(8, 8, 11, 11))
    assert from_masks(folder, folder, tmp_path / "out") == 2
    assert "--suffix _mask" in capsys.readouterr().out
    assert from_masks(folder, folder, tmp_path / "out", "--suffix", "_mask") == 0
    found = decoded(tmp_path / "out")
    assert [mask.sum() for _, mask in found["benign__1_"]] == [16]
    assert [mask.sum() for _, mask in found["benign__2_"]] == [16, 9]
    (tmp_path / "masks").mkdir()
    for path in folder.glob("*_mask*.png"):
        path.rename(tmp_path / "masks" / path.name)
    assert from_masks(folder, tmp_path / "masks", tmp_path / "out") == 2
    assert "the names of masks seem to end in _mask: pass --suffix _mask" in capsys.readouterr().out


def test_names_that_become_one_stay_apart(tmp_path):
    for name in ("a b", "a_b", "A-b"):
        save(tmp_path / f"images/{name}.png", np.zeros((20, 30), np.uint8))
        save(tmp_path / f"masks/{name}.png", block(0, 0, 2, 2 + len(name.replace(" ", "xx"))))
    assert from_masks(tmp_path / "images", tmp_path / "masks", tmp_path / "out") == 0
    found = decoded(tmp_path / "out")
    assert len(found) == 3
    assert "A-b" in found


LABELLED = np.zeros((20, 30), np.uint8)
LABELLED[1:5, 1:5] = 1
LABELLED[1:5, 5:9] = 2
LABELLED[10:14, 1:5] = 1
LABELLED[10:12, 20:22] = 1


def labelled(tmp_path: Path, values: np.ndarray, name: str = "a.png", **options: object) -> tuple[Path, Path]:
    save(tmp_path / "images/a.png", np.zeros((20, 30), np.uint8))
    save(tmp_path / f"masks/{name}", values, **options)
    return tmp_path / "images", tmp_path / "masks"


@pytest.mark.parametrize(("instances", "areas"), [
    ("components", [("liver", 16), ("liver", 16), ("liver", 4), ("mass", 16)]),
    ("single", [("liver", 36), ("mass", 16)]), ("values", [("liver", 36), ("mass", 16)]),
])
def test_labels(tmp_path, instances, areas):
    folders = labelled(tmp_path, LABELLED)
    assert from_masks(*folders, tmp_path / "out", "--labels", "1=liver,2=mass", "--instances", instances) == 0
    assert [(name, mask.sum()) for name, mask in decoded(tmp_path / "out")["a"]] == areas


def test_two_values_of_one_category(tmp_path):
    folders = labelled(tmp_path, LABELLED)
    for instances, areas in (("components", [32, 16, 4]), ("single", [52]), ("values", [36, 16])):
        assert from_masks(*folders, tmp_path / "out", "--labels", "1=liver,2=liver", "--instances", instances) == 0
        assert [mask.sum() for _, mask in decoded(tmp_path / "out")["a"]] == areas


def test_small_regions_are_dropped_and_counted(tmp_path, capsys):
    folders = labelled(tmp_path, LABELLED)
    assert from_masks(*folders, tmp_path / "out", "--labels", "1=liver,2=mass", "--min-area", 5) == 0
    assert "1 regions of fewer than 5 pixels were dropped" in capsys.readouterr().out
    assert [mask.sum() for _, mask in decoded(tmp_path / "out")["a"]] == [16, 16, 16]


def test_values_of_a_palette_file_are_its_indices(tmp_path):
    folders = labelled(tmp_path, LABELLED)
    image = Image.fromarray(LABELLED, "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "masks/a.png")
    assert from_masks(*folders, tmp_path / "out", "--labels", "1=liver,2=mass", "--instances", "single") == 0
    assert [(name, mask.sum()) for name, mask in decoded(tmp_path / "out")["a"]] == [("liver", 36), ("mass", 16)]


def test_unknown_values_and_colours_stop_the_set(tmp_path, capfd):
    folders = labelled(tmp_path, LABELLED)
    for more, words in ((["--labels", "1=liver"], "found also [2]"), ([], "a two-valued mask"),
                        (["--colours", "1,1,1=x"], "(2, 2, 2)")):
        assert from_masks(*folders, tmp_path / "out", *more) == 2
        printed = "".join(capfd.readouterr())
        assert words in printed
        assert str(tmp_path / "masks/a.png") in printed
        assert not (tmp_path / "out").exists()


def test_colours(tmp_path):
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    folders = labelled(tmp_path, table[LABELLED])
    for suffix in ("png", "jpg"):
        if suffix == "jpg":
            (tmp_path / "masks/a.png").unlink()
            large = table[LABELLED].repeat(8, axis=0).repeat(8, axis=1)
            save(tmp_path / "masks/a.jpg", large, quality=95, subsampling=0)
            save(tmp_path / "images/a.png", large[..., 0])
        assert from_masks(*folders, tmp_path / "out", "--colours", "255,0,0=liver,0,255,0=mass",
                          "--instances", "single") == 0
        found = decoded(tmp_path / "out")["a"]
        truth = [LABELLED == 1, LABELLED == 2]
        if suffix == "jpg":
            truth = [mask.repeat(8, axis=0).repeat(8, axis=1) for mask in truth]
        assert [name for name, _ in found] == ["liver", "mass"]
        for (_, mask), expected in zip(found, truth, strict=True):
            assert (mask ^ expected).sum() <= (0 if suffix == "png" else 0.02 * expected.sum())


def test_jpeg_masks_need_a_threshold(tmp_path, capsys):
    square = block(20, 20, 60, 60, (80, 90))
    save(tmp_path / "images/a.png", np.zeros((80, 90), np.uint8))
    save(tmp_path / "masks/a.jpg", np.where(square, 255, 0).astype(np.uint8), quality=50)
    folders = tmp_path / "images", tmp_path / "masks"
    assert from_masks(*folders, tmp_path / "out") == 2
    assert "--threshold 127" in capsys.readouterr().out
    assert from_masks(*folders, tmp_path / "out", "--threshold", 127) == 0
    ((_, mask),) = decoded(tmp_path / "out")["a"]
    assert (mask ^ square).sum() <= 4
    assert from_masks(*folders, tmp_path / "out", "--labels", "255=cyst") == 0
    ((name, mask),) = decoded(tmp_path / "out")["a"]
    assert (name, bool((mask ^ square).sum() <= 4)) == ("cyst", True)
    assert from_masks(*folders, tmp_path / "out", "--labels", "1=cyst,2=x") == 2


def test_image_keeps_its_black_surround(tmp_path):
    # Public sets are cropped where most of the image is black; a user's masks must go back onto the same pixels.
    picture = np.zeros((100, 100), np.uint8)
    picture[40:60, 40:60] = 200
    save(tmp_path / "images/a.png", picture)
    save(tmp_path / "masks/a.png", block(45, 45, 50, 50, (100, 100)))
    assert from_masks(tmp_path / "images", tmp_path / "masks", tmp_path / "out") == 0
    (document,) = load(tmp_path / "out").values()
    assert (document["images"][0]["height"], document["images"][0]["width"]) == (100, 100)


def test_labels_and_colours_as_text():
    assert parse_labels("1=liver, 20 = large mass").everywhere == {1: "liver", 20: "large mass"}
    assert parse_labels("2=b,1=a,3=b").categories == ("b", "a")
    assert parse_colours("255,0,0=liver,0, 255 ,0=large mass") == {"liver": (255, 0, 0), "large mass": (0, 255, 0)}
    for text in ("", "1", "1=", "=a", "1=a,", "-1=a", "70000=a", "x=a"):
        with pytest.raises(ConfigError, match="--labels"):
            parse_labels(text)
    for text in ("", "1,2,3", "1,2,3=", "1,2,3=a,", "1,2,256=a", "1,2,3=a,1,2,3=b", "1,2,3=a,1,2,4=a", "a"):
        with pytest.raises(ConfigError, match="--colours"):
            parse_colours(text)


def test_table_of_binary_masks_is_no_list_of_labels(tmp_path):
    path, _ = write(tmp_path / "in", coco([[(1, block(0, 0, 2, 2)), (2, block(5, 5, 8, 8))]], (20, 30)))
    assert run("to-masks", path, tmp_path / "masks", "--kind", "binary") == 0
    with pytest.raises(DataError, match="binary masks hold no categories"):
        parse_labels(str(tmp_path / "masks/ids.csv"))
