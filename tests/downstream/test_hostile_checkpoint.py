"""Checkpoints from elsewhere run no code: neither their configuration's text nor what its types name."""

import copy
import re

import pytest
import torch
from mmengine.config import Config

from ultrasam.cli.main import main
from ultrasam.downstream.checkpoint import rebuild, recognise, safe_model
from ultrasam.downstream.plain import read_plain
from ultrasam.errors import CheckpointError, ConfigError


def test_plain_values_are_those_of_mmengine(trained):
    for found in trained.values():
        text = torch.load(found.path, weights_only=True)["meta"]["cfg"]
        assert read_plain(text, "x") == Config.fromstring(text, ".py").to_dict()
    assert read_plain("a = -1.5\nb = dict({'x.y': (1, 'z')}, c=[None, True])\nd = {'k': -inf}\n", "x") == {
        "a": -1.5, "b": {"x.y": (1, "z"), "c": [None, True]}, "d": {"k": float("-inf")},
    }  # fmt: skip


@pytest.mark.parametrize(("text", "words"), [
    ("import os\nos.system('touch run')", "Import in line 1"),
    ("model = __import__('os').system('touch run')", "Call in line 1"),
    ("model = dict(type=open('run', 'w'))", "Call in line 1"),
    ("model = [open('run', 'w') for _ in (1,)]", "ListComp in line 1"),
    ("model = f\"{open('run', 'w')}\"", "JoinedStr in line 1"),
    ("model = dict(**open('run', 'w'))", "Call in line 1"),
    ("model = {**dict()}", "a key that is no constant"),
    ("dict = 1; dict.x = 2", "Assign in line 1"),
    ("_base_.x = 1", "Assign in line 1"),
    ("open('run', 'w')", "Expr in line 1"),
    ("model = (lambda: open('run', 'w'))()", "Call in line 1"),
    ("a = 1 +", "cannot be read"),
    ("a = " + "(" * 5000, "cannot be read"),
    ("", "does not hold the configuration"),
    (None, "does not hold the configuration"),
    ("a = 1\n" * 300_000, "characters"),
])  # fmt: skip
def test_text_is_never_executed(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_plain(text, "bad.pth")
    assert "--config FILE" in str(caught.value) and "bad.pth" in str(caught.value)
    assert not list(tmp_path.iterdir())


def changed(found, path, text=None, **parts):
    content = torch.load(found.path, weights_only=True)
    if text is not None:
        content["meta"]["cfg"] = text
    content.update(parts)
    torch.save(content, path)
    return path


def test_hostile_checkpoint_at_the_command(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = trained["classify"]
    picture = found.data[0]["data_samples"].img_path
    bad = changed(found, tmp_path / "bad.pth", "import os\nos.system('touch run')\n")
    assert main(["predict", picture, "--weights", str(bad), "--device", "cpu"]) == 2
    err = capsys.readouterr().err
    said = r"the configuration in \S*bad.pth holds more than plain values \(Import in line 1\); it is not executed"
    assert re.fullmatch(rf"error: {said}; give the configuration that you trust with --config FILE\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]
    found.cfg.dump(tmp_path / "mine.py")
    arguments = ["predict", picture, "--weights", str(bad), "--device", "cpu", "--config", "mine.py"]
    assert main(arguments) == 0 and (tmp_path / "predictions").is_dir()


@pytest.mark.parametrize("place", ["model", "backbone", "deep", "list", "scope"])
def test_types_name_no_functions(trained, place):
    """MMEngine's registry would import and call what a type names."""
    model = trained["classify"].cfg.model.to_dict()
    evil = {"type": "os.system", "command": "touch run"}
    if place == "model":
        model = evil
    elif place == "backbone":
        model["backbone"] = evil
    elif place == "deep":
        model["backbone"]["sizes"] = {"a": {"b": evil}}
    elif place == "list":
        model["class_loss"] = {"class_weights": [evil]}
    else:
        model["class_loss"] = {"_scope_": "os"}
    before = copy.deepcopy(model)
    with pytest.raises(CheckpointError, match="os"):
        safe_model(model, "bad.pth", "classify")
    assert model == before


def test_paths_of_the_configuration_are_not_opened(trained):
    model = trained["classify"].cfg.model.to_dict()
    model.update(cache_dir="somewhere", init_cfg=dict(type="Pretrained", checkpoint="x"))
    model["backbone"]["weights"] = "http://elsewhere/x.pth"
    kept = safe_model(model, "x.pth", "classify")
    assert not {"cache_dir", "init_cfg"} & set(kept) and "weights" not in kept["backbone"]


def test_weights_must_fit_exactly(trained, tmp_path):
    found = trained["classify"]
    state = dict(torch.load(found.path, weights_only=True)["state_dict"])
    lost = state.pop("head.bias")
    path = changed(found, tmp_path / "lost.pth", state_dict=state)
    with pytest.raises(CheckpointError, match=r"1 weights are missing .such as head.bias."):
        rebuild(recognise(path), device="cpu")
    state["head.bias"] = torch.cat([lost, lost])
    path = changed(found, tmp_path / "wide.pth", state_dict=state)
    with pytest.raises(CheckpointError, match="have another shape"):
        rebuild(recognise(path), device="cpu")
    text = torch.load(trained["regress"].path, weights_only=True)["meta"]["cfg"]
    path = changed(found, tmp_path / "other.pth", text)
    with pytest.raises(CheckpointError, match="of a classifier of whole images, but the model of the configuration is"):
        rebuild(recognise(path), device="cpu")


def test_what_is_recognised(trained, tmp_path):
    tasks = {name: recognise(found.path).task for name, found in trained.items()}
    assert tasks == {"classify": "classify", "prompted": "prompted-classify", "regress": "regress", "detect": "detect"}
    # Without a card the configuration tells it.
    bare = changed(trained["regress"], tmp_path / "bare.pth", card={})
    assert recognise(bare).task == "regress"
    assert recognise(None) is None and recognise("ultrasam-lite") is None
    (tmp_path / "damaged.pth").write_bytes(b"PK\x03\x04 nothing")
    assert recognise(tmp_path / "damaged.pth") is None
    segment = changed(trained["prompted"], tmp_path / "s.pth", card={"architecture": "vit_tiny", "task": "segment"})
    assert recognise(segment) is None
    with pytest.raises(CheckpointError, match="neither an existing file nor a known name"):
        recognise(tmp_path / "absent.pth")
    with pytest.raises(ConfigError, match="there is no device"):
        rebuild(recognise(bare), device="nonsense")
