"""``ultrasam finetune``: from a folder and weights to a configuration that stands alone, a training and its scores."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ultrasam.adapters.files import apply_adapter
from ultrasam.checkpoints import read_weights, save_checkpoint
from ultrasam.cli.finetune import main
from ultrasam.datasets.phantom.generate import generate_phantom
from ultrasam.engine import checkpointing as ckpt
from ultrasam.engine.build import build_runner
from ultrasam.engine.checks import check_config
from ultrasam.engine.config import load_config
from ultrasam.engine.setup import register_all
from ultrasam.modeling.build import build_sam

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

import toys  # noqa: F401

register_all()

SIDE = 64


def small_network(seed=0):
    torch.manual_seed(seed)
    return build_sam("vit_tiny", SIDE)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune") / "phantom"
    generate_phantom(folder, 15, 0, size=96, workers=1)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    sam = small_network()
    card = {"architecture": "vit_tiny", "preprocessing": sam.preprocessing.to_dict(), "passes": ["single", "multi"]}
    save_checkpoint(path, sam.state_dict(), card)
    return path


def arguments(data, weights, out, method="lora", *more):
    given = ["--data", str(data), "--weights", str(weights), "--method", method, "--out", str(out), "--workers", "0"]
    return [*given, *more]


@pytest.mark.parametrize("method", ["full", "decoder", "lora", "med_sa", "samus"])
def test_the_configuration_stands_alone(data, weights, tmp_path, capsys, method):
    options = ["--dry-config", "--iterations", "40", "--lr", "0.002", "--seed", "7", "--low-memory"]
    assert main(arguments(data, weights, tmp_path, method, *options)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "config.py")
    assert [path.name for path in tmp_path.iterdir()] == ["config.py"]
    text = (tmp_path / "config.py").read_text(encoding="utf-8")
    assert text.startswith(f'"""Fine-tuning by {method}: prompted segmentation.') and "_base_" not in text
    assert max(len(line) for line in text.splitlines() if "Written by" not in line) <= 160
    cfg = load_config(tmp_path / "config.py")
    check_config(cfg)
    assert cfg.model.method == method and cfg.model.weights == str(weights)
    assert cfg.randomness.seed == 7 and cfg.optim_wrapper.optimizer.lr == 0.002
    assert cfg.train_cfg.max_iters == 40 == max(schedule["end"] for schedule in cfg.param_scheduler)
    fit = next(step for step in cfg.train_pipeline if step["type"] == "FitSquare")
    wanted = (256, "squash", 128) if method == "samus" else (SIDE, "pad", 16)
    assert (fit["square"], fit["mode"], fit["target_size"]) == wanted
    assert cfg.get("supported_prompts") == (["point"] if method == "samus" else None)
    recomputed = method in ("full", "lora", "med_sa")
    assert cfg.recompute_modules == (["sam.image_encoder.blocks.*"] if recomputed else None)
    assert Path(cfg.train_dataloader.dataset.data_root, cfg.train_dataloader.dataset.ann_file).is_file()


def test_training_ends_with_scores_and_a_file(data, weights, tmp_path, capsys):
    assert main(arguments(data, weights, tmp_path, "lora", "--iterations", "2", "--rank", "2")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"weights {tmp_path / 'adapter.safetensors'}", str(tmp_path)]
    assert [line.split()[0] for line in lines[-4:-2]] == ["point", "box"] and "mAP" in lines[-3]
    assert (tmp_path / "test_box" / "metrics.json").is_file()
    log = next(tmp_path.glob("*/*.log")).read_text(encoding="utf-8")
    assert "Trains (lora): 3,072 of" in log
    sam = small_network()
    card = apply_adapter(sam, tmp_path / "adapter.safetensors")
    assert card["adapter"]["options"]["rank"] == 2 and card["adapter"]["base"]["name"] == str(weights)
    assert card["trainable"]["trained"] == 3072 and card["training"]
    saved = ckpt.read_checkpoint(tmp_path / "iter_2.pth")
    for name, value in sam.state_dict().items():
        assert torch.equal(value, saved["state_dict"][f"sam.{name}"]), name


