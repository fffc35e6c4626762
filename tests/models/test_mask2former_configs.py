"""Every configuration of Mask2Former: builds at full size, and trains and tests with a tiny backbone on tiny data."""

import json
from pathlib import Path

import pytest
import torch
from mini_instances import SIDE, TINY, TINY_HEAD, write_set
from mmdet.registry import MODELS

from ultrasam.engine.build import build_runner
from ultrasam.engine.checks import LOADERS, annotation_files, check_config
from ultrasam.engine.config import CONFIG_ROOT, load_config
from ultrasam.engine.test import main as run_test_command

FOLDER = CONFIG_ROOT / "downstream/segmentation"
BACKBONES = {
    "resnet50": 23.5e6, "dinov2": 89.7e6, "usfm": 88.0e6, "deblurring-mim": 88.8e6, "sam": 89.7e6, "medsam": 89.7e6,
    "ultrasam": 89.7e6,
}  # fmt: skip
SETS = {"bus-bra": ("bus_bra", 2), "mmotu2d": ("mmotu_2d", 8), "gist514-db": ("gist514_db", 2)}
PAIRS = [(backbone, name) for backbone in BACKBONES for name in SETS]
LITE = "litemedsam", "bus-bra"


def config_of(backbone, name):
    return load_config(FOLDER / f"mask2former_{backbone}_{name}.py")


def test_there_are_seven_for_each_set():
    names = {path.name for path in FOLDER.glob("*.py")}
    assert names == {f"mask2former_{backbone}_{name}.py" for backbone, name in [*PAIRS, LITE]}


@pytest.mark.parametrize(("backbone", "name"), [*PAIRS, LITE])
def test_configuration_is_sound(backbone, name, monkeypatch):
    monkeypatch.delenv("ULTRASAM_DATA", raising=False)
    cfg = config_of(backbone, name)
    check_config(cfg)
    slug, count = SETS[name]
    assert len(cfg.model.classes) == count
    files = [annotation_files(cfg[loader]) for loader in LOADERS]
    for (file,), split in zip(files, ("train", "val", "test"), strict=True):
        assert file.name == f"{split}.{slug}.json"
    total = cfg.train_cfg.max_iters
    assert max(schedule.end for schedule in cfg.param_scheduler) == total
    assert all(step < total for schedule in cfg.param_scheduler for step in schedule.get("milestones", []))
    assert total % cfg.train_cfg.val_interval == 0
    if (backbone, name) != LITE:
        assert (total, cfg.train_dataloader.batch_size, cfg.model.pyramid) == (
            8000, 8, "none" if backbone == "resnet50" else "taps",
        )  # fmt: skip
    for loader in LOADERS:
        assert list(cfg[loader].dataset.classes) == list(cfg.model.classes)


@pytest.mark.parametrize("backbone", [*BACKBONES, "litemedsam"])
def test_full_size_builds_and_the_pipelines_fit(backbone):
    """Without memory, once for each backbone; the other sets change classes and files only."""
    cfg = config_of(backbone, "bus-bra")
    if backbone == "litemedsam":
        cfg.model.backbone.weights = None
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    pixels = model.backbone.preprocessing
    for loader in LOADERS:
        (fit,) = [step for step in cfg[loader].dataset.pipeline if step.type in ("FitSquare", "JitterSquare")]
        assert (fit.square, fit.mode, fit.interpolation) == (pixels.square, pixels.mode, pixels.interpolation)
    if backbone in BACKBONES:
        count = sum(parameter.numel() for parameter in model.backbone.parameters())
        assert count == pytest.approx(BACKBONES[backbone], rel=0.005)
    trained = any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert trained == (backbone not in ("dinov2", "litemedsam"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Miniature sets under the names of the prepared ones; every image has another number of objects."""
    folder = tmp_path_factory.mktemp("us43d")
    for name, (slug, _) in SETS.items():
        classes = config_of("sam", name).classes
        for seed, split in enumerate(("train", "val", "test")):
            write_set(folder, f"{slug}/annotations/{split}.{slug}.json", classes, [1, 0, 9], seed)
    return folder


def miniature(cfg, data, work_dir):
    """Shrink a configuration: what changes are sizes, never kinds."""
    cfg.work_dir = str(work_dir)
    kind, given = cfg.model.backbone.type, dict(cfg.model.backbone)
    tiny = dict(TINY[kind])
    kept = {key: given[key] for key in ("type", "frozen", "preprocessing") if key in given}
    if given.get("arch") == "tiny_vit":
        # The real encoder, at a quarter of the size.
        tiny = dict(arch="tiny_vit", image_size=SIDE, weights="litemedsam", cache_dir=str(work_dir / "features"))
    cfg.model.backbone = {**tiny, **kept}
    cfg.model.head = TINY_HEAD
    cfg.model.pyramid_channels = 32
    for loader in LOADERS:
        cfg[loader].update(num_workers=0, batch_size=2, persistent_workers=False, pin_memory=False)
        cfg[loader].dataset.data_root = str(data)
        for step in cfg[loader].dataset.pipeline:
            if "square" in step:
                step.square = tiny["image_size"]
            if "target_size" in step:
                step.target_size = tiny["image_size"]
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.visualizer.vis_backends = []
    cfg.log_level = "ERROR"
    cfg.test_evaluator.intervals = 20
    return cfg


@pytest.mark.parametrize(("backbone", "name"), [*PAIRS, LITE])
def test_two_steps_and_a_test(backbone, name, data, tmp_path):
    runner = build_runner(miniature(config_of(backbone, name), data, tmp_path))
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    losses, _ = runner.message_hub.get_scalar("train/loss").data
    assert len(losses) == 2 and all(0 < value < 1000 for value in losses)
    moved = {key for key, value in runner.model.state_dict().items() if not torch.equal(value, before[key])}
    assert any(key.startswith("panoptic_head.") for key in moved)
    assert any(key.startswith("backbone.") for key in moved) == (backbone not in ("dinov2", "litemedsam"))
    metrics = runner.test()
    assert metrics["coco/images"] == 3 and metrics["coco/objects"] == 10
    for kind in ("segm", "bbox"):
        assert 0 <= metrics[f"coco/{kind}_mAP"] <= metrics[f"coco/{kind}_mAP_50"] <= 1
        assert metrics[f"coco/{kind}_mAP_low"] <= metrics[f"coco/{kind}_mAP_high"]


def test_the_commands_write_metrics(data, tmp_path, capsys, monkeypatch):
    """A checkpoint of the runner through tools/test.py: a result folder with metrics.json."""
    monkeypatch.chdir(tmp_path)
    cfg = miniature(config_of("ultrasam", "bus-bra"), data, tmp_path / "work")
    build_runner(cfg).train()
    written = tmp_path / "mini.py"
    cfg.pop("work_dir")
    cfg.dump(written)
    assert run_test_command([str(written), "work/iter_2.pth", "--out", "result"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "result")
    record = json.loads(Path("result/metrics.json").read_text())
    names = set(record["metrics"])
    assert {"coco/segm_mAP", "coco/bbox_mAP_50", "coco/segm_mAP.benign", "coco/segm_mAP_low"} <= names
    assert [item["file"] for item in record["annotations"]] == ["bus_bra/annotations/test.bus_bra.json"]
    card = torch.load("work/iter_2.pth", weights_only=True)["card"]
    assert card["classes"] == ["benign", "malignant"] and card["task"] == "segment"
