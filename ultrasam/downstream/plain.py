"""Reading the configuration text in a checkpoint as data. Configurations are Python, and nothing of it is executed."""

from __future__ import annotations

import ast
import math
from typing import Any

from ultrasam.errors import CheckpointError

# Configurations of ours have about 10 KB.
LONGEST = 1 << 20
# MMEngine writes these numbers by their bare names.
_NUMBERS = {"inf": math.inf, "nan": math.nan}


class _NotPlainError(Exception):
    """Something that is not a value; the message says what and in which line."""


def read_plain(text: Any, where: str) -> dict[str, Any]:
    """Return the assignments of a configuration that holds nothing but values.

    Allowed are ``name = value`` with numbers, texts, True, False, None, lists, tuples, dictionaries, and ``dict(...)``.

    Args:
        text: as MMEngine's ``Config.pretty_text`` writes it.
        where: the file that holds it, for messages.

    Raises:
        CheckpointError: it is no such text; anything that would have to be executed is named, and not executed.
    """
    advice = "it is not executed; give the configuration that you trust with --config FILE"
    if not isinstance(text, str) or not text.strip():
        raise CheckpointError(
            f"{where} does not hold the configuration that it was trained with; give it with --config FILE"
        )
    if len(text) > LONGEST:
        raise CheckpointError(f"{where} holds a configuration of {len(text):,} characters, none is so long; {advice}")
    try:
        statements = ast.parse(text).body
        found: dict[str, Any] = {}
        for statement in statements:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if not isinstance(statement, ast.Assign) or len(statement.targets) != 1 or not isinstance(target, ast.Name):
                raise _NotPlainError(f"{type(statement).__name__} in line {statement.lineno}")
            found[target.id] = _value(statement.value)
    except _NotPlainError as error:
        what = f"holds more than plain values ({error})"
        raise CheckpointError(f"the configuration in {where} {what}; {advice}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"the configuration in {where} cannot be read ({reason}); {advice}") from error
    return found


def _value(node: ast.expr) -> Any:
    """Return the value of an expression that is one."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NUMBERS:
        return _NUMBERS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return _dictionary(node.keys, node.values)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and len(node.args) < 2:
        found = _value(node.args[0]) if node.args else {}
        if isinstance(found, dict) and all(keyword.arg is not None for keyword in node.keywords):
            return {**found, **{str(keyword.arg): _value(keyword.value) for keyword in node.keywords}}
    raise _NotPlainError(f"{type(node).__name__} in line {node.lineno}")


def _dictionary(keys: list[ast.expr | None], values: list[ast.expr]) -> dict[Any, Any]:
    found = {}
    for key, value in zip(keys, values, strict=True):
        if not isinstance(key, ast.Constant):
            raise _NotPlainError(f"a key that is no constant in line {value.lineno}")
        found[key.value] = _value(value)
    return found
