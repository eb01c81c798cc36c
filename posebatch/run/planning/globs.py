"""Glob patterns of inputs, and of ``--include`` and ``--exclude``."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence
from typing import Final

from posebatch.core.errors import InputError

APPLE_DOUBLE: Final = "._"
"""So begin the names of the files that macOS leaves beside others on foreign disks: ``._clip.mp4`` is no video."""


def is_glob(path: str) -> bool:
    """Whether a path has a wildcard."""
    return any(character in path for character in "*?[")


def split_glob(path: str) -> tuple[str, str]:
    """The folders before the first wildcard, and the rest."""
    names = path.split("/")
    first = next(i for i, name in enumerate(names) if is_glob(name))
    return "/".join(names[:first]), "/".join(names[first:])


def spells_extension(pattern: str) -> bool:
    """Whether a pattern ends with an extension without wildcards, as ``*.mp4`` does."""
    return not is_glob(os.path.splitext(pattern)[1]) and "." in pattern.rsplit("/", 1)[-1]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """``*``, ``?`` and ``[ab]`` stay within a folder, ``**`` crosses folders; AppleDouble files match none."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    rules = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    translated = [rules.get(part) or (_one_of(part) if part.startswith("[") else re.escape(part)) for part in parts]
    try:
        return re.compile(rf"(?!(?:.*/)?{re.escape(APPLE_DOUBLE)}[^/]*\Z)" + "".join(translated), re.DOTALL)
    except re.error as error:
        raise InputError(f"{pattern}: no valid glob: {error}") from error


def _one_of(part: str) -> str:
    """``[ab]``, ``[a-z]`` or ``[!ab]`` as a regular expression."""
    negated = part[1] in "!^" and len(part) > 3
    inside = re.escape(part[2 if negated else 1 : -1]).replace(r"\-", "-")
    return f"(?!/)[^{inside}]" if negated else f"[{inside}]"


def matches(key: str, globs: Sequence[str]) -> bool:
    """Whether a key, or its last part, matches one of the patterns."""
    name = key.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(key, glob) or fnmatch.fnmatchcase(name, glob) for glob in globs)
