"""The composition study (paper section 3.5, Figure 4): more or fewer training images of the application that is tested.

A configuration with a dictionary ``study`` describes all runs. `python -m data_prep prepare` wrote the training lists:
`train.<family>_<share>.json`, nested, by patient, everything else unchanged.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ultrasam.errors import ConfigError, DataError

PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One training and its tests.

    Attributes:
        family: of the images that vary.
        share: percent of them that training sees.
        seed: of the training.
        dataset: slug that the tests use.
        ann_file: training list below the data root.
        folder: work folder of the training; runs with the same list and seed share it.
    """

    family: str
    share: int
    seed: int
    dataset: str
    ann_file: str
    folder: Path

    @property
    def name(self) -> str:
        """What a user calls the run."""
        return f"{self.family}-{self.share}-seed{self.seed}"

    def test_folder(self, prompt: str) -> Path:
        """Where the test of a prompt goes."""
        return self.folder / f"test_{self.dataset}_{prompt}"


@dataclass(frozen=True)
class Study:
    """All runs of a configuration.

    Attributes:
        config: its file.
        data: root of the prepared data.
        runs: in order of family, share and seed.
        prompts: of the tests.
        options: further ``--cfg-options`` of every command.
    """

    config: Path
    data: Path
    runs: list[Run]
    prompts: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def trainings(self) -> list[list[Run]]:
        """Runs by training: those that share one lie together."""
        found: dict[Path, list[Run]] = {}
        for run in self.runs:
            found.setdefault(run.folder, []).append(run)
        return list(found.values())


def plan(cfg: Config, data: Path, out: Path, options: Sequence[str] = ()) -> Study:
    """Return the runs that a configuration describes.

    Args:
        cfg: with ``study=dict(families={family: test set}, shares=[...], seeds=[...], prompts=[...])``.
        data: root of the prepared data.
        out: folder of the study.
        options: further ``--cfg-options``.

    Raises:
        ConfigError: the configuration describes no study.
        DataError: a training list is missing.
    """
    described = cfg.get("study")
    keys = ("families", "shares", "seeds", "prompts")
    if not isinstance(described, Mapping) or any(key not in described for key in keys):
        raise ConfigError(f"{cfg.filename}: study=dict({', '.join(f'{key}=...' for key in keys)}) was expected")
    known: dict[tuple[str, int], Path] = {}
    runs = []
    for family, dataset in described["families"].items():
        for share in described["shares"]:
            name = f"train.{family}_{share:02d}.json"
            path = data / name
            if not path.is_file():
                raise DataError(f"{path} is missing; run python -m data_prep prepare {data}")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            for seed in described["seeds"]:
                # All of one family is all of the others too: such runs are one training.
                folder = known.setdefault((digest, seed), out / "runs" / f"{family}-{share}-seed{seed}")
                runs.append(Run(str(family), int(share), int(seed), str(dataset), name, folder))
    return Study(Path(str(cfg.filename)), data, runs, tuple(described["prompts"]), tuple(options))


def state(run: Run, prompts: Sequence[str]) -> str:
    """Say how far a run is: "tested", "trained", "started" or "not started"."""
    if all((run.test_folder(prompt) / "metrics.json").is_file() for prompt in prompts):
        return "tested"
    if (run.folder / "done").is_file():
        return "trained"
    return "started" if (run.folder / "last_checkpoint").is_file() else "not started"


def train_command(study: Study, run: Run, launcher: str, processes: int) -> list[str]:
    """Return the command that trains a run, or continues it.

    Args:
        study: the study.
        run: the run.
        launcher: "local", in one process, or "torchrun".
        processes: of torchrun.
    """
    arguments = [
        str(study.config), "--work-dir", str(run.folder), "--seed", str(run.seed), "--resume",
        "--cfg-options", f"train_dataloader.dataset.data_root={study.data}",
        f"train_dataloader.dataset.ann_file={run.ann_file}", *study.options,
    ]  # fmt: skip
    script = str(PROJECT / "tools" / "train.py")
    if launcher == "torchrun":
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        return [sys.executable, *start, script, *arguments, "--launcher", "pytorch"]
    return [sys.executable, script, *arguments]


def command_of_test(study: Study, run: Run, prompt: str) -> list[str]:
    """Return the command that tests a trained run with one prompt."""
    checkpoint = (run.folder / "last_checkpoint").read_text(encoding="utf-8").strip()
    return [
        sys.executable, str(PROJECT / "tools" / "test.py"), str(study.config), checkpoint, "--prompt", prompt,
        "--no-pictures", "--datasets", run.dataset, "--out", str(run.test_folder(prompt)),
        *(["--cfg-options", *study.options] if study.options else []),
    ]  # fmt: skip


