"""Glob patterns of inputs, and of ``--include`` and ``--exclude``."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Sequence

from posebatch.core.errors import InputError


def is_glob(path: str) -> bool:
    """Whether a path has a wildcard."""
    return any(character in path for character in "*?[")


def split_glob(path: str) -> tuple[str, str]:
    """A glob as the folders before its first wildcard, and the rest."""
    names = path.split("/")
    first = next(i for i, name in enumerate(names) if is_glob(name))
    return "/".join(names[:first]), "/".join(names[first:])


def spells_extension(pattern: str) -> bool:
    """Whether a pattern ends with an extension without wildcards, as ``*.mp4`` does."""
    return not is_glob(os.path.splitext(pattern)[1]) and "." in pattern.rsplit("/", 1)[-1]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob as a regular expression. ``*``, ``?`` and ``[ab]`` stay within a folder, ``**`` crosses folders.

    Raises `InputError` if the glob is malformed.
    """
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    rules = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    rules |= {part: _character_class(part) for part in parts if part.startswith("[")}
    translated = [rules.get(part, re.escape(part)) for part in parts]
    try:
        return re.compile("".join(translated), re.DOTALL)
    except re.error as error:
        raise InputError(f"{pattern}: no valid glob: {error}") from error


def _character_class(part: str) -> str:
    """``[ab]``, ``[a-z]`` or ``[!ab]`` as a regular expression."""
    negated = part[1] in "!^" and len(part) > 3
    inside = re.escape(part[2 if negated else 1 : -1]).replace(r"\-", "-")
    return f"(?!/)[^{inside}]" if negated else f"[{inside}]"


def matches(key: str, globs: Sequence[str]) -> bool:
    """Whether a key, or its last part, matches one of the patterns."""
    name = key.rsplit("/", 1)[-1]
    return any(fnmatch.fnmatchcase(key, glob) or fnmatch.fnmatchcase(name, glob) for glob in globs)
