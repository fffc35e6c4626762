"""Hook that leaves what was trained as a weight file: the adapter alone, or the whole network without the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from ultrasam.adapters.attach import attached
from ultrasam.adapters.files import save_adapter
from ultrasam.checkpoints import save_checkpoint
from ultrasam.datasets.composition import composition_of
from ultrasam.engine.sharding import whole
from ultrasam.errors import ConfigError

ADAPTER_FILE, WEIGHT_FILE = "adapter.safetensors", "weights.safetensors"


@HOOKS.register_module()
class WeightFileHook(Hook):
    """Write ``adapter.safetensors`` or ``weights.safetensors`` into the work folder when training ends.

    Args:
        card: further values of the file's card, such as ``name`` or ``licence``.
    """

    def __init__(self, card: dict[str, Any] | None = None) -> None:
        self.card = dict(card or {})

    def after_train(self, runner: Any) -> None:
        """Write the file."""
        card, write = None, is_main_process()
        if write:
            card = {"training": composition_of(runner.train_dataloader.dataset), **self.card, "iterations": runner.iter}
        path = write_weights(runner.bare_model, Path(runner.work_dir), card, write)
        if write:
            runner.logger.info(f"Wrote {path}")


def write_weights(model: Any, folder: Path, card: dict[str, Any] | None = None, write: bool = True) -> Path:
    """Write the trained part of a detector; return the file. Of a sharded one, every process must call this.

    Args:
        model: the detector, unwrapped.
        folder: where to.
        card: further values of the file's card.
        write: False takes part in gathering the weights only.

    Raises:
        ConfigError: the model is no network of SAM.
        CheckpointError: the file cannot be written.
    """
    sam = getattr(model, "sam", None)
    if sam is None:
        raise ConfigError(
            f"WeightFileHook writes networks of SAM, but the model is a {type(model).__name__}; remove it"
        )
    adapted = attached(sam) is not None
    path = folder / (ADAPTER_FILE if adapted else WEIGHT_FILE)
    state = whole(sam.state_dict(), write)
    if write:
        full = {**model.card(), **(card or {})}
        if adapted:
            save_adapter(path, sam, full, state)
        else:
            save_checkpoint(path, state, full)
    return path
