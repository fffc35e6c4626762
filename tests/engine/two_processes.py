"""Run by torchrun from test_distributed.py: trains whole, half, resumed, and tests; writes what it saw."""

import json
import sys
from pathlib import Path

from mmengine.config import Config
from test_resume import run
from toys import toy_config

from ultrasam.engine.build import build_runner
from ultrasam.engine.distributed import close_distributed, init_distributed, process_rank

folder = Path(sys.argv[1])
init_distributed("pytorch")


def config(name):
    cfg = toy_config(folder / name, launcher="pytorch")
    cfg["model"] = {"type": "ToyModel", "dropout": 0.0}
    return cfg


_, whole = run(config("whole"))
random = config("random")
random["model"]["dropout"] = 0.5
_, uninterrupted = run({**random, "work_dir": str(folder / "uninterrupted")})
_, first = run(random, stop_after=6)
_, second = run(random, resume=str(folder / "random" / "iter_6.pth"))
metrics = build_runner(Config(config("tested"))).test()


def sharded(name, dropout):
    """Sharded: the body is gathered on its own; five samples of validation on two processes."""
    cfg = config(name)
    cfg["model"]["dropout"] = dropout
    return {**cfg, "fsdp": {"modules": ["body"]}}


_, whole_sharded = run(sharded("whole_sharded", 0.0))
_, uninterrupted_sharded = run(sharded("uninterrupted_sharded", 0.5))
_, first_sharded = run(sharded("random_sharded", 0.5), stop_after=6)
_, second_sharded = run(sharded("random_sharded", 0.5), resume=str(folder / "random_sharded" / "iter_6.pth"))
runner, _ = run({**sharded("tested_sharded", 0.0), "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 1}})
tested = runner.test()
seen = {
    "losses": whole.losses,
    "losses_sharded": whole_sharded.losses,
    "uninterrupted_sharded": uninterrupted_sharded.losses,
    "resumed_sharded": first_sharded.losses + second_sharded.losses,
    "metrics_sharded": {name: tested[name] for name in ("mae", "count")},
    "uninterrupted": uninterrupted.losses,
    "resumed": first.losses + second.losses,
    "metrics": {name: metrics[name] for name in ("mae", "count")},
}
(folder / f"rank{process_rank()}.json").write_text(json.dumps(seen))
close_distributed()
