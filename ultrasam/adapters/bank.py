"""Several adapters on one loaded base, one of them on at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrasam.adapters.attach import attached, detach
from ultrasam.adapters.files import AdapterFile, put_on, read_adapter, require_base, tensor_digests
from ultrasam.errors import ConfigError
from ultrasam.modeling.sam import Sam


class AdapterBank:
    """Adapters by name, kept in memory; switching copies their few tensors, the base stays where it is.

    An embedding of an image belongs to the adapter that made it: encode again after a switch.

    Args:
        sam: a plain network with the base's weights.
        base_name: what the base is called, for messages.
        adapters: names and files to add at once.

    Raises:
        ConfigError: the network has an adapter already.
        CheckpointError: a file does not belong to this base.
    """

    def __init__(
        self, sam: Sam, base_name: str = "the weights loaded", adapters: Mapping[str, str | Path] | None = None
    ) -> None:
        if attached(sam) is not None:
            raise ConfigError("a bank needs a plain network, this one has an adapter; detach it first")
        self.sam = sam
        self.base_name = base_name
        self.active: str | None = None
        self._residual = sam.mlp_residual
        self._digests = tensor_digests(sam.state_dict())
        self._files: dict[str, AdapterFile] = {}
        for name, path in (adapters or {}).items():
            self.add(name, path)

    @property
    def names(self) -> list[str]:
        """The adapters that were added."""
        return list(self._files)

    def add(self, name: str, path: str | Path) -> dict[str, Any]:
        """Read an adapter file and check that it belongs to the base; return its card.

        Raises:
            CheckpointError: it does not.
        """
        found = read_adapter(path)
        require_base(found, self.sam.arch, self._residual, self._digests, self.base_name)
        self._files[name] = found
        return found.card

    def use(self, name: str | None) -> None:
        """Switch to an adapter, or to the base alone (None).

        Raises:
            ConfigError: no adapter of this name was added.
        """
        if name is not None and name not in self._files:
            raise ConfigError(f"there is no adapter {name!r}; there are {', '.join(self._files) or 'none'}")
        detach(self.sam)
        self.active = None
        if name is not None:
            training = self.sam.training
            put_on(self.sam, self._files[name])
            self.sam.train(training)
            self.active = name
