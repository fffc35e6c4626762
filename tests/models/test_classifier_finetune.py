"""The tasks classify, prompted-classify and regress of a fine-tuning: from data to a configuration that trains."""

import argparse
import json
import shutil

import pytest
import torch
from mini_classes import CLASSES, write_hc18, write_sets

from ultrasam.checkpoints import save_checkpoint
from ultrasam.engine.build import build_everything
from ultrasam.engine.checks import check_config
from ultrasam.engine.config import load_config
from ultrasam.engine.setup import register_all
from ultrasam.engine.train import main as run_train
from ultrasam.errors import ConfigError, DataError
from ultrasam.finetune.classify import TASK as CLASSIFY
from ultrasam.finetune.config_text import config_text
from ultrasam.finetune.prompted_classify import TASK as PROMPTED
from ultrasam.finetune.regress import TASK as REGRESS
from ultrasam.finetune.sections import add_shared_arguments
from ultrasam.modeling.build import build_sam

register_all()

TASKS = {"classify": CLASSIFY, "prompted-classify": PROMPTED, "regress": REGRESS}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The miniature sets, class folders, a table of classes, and small weights."""
    folder = tmp_path_factory.mktemp("finetune")
    write_sets(folder / "us43d")
    write_hc18(folder / "hc18")
    lines = ["file,class"]
    for number in range(30):
        name, label = f"{number:03d}_HC.png", "ab"[number % 2]
        (folder / "folders" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "hc18/training_set" / name, folder / "folders" / label / name)
        lines.append(f"{name},{label}")
    (folder / "hc18/training_set/classes.csv").write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    sam = build_sam("vit_tiny")
    card = {"architecture": "vit_tiny", "preprocessing": sam.preprocessing.to_dict()}
    save_checkpoint(folder / "tiny.pth", sam.state_dict(), card)
    return folder


def options(task, data, place, *more):
    parser = argparse.ArgumentParser()
    for name in ("--data", "--weights", "--method", "--task"):
        parser.add_argument(name, default="lora")
    add_shared_arguments(parser)
    TASKS[task].add_arguments(parser)
    return parser.parse_args(
        ["--data", str(data), "--weights", str(place / "tiny.pth"), "--task", task, "--iterations", "2",
         "--workers", "0", *more]
    )  # fmt: skip


def written(task, data, place, path, *more):
    """Write the configuration of a task and load it again."""
    path.write_text(config_text("Title", TASKS[task].sections(options(task, data, place, *more))))
    cfg = load_config(path)
    check_config(cfg)
    return cfg


@pytest.mark.parametrize(
    ("data", "classes"),
    [("us43d/bus_bra", CLASSES["bus_bra"]), ("folders", ["a", "b"]), ("hc18/training_set/classes.csv", ["a", "b"])],
)
@pytest.mark.parametrize("method", ["full", "decoder"])
def test_classify_reads_every_kind_of_data(place, tmp_path, data, classes, method):
    cfg = written("classify", place / data, place, tmp_path / "c.py", "--method", method, "--test-share", "0.3")
    assert cfg.model.classes == classes
    built = build_everything(cfg)
    counted = {side: len(dataset) for side, dataset in built.datasets.items()}
    assert len(counted) == 3 and all(counted.values())
    encoder = [p for name, p in built.model.named_parameters() if name.startswith("backbone")]
    assert any(p.requires_grad for p in encoder) == (method == "full")


def test_prompted_classify_and_regress(place, tmp_path):
    cfg = written("prompted-classify", place / "us43d/bus_bra", place, tmp_path / "p.py", "--method", "decoder")
    built = build_everything(cfg)
    assert built.model.classes == tuple(CLASSES["bus_bra"])
    assert not any(p.requires_grad for p in built.model.global_encoder.parameters())
    cfg = written("regress", place / "hc18/training_set_pixel_size_and_HC.csv", place, tmp_path / "r.py",
                  "--value", "head circumference (mm)", "--spacing-column", "pixel size(mm)", "--method", "full",
                  "--quantity", "length", "--unit", "mm", "--file-column", "filename")  # fmt: skip
    assert cfg.model.quantity == "length" and cfg.train_dataloader.dataset.part == "train"


def test_a_written_configuration_trains_and_tests(place, tmp_path, capsys):
    path, out = tmp_path / "c.py", tmp_path / "out"
    written("classify", place / "us43d/bus_bra", place, path, "--method", "decoder")
    assert run_train([str(path), "--work-dir", str(out)]) == 0, capsys.readouterr().err
    given = options("classify", place / "us43d/bus_bra", place, "--method", "decoder")
    assert CLASSIFY.test(path, out / "iter_2.pth", out, given) == 0
    assert "f1" in capsys.readouterr().out
    assert json.loads((out / "test/metrics.json").read_text())["metrics"]["classification/objects"] == 4


def test_what_does_not_go_together(place, tmp_path):
    with pytest.raises(ConfigError, match="--method samus is not for the task classify; use --method full or decoder"):
        CLASSIFY.sections(options("classify", place / "folders", place, "--method", "samus"))
    with pytest.raises(ConfigError, match="--method lora is not for the task prompted-classify"):
        PROMPTED.sections(options("prompted-classify", place / "us43d/bus_bra", place, "--method", "lora"))
    with pytest.raises(DataError, match="objects to prompt need masks"):
        PROMPTED.sections(options("prompted-classify", place / "hc18/training_set/classes.csv", place))
    with pytest.raises(DataError, match="is no folder, COCO file"):
        CLASSIFY.sections(options("classify", tmp_path / "none", place))
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match=r"holds no train\.json or train\.csv"):
        CLASSIFY.sections(options("classify", tmp_path / "bare", place))
