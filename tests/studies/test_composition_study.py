"""The composition study: its runs, commands, intervals and figure."""

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from scipy import stats

from ultrasam.cli import study as verb
from ultrasam.errors import ConfigError, DataError
from ultrasam.studies.composition import (
    command_of_test,
    plan,
    scores,
    slurm_script,
    state,
    train_command,
    trends,
)  # fmt: skip
from ultrasam.studies.drawing import write_study

STUDY = {
    "families": {"breast": "bus_bra", "ovarian": "mmotu_2d"}, "shares": [0, 10, 100], "seeds": [0, 1],
    "prompts": ["point", "box"],
}  # fmt: skip


def config(tmp_path, **changes):
    cfg = Config({"study": {**STUDY, **changes}})
    cfg._filename = str(tmp_path / "study.py")
    return cfg


@pytest.fixture
def study(tmp_path):
    for family in STUDY["families"]:
        for share in (0, 10):
            (tmp_path / f"train.{family}_{share:02d}.json").write_text(f"{family} {share}")
        (tmp_path / f"train.{family}_100.json").write_text("everything")
    return plan(config(tmp_path), tmp_path, tmp_path / "out", ["optim_wrapper.optimizer.lr=1e-3"])


def give_result(study, run, prompt, value):
    folder = run.test_folder(prompt)
    folder.mkdir(parents=True)
    entry = {"segm_mAP": {"mean": value, "low": value - 0.1, "high": value + 0.1}}
    (folder / "metrics.json").write_text(json.dumps({"breakdown": {"datasets": {run.dataset: entry}}}))


def test_runs_with_the_same_list_are_one_training(study):
    assert len(study.runs) == 12
    assert [len(runs) for runs in study.trainings].count(2) == 2 and len(study.trainings) == 10
    together = [sorted(run.name for run in runs) for runs in study.trainings if len(runs) > 1]
    assert together == [[f"breast-100-seed{seed}", f"ovarian-100-seed{seed}"] for seed in (0, 1)]
    assert len({run.test_folder("box") for run in study.runs}) == 12


def test_the_configuration_of_the_paper_has_fifteen_runs(tmp_path):
    for family in ("breast", "ovarian", "gastrointestinal"):
        for share in ("00", "10", "30", "50", "100"):
            (tmp_path / f"train.{family}_{share}.json").write_text(f"{family} {share}")
    cfg = Config.fromfile(Path(__file__).parents[2] / "configs" / "studies" / "composition_us43d.py")
    found = plan(cfg, tmp_path, tmp_path)
    assert len(found.runs) == 15
    assert {run.family: run.dataset for run in found.runs} == {
        "breast": "bus_bra", "ovarian": "mmotu_2d", "gastrointestinal": "gist514_db",
    }  # fmt: skip


