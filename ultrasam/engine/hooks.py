"""Hooks of the engine: checkpoints that are never lost, and progress on the terminal."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import HOOKS
from tqdm import tqdm

from ultrasam.engine.checkpointing import POINTER, write_text
from ultrasam.errors import ConfigError


class _DeferredRemoval:
    """File backend that remembers what to remove instead of removing it."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        """Note a file for removal."""
        self.removed.append(str(path))


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, which deletes an old checkpoint only after the new one is complete.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.CheckpointHook`; ``published_keys`` is refused.
    """

    file_backend: Any

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("published_keys") is not None:
            raise ConfigError(
                "default_hooks.checkpoint.published_keys is not supported, because it unpickles and "
                "rewrites files; "
                "remove it (the file of save_best holds the weights without the optimizer)"
            )
        super().__init__(**kwargs)

    @contextmanager
    def _deletions_last(self) -> Iterator[None]:
        backend = self.file_backend
        deferred = _DeferredRemoval(backend)
        self.file_backend = deferred
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, "best_ckpt_path", None), *getattr(self, "best_ckpt_path_dict", {}).values()
        in_use = {str(path) for path in (self.last_ckpt, *best) if path}
        for path in deferred.removed:
            if path not in in_use:
                backend.remove(path)

    def _save_checkpoint_with_step(self, runner: Any, step: int, meta: dict[str, Any]) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and not (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.keep_ckpt_ids.popleft()
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        folder = Path(self.out_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(folder / name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
        )
        if is_main_process():
            write_text(Path(runner.work_dir) / POINTER, self.last_ckpt)
            if outdated is not None:
                (folder / self.filename_tmpl.format(outdated)).unlink(missing_ok=True)

    def _save_best_checkpoint(self, runner: Any, metrics: dict[str, Any]) -> None:
        if self.save_best:
            unknown = [key for key in self.key_indicators if key != "auto" and key not in metrics]
            if unknown:
                raise ConfigError(
                    f"default_hooks.checkpoint.save_best names {unknown[0]!r}, which validation does not "
                    f"compute; "
                    f"it computes {', '.join(metrics)}"
                )
        with self._deletions_last():
            super()._save_best_checkpoint(runner, metrics)


class _AboveBar:
    """Stream that prints log lines above the progress bar."""

    def write(self, text: str) -> None:
        tqdm.write(text, end="", file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()


@HOOKS.register_module()
class ProgressHook(Hook):
    """Progress bar with the remaining time, on a terminal and by the first process only.

    Elsewhere (a file, a batch system) the lines of ``LoggerHook``, which also tell the remaining time, are
    all.

    Args:
        enabled: Show the bar; None asks whether the error stream is a terminal.
    """

    priority = "LOWEST"

    def __init__(self, enabled: bool | None = None) -> None:
        self.enabled = enabled
        self._train_bar: tqdm[Any] | None = None
        self._bar: tqdm[Any] | None = None

    def before_run(self, runner: Any) -> None:
        """Decide whether to show the bar, and print log lines above it."""
        wanted = sys.stderr.isatty() if self.enabled is None else self.enabled
        self._shown = wanted and is_main_process()
        if self._shown:
            for handler in runner.logger.handlers:
                if type(handler) is logging.StreamHandler:
                    handler.setStream(_AboveBar())  # type: ignore[arg-type]

    def before_train(self, runner: Any) -> None:
        """Open the bar of the whole training at the current iteration."""
        if self._shown:
            self._train_bar = tqdm(
                total=runner.max_iters, initial=runner.iter, desc="train", unit="it", position=0
            )

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Advance the bar and show the loss."""
        if self._train_bar is not None:
            if outputs and "loss" in outputs:
                loss = torch.as_tensor(outputs["loss"]).detach()
                self._train_bar.set_postfix(loss=f"{float(loss):.4g}", refresh=False)
            self._train_bar.update(1)

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        if self._train_bar is not None:
            self._train_bar.close()
            self._train_bar = None

    def before_val_epoch(self, runner: Any) -> None:
        """Open a bar of one validation."""
        self._open(len(runner.val_dataloader), "val")

    def before_test_epoch(self, runner: Any) -> None:
        """Open the bar of the test."""
        self._open(len(runner.test_dataloader), "test")

    def _open(self, total: int, name: str) -> None:
        if self._shown:
            self._bar = tqdm(
                total=total, desc=name, unit="batch", leave=False, position=int(bool(self._train_bar))
            )

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar."""
        self._advance()

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Advance the bar."""
        self._advance()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        self._close()

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Close the bar."""
        self._close()
