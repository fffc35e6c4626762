"""A toy model, dataset, transform and metric: small enough that every number can be compared."""

import random

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset


@MODELS.register_module()
class ToyModel(BaseModel):
    def __init__(self, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, width), nn.Tanh())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, inputs, targets, mode="loss"):
        inputs, targets = torch.stack(list(inputs)), torch.stack(list(targets))
        predicted = self.head(self.body(inputs)).squeeze(-1)
        if mode == "loss":
            return {"loss": (predicted.float() - targets).square().mean()}
        return [{"error": float(e)} for e in (predicted - targets).abs()]

    def card(self):
        return {"architecture": "toy", "width": np.int64(self.body[0].out_features)}


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Noise of all three global generators is added to every sample."""

    METAINFO = {"classes": ("a",)}

    def __init__(
        self, size: int = 11, noise: float = 0.1, ann_file: str = "", data_root: str = "", prompt="point"
    ):
        self.size, self.noise, self.prompt = size, noise, prompt
        self.metainfo = dict(self.METAINFO)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        fixed = np.random.RandomState(int(index)).randn(4).astype(np.float32)
        noise = np.random.randn(4).astype(np.float32) + random.random()
        inputs = torch.from_numpy(fixed + self.noise * noise) + self.noise * torch.randn(4)
        return {"inputs": inputs, "targets": torch.tensor(float(fixed.sum() + (self.prompt == "box")))}


@METRICS.register_module()
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(sample["error"] for sample in data_samples)

    def compute_metrics(self, results):
        return {"mae": np.float64(np.mean(results)), "count": len(results), "odd": float("nan")}


@HOOKS.register_module()
class RecordLosses(Hook):
    """Keeps every logged loss and learning rate, and can interrupt training."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after
        self.losses: list[float] = []
        self.rates: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs["loss"].detach()))
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])
        if self.stop_after == runner.iter + 1:
            runner.train_loop.stop_training = True


def toy_config(work_dir, **changes):
    """A complete configuration; every default hook that matters is on."""
    loader = {
        "batch_size": 2,
        "num_workers": 0,
        "dataset": {"type": "ToyDataset", "size": 11, "ann_file": "train.toy.json"},
        "sampler": {"type": "ResumableInfiniteSampler"},
    }

    def evaluation(split):
        return {
            "batch_size": 2,
            "num_workers": 0,
            "dataset": {"type": "ToyDataset", "size": 5, "noise": 0.05, "ann_file": f"{split}.toy.json"},
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        }

    cfg = {
        "default_scope": "mmengine",
        "model": {"type": "ToyModel"},
        "work_dir": str(work_dir),
        "train_dataloader": loader,
        "val_dataloader": evaluation("val"),
        "test_dataloader": evaluation("test"),
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 12, "val_interval": 4},
        "val_cfg": {},
        "test_cfg": {},
        "val_evaluator": {"type": "ToyMetric"},
        "test_evaluator": {"type": "ToyMetric"},
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": 0.01, "weight_decay": 1e-4, "fused": "auto"},
            "clip_grad": {"max_norm": 0.1},
        },
        "param_scheduler": [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 5},
            {"type": "MultiStepLR", "milestones": [8], "by_epoch": False},
        ],
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 6, "max_keep_ckpts": 1},
            "logger": {"type": "LoggerHook", "interval": 1, "log_metric_by_epoch": False},
        },
        "custom_hooks": [{"type": "RecordLosses"}],
        "log_processor": {"type": "LogProcessor", "window_size": 5, "by_epoch": False},
        "log_level": "ERROR",
        "randomness": {"seed": 3},
        "env_cfg": {},
        "load_from": None,
        "resume": False,
        "allow_test_selection": False,
    }
    return {**cfg, **changes}
