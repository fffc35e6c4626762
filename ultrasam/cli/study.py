"""The verb ``study``: list, run and collect the trainings of the composition study."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ultrasam.cli.errors import guarded
from ultrasam.errors import ConfigError

if TYPE_CHECKING:
    from ultrasam.studies.composition import Run, Study


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="ultrasam study",
        description="The composition study (Figure 4): trainings with 0 to 100 %% of an application's images.",
    )
    parser.add_argument("action", choices=("list", "run", "collect"), help="what to do")
    parser.add_argument("config", help="configuration with a study, such as configs/studies/composition_us43d.py")
    parser.add_argument("--data", type=Path, required=True, metavar="ROOT", help="folder of the prepared data")
    parser.add_argument("--out", type=Path, help="folder of the study (default: work_dirs/<configuration>)")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUN", help="runs by name, as `list` shows them")
    parser.add_argument("--index", type=int, metavar="N", help="the training of this number, for job arrays")
    parser.add_argument(
        "--launcher", choices=("local", "torchrun", "slurm"), default="local",
        help="run one after the other here, each with torchrun, or write a Slurm job array (default: local)",
    )  # fmt: skip
    parser.add_argument("--gpus", type=int, default=1, help="processes of each training (default: 1)")
    parser.add_argument("--partition", default="gpu", help="of Slurm (default: gpu)")
    parser.add_argument("--submit", action="store_true", help="also hand the Slurm script to sbatch")
    parser.add_argument("--score", default="segm_mAP", help="score of the figure, such as dice (default: segm_mAP)")
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="values of the configuration to change in every run",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb; return the exit status: 0, or 2 after an error."""
    options = parse_arguments(argv)
    return guarded(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    from ultrasam.engine.config import load_config
    from ultrasam.studies.composition import plan

    cfg = load_config(options.config, options.cfg_options)
    out = (options.out or Path("work_dirs") / Path(str(cfg.filename)).stem).absolute()
    study = plan(cfg, options.data.absolute(), out, options.cfg_options)
    if options.action == "list":
        _list(study)
    elif options.action == "run":
        _run_all(study, options, out)
    else:
        _collect(study, out, options.score)
    return 0


def _list(study: Study) -> None:
    from ultrasam.studies.composition import state

    print(f"{'run':<28}{'training list':<34}{'tests':<14}state")
    for run in study.runs:
        shared = "" if run.folder.name == run.name else f" (same training as {run.folder.name})"
        print(f"{run.name:<28}{run.ann_file:<34}{run.dataset:<14}{state(run, study.prompts)}{shared}")
    print(f"{len(study.runs)} runs, {len(study.trainings)} trainings")


def _chosen(study: Study, options: argparse.Namespace) -> list[Run]:
    """Return the runs that the command line asks for."""
    if options.index is not None:
        if not 0 <= options.index < len(study.trainings):
            raise ConfigError(f"--index must be from 0 to {len(study.trainings) - 1}, got {options.index}")
        return study.trainings[options.index]
    known = {run.name: run for run in study.runs}
    wrong = [name for name in options.only if name not in known]
    if wrong:
        raise ConfigError(f"--only names {wrong[0]!r}; runs are {', '.join(known)}")
    return [known[name] for name in options.only] or study.runs


def _run_all(study: Study, options: argparse.Namespace, out: Path) -> None:
    runs = _chosen(study, options)
    if options.launcher == "slurm":
        _write_job(study, options, out)
        return
    for run in runs:
        _run_one(study, run, options.launcher, options.gpus)
    print(f"{len(runs)} runs are trained and tested; ultrasam study collect draws them: {out}")


def _run_one(study: Study, run: Run, launcher: str, processes: int) -> None:
    """Train a run, unless that is done, and test it with every prompt."""
    from ultrasam.studies.composition import command_of_test, train_command

    done = run.folder / "done"
    if not done.is_file():
        _call(train_command(study, run, launcher, processes), f"training {run.name}")
        done.touch()
    for prompt in study.prompts:
        if not (run.test_folder(prompt) / "metrics.json").is_file():
            _call(command_of_test(study, run, prompt), f"test of {run.name} with {prompt}")


def _call(command: Sequence[str], what: str) -> None:
    print(f"-- {what}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise ConfigError(f"the {what} ended with status {status}; see its message above, and run the study again")


def _write_job(study: Study, options: argparse.Namespace, out: Path) -> None:
    """Write the job array, and submit it where asked."""
    from ultrasam.io.files import write_atomic
    from ultrasam.studies.composition import slurm_script

    inner = ["--launcher", "torchrun", "--gpus", str(options.gpus), "--data", str(study.data), "--out", str(out)]
    changed = ["--cfg-options", *options.cfg_options] if options.cfg_options else []
    command = [sys.executable, "-m", "ultrasam.cli.main", "study", "run", str(study.config), *inner, *changed]
    path = out / "composition.sbatch"
    write_atomic(path, slurm_script(study, command, options.partition, options.gpus).encode())
    if options.submit:
        if shutil.which("sbatch") is None:
            raise ConfigError(f"sbatch is not on this machine; submit {path} on the cluster's login node")
        _call(["sbatch", str(path)], "submission")
    print(f"wrote {path}")


def _collect(study: Study, out: Path, score: str) -> None:
    from ultrasam.studies.composition import scores, trends
    from ultrasam.studies.drawing import write_study

    rows = scores(study, score)
    if not rows:
        raise ConfigError(f"{out} has no tested run; start with `ultrasam study run`")
    paths = write_study(rows, out, score, "More images of the tested application", trends(study, score))
    print(paths[1].read_text(encoding="utf-8"))
    for path in paths:
        print(f"wrote {path}")
