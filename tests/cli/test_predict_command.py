"""``ultrasam predict`` with a small network of random weights: what it writes, says, refuses and returns."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pydicom.data import get_testdata_file

from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.cli.main import main
from ultrasam.cli.predict_results import stems_of
from ultrasam.inference.model import UltraSam
from ultrasam.io.images import read_image, write_png
from ultrasam.io.scan import open_scan
from ultrasam.modeling.build import build_sam

CINE = get_testdata_file("examples_ybr_color.dcm", download=False)
BOX = "20,15,80,60"


def picture(seed: int = 0, height: int = 90, width: int = 120) -> np.ndarray:
    """Return an image that is bright everywhere, so that its field of view is the whole."""
    return np.random.default_rng(seed).integers(60, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 128, {})
    # A random network says nothing of a mask's sign; this one calls about half of the pixels object.
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    card = {"name": "tiny", "architecture": "vit_tiny", "mlp_residual": "single", "passes": ["single"],
            "mask_prompt": False, "preprocessing": sam.preprocessing.to_dict()}  # fmt: skip
    save_checkpoint(path, sam.state_dict(), card)
    return path


@pytest.fixture
def predict(weights, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; return its status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        status = main(["predict", *map(str, arguments), "--weights", str(weights), "--device", "cpu"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def expected(weights, path, frame=0, **prompt):
    session = UltraSam.from_checkpoint(weights, "cpu").open(path, frame=frame)
    return session.predict(**prompt)


def test_a_box_in_an_image(predict, weights, tmp_path):
    write_png(tmp_path / "scän (1).png", picture())
    status, out, err = predict("scän (1).png", "--box", BOX)
    assert (status, err) == (0, "")
    assert names(tmp_path / "predictions") == [
        "scän (1).json", "scän (1)_labels.png", "scän (1)_mask_1.png", "scän (1)_measures.csv", "scän (1)_overlay.png"]
    wanted = expected(weights, tmp_path / "scän (1).png", box=[20, 15, 80, 60])
    assert 0 < wanted.masks[0].sum() < wanted.masks[0].size
    with Image.open(tmp_path / "predictions" / "scän (1)_labels.png") as image:
        np.testing.assert_array_equal(np.asarray(image), wanted.masks[0])
    mask = np.asarray(Image.open(tmp_path / "predictions" / "scän (1)_mask_1.png"))
    np.testing.assert_array_equal(mask, wanted.masks[0] * np.uint8(255))
    coco = COCO(tmp_path / "predictions" / "scän (1).json")
    np.testing.assert_array_equal(coco.annToMask(coco.anns[1]), wanted.masks[0])
    assert coco.anns[1]["score"] == pytest.approx(float(wanted.scores[0]), abs=1e-5)
    assert coco.anns[1]["prompt"] == {"box": [20, 15, 80, 60]} and coco.dataset["info"]["model"] == "tiny"
    last = out.strip().splitlines()[-1]
    assert last == "wrote 1 mask to predictions (5 files)"
    assert f"object 1: {wanted.masks[0].sum()} pixels, score" in out


def test_objects_are_told_apart(predict, weights, tmp_path):
    write_png(tmp_path / "a.png", picture())
    status, _, err = predict("a.png", "--object", "--box", BOX, "--point", "30,30", "--point", "70,20:neg", "--object",
                             "--point", "100,80", "--out", "o", "--name", "lesion")  # fmt: skip
    assert (status, err) == (0, "")
    first = expected(weights, "a.png", box=[20, 15, 80, 60], points=[[30, 30], [70, 20]], labels=[1, 0])
    second = expected(weights, "a.png", points=[[100, 80]])
    for number, wanted in ((1, first), (2, second)):
        mask = np.asarray(Image.open(tmp_path / "o" / f"a_mask_{number}.png")) > 0
        np.testing.assert_array_equal(mask, wanted.masks[0])
    with (tmp_path / "o" / "a_measures.csv").open(encoding="utf-8") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["lesion", "lesion"]
    status, _, err = predict("a.png", "--box", BOX, "--box", "50,40,110,85", "--out", "two")
    assert (status, err) == (0, "") and "a_mask_2.png" in names(tmp_path / "two")
    # The objects overlap somewhere; label maps show the smaller one there, which is said.
    masks = [np.asarray(Image.open(tmp_path / "two" / f"a_mask_{number}.png")) > 0 for number in (1, 2)]
    labels = np.asarray(Image.open(tmp_path / "two" / "a_labels.png"))
    shared, small = masks[0] & masks[1], 1 + int(masks[1].sum() <= masks[0].sum())
    assert (labels[shared] == small).all()


@pytest.mark.parametrize(("arguments", "words"), [
    (["--point", "10"], "--point is X,Y or X,Y:neg.*found '10'"),
    (["--point", "10,20:maybe"], "with :neg"),
    (["--box", "1,2,3"], "--box is X1,Y1,X2,Y2.*found '1,2,3'"),
    (["--box", "80,15,20,60"], "a.png: the box .* is reversed"),
    (["--box", "0.1,0.1,0.5,0.5"], "lies between 0 and 1"),
    (["--point", "500,20"], r"\(500, 20\), is not in the image of 120 x 90"),
    (["--point", "5,20:neg"], "all points are negative"),
    ([], "found neither"),
    (["--box", BOX, "--prompts", "p.csv"], "found both"),
    (["--box", BOX, "--box", BOX, "--point", "3,3"], "start every object with --object"),
    (["--box", BOX, "--object", "--point", "3,3"], "--box stands before the first --object"),
    (["--object", "--object", "--point", "3,3"], "--object number 1 has no"),
    (["--object", "--box", BOX, "--box", BOX], "one --box an --object"),
    (["--box", BOX, "--frame", "1"], "a.png has the frames 0 to 0, found prompts for frame 1"),
    (["--box", BOX, "--frame", "-1"], "--frame counts from 0"),
    (["--box", BOX, "--frames", "5:2"], "--frames is A:B"),
    (["--box", BOX, "--frames", "0:2", "--frame", "1"], "not both"),
    (["--box", BOX, "--format", "png,jpg"], "--format is a list of"),
    (["--box", BOX, "--format", "seg"], "a.png is no DICOM file"),
    (["--box", BOX, "--propagate"], "a.png has one frame"),
    (["--box", BOX, "--propagate", "--crop"], "leave out --crop"),
    (["--box", BOX, "--prompt-images", "x.json"], "goes with --prompts"),
    (["--prompts", "no.csv"], "no.csv does not exist"),
    (["--box", BOX, "--spacing", "0.1,0"], "--spacing is ROWS or ROWS,COLUMNS in mm"),
])  # fmt: skip
def test_what_is_refused(predict, tmp_path, arguments, words):
    write_png(tmp_path / "a.png", picture())
    status, _, err = predict("a.png", *arguments)
    assert status == 2
    first = err.splitlines()[0]
    assert first.startswith("error: ")
    assert re.search(words, first)
    assert not (tmp_path / "predictions").exists()


def test_no_scan_and_no_weights(predict, tmp_path, capsys):
    assert predict("no.png", "--box", BOX)[2] == "error: no.png does not exist; check the path\n"
    write_png(tmp_path / "a.png", picture())
    assert main(["predict", "a.png", "--box", BOX, "--weights", "no.pth"]) == 2
    assert "'no.pth' is neither an existing file" in capsys.readouterr().err


def test_results_are_not_overwritten_unasked(predict, tmp_path):
    write_png(tmp_path / "a.png", picture())
    assert predict("a.png", "--box", BOX, "--box", "50,40,110,85")[0] == 0
    before = {path: path.read_bytes() for path in (tmp_path / "predictions").iterdir()}
    status, _, err = predict("a.png", "--point", "30,30")
    assert status == 2 and "exists; give --overwrite" in err
    status, _, err = predict("a.png", "--point", "30,30", "--format", "png")
    assert status == 2 and "a_labels.png" in err and "exists" in err
    assert {path: path.read_bytes() for path in (tmp_path / "predictions").iterdir()} == before
    status, _, err = predict("a.png", "--point", "30,30", "--overwrite")
    assert (status, err) == (0, "") and "a_mask_2.png" not in names(tmp_path / "predictions")
    assert predict("a.png", "--point", "30,30", "--out", "other")[0] == 0


def test_a_folder_with_a_table(predict, weights, tmp_path):
    folder = tmp_path / "scans"
    for name, seed in (("a.png", 0), ("sub/b (2).png", 1), ("idle.png", 2)):
        write_png(folder / name, picture(seed))
    (folder / "broken.png").write_bytes(b"")
    (folder / "page.png").write_bytes(b"<html>Sign in</html>")
    (tmp_path / "p.csv").write_text(
        "file,object,x,y,label,x1,y1,x2,y2,name\na.png,1,,,,20,15,80,60,cyst\nsub/b (2).png,1,30,30,1,,,,,\n"
        "sub/b (2).png,1,70,20,0,,,,,\nsub/b (2).png,2,100,80,1,,,,,\nbroken.png,1,1,1,1,,,,,\npage.png,1,1,1,,,,,,\n"
        "missing.png,1,1,1,1,,,,,\n", encoding="utf-8")  # fmt: skip
    status, out, err = predict("scans/", "--prompts", "p.csv", "--out", "o")
    assert status == 2  # three failures
    lines = err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert "none of the scans is 'missing.png'" in lines[0]
    assert "broken.png is empty" in lines[1] and "page.png is a web page" in lines[2]
    assert "1 of 5 scans have no prompt in p.csv and are left out: idle.png" in out
    assert out.strip().splitlines()[-1].startswith("wrote 3 masks of 2 of 5 scans to o (")
    assert out.strip().splitlines()[-1].endswith("; 3 errors, see above")
    assert {"predictions.json", "measures.csv", "a_labels.png", "sub/b (2)_mask_2.png"} <= set(names(tmp_path / "o"))
    coco = COCO(tmp_path / "o" / "predictions.json")
    assert [image["file_name"] for image in coco.dataset["images"]] == ["a.png", "sub/b (2).png"]
    wanted = expected(weights, folder / "sub/b (2).png", points=[[30, 30], [70, 20]], labels=[1, 0])
    np.testing.assert_array_equal(coco.annToMask(coco.anns[2]), wanted.masks[0])
    assert {category["name"] for category in coco.dataset["categories"]} == {"cyst", "object"}
    # Its own JSON gives the boxes for another run.
    status, _, err = predict("scans", "--prompts", "o/predictions.json", "--out", "again", "--format", "csv")
    assert (status, err) == (0, "") and names(tmp_path / "again") == ["measures.csv"]


def test_boxes_of_a_detector(predict, tmp_path):
    write_png(tmp_path / "a.png", picture())
    document = {"images": [{"id": 3, "file_name": "a.png", "width": 120, "height": 90}], "annotations": [
        {"image_id": 3, "bbox": [20, 15, 60, 45], "score": 0.9}, {"image_id": 3, "bbox": [1, 1, 9, 9], "score": 0.1}]}
    (tmp_path / "boxes.json").write_text(json.dumps(document), encoding="utf-8")
    status, out, err = predict("a.png", "--prompts", "boxes.json", "--min-score", "0.5", "--format", "coco")
    assert (status, err) == (0, "") and "1 boxes have a score below 0.5 and are left out" in out
    assert len(COCO(tmp_path / "predictions" / "a.json").anns) == 1
    status, _, err = predict("a.png", "--prompts", "boxes.json", "--min-score", "0.95", "--out", "none")
    assert status == 2 and "nothing was written" in err and not (tmp_path / "none").exists()


def test_frames_of_a_dicom_cine(predict, weights, tmp_path):
    scan = open_scan(CINE)
    status, out, err = predict(CINE, "--box", "100,60,220,160", "--frames", "12:14", "--format", "png,nifti,seg,csv",
                               "--no-clip", "--out", "o")  # fmt: skip
    assert (status, err) == (0, "")
    stem = "examples_ybr_color"
    assert names(tmp_path / "o") == sorted([
        f"{stem}_measures.csv", f"{stem}_labels.nii.gz", f"{stem}_seg.dcm",
        *(f"{stem}_{frame}_{end}.png" for frame in ("0012", "0013") for end in ("labels", "overlay", "mask_1"))])
    mask = np.asarray(Image.open(tmp_path / "o" / f"{stem}_0013_mask_1.png")) > 0
    session = UltraSam.from_checkpoint(weights, "cpu").open(CINE, frame=13, clip=False)
    np.testing.assert_array_equal(mask, session.predict(box=[100, 60, 220, 160]).masks[0])
    volume = nibabel.load(tmp_path / "o" / f"{stem}_labels.nii.gz")
    assert volume.shape == (320, 240, 30)
    np.testing.assert_array_equal(np.asarray(volume.dataobj)[:, :, 13].T > 0, mask)
    assert not np.asarray(volume.dataobj)[:, :, [0, 11, 14]].any()
    seg = highdicom.seg.segread(tmp_path / "o" / f"{stem}_seg.dcm")
    uid = pydicom.dcmread(CINE, stop_before_pixels=True).SOPInstanceUID
    np.testing.assert_array_equal(seg.get_pixels_by_source_frame(uid, [14])[0, :, :, 0] > 0, mask)
    with (tmp_path / "o" / f"{stem}_measures.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["frame"] for row in rows] == ["12", "13"]
    assert float(rows[1]["area_mm2"]) == pytest.approx(mask.sum() * scan.spacing[0] * scan.spacing[1], rel=1e-4)
    assert "mm2" in out


def test_an_object_is_followed(predict, tmp_path):
    rng = np.random.default_rng(0)
    still = rng.integers(60, 255, (40, 50), dtype=np.uint8)
    nibabel.save(nibabel.Nifti1Image(np.stack([still] * 4).T, np.diag([0.2, 0.1, 1, 1])), tmp_path / "v.nii.gz")
    # All frames are equal, so that even a random network finds the same in each.
    status, out, err = predict("v.nii.gz", "--box", "5,5,45,35", "--frame", "1", "--propagate", "--out", "o",
                               "--format", "png,coco,csv,nifti")  # fmt: skip
    assert err == "" and "object 1: " in out and "wrote" in out.splitlines()[-1]
    assert {"v_masks.json", "v_overlay.mp4", "v_labels.nii.gz", "v_area.csv"} <= set(names(tmp_path / "o"))
    labels = np.asarray(nibabel.load(tmp_path / "o" / "v_labels.nii.gz").dataobj)
    assert labels.shape == (50, 40, 4) and labels[:, :, 1].any()
    np.testing.assert_allclose(nibabel.load(tmp_path / "o" / "v_labels.nii.gz").affine, np.diag([0.2, 0.1, 1, 1]))
    status, _, err = predict("v.nii.gz", "--box", "5,5,45,35", "--propagate", "--out", "o")
    assert status == 2 and "exists" in err


def test_crop_puts_masks_back(predict, weights, tmp_path):
    image = np.zeros((150, 200, 3), np.uint8)
    image[30:130, 60:180] = picture(0, 100, 120)
    image[8:12, 5:40] = 230  # a line of text
    write_png(tmp_path / "a.png", image)
    assert predict("a.png", "--box", "90,60,150,100", "--crop")[0] == 0
    mask = np.asarray(Image.open(tmp_path / "predictions" / "a_mask_1.png")) > 0
    assert mask.shape == (150, 200) and mask[30:130, 60:180].sum() == mask.sum() > 0
    session = UltraSam.from_checkpoint(weights, "cpu").open(tmp_path / "a.png", crop=True)
    wanted = session.predict(box=[90, 60, 150, 100])
    np.testing.assert_array_equal(mask, wanted.masks[0])
    status, _, err = predict("a.png", "--point", "10,10", "--out", "o")
    assert status == 2 and "outside of the field of view" in err
    assert predict("a.png", "--point", "10,10", "--out", "o", "--no-clip")[0] in (0, 2)


def test_odd_images(predict, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    rgb = picture()
    Image.fromarray(rgb).quantize(32).save(folder / "palette.png")
    Image.fromarray(np.dstack([rgb, np.full(rgb.shape[:2], 200, np.uint8)])).save(folder / "alpha.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 100).save(folder / "deep.tif")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    write_png(folder / "pixel.png", rgb[:1, :1])
    write_png(folder / "line.png", rgb[:1])
    status, _, err = predict(folder, "--box", "0,0,1,1", "--format", "coco")
    assert err == "" and status in (0, 2)
    document = json.loads((tmp_path / "predictions" / "predictions.json").read_text(encoding="utf-8"))
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in document["images"]}
    assert sizes == {"palette.png": (90, 120), "alpha.png": (90, 120), "deep.tif": (90, 120), "cmyk.jpg": (90, 120),
                     "pixel.png": (1, 1), "line.png": (1, 120)}  # fmt: skip
    assert read_image(folder / "deep.tif").shape == (90, 120, 3)


def test_spacing_is_for_scans_that_do_not_say_it(predict, tmp_path):
    write_png(tmp_path / "a.png", picture())
    assert predict("a.png", "--box", BOX, "--spacing", "0.5,0.25", "--format", "csv")[0] == 0
    with (tmp_path / "predictions" / "a_measures.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["area_mm2"]) == pytest.approx(float(row["area_px"]) * 0.125)
    assert predict(CINE, "--box", "100,60,220,160", "--spacing", "9", "--format", "csv", "--no-clip")[0] == 0
    with (tmp_path / "predictions" / "examples_ybr_color_measures.csv").open(encoding="utf-8") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["area_mm2"]) == pytest.approx(float(row["area_px"]) * 0.51049705**2, rel=1e-4)


def test_options_are_documented(capsys):
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    real = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    text = (Path(__file__).parents[2] / "docs" / "predict.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    assert {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)} == real


def test_names_of_results_never_collide():
    assert stems_of([("a.png", "a"), ("b.nii.gz", "b")]) == ["a", "b"]
    assert stems_of([("a.png", "a"), ("a.jpg", "a"), ("s/a.png", "a")]) == ["a_png", "a_jpg", "s/a"]
    assert stems_of([("A.png", "A"), ("a.png", "a")]) == ["A_png", "a_png"]


def test_scans_of_one_name_in_several_folders(predict, tmp_path):
    for folder in ("x", "y"):
        write_png(tmp_path / folder / "a.png", picture())
    status, _, err = predict("x/a.png", "y/a.png", "--box", BOX, "--format", "png")
    assert (status, err) == (0, "")
    assert {"x/a_labels.png", "y/a_labels.png"} <= set(names(tmp_path / "predictions"))
