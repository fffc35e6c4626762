"""Every configuration loads, is sound, builds, and prepares images the way its network was made for."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import MODELS

from ultrasam.engine.build import build_everything
from ultrasam.engine.checks import LOADERS, annotation_files, check_config, leaf_datasets
from ultrasam.engine.config import CONFIG_ROOT, load_config
from ultrasam.engine.setup import register_all

register_all()

EVERY = sorted(
    path.relative_to(CONFIG_ROOT).as_posix() for path in CONFIG_ROOT.rglob("*.py") if "_base_" not in path.parts
)
# Those of other tasks are built, trained and tested by tests of their own (tests/models).
CONFIGS = [name for name in EVERY if not name.startswith("downstream/")]


@cache
def built(model: str):
    """Build a model, once for all configurations with the same one; without weights it needs no memory."""
    arguments = json.loads(model)
    with torch.device("cpu" if arguments.get("weights") else "meta"):
        return MODELS.build(arguments)


def model_of(cfg):
    return built(json.dumps(cfg.model.to_dict(), sort_keys=True))


def datasets_of(cfg):
    for loader in LOADERS:
        for dataset in leaf_datasets(cfg[loader]["dataset"]):
            yield loader, dataset


def loaded(name, monkeypatch):
    for variable in ("ULTRASAM_DATA", "ULTRASAM_PHANTOM", "ULTRASAM_SA1B", "ULTRASAM_HC18"):
        monkeypatch.delenv(variable, raising=False)
    return load_config(f"configs/{name}")


@pytest.fixture(params=CONFIGS)
def cfg(request, monkeypatch):
    """A configuration of prompted segmentation."""
    return loaded(request.param, monkeypatch)


@pytest.fixture(params=EVERY)
def any_cfg(request, monkeypatch):
    """A configuration of any task."""
    return loaded(request.param, monkeypatch)


def test_there_are_configurations():
    assert len(CONFIGS) >= 10


def test_checks_pass(any_cfg):
    check_config(any_cfg)


def test_model_builds(cfg):
    model = model_of(cfg)
    assert type(model).__name__ == cfg.model.type
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert trainable
    assert tuple(model.passes) == tuple(cfg.model.passes)
    arch = cfg.model.get("arch")
    if arch == "vit_b" and not cfg.model.get("adapter"):
        # segment-anything's ViT-B has 93.7 million parameters; UltraSam adds none.
        assert sum(p.numel() for p in model.sam.parameters()) == pytest.approx(93.7e6, rel=0.01)


def test_pipelines_prepare_images_as_the_model_needs(cfg):
    model = model_of(cfg)
    pixels = model.sam.preprocessing
    count = 0
    for loader, dataset in datasets_of(cfg):
        (fit,) = [step for step in dataset["pipeline"] if step["type"] == "FitSquare"]
        wanted = (pixels.square, pixels.mode, pixels.interpolation)
        assert (fit["square"], fit.get("mode", "pad"), fit.get("interpolation", "bilinear")) == wanted, loader
        target = model.sam.low_res_size if loader == "train_dataloader" else None
        assert fit.get("target_size") == target, loader
        names = [step["type"] for step in dataset["pipeline"]]
        assert names[0] in ("LoadUltrasound", "MakeUltrasound") and names[-1] == "PackPrompted"
        assert ("FlipHorizontal" not in names) or loader == "train_dataloader"
        assert (dataset["prompt"] == "train") == (loader == "train_dataloader")
        assert bool(dataset.get("test_mode")) == (loader != "train_dataloader")
        Compose([dict(step) for step in dataset["pipeline"]])
        count += 1
    assert count >= 3


def test_splits_are_apart(any_cfg):
    train, val, test = (annotation_files(any_cfg[loader]) for loader in LOADERS)
    assert any_cfg.allow_test_selection is False
    parts = [dataset.get("part") for _, dataset in datasets_of(any_cfg)]
    if any(parts):
        # One table for all sides, which the dataset divides by patient.
        assert sorted(parts) == ["test", "train", "val"]
        return
    assert train and val and test
    assert not (train & val or train & test or val & test)
    for files, split in ((train, "train"), (val, "val"), (test, "test")):
        assert all(file.name.split(".")[0] == split for file in files), files


def test_schedule_ends_with_training(any_cfg):
    """A schedule that is shorter than training would go on at its last rate without a word; a longer one never ends."""
    total = any_cfg.train_cfg.max_iters
    schedules = list(any_cfg.param_scheduler)
    assert max(schedule.get("end", total) for schedule in schedules) == total
    assert all(step < total for schedule in schedules for step in schedule.get("milestones", []))
    assert total % any_cfg.train_cfg.val_interval == 0


def plain(value):
    if isinstance(value, Mapping):
        return {key: plain(child) for key, child in value.items()}
    return [plain(child) for child in value] if isinstance(value, list | tuple) else value


def test_configurations_name_no_machine(any_cfg):
    """Paths start from the working directory or an environment variable."""
    texts = []

    def collect(value):
        if isinstance(value, dict):
            for child in value.values():
                collect(child)
        elif isinstance(value, list):
            for child in value:
                collect(child)
        elif isinstance(value, str):
            texts.append(value)

    collect(plain(any_cfg._cfg_dict))
    project = str(Path(__file__).resolve().parents[1])
    assert not [text for text in texts if Path(text).is_absolute() and not text.startswith(project)]


def test_data_roots_follow_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ULTRASAM_DATA", str(tmp_path / "us43d"))
    monkeypatch.setenv("ULTRASAM_PHANTOM", str(tmp_path / "phantom"))
    monkeypatch.setenv("ULTRASAM_SA1B", str(tmp_path / "sa1b"))
    for name in CONFIGS:
        cfg = load_config(f"configs/{name}")
        for loader, dataset in datasets_of(cfg):
            root = Path(dataset.get("data_root") or dataset["root"])
            assert root in (tmp_path / "us43d", tmp_path / "phantom", tmp_path / "sa1b"), (name, loader)


@pytest.mark.parametrize("name", [name for name in CONFIGS if "vit-b" not in name])
def test_everything_of_the_small_ones_builds(name):
    """Datasets (their files may be absent), evaluators, hooks and the optimizer as well."""
    found = build_everything(load_config(f"configs/{name}"))
    assert set(found.datasets) == set(LOADERS) and set(found.evaluators) == {"val_evaluator", "test_evaluator"}
    optimized = {id(p) for group in found.optim_wrapper.param_groups for p in group["params"]}
    assert {id(p) for p in found.model.parameters() if p.requires_grad} <= optimized


def test_every_base_file_is_used():
    """A base file that no configuration reads is untested."""
    bases = {path.relative_to(CONFIG_ROOT).as_posix() for path in (CONFIG_ROOT / "_base_").rglob("*.py")}
    texts = "".join(path.read_text() for path in CONFIG_ROOT.rglob("*.py") if "_base_" not in path.parts)
    assert bases and not [base for base in bases if base not in texts]
