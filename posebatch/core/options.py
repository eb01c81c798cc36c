"""Options: settings fields with help text, choices and limits, and the checks of their values."""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from posebatch.core.errors import SettingsError


def option(
    default: Any,
    help_text: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    metavar: str | None = None,
) -> Any:
    """Make a dataclass field for a setting, with the metadata for flags, checks and documentation."""
    metadata = {"help": help_text, "choices": choices, "low": low, "high": high, "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Option:
    """A setting as the command line and the documentation need it."""

    group: str
    name: str
    default: Any
    value_type: type
    optional: bool
    repeatable: bool
    help: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None
    metavar: str | None

    @property
    def flag(self) -> str:
        """The command-line flag."""
        return "--" + self.name.replace("_", "-")


RENAMED: Final[Mapping[str, str]] = {"max_failed_share": "fail_above"}
"""Options of earlier versions, by the names that they have now."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint ``; did you mean ...?`` with the most similar known name, or an empty text if none is similar.

    An option of an earlier version gets its new name. ``name``: with or without dashes, as ``known``.
    """
    if new := RENAMED.get(name.strip("-").replace("-", "_")):
        return f"; did you mean {'--' + new.replace('_', '-') if name.startswith('--') else new!r}, its new name?"
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def unwrap(hint: Any) -> tuple[type, bool, bool]:
    """Take a type hint apart: the plain type, whether None is allowed, and whether it is a tuple of that type."""
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], False, True
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None)), True, False
    return hint, False, False


def checked_value(item: Option, value: Any, source: str) -> Any:
    """Check and convert the value of an option. Raises `SettingsError` that names ``source``, such as a file."""
    if value is None and item.optional:
        return None
    if item.repeatable:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple):
            raise SettingsError(f"{source}: {item.name} must be a list, got {value!r}")
        return tuple(_checked_scalar(item, element, source) for element in values)
    return _checked_scalar(item, value, source)


def _checked_scalar(item: Option, value: Any, source: str) -> Any:
    if item.value_type is str and isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)  # YAML reads `workers: 4` as a number
    if item.value_type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, item.value_type) or (isinstance(value, bool) and item.value_type is not bool):
        hint = "; write it in quotes" if item.value_type is str else ""
        raise SettingsError(f"{source}: {item.name} must be {_TYPE_NAMES[item.value_type]}, got {value!r}{hint}")
    if isinstance(value, float) and math.isinf(value):
        raise SettingsError(f"{source}: {item.name} must be a finite number, got {value:g}")
    if item.choices and value not in item.choices:
        raise SettingsError(
            f"{source}: {item.name} must be one of {', '.join(item.choices)}, got {value!r}"
            f"{nearest(str(value), item.choices)}"
        )
    if isinstance(value, int | float) and not (-math.inf if item.low is None else item.low) <= value <= (
        math.inf if item.high is None else item.high
    ):
        limits = " and ".join(
            f"{word} {limit:g}" for word, limit in (("at least", item.low), ("at most", item.high)) if limit is not None
        )
        raise SettingsError(f"{source}: {item.name} must be {limits}, got {value:g}")
    return value


_TYPE_NAMES: Final[Mapping[type, str]] = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