def run(cfg, folder, stop_after=None, resume=None):
    cfg = copy.deepcopy(cfg)
    cfg.work_dir, cfg.resume, cfg.load_from = str(folder), resume is not None, resume
    cfg.custom_hooks = [{"type": "RecordLosses", "stop_after": stop_after}]
    cfg.visualizer.vis_backends = []
    runner = build_runner(Config(cfg._cfg_dict.to_dict()))
    runner.train()
    record = next(hook for hook in runner.hooks if type(hook).__name__ == "RecordLosses")
    return record.losses


@pytest.mark.parametrize("method", ["lora", "med_sa"])
def test_half_and_half_is_the_whole(data, weights, tmp_path, method):
    """With LoRA's dropout, whose random numbers continue too."""
    assert main(arguments(data, weights, tmp_path, method, "--dry-config", "--iterations", "8")) == 0
    cfg = load_config(tmp_path / "config.py")
    cfg.train_cfg.val_interval = 100
    whole = run(cfg, tmp_path / "whole")
    first = run(cfg, tmp_path / "halves", stop_after=4)
    second = run(cfg, tmp_path / "halves", resume=str(ckpt.latest_checkpoint(tmp_path / "halves")))
    assert first + second == whole and len(set(whole)) == 8
    one, two = (ckpt.read_checkpoint(tmp_path / name / "iter_8.pth") for name in ("whole", "halves"))
    assert one["state_dict"].keys() == two["state_dict"].keys()
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert one["card"]["adapter"] == two["card"]["adapter"]
    # Frozen numbers have no state in the optimizer.
    names = [name for name in one["state_dict"] if "lora_" in name or "_adapter." in name]
    assert len(one["optimizer"]["state"]) == len(names) > 0
    base = read_weights(weights).state
    assert all(torch.equal(one["state_dict"][f"sam.{name}"], value) for name, value in base.items())


def test_weights_that_know_boxes_only_learn_points(data, tmp_path):
    assert main(arguments(data, "litemedsam", tmp_path, "med_sa", "--dry-config")) == 0
    cfg = load_config(tmp_path / "config.py")
    assert cfg.model.weights == "litemedsam" and cfg.model.copy_single_mask_token
    assert cfg.model.adapter["also_train"] == ["prompt_encoder", "mask_decoder"]
    fit = next(step for step in cfg.train_pipeline if step["type"] == "FitSquare")
    assert (fit["square"], fit["interpolation"], fit["target_size"]) == (256, "area", 256)


@pytest.mark.parametrize(("changes", "message"), [
    ({"--data": "nowhere"}, "the data folder nowhere does not exist"),
    ({"--weights": "nothing.pth"}, "'nothing.pth' is neither an existing file nor a known name"),
    ({"--weights": "litemedsam", "--method": "samus"}, "SAMUS is made of SAM's ViT, but litemedsam is tiny_vit"),
    ({"--iterations": "0"}, "--iterations is 0, expected at least 1"),
    ({"--rank": "0", "--iterations": "1"}, "rank is 0"),
])  # fmt: skip
def test_mistakes_are_one_sentence(data, weights, tmp_path, capsys, changes, message):
    values = {"--data": str(data), "--weights": str(weights), "--method": "lora", "--out": str(tmp_path / "out")}
    given = [word for pair in {**values, **changes}.items() for word in pair]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("error: ") and message in error and "Traceback" not in error


def test_an_adapter_is_no_base(data, weights, tmp_path, capsys):
    card = {"architecture": "vit_tiny", "adapter": {"method": "lora"}}
    save_checkpoint(tmp_path / "a.safetensors", small_network().state_dict(), card)
    assert main(arguments(data, tmp_path / "a.safetensors", tmp_path / "out")) == 2
    assert "holds an adapter already; start from its base" in capsys.readouterr().err
