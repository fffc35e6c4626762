"""MMEngine's runner with exact resuming, safe checkpoints, and the same behaviour with and without a GPU."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, RUNNERS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

import ultrasam
from ultrasam.datasets.composition import composition_of
from ultrasam.engine import checkpointing as ckpt
from ultrasam.engine.distributed import gather_to_all, init_distributed, process_count, process_rank
from ultrasam.engine.hooks import SafeCheckpointHook
from ultrasam.engine.loops import ResumableIterLoop
from ultrasam.engine.precision import (
    compile_modules,
    recompute_activations,
    resolve_optim_wrapper,
    set_float32_precision,
)
from ultrasam.engine.random_state import get_random_state, set_random_state
from ultrasam.engine.sampling import SeededDataset
from ultrasam.engine.sharding import Sharding, shard_like, shard_model, whole
from ultrasam.errors import CheckpointError

_used_timestamps: set[str] = set()


def _unused_timestamp(timestamp: str) -> str:
    """Number a timestamp that this process used already: MMEngine shares objects by that name."""
    candidate, number = timestamp, 1
    while candidate in _used_timestamps:
        number += 1
        candidate = f"{timestamp}_{number}"
    _used_timestamps.add(candidate)
    return candidate


@RUNNERS.register_module()
class UltraSamRunner(Runner):
    """Runner of UltraSam; every argument is that of :class:`mmengine.runner.Runner`.

    Further keys of the configuration:

    * ``env_cfg.tf32``: TF32 in float32 products of a GPU. ``env_cfg.dist_cfg``: ``backend`` (auto, nccl,
      gloo),
      ``timeout`` in seconds, ``port``.
    * ``recompute_modules``: names of modules whose activations are recomputed instead of stored.
    * ``fsdp``: arguments of :func:`ultrasam.engine.sharding.shard_model`; a run of several processes shards weights,
      gradients and optimizer instead of copying them (DDP).
    * ``compile``: as in MMEngine, or ``dict(modules=[...], **options)`` to compile these modules in place.
    * ``optim_wrapper``: see :func:`ultrasam.engine.precision.resolve_optim_wrapper`.

    ``IterBasedTrainLoop`` is built as :class:`~ultrasam.engine.loops.ResumableIterLoop` and
    ``CheckpointHook`` as :class:`~ultrasam.engine.hooks.SafeCheckpointHook`.
    """

    _timestamp: str
    optim_wrapper: Any
    param_schedulers: Any
    _pending_random_state: dict[str, Any] | None = None
    _started_from: dict[str, Any] | None = None
    _sharding: Sharding | None = None

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """Join the process group and set the switches of the machine.

        Args:
            env_cfg: ``env_cfg`` of the configuration.
        """
        init_distributed(self._launcher, **env_cfg.get("dist_cfg", {}))
        super().setup_env(env_cfg)
        set_float32_precision(bool(env_cfg.get("tf32", False)))
        self._timestamp = _unused_timestamp(self._timestamp)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """Move the model to its device and, in a distributed run, wrap it.

        Args:
            model_wrapper_cfg: Arguments of ``MMDistributedDataParallel``, or None.
            model: The model.
        """
        patterns = self.cfg.get("recompute_modules", None)
        if patterns:
            count = recompute_activations(model, patterns)
            self.logger.info(f"The activations of {count} modules are recomputed in the backward pass.")
        if self.shards:
            # Sharded when training starts, because weights are loaded while they are whole.
            return model.to(get_device())
        if self.distributed and not torch.cuda.is_available():
            # DDP refuses device_ids for a model on the CPU.
            model_wrapper_cfg = {
                "type": "MMDistributedDataParallel",
                "broadcast_buffers": False,
                "find_unused_parameters": self.cfg.get("find_unused_parameters", False),
                **(model_wrapper_cfg or {}),
                "device_ids": None,
            }
        return super().wrap_model(model_wrapper_cfg, model)

    @property
    def shards(self) -> bool:
        """Whether training shares the weights out among the processes."""
        return self.distributed and self.cfg.get("fsdp", None) is not None

    @property
    def bare_model(self) -> nn.Module:
        """The model without its distributed wrapper."""
        return self.model.module if is_model_wrapper(self.model) else self.model

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict[str, Any], seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader whose samples are random by (seed, draw, index), not by worker.

        Args:
            dataloader: Loader (returned as it is) or its configuration.
            seed: Seed of the run; 0 where None.
            diff_rank_seed: As in MMEngine.
        """
        if isinstance(dataloader, DataLoader):
            return dataloader
        cfg = dict(dataloader)
        dataset = cfg["dataset"]
        if isinstance(dataset, Mapping):
            dataset = DATASETS.build(dataset)
            if hasattr(dataset, "full_init"):
                dataset.full_init()
        cfg["dataset"] = SeededDataset(dataset, seed or 0)
        if not cfg.get("num_workers"):
            cfg.pop("persistent_workers", None)
            cfg.pop("prefetch_factor", None)
        return Runner.build_dataloader(cfg, seed=seed, diff_rank_seed=diff_rank_seed)

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop, the resumable one for iteration-based training.

        Args:
            loop: ``train_cfg`` of the configuration, or a loop.
        """
        if isinstance(loop, Mapping):
            loop = dict(loop)
            kind = loop.get("type")
            if kind == "IterBasedTrainLoop" or (kind is None and loop.get("by_epoch") is False):
                loop.pop("by_epoch", None)
                loop["type"] = ResumableIterLoop
        return super().build_train_loop(loop)

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """Build the optimizer as this machine allows (bfloat16, fused kernels).

        Args:
            optim_wrapper: ``optim_wrapper`` of the configuration, or a wrapper.
        """
        if isinstance(optim_wrapper, Mapping) and isinstance(optim_wrapper.get("optimizer"), Mapping):
            optim_wrapper = resolve_optim_wrapper(optim_wrapper)
        return super().build_optim_wrapper(optim_wrapper)

    def register_default_hooks(self, hooks: dict[str, Any] | None = None) -> None:
        """Register the default hooks, with the checkpoint hook that writes before it deletes.

        Args:
            hooks: ``default_hooks`` of the configuration.
        """
        hooks = dict(hooks or {})
        checkpoint = hooks.get("checkpoint", {"type": "CheckpointHook", "interval": 1})
        if isinstance(checkpoint, Mapping) and checkpoint.get("type") == "CheckpointHook":
            hooks["checkpoint"] = {**checkpoint, "type": SafeCheckpointHook}
        super().register_default_hooks(hooks)

    def _maybe_compile(self, target: str) -> None:
        options = self.cfg.get("compile", None)
        if isinstance(options, Mapping) and "modules" in options:
            options = dict(options)
            count = compile_modules(self.bare_model, options.pop("modules"), **options)
            self.logger.info(f"{count} modules are compiled; the first iterations are slow.")
            return
        super()._maybe_compile(target)

    def train(self) -> nn.Module:
        """Train, and stop the workers of the loaders at the end.

        Returns:
            The model, wrapped as in the runner.
        """
        try:
            if self.shards and self._sharding is None:
                self._shard(dict(self.cfg.fsdp))
            return super().train()
        finally:
            self._stop_workers()

    def _shard(self, options: dict[str, Any]) -> None:
        """Shard the model with the weights that it starts with; a checkpoint to resume is read again for the rest."""
        super()._init_model_weights()
        start = self._starting_point()
        if start is not None and self._resume:
            self._resume_weights(ckpt.read_checkpoint(start), start)
        elif start is not None:
            self.load_checkpoint(start)
        card = getattr(self.bare_model, "card", None)
        if callable(card):
            # What a card says of frozen weights is computed once, which needs them whole.
            card()
        self._sharding = shard_model(self.model, **options)
        self.logger.info(
            f"Weights, gradients and optimizer are shared out among {process_count()} processes; "
            f"{len(self._sharding.modules) - 1} modules are gathered one at a time."
        )

    def _init_model_weights(self) -> None:
        if self._sharding is None:
            super()._init_model_weights()

    def evaluation(self) -> AbstractContextManager[None]:
        """Return the context in which validation and tests must run the model."""
        return nullcontext() if self._sharding is None else self._sharding.gathered()

    def test(self) -> dict[str, float]:
        """Test, and stop the workers of the loader at the end.

        Returns:
            Metrics by name.
        """
        try:
            with self.evaluation():
                return super().test()
        finally:
            self._stop_workers()

    def _stop_workers(self) -> None:
        # Persistent workers live as long as their loader, which reference cycles of the runner keep alive;
        # stopped by the garbage collector, they can hang for half a minute.
        for loop in (self._train_loop, self._val_loop, self._test_loop):
            loader: Any = getattr(loop, "dataloader", None)
            iterator = getattr(loader, "_iterator", None)
            if iterator is not None:
                iterator._shutdown_workers()
                loader._iterator = None

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Load weights of any known format, strictly and without running code from the file.

        Args:
            filename: The weight file (``load_from`` of the configuration).
            *args: Ignored arguments of MMEngine's method.
            **kwargs: Likewise.
        """
        self.logger.info(f"Loaded {ckpt.load_weights(self.bare_model, filename)}")
        self._started_from = ckpt.origin_of(filename)
        self._has_loaded = True
        return {}

    def load_or_resume(self) -> None:
        """Load ``load_from``, or resume it (where it is None, the newest of ``work_dir``)."""
        if self._has_loaded:
            return
        start = self._starting_point()
        if start is None:
            if self._resume:
                self.logger.warning(
                    f"{self.work_dir} holds no checkpoint to resume; training starts at the beginning"
                )
            return
        if self._resume:
            self.resume(start)
        else:
            self.load_checkpoint(start)

    def _starting_point(self) -> str | None:
        """Return the file to load or to resume, None where there is none."""
        if self._load_from is not None:
            return str(self._load_from)
        latest = ckpt.latest_checkpoint(self.work_dir) if self._resume else None
        return None if latest is None else str(latest)

    def resume(
        self, filename: str, resume_optimizer: bool = True, resume_param_scheduler: bool = True, **kwargs: Any
    ) -> None:
        """Continue training exactly where a checkpoint was written.

        Args:
            filename: A checkpoint of this engine.
            resume_optimizer: Restore the optimizer.
            resume_param_scheduler: Restore the schedulers of the learning rate.
            **kwargs: Ignored arguments of MMEngine's method.

        Raises:
            CheckpointError: If the file is damaged, holds no optimizer, is of another architecture, or counted
                iterations otherwise.
        """
        saved = ckpt.read_checkpoint(filename)
        if "optimizer" not in saved:
            raise CheckpointError(
                f"{filename} holds weights without the optimizer, so training cannot be continued from it; "
                "start a new run from it with --weights"
            )
        self._check_accumulation(saved["meta"], filename)
        self.call_hook("after_load_checkpoint", checkpoint=saved)
        if self._sharding is None:
            self._resume_weights(saved, filename)
        self._started_from = (saved["card"].get("training") or {}).get("started_from")
        self.train_loop._epoch = saved["meta"]["epoch"]
        self.train_loop._iter = saved["meta"]["iter"]
        if saved["data"] is not None:
            self.train_loop.load_state_dict(saved["data"])
        self._seed = saved["meta"]["seed"]
        ckpt.load_hub_state(self.message_hub, saved["message_hub"])
        if resume_optimizer:
            self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
            groups = self.optim_wrapper.optimizer.param_groups
            parameters = [parameter for group in groups for parameter in group["params"]]
            ckpt.load_optimizer_state(self.optim_wrapper, shard_like(saved["optimizer"], parameters))
        if resume_param_scheduler and self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            for scheduler, state in zip(self.param_schedulers, saved["param_schedulers"], strict=True):
                ckpt.load_scheduler_state(scheduler, state)
        self._take_random_state(saved["random_states"])
        self._has_loaded = True
        self.logger.info(f"Resumed from {filename} after iteration {self.iter}.")

    def _resume_weights(self, saved: dict[str, Any], filename: str) -> None:
        ckpt.load_exactly(self.bare_model, saved["state_dict"], filename)
        ckpt.follow_card(self.bare_model, saved["card"], filename)

    @property
    def accumulation(self) -> int:
        """Batches of an optimizer step."""
        return int((self.cfg.get("optim_wrapper") or {}).get("accumulative_counts", 1))

    def _check_accumulation(self, meta: Mapping[str, Any], filename: str) -> None:
        """Refuse to continue with iterations that are other parts of an optimizer step."""
        saved = meta.get("accumulation", self.accumulation)
        if saved != self.accumulation:
            raise CheckpointError(
                f"{filename} was trained with {saved} batches an optimizer step and this run has {self.accumulation}, "
                "so its iterations and schedule mean something else; resume with the processes and batch of that run"
            )

    def _take_random_state(self, states: list[dict[str, Any]]) -> None:
        if len(states) != process_count():
            self.logger.warning(
                f"The checkpoint was written by {len(states)} processes and is resumed by "
                f"{process_count()}: the data "
                "continue where they stopped, but the model's own randomness starts anew."
            )
            return
        self._pending_random_state = states[process_rank()]

    def restore_random_state(self) -> None:
        """Set the generators as in the resumed checkpoint; the loop calls this before its first step."""
        if self._pending_random_state is not None:
            set_random_state(self._pending_random_state)
            self._pending_random_state = None

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict[str, Any] | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict[str, Any] | None = None,
        by_epoch: bool = True,
        backend_args: dict[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint; every process must call this, the first one writes.

        Args:
            out_dir: Local folder.
            filename: Name of the file in it.
            file_client_args: Ignored.
            save_optimizer: Save what resuming needs; without it, the file holds weights, card and meta.
            save_param_scheduler: Save the schedulers.
            meta: ``epoch`` and ``iter`` of the checkpoint, and anything else.
            by_epoch: How to count where ``meta`` does not say.
            backend_args: Ignored.
        """
        random_states = gather_to_all(get_random_state()) if save_optimizer else []
        model, keep = self.bare_model, is_main_process()
        # Gathering what is sharded takes every process.
        weights = whole(model.state_dict(), keep)
        optimizer = whole(self.optim_wrapper.state_dict(), keep) if save_optimizer else None
        if not keep:
            return
        card = getattr(model, "card", None)
        checkpoint: dict[str, Any] = {
            "format": ckpt.FORMAT,
            "meta": {**self._default_meta(by_epoch), **(meta or {})},
            "card": {**(card() if callable(card) else {}), "training": self._training_card()},
            "state_dict": weights,
            "message_hub": ckpt.hub_state(self.message_hub),
        }
        if save_optimizer:
            loop = self.train_loop
            checkpoint["optimizer"] = optimizer
            checkpoint["random_states"] = random_states
            checkpoint["data"] = loop.state_dict() if hasattr(loop, "state_dict") else None
        if save_param_scheduler:
            checkpoint["param_schedulers"] = [s.state_dict() for s in self.param_schedulers or []]
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        ckpt.write_checkpoint(checkpoint, Path(out_dir) / filename)

    def _training_card(self) -> dict[str, Any]:
        """Return what the weights were trained on."""
        found = composition_of(self.train_dataloader.dataset)
        if self._started_from:
            found["started_from"] = self._started_from
        return found

    def _default_meta(self, by_epoch: bool) -> dict[str, Any]:
        meta = {
            "epoch": self.epoch + 1 if by_epoch else self.epoch,
            "iter": self.iter if by_epoch else self.iter + 1,
            "seed": self.seed,
            "cfg": self.cfg.pretty_text,
            "experiment_name": self.experiment_name,
            "time": time.strftime("%Y%m%d_%H%M%S", time.localtime()),
            "world_size": process_count(),
            "accumulation": self.accumulation,
            "versions": {
                "ultrasam": getattr(ultrasam, "__version__", "unknown"),
                "torch": torch.__version__,
                "mmengine": mmengine.__version__,
            },
        }
        dataset_meta = getattr(self.train_dataloader.dataset, "metainfo", None)
        return meta if dataset_meta is None else {**meta, "dataset_meta": dataset_meta}
