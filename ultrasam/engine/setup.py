"""Filling the registries of MMDetection with everything of UltraSam: explicit, and as often as one likes."""

from __future__ import annotations

import importlib
import pkgutil

ENGINE_MODULES = ("dry_run", "hooks", "loops", "memory", "mixing", "per_dataset", "precision", "runner", "sampling")
REGISTERING_PACKAGES = (
    "ultrasam.models",
    "ultrasam.datasets",
    "ultrasam.evaluation",
    "ultrasam.visualization",
)


def _import_submodules(package: str) -> None:
    """Import a package and every public module in it."""
    root = importlib.import_module(package)
    for info in pkgutil.walk_packages(root.__path__, prefix=f"{package}."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            importlib.import_module(info.name)


def register_all() -> None:
    """Make every name of a configuration known; importing ``ultrasam`` alone does none of this.

    Installs the stand-ins for MMCV's compiled operators where no compiled MMCV is present, imports the
    modules that register models, datasets, transforms, metrics and hooks, and makes ``mmdet`` the default
    scope.
    """
    from ultrasam.engine import mmcv_ext

    mmcv_ext.install()
    importlib.import_module("mmdet.registry")
    for name in ENGINE_MODULES:
        importlib.import_module(f"ultrasam.engine.{name}")
    for package in REGISTERING_PACKAGES:
        _import_submodules(package)
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
