"""The training loop: counts iterations, continues mid-epoch without loading data again."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.registry import LOOPS
from mmengine.runner import IterBasedTrainLoop
from mmengine.runner.base_loop import BaseLoop
from mmengine.runner.loops import _InfiniteDataloaderIterator
from mmengine.runner.utils import calc_dynamic_intervals
from torch.utils.data import BatchSampler

from ultrasam.engine.distributed import mean_over_processes, process_count
from ultrasam.engine.mixing import MixedSampler
from ultrasam.engine.random_state import random_state_kept
from ultrasam.engine.sampling import ResumableInfiniteSampler
from ultrasam.errors import ConfigError


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """MMEngine's ``IterBasedTrainLoop``, resumable bit for bit (the runner puts it in its place).

    The loader starts only when training does, at the position of the sampler; validation does not touch the
    random generators of training; logged losses are averaged over all processes.

    Args:
        runner: The runner.
        dataloader: Training loader or its configuration; its sampler must be a
            :class:`~ultrasam.engine.sampling.ResumableInfiniteSampler`.
        max_iters: Iterations (of one batch each; with accumulated gradients, not optimizer steps).
        val_begin: First iteration after which validation may run.
        val_interval: Iterations between validations; the last iteration is always validated.
        dynamic_intervals: (iteration, interval) pairs that change ``val_interval`` on the way.

    Raises:
        ConfigError: If the loader's sampler cannot be resumed.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        # The parent's constructor would start the loader's workers, before a checkpoint could set their
        # position.
        BaseLoop.__init__(self, runner, dataloader)
        if int(max_iters) != max_iters:
            raise ConfigError(f"train_cfg.max_iters must be a whole number, but is {max_iters}")
        self._max_iters = int(max_iters)
        self._max_epochs = 1
        self._epoch = 0
        self._iter = 0
        self.val_begin = val_begin
        self.val_interval = val_interval
        self.stop_training = False
        self.dataloader_iterator: Any = None
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(
            val_interval, dynamic_intervals
        )
        if hasattr(self.dataloader.dataset, "metainfo"):
            self.runner.visualizer.dataset_meta = self.dataloader.dataset.metainfo
        self.sampler = self._resumable_sampler()
        if isinstance(self.sampler, MixedSampler):
            runner.logger.info(f"Every batch mixes {self.sampler.describe()}")

    def _resumable_sampler(self) -> ResumableInfiniteSampler:
        sampler = self.dataloader.sampler
        if (
            isinstance(sampler, ResumableInfiniteSampler)
            and type(self.dataloader.batch_sampler) is BatchSampler
        ):
            return sampler
        raise ConfigError(
            f"train_dataloader samples with {type(sampler).__name__} and "
            f"{type(self.dataloader.batch_sampler).__name__}, "
            "whose position cannot be saved; set "
            "train_dataloader.sampler=dict(type='ResumableInfiniteSampler') "
            "without batch_sampler"
        )

    def run(self) -> torch.nn.Module:
        """Train from the current iteration to the last.

        Returns:
            The model, wrapped as it is in the runner.
        """
        self.runner.call_hook("before_train")
        self.runner.call_hook("before_train_epoch")
        if self._iter < self._max_iters:
            self.dataloader_iterator = _InfiniteDataloaderIterator(self.dataloader)
        # Starting the loader draws from the generators; an uninterrupted run did so before its first
        # iteration.
        self.runner.restore_random_state()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            batch = next(self.dataloader_iterator)
            self.sampler.advance(self.dataloader.batch_size * process_count())
            self.run_iter(batch)
            self._decide_current_val_interval()
            if self._validation_due():
                with random_state_kept(), self.runner.evaluation():
                    self.runner.val_loop.run()
        self.dataloader_iterator = None
        self.runner.call_hook("after_train_epoch")
        self.runner.call_hook("after_train")
        return self.runner.model

    def _validation_due(self) -> bool:
        return (
            self.runner.val_loop is not None
            and self._iter >= self.val_begin
            and (self._iter % self.val_interval == 0 or self._iter == self._max_iters)
        )

    def run_iter(self, data_batch: Any) -> None:
        """Train on one batch.

        Args:
            data_batch: What the loader's collate function returned.
        """
        self.runner.call_hook("before_train_iter", batch_idx=self._iter, data_batch=data_batch)
        outputs = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
        outputs = mean_over_processes(outputs)
        self.runner.call_hook(
            "after_train_iter", batch_idx=self._iter, data_batch=data_batch, outputs=outputs
        )
        self._iter += 1

    def state_dict(self) -> dict[str, int]:
        """Return the position of the sampler."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a saved position, with the seed it was drawn with."""
        self.sampler.load_state_dict(state)
        self.dataloader.dataset.seed = state["seed"]
