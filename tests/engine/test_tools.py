"""The commands: arguments, what they write, the last line, errors as one sentence, the shell scripts."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from toys import toy_config

from ultrasam.engine import checkpointing, commands, precision
from ultrasam.engine import test as test_command
from ultrasam.engine import train as train_command
from ultrasam.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A toy configuration file in an otherwise empty working directory; registries hold the toys only."""
    monkeypatch.chdir(tmp_path)
    for module in (train_command, test_command):
        monkeypatch.setattr(module, "register_all", lambda: None)
    cfg = toy_config("unused")
    del cfg["work_dir"]
    cfg["custom_imports"] = {"imports": ["toys"]}
    Config(cfg).dump(tmp_path / "toy.py")
    return tmp_path


def test_train_resume_test(toy, capsys):
    assert train_command.main(["toy.py", "--seed", "9", "--cfg-options", "train_cfg.max_iters=6"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == str(toy / "work_dirs/toy")
    assert any(line.split()[:1] == ["mae"] for line in out), "final metrics are printed"
    first = toy / "work_dirs/toy/iter_6.pth"
    assert checkpointing.read_checkpoint(first)["meta"]["seed"] == 9

    assert train_command.main(["toy.py", "--resume"]) == 0
    last = toy / "work_dirs/toy/iter_12.pth"
    saved = checkpointing.read_checkpoint(last)
    assert saved["meta"]["seed"] == 9 and saved["data"]["position"] == 24

    capsys.readouterr()
    assert test_command.main(["toy.py", str(last), "--prompt", "box", "--out", "result"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == str(toy / "result")
    record = json.loads((toy / "result/metrics.json").read_text(), parse_constant=pytest.fail)
    assert record["metrics"]["count"] == 5 and record["metrics"]["odd"] is None
    assert any(f"{record['metrics']['mae']:.4f}" in line for line in out)
    assert record["checkpoint"]["sha256"] == hashlib.sha256(last.read_bytes()).hexdigest()
    assert record["config"] == str(toy / "toy.py") and record["prompt"] == ["box"] and record["seed"] == 3
    assert [item["file"] for item in record["annotations"]] == ["test.toy.json"]
    assert record["versions"]["torch"] == torch.__version__


def test_resume_without_checkpoint_starts(toy, capsys, monkeypatch):
    monkeypatch.setattr(precision, "cpu_computes_bfloat16", lambda: True)
    assert train_command.main(["toy.py", "--work-dir", "new", "--resume", "--amp"]) == 0
    assert "no checkpoint to resume; training starts at the beginning" in capsys.readouterr().out
    assert "BFloat16OptimWrapper" in checkpointing.read_checkpoint(toy / "new/iter_12.pth")["meta"]["cfg"]


def test_weights_start_a_new_run(toy, capsys):
    assert train_command.main(["toy.py", "--work-dir", "one"]) == 0
    weights = str(toy / "one/iter_12.pth")
    options = ["--cfg-options", "optim_wrapper.optimizer.lr=0.0", "train_cfg.max_iters=2"]
    assert train_command.main(["toy.py", "--work-dir", "two", "--weights", weights, *options]) == 0
    one, two = (checkpointing.read_checkpoint(p) for p in (weights, toy / "two/iter_2.pth"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name])
    assert two["meta"]["iter"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.py"], "the configuration absent.py does not exist"),
        (["toy.py", "--resume", "absent.pth"], "the checkpoint absent.pth of --resume does not exist"),
        (["toy.py", "--weights", "absent.pth"], "'absent.pth' is neither an existing file nor a known name"),
        (["toy.py", "--resume", "a.pth", "--weights", "b.pth"], "exclude each other"),
        (["toy.py", "--seed", "-1"], "--seed must not be negative"),
        (["toy.py", "--cfg-options", "model.width=3"], "'model.width' is not in the configuration"),
        (["toy.py", "--launcher", "pytorch"], "start with tools/dist_train.sh"),
        (["toy.py", "--cfg-options", "test_cfg=None", "train_cfg=None"], "does not train"),
    ],
)
def test_errors_are_one_sentence(toy, capsys, arguments, message):
    assert train_command.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_unknown_error_is_not_hidden():
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        commands.run_command(fail)


def test_missing_file_and_interruption(capsys):
    def missing():
        return Path("no/such/file").read_text()

    def interrupted():
        raise KeyboardInterrupt

    assert commands.run_command(missing) == 2
    assert "no/such/file does not exist" in capsys.readouterr().err
    assert commands.run_command(interrupted) == commands.INTERRUPTED
    assert "--resume continues" in capsys.readouterr().err


def test_test_refuses_a_missing_checkpoint(toy, capsys):
    assert test_command.main(["toy.py", "absent.pth"]) == 2
    assert "'absent.pth' is neither" in capsys.readouterr().err
    assert not (toy / "work_dirs").exists(), "nothing is written"


def prepared(*arguments):
    Path("some.pth").touch()
    return test_command.prepare_config(test_command.parse_arguments(["toy.py", "some.pth", *arguments]))


def test_prompt_reaches_nested_datasets(toy):
    cfg = Config.fromfile("toy.py")
    leaf = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = {"type": "ConcatDataset", "datasets": [leaf, {**leaf}]}
    cfg.dump("toy.py")
    datasets = prepared("--prompt", "box").test_dataloader.dataset.datasets
    assert [d.prompt for d in datasets] == ["box", "box"]


def test_show_dir_adds_the_hook_once(toy):
    cfg = prepared("--show-dir", "shown")
    assert cfg.custom_hooks[-1] == {"type": "VisualizePromptsHook", "out_dir": "shown"}
    cfg.dump("toy.py")
    assert [h.type for h in prepared("--show-dir", "b").custom_hooks].count("VisualizePromptsHook") == 1
    assert HOOKS.get("RecordLosses") is not None


def test_datasets_are_selected_or_put_in_place(toy):
    leaf = {"type": "ToyDataset", "data_root": str(toy), "ann_file": "a/annotations/test.a.agnostic.json"}
    cfg = Config.fromfile("toy.py")
    cfg.test_dataloader.dataset = {
        "type": "ConcatDataset",
        "datasets": [leaf, {**leaf, "ann_file": "b/annotations/test.b.json", "noise": 0.0}],
    }
    cfg.dump("toy.py")
    assert prepared("--datasets", "b").test_dataloader.dataset.noise == 0.0
    with pytest.raises(ConfigError, match=r"names 'c', which .* nearest: a, b"):
        prepared("--datasets", "c")
    other = toy / "c/annotations/test.c.agnostic.json"
    other.parent.mkdir(parents=True)
    other.touch()
    chosen = prepared("--datasets", "c", "b").test_dataloader.dataset
    assert [d.ann_file for d in chosen.datasets] == [
        "c/annotations/test.c.agnostic.json",
        "b/annotations/test.b.json",
    ]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(HERE), **more}


def shell(script, *arguments, cwd, **more):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / "tools" / script), *arguments],
        cwd=cwd, env=environment(PATH=path, **more), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_two_processes_by_script(toy):
    done = shell("dist_train.sh", "toy.py", "2", "--work-dir", "run", cwd=toy)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(toy / "run")
    saved = checkpointing.read_checkpoint(toy / "run/iter_12.pth")
    assert saved["meta"]["world_size"] == 2 and saved["data"]["position"] == 48


FAKE_SRUN = """#!/usr/bin/env bash
echo "$@" > "$ARGUMENTS"
while [ "$1" != python ]; do shift; done
SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 SLURM_NODELIST=localhost exec "$@"
"""


def test_slurm_script_with_a_stand_in_for_srun(toy):
    (toy / "bin").mkdir()
    fake = toy / "bin/srun"
    fake.write_text(FAKE_SRUN)
    fake.chmod(0o755)
    assert train_command.main(["toy.py", "--work-dir", "run"]) == 0
    path = f"{toy / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(ROOT / "tools/slurm_test.sh"), "part", "job", "toy.py", "run/iter_12.pth", "--out", "out"],
        cwd=toy, env=environment(PATH=path, PORT="29533", NO_GPU="1", ARGUMENTS=str(toy / "arguments")),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(toy / "out")
    assert "--partition part --job-name job --ntasks 1" in (toy / "arguments").read_text()


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh"])
def test_scripts_explain_themselves(tmp_path, script):
    done = shell(script, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith(f"usage: {script} ")
