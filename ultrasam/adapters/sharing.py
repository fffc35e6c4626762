"""A second module object over the same weights, so that an adapter can come and go."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Kind = TypeVar("Kind", bound=nn.Module)


def share(module: nn.Module, kind: type[Kind]) -> Kind:
    """Return a module of a derived class with the same parameters, buffers and children.

    What is set on either object afterwards (another child, a hook) does not show on the other.

    Args:
        module: the original, which stays as it is.
        kind: its class, or one derived from it whose constructor adds nothing but what the caller sets.
    """
    twin = kind.__new__(kind)
    for name, value in vars(module).items():
        twin.__dict__[name] = value.copy() if isinstance(value, dict | set) else value
    return twin
