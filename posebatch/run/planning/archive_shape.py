"""What readers of the output have to know about the folders of an archive: mixed partitions, names that differ in case.

Folders of the archive with a name like ``dt=2026-01-02`` become partitions of the tables. Readers disagree about
partitions that not every file has; ``docs/tables.md`` says what works in each.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

MAX_KINDS: Final = 20
"""Kinds of partitions that are told apart."""


class ArchiveShape:
    """Collects the output paths of an archive: 16 bytes for each path and each change of the folder."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], str] = {}
        """The first path with each tuple of partition keys."""
        self._folder = ""
        self._folded, self._exact = array("q"), array("q")

    def add(self, path: str) -> None:
        """Add the next path of the listing."""
        folder = path.rpartition("/")[0]
        if folder != self._folder:
            self._folder = folder
            keys = _partition_keys(folder)
            if keys not in self._kinds and len(self._kinds) < MAX_KINDS:
                self._kinds[keys] = path
            for above in _with_folders_above(folder):
                self._note_case(above)
        elif not self._kinds:
            self._kinds[()] = path
        self._note_case(path)

    def _note_case(self, path: str) -> None:
        self._folded.append(hash(path.casefold()))
        self._exact.append(hash(path))

    def warnings(self, paths: Iterable[str]) -> tuple[str, ...]:
        """What to say about the archive; empty for most. ``paths``: all paths again."""
        return tuple(warning for warning in (self._about_partitions(), self._about_case(paths)) if warning)

    def _about_partitions(self) -> str | None:
        kinds = {frozenset(keys) for keys in self._kinds}
        doubled = next((path for keys, path in self._kinds.items() if len(set(keys)) < len(keys)), None)
        if len(kinds) < 2 and doubled is None:
            return None
        if len(kinds) < 2:
            example = f"{doubled} has one of them twice"
        else:
            first, second = list({frozenset(keys): path for keys, path in self._kinds.items()}.values())[:2]
            example = f"{first} and {second} differ"
        return (
            f"the key=value folders of this archive are no uniform partitions: {example}. Some readers fail on these "
            "or drop their columns; docs/tables.md has the call that works in each"
        )

    def _about_case(self, paths: Iterable[str]) -> str | None:
        folded, exact = np.frombuffer(self._folded, np.int64), np.frombuffer(self._exact, np.int64)
        pairs = np.unique(np.stack([folded, exact], axis=1), axis=0)[:, 0]
        double = {int(one) for one in pairs[1:][pairs[1:] == pairs[:-1]][:1]}
        if not double:
            return None
        first, second = _first_two(
            name for path in paths for name in _with_folders_above(path) if hash(name.casefold()) in double
        )
        return (
            f"names of this archive differ in case alone: {first} and {second}. Disks of macOS and Windows take them "
            "for the same; do not copy this output there"
        )


def _partition_keys(folder: str) -> tuple[str, ...]:
    return tuple(name.partition("=")[0] for name in folder.split("/") if "=" in name)


def _with_folders_above(path: str) -> Iterator[str]:
    """The path, and each folder above it."""
    while path:
        yield path
        path = path.rpartition("/")[0]


def _first_two(names: Iterable[str]) -> tuple[str, str]:
    """The first two different names."""
    found: dict[str, None] = {}
    for name in names:
        found[name] = None
        if len(found) == 2:
            break
    first, second = found
    return first, second
