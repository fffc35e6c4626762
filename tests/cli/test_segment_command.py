"""``ultrasam segment``: files, their content, and what is said when there is nothing."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.cli.main import main
from ultrasam.cli.segment import build_parser
from ultrasam.geometry.rle import decode_mask
from ultrasam.inference.automatic import AutomaticMasks
from ultrasam.inference.model import UltraSam
from ultrasam.modeling.build import build_sam

ALL = ["--points-per-side", "3", "--pred-iou-thresh", "0", "--stability-score-thresh", "0", "--no-clip"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 64)
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    card = {
        "name": "toy", "architecture": "vit_tiny", "mlp_residual": "single",
        "preprocessing": sam.preprocessing.to_dict(), "passes": ["single"],
    }  # fmt: skip
    save_checkpoint(path, sam.state_dict(), card)
    return str(path)


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.png", "sub/b.png"):
        path = tmp_path / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    return tmp_path / "scans"


def test_files_hold_the_masks_of_the_generator(weights, scans, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(scans), "--weights", weights, "--out", str(out), *ALL]) == 0
    names = ["a_segments", "sub/b_segments"]
    expected = sorted(name + end for name in names for end in (".json", ".png", "_overlay.png"))
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == expected
    model = UltraSam.from_checkpoint(weights, device="cpu")
    generator = AutomaticMasks(model, points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0, clip=False)
    total = 0
    for scan, name in zip(("a.png", "sub/b.png"), names, strict=True):
        image = np.asarray(Image.open(scans / scan))
        records = generator.generate(image)
        document = json.loads((out / f"{name}.json").read_text())
        assert document["images"][0]["file_name"] == scan
        shown = [record for record in records if record["area"]]
        assert len(document["annotations"]) == len(shown) > 0
        for found, record in zip(document["annotations"], shown, strict=True):
            assert np.array_equal(decode_mask(found["segmentation"]), record["segmentation"])
            assert found["score"] == pytest.approx(record["predicted_iou"], abs=1e-5)
            assert found["prompt"]["points"] == record["point_coords"]
        labels = np.asarray(Image.open(out / f"{name}.png"))
        assert np.array_equal(labels > 0, np.any([record["segmentation"] for record in records], axis=0))
        total += len(records)
    lines = capsys.readouterr().out.splitlines()
    assert "9 points gave 9 masks" in lines[0]
    assert lines[-1] == f"wrote {total} masks of 2 of 2 scans to {out}"


def test_nothing_found_is_an_error_that_says_why(weights, scans, tmp_path, capsys):
    options = ["--weights", weights, "--out", str(tmp_path / "out"), "--points-per-side", "2"]
    assert main(["segment", str(scans / "a.png"), *options, "--pred-iou-thresh", "9"]) == 2
    said = capsys.readouterr()
    assert "error: a.png: no mask was found: 4 points gave 4 masks: 0 above the predicted IoU (highest" in said.err
    assert "nothing was written for 1 scans" in said.err and said.out == ""
    assert not (tmp_path / "out").exists()


def test_one_broken_file_does_not_stop_the_others(weights, scans, tmp_path, capsys):
    (scans / "c.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    assert main(["segment", str(scans), "--weights", weights, "--out", str(tmp_path / "out"), *ALL]) == 2
    said = capsys.readouterr()
    assert said.err.count("error: ") == 1 and "c.png" in said.err
    assert "of 2 of 3 scans, 1 failed (see above)" in said.out.splitlines()[-1]


def test_results_are_not_overwritten_unasked(weights, scans, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_segments.json").write_text("mine")
    command = ["segment", str(scans / "a.png"), "--weights", weights, "--out", str(tmp_path / "out"), *ALL]
    assert main(command) == 2
    assert "a_segments.json exists; give --overwrite" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_segments.json"]
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "out" / "a_segments.json").read_text() != "mine"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--points-per-side", "0"], "points_per_side must be at least 1"),
        (["--frame", "3"], "frames 0 only, found 3"),
        (["--weights", "none.pth"], "none.pth"),
    ],
)
def test_wrong_options_are_one_sentence(weights, scans, tmp_path, capsys, change, words):
    command = ["segment", str(scans / "a.png"), "--weights", weights, "--out", str(tmp_path / "out"), *ALL, *change]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert words in err and "Traceback" not in err
    assert main(["segment", str(scans / "gone.png")]) == 2


def test_the_page_names_every_option():
    text = (Path(__file__).resolve().parents[2] / "docs" / "automatic.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `--")]
    named = {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)}
    real = {name for action in build_parser()._actions for name in action.option_strings if name[2:]}
    assert named == real - {"--help"}
