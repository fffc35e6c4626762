"""The verb ``robustness`` on a small phantom: the same answers as a test, whatever the loader; files and errors."""

import csv
import json

import pytest
import torch

from ultrasam.cli.main import main
from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.engine.checkpointing import FORMAT
from ultrasam.modeling.build import build_sam

CONFIG = "configs/demo/ultrasam_vit-tiny_phantom.py"
FILES = ("robustness.json", "robustness.csv", "robustness_objects.csv", "robustness.html", "robustness.png",
         "robustness.svg")  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with a phantom and random weights."""
    folder = tmp_path_factory.mktemp("robustness")
    generate_phantom(folder / "phantom", 15, 0, size=96, workers=1)
    torch.manual_seed(1)
    state = {f"sam.{name}": value for name, value in build_sam("vit_tiny", 256).state_dict().items()}
    card = {"architecture": "vit_tiny", "mlp_residual": "single"}
    torch.save({"format": FORMAT, "state_dict": state, "card": card, "meta": {}}, folder / "net.pth")
    return folder


@pytest.fixture(autouse=True)
def in_workspace(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("ULTRASAM_PHANTOM", str(workspace / "phantom"))


def options(workers=0, batch=3):
    return [
        "--cfg-options", f"test_dataloader.num_workers={workers}", f"test_dataloader.batch_size={batch}",
        "+test_dataloader.dataset.indices=3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.pth", "--jitter", "7"], "from 0 to 1, found 7.0"),
        (["net.pth", "--positions", "corner"], "found 'corner'"),
        (["absent.pth"], "'absent.pth' is neither an existing file nor a known name"),
        (["net.pth", "--datasets", "nowhere"], "--datasets"),
        (["net.pth", "--cfg-options", "model.width=3"], "'model.width' is not in the configuration"),
    ],
)
def test_errors_are_one_sentence(workspace, capsys, arguments, message):
    assert main(["robustness", CONFIG, *arguments, "--out", "none"]) == 2
    # A log handler may still hold the captured output of an earlier test, and complain before.
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and message in error
    assert not (workspace / "none").exists()


def test_same_answers_as_the_test_whatever_the_loader(workspace, capsys):
    plan = ["--jitter", "0.1", "--clicks", "2", "--positions", "border"]
    assert main(["robustness", CONFIG, "net.pth", *plan, "--out", "one", *options()]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str((workspace / "one").resolve()) and lines[-2] == f"Wrote {', '.join(FILES)}"
    assert " masks an object took " in lines[-3]
    assert all((workspace / "one" / name).stat().st_size > 0 for name in FILES)
    assert main(["robustness", CONFIG, "net.pth", *plan, "--out", "two", *options(1, 1)]) == 0
    for name in ("robustness.csv", "robustness_objects.csv", "robustness.svg"):
        assert (workspace / "one" / name).read_bytes() == (workspace / "two" / name).read_bytes()

    with (workspace / "one" / "robustness_objects.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for prompt, column in (("box", "jitter_0"), ("point", "clicks_1")):
        assert main(["test", CONFIG, "net.pth", "--prompt", prompt, "--out", prompt, *options()]) == 0
        with (workspace / prompt / "per_object.csv").open(newline="") as stream:
            tested = {(r["image_id"], r["annotation_id"]): float(r["dice"]) for r in csv.DictReader(stream)}
        found = {(r["image_id"], r["annotation_id"]): float(r[column]) for r in rows}
        assert found == pytest.approx(tested, abs=1e-3) and sum(tested.values()) > 0
    assert all(row["position_deepest"] == row["clicks_1"] for row in rows)

    record = json.loads((workspace / "one" / "robustness.json").read_text(), parse_constant=pytest.fail)
    assert record["plan"] == {"jitter": [0, 0.1], "positions": ["deepest", "border"], "clicks": 2, "seed": 0}
    assert record["cost"]["objects"] == len(rows) and record["cost"]["masks_per_object"] == 5
    assert record["checkpoint"]["path"] == str((workspace / "net.pth").resolve()) and "prompt" not in record