def test_commands(study):
    run = study.runs[2]
    command = train_command(study, run, "torchrun", 4)
    assert command[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4"]
    assert f"train_dataloader.dataset.ann_file={run.ann_file}" in command and "--resume" in command
    assert command[command.index("--seed") + 1] == str(run.seed)
    assert "optim_wrapper.optimizer.lr=1e-3" in command and command[-2:] == ["--launcher", "pytorch"]
    assert "torch.distributed.run" not in train_command(study, run, "local", 4)
    run.folder.mkdir(parents=True)
    (run.folder / "last_checkpoint").write_text("some/iter_5.pth\n")
    command = command_of_test(study, run, "box")
    assert command[command.index("--datasets") + 1] == "bus_bra" and "some/iter_5.pth" in command
    assert command[command.index("--out") + 1] == str(run.test_folder("box"))


def test_states(study):
    run = study.runs[0]
    assert state(run, study.prompts) == "not started"
    run.folder.mkdir(parents=True)
    (run.folder / "last_checkpoint").write_text("x")
    assert state(run, study.prompts) == "started"
    (run.folder / "done").touch()
    assert state(run, study.prompts) == "trained"
    give_result(study, run, "point", 0.5)
    assert state(run, study.prompts) == "trained"
    give_result(study, run, "box", 0.5)
    assert state(run, study.prompts) == "tested"


def test_the_job_array_has_a_task_for_every_training(study, tmp_path):
    text = slurm_script(study, ["python", "-m", "x y"], "gpu_p13", 4)
    assert "#SBATCH --array=0-9\n" in text and "--partition=gpu_p13" in text and "--gres=gpu:4" in text
    assert "'x y' --index \"$SLURM_ARRAY_TASK_ID\"" in text
    path = tmp_path / "job.sh"
    path.write_text(text)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_intervals_over_seeds_are_those_of_student(study):
    for run in study.runs[:2]:
        give_result(study, run, "point", 0.5 + 0.2 * run.seed)
    (row,) = scores(study, "segm_mAP")
    low, high = stats.t.interval(0.95, 1, np.mean([50, 70]), stats.sem([50, 70]))
    assert row["seeds"] == 2 and math.isclose(row["score"], 60)
    assert np.allclose([row["low"], row["high"]], [low, high], rtol=1e-9)
    with pytest.raises(DataError, match="has no 'hd95' of bus_bra"):
        scores(study, "hd95")


def test_the_trend_is_that_of_least_squares(study):
    """12 points in 100 of share and a known scatter: the slope of numpy, and an interval that holds it."""
    rng = np.random.default_rng(0)
    mine = [run for run in study.runs if run.family == study.runs[0].family]
    values = [0.4 + 0.12 * run.share / 100 + rng.normal(0, 0.01) for run in mine]
    for run, value in zip(mine, values, strict=True):
        give_result(study, run, "point", value)
    (row,) = trends(study, "segm_mAP")
    shares = [run.share for run in mine]
    (slope, _), covariance = np.polyfit(shares, values, 1, cov=True)
    half = stats.t.ppf(0.975, len(mine) - 2) * np.sqrt(covariance[0, 0])
    assert row["runs"] == len(mine) == 6
    assert np.allclose([row["change"], row["low"], row["high"]], [1e4 * x for x in (slope, slope - half, slope + half)])


def test_two_runs_have_no_trend(study):
    for run in study.runs[:2]:
        give_result(study, run, "point", 0.5)
    assert trends(study, "segm_mAP") == []


def test_table_and_figure(study, tmp_path):
    for run in study.runs:
        for prompt in study.prompts:
            give_result(study, run, prompt, 0.4 + run.share / 250 + 0.01 * run.seed)
    rows = scores(study, "segm_mAP")
    assert len(rows) == 2 * 2 * 3
    paths = write_study(rows, tmp_path / "figure", "segm_mAP", "Title", trends(study, "segm_mAP"))
    assert [path.name for path in paths] == [f"composition.{suffix}" for suffix in ("csv", "md", "png", "svg")]
    assert "| point | bus_bra | 40.5 (" in paths[1].read_text()
    assert "| box | bus_bra | 6 | +40.0 (" in paths[1].read_text()
    assert paths[2].read_bytes().startswith(b"\x89PNG") and b"<svg" in paths[3].read_bytes()


def test_what_is_wrong_is_named(study, tmp_path):
    with pytest.raises(ConfigError, match="study=dict"):
        plan(Config({"a": 1}), tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"train\.breast_30\.json is missing; run python -m data_prep prepare"):
        plan(config(tmp_path, shares=[30]), tmp_path, tmp_path)


def test_it_runs_from_phantom_to_figure(tmp_path, monkeypatch, capfd):
    """Trainings and tests of a tiny network, started as the command does but in this process."""
    from data_prep.cli import main as data_prep
    from ultrasam.datasets.phantom.cli import main as phantom
    from ultrasam.engine.test import main as test
    from ultrasam.engine.train import main as train

    called = []

    def in_this_process(command, what):
        called.append(what)
        assert {"train.py": train, "test.py": test}[Path(command[1]).name](command[2:]) == 0

    monkeypatch.setattr(verb, "_call", in_this_process)
    assert phantom([str(tmp_path / "data"), "--images", "40", "--size", "96", "--workers", "1"]) == 0
    assert data_prep(["prepare", str(tmp_path / "data"), "--workers", "1"]) == 0
    monkeypatch.setenv("ULTRASAM_PHANTOM", str(tmp_path / "data"))
    places = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "o")]
    arguments = ["configs/studies/composition_phantom.py", *places]
    small = [
        "--cfg-options", "model.image_size=64", "train_cfg.max_iters=2", "train_cfg.val_interval=2", "study.seeds=[0]",
        "study.shares=[100]", "study.prompts=[box]",
        "train_dataloader.dataset.pipeline.2.square=64", "train_dataloader.dataset.pipeline.2.target_size=16",
        "val_dataloader.dataset.pipeline.1.square=64", "test_dataloader.dataset.datasets.0.pipeline.1.square=64",
        "test_dataloader.dataset.datasets.1.pipeline.1.square=64",
        "train_dataloader.num_workers=0", "val_dataloader.num_workers=0", "test_dataloader.num_workers=0",
    ]  # fmt: skip
    assert verb.main(["run", *arguments, *small]) == 0
    assert len(called) == 3, "both families share the training with everything"
    assert verb.main(["run", *arguments, *small]) == 0
    assert len(called) == 3, "what is done is not done again"
    capfd.readouterr()
    assert verb.main(["collect", *arguments, "--score", "dice", *small]) == 0
    assert "| box | phantom_breast |" in capfd.readouterr().out
    assert (tmp_path / "o" / "composition.png").stat().st_size > 5000
