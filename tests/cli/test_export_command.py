"""``ultrasam export``: what it writes and says."""

import re
from pathlib import Path

import onnxruntime
import pytest
import torch

from ultrasam.checkpoints import sha256_of
from ultrasam.checkpoints.saving import save_checkpoint
from ultrasam.cli.export import build_parser
from ultrasam.cli.main import main
from ultrasam.inference.export import read_about
from ultrasam.modeling.build import build_sam


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    sam = build_sam("vit_tiny", 64)
    path = tmp_path_factory.mktemp("weights") / "toy.safetensors"
    card = {
        "name": "toy", "architecture": "vit_tiny", "mlp_residual": "double",
        "preprocessing": sam.preprocessing.to_dict(), "passes": ["single", "multi"],
    }  # fmt: skip
    save_checkpoint(path, sam.state_dict(), card)
    return str(path)


@pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("torchscript", ".pt")])
def test_the_last_line_is_the_parity(weights, tmp_path, capsys, format, suffix):
    out = tmp_path / "out"
    assert main(["export", "--weights", weights, "--out", str(out), "--format", format]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(re.findall(r"(embedding|logits|iou) \d\.\de[-+]\d\d", lines[-1])) == 3
    assert lines[-1].endswith(f"(limit 0.001); both files are in {out}")
    assert sorted(path.name for path in out.iterdir()) == [f"decoder{suffix}", f"encoder{suffix}"]
    about = read_about(out / f"decoder{suffix}")
    assert about["card"]["name"] == "toy" and about["mlp_residual"] == "double"
    assert about["passes"] == ["single", "multi"] and about["weights_sha256"] == sha256_of(weights)


def test_masks_are_an_option(weights, tmp_path):
    assert main(["export", "--weights", weights, "--out", str(tmp_path), "--masks"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "decoder.onnx"), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["logits", "iou", "masks"]
    assert [value.name for value in session.get_inputs()][-1] == "original_size"


def test_what_cannot_be_is_one_sentence(weights, tmp_path, capsys):
    assert main(["export", "--weights", str(tmp_path / "none.pth"), "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "file").write_text("")
    assert main(["export", "--weights", weights, "--out", str(tmp_path / "file" / "out")]) == 2
    err = capsys.readouterr().err
    assert "none.pth" in err and "cannot be written" in err and "Traceback" not in err


def test_the_page_names_every_option():
    text = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in text.partition("## Features")[0].splitlines() if line.startswith("| `--")]
    named = {option for cell in cells for option in re.findall(r"--[a-z][a-z-]+", cell)}
    real = {name for action in build_parser()._actions for name in action.option_strings if name[2:]}
    assert named == real - {"--help"}
