"""Reading a configuration, with mistakes reported as one sentence that names the nearest valid thing."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from ultrasam.engine.names import nearest
from ultrasam.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIG_ROOT = ROOT / "configs"

# Everything that executing a configuration can raise; it is Python code.
_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError,
    RuntimeError, SyntaxError, TypeError, ValueError,
)  # fmt: skip


def resolve_config(path: str | Path) -> Path:
    """Find a configuration from the working directory, then the project, then ``configs/``.

    Args:
        path: Path with or without ``.py``.

    Returns:
        Absolute path of an existing file.

    Raises:
        ConfigError: If it is nowhere; the sentence names the most similar configurations.
    """
    given = Path(path).expanduser()
    for folder in (Path.cwd(), ROOT, CONFIG_ROOT):
        for candidate in (folder / given, folder / f"{given}.py"):
            if candidate.is_file():
                return candidate.resolve()
    known = {
        p.relative_to(CONFIG_ROOT).as_posix(): p for p in CONFIG_ROOT.rglob("*.py") if "_base_" not in p.parts
    }
    close = difflib.get_close_matches(str(given), known, n=4, cutoff=0.4)
    by_stem = [name for name in known if given.stem.lower() in Path(name).stem.lower()][:4]
    similar = ", ".join(f"configs/{name}" for name in (close or by_stem)) or "none"
    raise ConfigError(
        f"the configuration {path} does not exist in {Path.cwd()}, {ROOT} or {CONFIG_ROOT}; similar ones: "
        f"{similar}"
    )


def parse_value(text: str) -> Any:
    """Read the value of ``--cfg-options KEY=VALUE``.

    Args:
        text: A Python literal, ``true``/``false``/``none``, a list such as ``[a,b]`` or ``1,2``, or plain
            text.

    Returns:
        The value; text that is nothing else stays text, blanks included.
    """
    constants = {"true": True, "false": False, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if (
            text[:1] in ("[", "(")
            and text.count("(") == text.count(")")
            and text.count("[") == text.count("]")
        ):
            return DictAction._parse_iterable(text)
        return text
    return list(value) if isinstance(value, tuple) and text[:1] != "(" else value


def parse_options(options: Sequence[str]) -> dict[str, Any]:
    """Split ``KEY=VALUE`` arguments.

    Raises:
        ConfigError: If one has no ``=`` or no key.
    """
    parsed: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key.strip("+"):
            raise ConfigError(
                f"--cfg-options takes KEY=VALUE, but got {option!r}; write for example randomness.seed=1"
            )
        parsed[key] = parse_value(value)
    return parsed


def _child(node: Any, part: str) -> Any:
    """Return an entry of a dictionary or list; KeyError where there is none."""
    if isinstance(node, Mapping) and part in node:
        return node[part]
    if isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    raise KeyError(part)


def _names(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        return [str(name) for name in node]
    return [str(i) for i in range(len(node))] if isinstance(node, list | tuple) else []


def _check_option(cfg: Config, key: str, value: Any) -> None:
    """Refuse a key that is not in the configuration, or a scalar in the place of a dictionary."""
    node: Any = cfg._cfg_dict
    parts = key.split(".")
    for depth, part in enumerate(parts):
        try:
            node = _child(node, part)
        except KeyError:
            prefix = "".join(f"{p}." for p in parts[:depth])
            close = (
                ", ".join(f"{prefix}{n}" for n in nearest(part, _names(node)).split(", "))
                if _names(node)
                else ""
            )
            raise ConfigError(
                f"{key!r} is not in the configuration {cfg.filename}; nearest: {close or 'none'} "
                f"(to add a new key, write +{key}={value})"
            ) from None
    if isinstance(node, Mapping) and not isinstance(value, Mapping) and value is not None:
        raise ConfigError(
            f"{key!r} is a dictionary with {', '.join(_names(node))}, so it cannot be set to {value!r}"
        )


def apply_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Set values of a configuration in place.

    Args:
        cfg: The configuration.
        options: Dotted key to value; a key that does not exist yet must start with ``+``.

    Raises:
        ConfigError: If a key does not exist.
    """
    for key, value in options.items():
        if key.startswith("+"):
            cfg.merge_from_dict({key[1:]: value})
            continue
        _check_option(cfg, key, value)
        if not isinstance(value, Mapping) or _current(cfg, key) is None:
            _set(cfg, key, value)
        else:
            cfg.merge_from_dict({key: value})


def _current(cfg: Config, key: str) -> Any:
    """Return the present value of an existing entry."""
    node: Any = cfg._cfg_dict
    for part in key.split("."):
        node = _child(node, part)
    return node


def _set(cfg: Config, key: str, value: Any) -> None:
    """Assign one existing entry, in dictionaries and lists alike."""
    *parents, last = key.split(".")
    node: Any = cfg._cfg_dict
    for part in parents:
        node = _child(node, part)
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def load_config(path: str | Path, cfg_options: Sequence[str] | Mapping[str, Any] | None = None) -> Config:
    """Read a configuration and apply options to it.

    Args:
        path: See :func:`resolve_config`.
        cfg_options: ``KEY=VALUE`` texts, or a dictionary of dotted keys.

    Returns:
        The configuration; nothing is built yet. A relative ``data_root`` is looked for in the working
        directory, then in the project.

    Raises:
        ConfigError: If the file is missing or faulty, or an option does not exist.
    """
    resolved = resolve_config(path)
    try:
        cfg = Config.fromfile(resolved)
    except _FAULTS as error:
        raise ConfigError(
            f"the configuration {resolved} cannot be read: {type(error).__name__}: {_first_line(error)}; "
            "correct it or the file of _base_ that it names"
        ) from error
    if cfg_options:
        apply_options(cfg, cfg_options if isinstance(cfg_options, Mapping) else parse_options(cfg_options))
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        _find_data(cfg.get(loader))
    return cfg


def _find_data(node: Any) -> None:
    """Make every ``data_root`` that is not in the working directory but in the project absolute."""
    if isinstance(node, Mapping):
        root = node.get("data_root")
        if isinstance(root, str) and root and not Path(root).exists() and (ROOT / root).exists():
            node["data_root"] = str(ROOT / root)  # type: ignore[index]
        for child in node.values():
            _find_data(child)
    elif isinstance(node, list | tuple):
        for child in node:
            _find_data(child)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