def slurm_script(study: Study, command: Sequence[str], partition: str, processes: int) -> str:
    """Return a job array: one task a training, on ``processes`` GPUs, and the tests of its runs.

    Args:
        study: the study.
        command: that does one training and its tests, without its number.
        partition: of the cluster.
        processes: GPUs of a training.
    """
    lines = [
        "#!/usr/bin/env bash",
        "#SBATCH --job-name=ultrasam-composition",
        f"#SBATCH --partition={partition}",
        f"#SBATCH --array=0-{len(study.trainings) - 1}",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks=1",
        f"#SBATCH --gres=gpu:{processes}",
        f"#SBATCH --cpus-per-task={8 * processes}",
        "set -euo pipefail",
        f"exec {shlex.join(command)} --index \"$SLURM_ARRAY_TASK_ID\"",
    ]
    return "\n".join(lines) + "\n"


def scores(study: Study, score: str) -> list[dict[str, Any]]:
    """Return a row for every family, share and prompt that has a tested run.

    Args:
        study: the study.
        score: such as "segm_mAP" or "dice", see ``breakdown`` in metrics.json.

    Returns:
        ``task`` (the prompt), ``data_set``, ``family``, ``share``, ``seeds``, and ``score``, ``low``, ``high`` in
        percent: with several seeds the mean and Student's 95 % interval over them, else the test's own interval.

    Raises:
        DataError: a result lacks the score.
    """
    rows = []
    for prompt in study.prompts:
        for family, share in dict.fromkeys((run.family, run.share) for run in study.runs):
            mine = [run for run in study.runs if (run.family, run.share) == (family, share)]
            files = [run.test_folder(prompt) / "metrics.json" for run in mine]
            found = [_score(path, mine[0].dataset, score) for path in files if path.is_file()]
            if found:
                rows.append({
                    "task": prompt, "data_set": mine[0].dataset, "family": family, "share": share,
                    "seeds": len(found), **_interval(found),
                })  # fmt: skip
    return rows


def trends(study: Study, score: str) -> list[dict[str, Any]]:
    """Return, for every prompt and family, how much a score grows from 0 to 100 % on the line through all tested runs.

    Intervals of single shares over three seeds are wide; the line uses all runs at once.

    Args:
        study: the study.
        score: as for :func:`scores`.

    Returns:
        ``task``, ``data_set``, ``runs``, and ``change``, ``low``, ``high``: the least-squares slope in percent points
        with Student's 95 % interval. Families with fewer than three runs or two shares are left out.

    Raises:
        DataError: a result lacks the score.
    """
    from scipy import stats

    rows = []
    for prompt in study.prompts:
        for family, dataset in dict.fromkeys((run.family, run.dataset) for run in study.runs):
            mine = [run for run in study.runs if run.family == family]
            files = [(run.share, run.test_folder(prompt) / "metrics.json") for run in mine]
            found = [(share, _score(path, dataset, score)["mean"]) for share, path in files if path.is_file()]
            if len(found) < 3 or len({share for share, _ in found}) < 2:
                continue
            line = stats.linregress(*zip(*found, strict=True))
            half = _student(len(found) - 2) * line.stderr
            change = float(line.slope)
            rows.append({
                "task": prompt, "data_set": dataset, "runs": len(found), "change": 100 * change,
                "low": 100 * (change - half), "high": 100 * (change + half),
            })  # fmt: skip
    return rows


def _score(path: Path, dataset: str, score: str) -> dict[str, float]:
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))["breakdown"]["datasets"][dataset][score]
        return {key: 100 * float(entry[key]) for key in ("mean", "low", "high") if entry.get(key) is not None}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} has no {score!r} of {dataset} ({error!r}); delete its folder to test again") from error


def _student(freedom: int) -> float:
    """Return the two-sided 95 % point of Student's t."""
    from scipy import stats

    return float(stats.t.ppf(0.975, freedom))


def _interval(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    if len(found) == 1:
        return {"score": found[0]["mean"], "low": found[0].get("low", math.nan), "high": found[0].get("high", math.nan)}
    values = [one["mean"] for one in found]
    mean = statistics.mean(values)
    half = _student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"score": mean, "low": mean - half, "high": mean + half}
