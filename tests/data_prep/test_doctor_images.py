"""Every fault of the images of a COCO file, of their ids and of their sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_doctor import HEIGHT, MASK, WIDTH, base, block, decoded, fixed, place, rle, rows, run

RNG = np.random.default_rng(3)
COLOURS = RNG.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
DEEP = RNG.integers(0, 60_000, (HEIGHT, WIDTH)).astype(np.uint16)
DEEP[0, :2] = 0, 60_000


def over_black(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colour * (alpha[..., None] / 255.0)


def _rgba(path: Path) -> np.ndarray:
    Image.fromarray(COLOURS, "RGBA").save(path)
    return over_black(COLOURS[..., :3], COLOURS[..., 3])


def _grey_alpha(path: Path) -> np.ndarray:
    Image.fromarray(COLOURS[..., :2].copy(), "LA").save(path)
    return over_black(COLOURS[..., :1].repeat(3, axis=2), COLOURS[..., 1])


def _palette(path: Path) -> np.ndarray:
    image = Image.fromarray(COLOURS[..., 0] % 4).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 200])
    image.save(path)
    return np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [9, 9, 200]])[COLOURS[..., 0] % 4]


def _one_bit(path: Path) -> np.ndarray:
    Image.fromarray(MASK).save(path)
    return MASK[..., None].repeat(3, axis=2) * 255


def _deep(path: Path) -> np.ndarray:
    Image.fromarray(DEEP).save(path)
    return (DEEP / 60_000 * 255)[..., None].repeat(3, axis=2)


def _cmyk(path: Path) -> np.ndarray:
    flat = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    flat[:] = 0, 100, 200, 0
    Image.fromarray(flat, "CMYK").save(path, "JPEG", quality=100)
    return np.broadcast_to(np.array([255, 155, 55]), (HEIGHT, WIDTH, 3))


MODES = {
    "rgba": (_rgba, "image with an alpha channel (RGBA)", 1), "grey_alpha":
        (_grey_alpha, "image with an alpha channel (grey)", 1), "palette": (_palette, "palette image", 0),
    "one_bit": (_one_bit, "image of 1 bit", 0), "sixteen_bit": (_deep, "image of more than 8 bits", 1),
    "cmyk": (_cmyk, "CMYK image", 6),
}


@pytest.mark.parametrize("name", MODES)
def test_unusual_colours_are_written_as_rgb(name, tmp_path, capsys, caplog):
    make, fault, tolerance = MODES[name]
    (tmp_path / "in").mkdir()
    truth = make(tmp_path / "in/a.png")
    status, table, repaired = fixed(place(tmp_path / "in", base()), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert table[fault][0] == 1
    assert repaired["images"][0]["file_name"] == "images/a.png"
    with Image.open(tmp_path / "out/images/a.png") as image:
        assert image.mode == "RGB"
        assert np.abs(np.array(image).astype(float) - truth).max() <= tolerance
    assert (tmp_path / "out/images/b.png").read_bytes() == (tmp_path / "in/b.png").read_bytes()
    assert len(repaired["annotations"]) == 3


# EXIF orientation to how an upright picture is stored with it.
STORED = {3: lambda a: a[::-1, ::-1], 6: lambda a: np.rot90(a), 8: lambda a: np.rot90(a, -1)}


def _turned(path: Path, stored: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(stored).save(path, exif=exif)


@pytest.mark.parametrize("orientation", STORED)
def test_exif_turn_is_applied_where_the_record_has_the_upright_size(orientation, tmp_path, capsys, caplog):
    upright = np.ascontiguousarray(COLOURS[..., :3])
    (tmp_path / "in").mkdir()
    _turned(tmp_path / "in/a.png", np.ascontiguousarray(STORED[orientation](upright)), orientation)
    status, table, _ = fixed(place(tmp_path / "in", base()), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert set(table) == {"image turned by an EXIF tag"}
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/images/a.png")), upright)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_turn_is_left_out_where_the_image_was_annotated_as_stored(orientation, tmp_path, capsys, caplog):
    stored = np.ascontiguousarray(COLOURS[..., :3])
    (tmp_path / "in").mkdir()
    _turned(tmp_path / "in/a.png", stored, orientation)
    assert Image.open(tmp_path / "in/a.png").size == (WIDTH, HEIGHT)
    status, table, repaired = fixed(place(tmp_path / "in", base()), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert set(table) == {"width and height of the image before its EXIF turn"}
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "out/images/a.png")), stored)
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), MASK)


def test_two_records_of_a_turned_file_in_two_orientations_are_not_merged(tmp_path, capsys, caplog):
    document = base()
    document["images"].append({"id": 4, "file_name": "a.png", "height": WIDTH, "width": HEIGHT})
    document["annotations"].append({**document["annotations"][0], "id": 4, "image_id": 4,
                                    "segmentation": rle(MASK.T), "bbox": [10, 5, 10, 20]})
    (tmp_path / "in").mkdir()
    _turned(tmp_path / "in/a.png", np.ascontiguousarray(COLOURS[..., :3]), 6)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 1
    assert table["same image listed in two orientations"][0] == 1
    assert [record["id"] for record in repaired["annotations"]] == [1, 2, 3]


def _cut(path: Path) -> None:
    Image.fromarray(COLOURS[..., :3].copy()).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def _frames(path: Path) -> None:
    first, second = Image.new("L", (WIDTH, HEIGHT)), Image.new("L", (WIDTH, HEIGHT), 9)
    first.save(path, "TIFF", save_all=True, append_images=[second])


USELESS = {
    "truncated": (_cut, "image truncated or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "image file of 0 bytes"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
            "image file is a Git-LFS or git-annex pointer"),
    "web_page": (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "image file is no image"),
    "text": (lambda path: path.write_text("hello"), "image file is no image"),
    "frames": (_frames, "image file of several frames"),
    "missing": (lambda path: None, "image file missing"),
}


@pytest.mark.parametrize("name", USELESS)
def test_useless_image_is_set_aside_with_its_annotations(name, tmp_path, capsys, caplog):
    make, fault = USELESS[name]
    source = place(tmp_path / "in", base())
    (tmp_path / "in/a.png").unlink()
    make(tmp_path / "in/a.png")
    status, table, repaired = fixed(source, tmp_path / "out", capsys, caplog)
    assert status == 1
    assert table[fault][0] == 1
    assert [image["file_name"] for image in repaired["images"]] == ["images/b.png", "images/c.png"]
    assert [record["id"] for record in repaired["annotations"]] == [2, 3]
    aside = json.loads((tmp_path / "out/left_out.json").read_text())
    assert [item["record"]["id"] for item in aside["images"]] == [1]
    assert [item["record"]["id"] for item in aside["annotations"]] == [1]


def test_faults_of_annotations_are_found_without_any_image_but_nothing_is_written(tmp_path, capsys):
    document = base()
    document["annotations"][0]["area"] = -5
    path = tmp_path / "alone.json"
    path.write_text(json.dumps(document))
    assert run(path, "--fix", tmp_path / "out") == 1
    output = capsys.readouterr().out
    assert rows(output)["image file missing"][0] == 3
    assert "nothing was written" in output.splitlines()[-1]
    assert not (tmp_path / "out").exists()
    document["annotations"][0]["segmentation"] = [[1, 1]]
    path.write_text(json.dumps(document))
    assert run(path) == 1
    assert rows(capsys.readouterr().out)["polygon of fewer than three points"] == (1, "-", "1 set aside")


@pytest.mark.parametrize(("name", "real", "fault"), [
    ("data/data/a.png", "data/a.png", "image file is not where file_name says"),
    ("D:\\study\\a.png", "a.png", "image file is not where file_name says"),
    ("sub\\a.png", "sub/a.png", "image file is not where file_name says"),
    ("A.PNG", "deep/er/a.png", "image file is not where file_name says"),
    ("a.jpg", "a.png", "image file is not where file_name says"),
])
def test_image_is_found_under_another_path(name, real, fault, tmp_path, capsys, caplog):
    document = base()
    document["images"][0]["file_name"] = name
    source = place(tmp_path / "in", document)
    target = tmp_path / "in" / real
    target.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "in/a.png").rename(target)
    status, table, repaired = fixed(source, tmp_path / "out", capsys, caplog)
    assert (status, set(table), table[fault][0]) == (0, {fault}, 1)
    assert (tmp_path / "out" / repaired["images"][0]["file_name"]).read_bytes() == target.read_bytes()


def test_absolute_path_becomes_relative_and_names_stay_apart(tmp_path, capsys, caplog):
    document = base()
    document["images"][0]["file_name"] = str(tmp_path / "elsewhere/b.png")
    document["images"][2]["file_name"] = "../in/c.png"
    source = place(tmp_path / "in", document)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "in/a.png").rename(tmp_path / "elsewhere/b.png")
    status, table, repaired = fixed(source, tmp_path / "out", capsys, caplog)
    assert status == 0
    assert set(table) == {"file_name that holds on one machine only"}
    assert [image["file_name"] for image in repaired["images"]] == [
        "images/b.png", "images/b_2.png", "images/in/c.png"]
    assert (tmp_path / "out/images/b.png").read_bytes() == (tmp_path / "elsewhere/b.png").read_bytes()


def test_two_files_of_one_name_are_not_guessed(tmp_path, capsys, caplog):
    document = base()
    document["images"][0]["file_name"] = "x/a.png"
    source = place(tmp_path / "in", document)
    for folder in ("y", "z"):
        (tmp_path / "in" / folder).mkdir()
        (tmp_path / "in" / folder / "a.png").write_bytes((tmp_path / "in/a.png").read_bytes())
    (tmp_path / "in/a.png").unlink()
    status, table, _ = fixed(source, tmp_path / "out", capsys, caplog)
    assert status == 1
    assert "several files have this name" in table["image file missing"][2]


def test_folder_of_images_is_found_or_given(tmp_path, capsys, caplog):
    source = place(tmp_path / "in", base())
    (tmp_path / "in/annotations").mkdir()
    (tmp_path / "in/images").mkdir()
    for name in "abc":
        (tmp_path / f"in/{name}.png").rename(tmp_path / f"in/images/{name}.png")
    moved = source.rename(tmp_path / "in/annotations/found.json")
    assert run(moved) == 0
    (tmp_path / "in/images").rename(tmp_path / "far")
    assert run(moved) == 1
    assert run(moved, "--images", tmp_path / "far") == 0


@pytest.mark.parametrize(("size", "scaled"), [((HEIGHT, 77), False), ((WIDTH, HEIGHT), False), (("x", None), None)])
def test_size_that_is_not_the_files_is_set(size, scaled, tmp_path, capsys, caplog):
    document = base()
    document["images"][0].update(height=size[0], width=size[1])
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    fault = "width or height missing or impossible" if scaled is None else "width and height not those of the file"
    assert set(table) == {fault}
    assert (repaired["images"][0]["height"], repaired["images"][0]["width"]) == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), MASK)


def test_polygons_of_a_larger_image_are_scaled_where_they_prove_it(tmp_path, capsys, caplog):
    document = base()
    document["images"][0].update(height=2 * HEIGHT, width=2 * WIDTH)
    document["annotations"][0].update(segmentation=[[60, 20, 100, 20, 100, 60, 60, 60]], bbox=[60, 20, 40, 40],
                                      area=1600)
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert set(table) == {"width and height not those of the file"}
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), block(10, 30, 30, 50))
    assert (repaired["annotations"][0]["bbox"], repaired["annotations"][0]["area"]) == ([30, 10, 20, 20], 400)


@pytest.mark.parametrize(("more", "truth"), [([], block(4, 10, 12, 20)), (["--rescale"], block(2, 5, 6, 10))])
def test_polygons_that_fit_both_sizes_are_scaled_only_on_demand(more, truth, tmp_path, capsys, caplog):
    document = base()
    document["images"][0].update(height=2 * HEIGHT, width=2 * WIDTH)
    document["annotations"][0].update(segmentation=[[10, 4, 20, 4, 20, 12, 10, 12]], bbox=[10, 4, 10, 8], area=80)
    _, _, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog, *more)
    np.testing.assert_array_equal(decoded(repaired["annotations"][0]), truth)


IDS = {
    "text": (["1", "2", "3"], "image id is not a whole number", 3, [1, 2, 3]),
    "names": (["x", "y", "z"], "image id is not a whole number", 3, [1, 2, 3]),
    "negative": ([-4, 5, 6], "image id negative or of more than 63 bits", 1, [1, 2, 3]),
    "huge": ([2**90, 5, 6], "image id negative or of more than 63 bits", 1, [1, 2, 3]),
}


@pytest.mark.parametrize("name", IDS)
def test_image_ids_become_whole_numbers(name, tmp_path, capsys, caplog):
    values, fault, count, expected = IDS[name]
    document = base()
    for image, record, value in zip(document["images"], document["annotations"], values, strict=True):
        image["id"] = record["image_id"] = value
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert (status, table[fault][0]) == (0, count)
    assert [image["id"] for image in repaired["images"]] == expected
    assert [record["image_id"] for record in repaired["annotations"]] == expected
    assert [image.get("source_id") for image in repaired["images"]] == [
        None if value == new else value for value, new in zip(values, expected, strict=True)]


def test_image_id_zero_is_sound(tmp_path, capsys):
    document = base()
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = 0
    assert run(place(tmp_path / "in", document)) == 0


def test_annotations_of_an_id_used_twice_go_where_their_size_fits_or_aside(tmp_path, capsys, caplog):
    document = base()
    document["images"][1]["id"] = 1
    document["images"][1].update(width=30, height=20)
    small = block(2, 3, 8, 9, (20, 30))
    document["annotations"][1].update(image_id=1, segmentation=rle(small), area=36, bbox=[3, 2, 6, 6])
    document["annotations"][2].update(image_id=1, segmentation=[[5, 5, 9, 5, 9, 9]], bbox=[5, 5, 4, 4], area=8)
    (tmp_path / "in").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "in/b.png")
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 1
    assert table["image id used twice"][0] == 1
    assert table["annotation of an image id used twice"][0] == 1
    assert [image["id"] for image in repaired["images"]] == [1, 2, 3]
    assert [image.get("set_aside") for image in repaired["images"]] == [1, 1, None]
    assert [(record["id"], record["image_id"]) for record in repaired["annotations"]] == [(1, 1), (2, 2)]


def test_image_without_id_gets_one(tmp_path, capsys, caplog):
    document = base()
    del document["images"][2]["id"]
    document["annotations"].pop()
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert (status, table["image without a usable id"][0]) == (0, 1)
    assert [image["id"] for image in repaired["images"]] == [1, 2, 3]
    assert [record["image_id"] for record in repaired["annotations"]] == [1, 2]


@pytest.mark.parametrize("same_id", [True, False])
def test_image_listed_twice_is_merged_and_double_objects_are_kept_once(same_id, tmp_path, capsys, caplog):
    document = base()
    twin = {**document["images"][0], "id": 1 if same_id else 9, "file_name": "../in/a.png"}
    document["images"].append(twin)
    document["annotations"].append({**document["annotations"][0], "id": 4, "image_id": twin["id"]})
    other = block(1, 1, 6, 6)
    document["annotations"].append({**document["annotations"][0], "id": 5, "image_id": twin["id"],
                                    "segmentation": rle(other), "area": 25, "bbox": [1, 1, 5, 5]})
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert status == 0
    assert table["same image listed twice"][0] == table["same object listed twice"][0] == 1
    assert [image["id"] for image in repaired["images"]] == [1, 2, 3]
    assert [record["id"] for record in repaired["annotations"]] == [1, 2, 3, 5]
    assert [record["image_id"] for record in repaired["annotations"]] == [1, 2, 3, 1]


def test_image_without_name_is_set_aside(tmp_path, capsys, caplog):
    document = base()
    document["images"][0]["file_name"] = None
    status, table, repaired = fixed(place(tmp_path / "in", document), tmp_path / "out", capsys, caplog)
    assert (status, table["image without file_name"][0]) == (1, 1)
    assert len(repaired["images"]) == len(repaired["annotations"]) == 2
