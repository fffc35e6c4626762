"""Finding registered names, and the nearest valid ones for a name that does not exist."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

import mmengine.registry
from mmengine.registry import Registry

SCOPES = ("mmdet",)


def nearest(name: str, valid: Iterable[str], count: int = 4) -> str:
    """Return the names most like ``name`` for an error message, or all where there are few.

    Args:
        name: What the user wrote.
        valid: Names that exist.
        count: How many to return at most.
    """
    names = sorted(set(valid))
    lowered: dict[str, str] = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lowered, n=count, cutoff=0.5)
    found = [lowered[candidate] for candidate in close]
    if not found:
        found = [candidate for candidate in names if name.lower() in candidate.lower()][:count]
    if not found and len(names) <= 12:
        found = names
    return ", ".join(found) if found else "none is similar"


def all_registries() -> dict[str, Registry]:
    """Return MMEngine's root registries by attribute name, such as ``MODELS``."""
    return {name: value for name, value in vars(mmengine.registry).items() if isinstance(value, Registry)}


def _layers(registry: Registry) -> list[Registry]:
    """Return a registry with its children of the scopes in use, their modules imported."""
    layers = [registry.children[scope] for scope in SCOPES if scope in registry.children]
    for layer in layers:
        layer.import_from_location()
    return [*layers, registry]


def registered_names(registry: Registry) -> list[str]:
    """Return every name of a registry and of its MMDetection child."""
    return sorted({name for layer in _layers(registry) for name in layer.module_dict})


def find_registered(name: str, registry: Registry) -> Any | None:
    """Return the class or function registered under a name, None where there is none.

    Args:
        name: Plain or with scope, such as ``mmdet.PackDetInputs``.
        registry: A root registry; its MMDetection child is looked into first.
    """
    scope, _, plain = name.rpartition(".")
    for layer in _layers(registry):
        if (not scope or scope in (layer.scope, "mmengine")) and plain in layer.module_dict:
            return layer.module_dict[plain]
    return None


def find_anywhere(name: str) -> Any | None:
    """Return the class or function registered under a name in any registry, None where there is none."""
    for registry in all_registries().values():
        found = find_registered(name, registry)
        if found is not None:
            return found
    return None


def accepted_arguments(function: Any) -> set[str] | None:
    """Return the names of a constructor's arguments, None where it accepts any.

    ``**kwargs`` is followed to the constructors of the base classes, which is where they go in MMDetection.

    Args:
        function: A class or a function.
    """
    if not inspect.isclass(function):
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            return None
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return None
        return {p.name for p in parameters}
    names: set[str] = set()
    for base in inspect.getmro(function):
        init = vars(base).get("__init__")
        if init is None:
            continue
        if base is object or not inspect.isfunction(init):
            return None
        parameters = list(inspect.signature(init).parameters.values())[1:]
        names.update(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names
    return None
