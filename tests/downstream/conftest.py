"""Checkpoints of all tasks, saved by the project's own training code on miniature data."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))

from mini_classes import write_hc18, write_sets
from mini_instances import SIDE, TINY_HEAD, TINY_VIT, write_set

from ultrasam.engine.build import build_runner
from ultrasam.engine.checks import LOADERS, leaf_datasets
from ultrasam.engine.config import load_config

CONFIGS = {
    "classify": "classification/classifier_litemedsam_bus-bra.py",
    "prompted": "prompted_classification/prompted_litemedsam_bus-bra.py",
    "regress": "regression/regressor_litemedsam_hc18.py",
    "detect": "segmentation/mask2former_litemedsam_bus-bra.py",
}


def shrunk(task, work):
    """Return a configuration with the smallest network and two steps; ULTRASAM_DATA names the data."""
    cfg = load_config(f"configs/downstream/{CONFIGS[task]}")
    cfg.work_dir = str(work)
    model = cfg.model
    model.pop("cache_dir", None)
    small = dict(arch="vit_tiny", image_size=SIDE, weights=None,
                 preprocessing=dict(scaling="min_max", interpolation="area"))  # fmt: skip
    if task == "prompted":
        model.update(small)
    elif task == "detect":
        model.backbone = {"type": "SamBackbone", **TINY_VIT, "preprocessing": small["preprocessing"]}
        model.update(head=TINY_HEAD, pyramid="simple", pyramid_channels=32)
    else:
        model.backbone = {"type": "SamBackbone", **small}
    for loader in LOADERS:
        cfg[loader].update(batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False)
        for leaf in leaf_datasets(cfg[loader].dataset):
            for step in leaf.pipeline:
                for name in ("square", "target_size"):
                    if name in step:
                        step[name] = SIDE
    cfg.train_cfg.update(max_iters=2, val_interval=5)
    cfg.default_hooks.checkpoint.interval = 2
    cfg.visualizer.vis_backends = []
    cfg.log_level = "ERROR"
    return cfg


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return by task: the checkpoint, its configuration, and the runner's model and test set."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("tasks")
    write_sets(folder / "us43d")
    write_hc18(folder / "hc18")
    for split in ("train", "val", "test"):
        write_set(folder / "found", f"bus_bra/annotations/{split}.bus_bra.json", ["benign", "malignant"], [1, 0, 3])
    found = {}
    for task in CONFIGS:
        patch.setenv("ULTRASAM_DATA", str(folder / ("found" if task == "detect" else "us43d")))
        patch.setenv("ULTRASAM_HC18", str(folder / "hc18"))
        cfg = shrunk(task, folder / task)
        cfg.randomness = dict(seed=3)
        runner = build_runner(cfg)
        runner.train()
        model, data = runner.bare_model.eval(), runner.test_dataloader.dataset.dataset
        found[task] = SimpleNamespace(path=folder / task / "iter_2.pth", cfg=cfg, model=model, data=data)
    patch.undo()
    return found
