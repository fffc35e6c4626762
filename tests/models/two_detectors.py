"""Training of the real detector for test_two_process_detector.py; run by torchrun it is one of two processes."""

import json
import sys
from pathlib import Path

from mini_batches import SIZE, packed
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from torch.utils.data import Dataset

from ultrasam.engine.build import build_runner
from ultrasam.engine.distributed import close_distributed, init_distributed, process_rank
from ultrasam.engine.sharding import whole

# Objects of the images in the order of drawing, four a step; the second process draws every other one.
COUNTS = (2, 0, 3, 0, 0, 0, 0, 0, 1, 4, 0, 2, 0, 1, 0, 3)


@DATASETS.register_module()
class CountedObjects(Dataset):
    def __len__(self):
        return len(COUNTS)

    def __getitem__(self, index):
        return packed(int(index), COUNTS[index])


@HOOKS.register_module()
class KeepEveryLoss(Hook):
    def __init__(self):
        self.logged = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.logged.append({name: float(value.detach()) for name, value in outputs.items()})


def config(folder, batch_size, launcher="none", fsdp=None, **model):
    return Config(
        {
            "default_scope": "mmdet",
            "work_dir": str(folder),
            "launcher": launcher,
            "fsdp": fsdp,
            "model": {
                "type": "UltraSamDetector", "arch": "vit_tiny", "image_size": SIZE, "dropout": 0.0, **model
            },
            "train_dataloader": {
                "batch_size": batch_size,
                "num_workers": 0,
                "dataset": {"type": "CountedObjects"},
                "sampler": {"type": "ResumableInfiniteSampler", "shuffle": False},
            },
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": len(COUNTS) // 4, "val_interval": 1000},
            "optim_wrapper": {
                "type": "OptimWrapper",
                "optimizer": {"type": "SGD", "lr": 0.05},
                "clip_grad": {"max_norm": 2.0},
            },
            "default_hooks": {
                "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": len(COUNTS) // 4},
            },
            "custom_hooks": [{"type": "KeepEveryLoss"}, {"type": "WeightFileHook"}],
            "log_processor": {"type": "LogProcessor", "window_size": 5, "by_epoch": False},
            "log_level": "ERROR",
            "randomness": {"seed": 3},
            "env_cfg": {},
            "load_from": None,
            "resume": False,
        }
    )  # fmt: skip


# Name of the folder to the model's arguments.
CASES = {
    "refined": {},
    "frozen": {"freeze": ["image_encoder"], "passes": ["multi"], "decode_chunk": 2},
    "med_sa": {"method": "med_sa", "adapter": {"init": "default"}},
}
# Those that are also trained with sharded weights (FSDP).
SHARDED = ("refined", "med_sa")


def train(cfg):
    """Train, and return the logged losses and how far the weights moved (largest change)."""
    runner = build_runner(cfg)
    before = {name: value.clone() for name, value in runner.bare_model.state_dict().items()}
    runner.train()
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, KeepEveryLoss)]
    after = whole(runner.bare_model.state_dict())
    return hook.logged, max(float((value - before[name]).abs().max()) for name, value in after.items())


if __name__ == "__main__":
    root = Path(sys.argv[1])
    init_distributed("pytorch")
    seen = {name: train(config(root / name, 2, "pytorch", **model))[0] for name, model in CASES.items()}
    for name in SHARDED:
        cfg = config(root / f"{name}_sharded", 2, "pytorch", {}, **CASES[name])
        seen[f"{name}_sharded"] = train(cfg)[0]
    (root / f"rank{process_rank()}.json").write_text(json.dumps(seen))
    close_distributed()
