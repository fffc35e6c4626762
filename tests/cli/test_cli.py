"""The command ``ultrasam``: usage, unknown verbs, the version, and what ``info`` says of files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ultrasam
from ultrasam.checkpoints import card_named, sha256_of
from ultrasam.cli.main import VERBS, main, usage
from ultrasam.engine.checkpointing import FORMAT
from ultrasam.modeling.build import build_sam


def run(*arguments, cwd=None):
    """Run the installed command in a process of its own."""
    command = Path(sys.executable).parent / "ultrasam"
    return subprocess.run(
        [str(command), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def fields(text):
    """The lines ``name   value`` of ``info`` before the card."""
    return dict(line.split(maxsplit=1) for line in text.split("card ")[0].splitlines())


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_usage(capsys, flag):
    assert main([flag]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: ultrasam VERB")
    for name, verb in VERBS.items():
        assert f"  {name:<10} {verb.__doc__.splitlines()[0]}" in out


def test_no_verb_and_unknown_verb(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"{usage()}\n"
    assert main(["colour", "everything"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("unknown verb 'colour'; usage: ultrasam VERB")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_explains_itself(capsys, verb):
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("usage: ")


def test_installed_command(tmp_path):
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ultrasam.__version__}\n", "")
    assert run("nothing", cwd=tmp_path).returncode == 2
    assert not list(tmp_path.iterdir())


def test_info_of_litemedsam(capsys):
    assert main(["info", "litemedsam"]) == 0
    out = capsys.readouterr().out
    found = fields(out)
    path = Path(found["file"])
    assert path.name == "lite_medsam.pth" and found["sha256"] == sha256_of(path)
    assert found["format"] == "litemedsam" and found["architecture"] == "tiny_vit" and found["residual"] == "single"
    # The file itself, read without our code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert int(found["parameters"].replace(",", "")) == sum(value.numel() for value in state.values())
    for value in (card_named("litemedsam")["licence"], '"square": 256', '"scaling": "min_max"'):
        assert value in out


def test_info_of_a_training_checkpoint(tmp_path, capsys):
    sam = build_sam("vit_tiny")
    state = {f"sam.{name}": value for name, value in sam.state_dict().items()}
    card = {"architecture": "vit_tiny", "mlp_residual": "single", "passes": ["single", "multi"]}
    path = tmp_path / "iter_1.pth"
    torch.save({"format": FORMAT, "state_dict": state, "card": card, "meta": {}}, path)
    assert main(["info", str(path)]) == 0
    out = capsys.readouterr().out
    found = fields(out)
    count = sum(value.numel() for value in sam.state_dict().values())
    assert found["parameters"] == f"{count:,}" and found["sha256"] == sha256_of(path)
    assert '"passes"' in out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"not weights at all\n" * 50, "is no PyTorch or safetensors file"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "page"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut off"),
    ],
)
def test_info_of_garbage(tmp_path, capsys, content, message):
    path = tmp_path / "garbage.pth"
    path.write_bytes(content)
    assert main(["info", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert str(path) in captured.err and message in captured.err


def test_info_of_nothing(capsys):
    assert main(["info", "no_such_file.pth"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 'no_such_file.pth' is neither") and "litemedsam" in error


def test_phantom_verb(tmp_path, capsys):
    out = tmp_path / "phantom"
    assert main(["phantom", str(out), "--images", "15", "--size", "96", "--workers", "1"]) == 0
    assert str(out) in capsys.readouterr().out
    assert (out / "manifest.json").is_file()
    assert main(["phantom", str(out / "other"), "--images", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
