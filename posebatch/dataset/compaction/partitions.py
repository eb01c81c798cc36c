"""By what the compacted tables are partitioned: the folders of the archive, or else the day of publication."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from posebatch.dataset.compaction.names import PUBLISHED_DAY, RESERVED

PARTITIONS: Final = 1000
"""So many partitions are always allowed."""


VIDEOS_PER_PARTITION: Final = 100
"""More partitions are allowed if they have so many videos on average. More columns would make small files again."""


_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

Values = tuple[str | None, ...]
"""The values of a partition, one for each column; None is null."""


@dataclass(frozen=True)
class Partitioning:
    """The partition columns of the tables."""

    columns: tuple[str, ...]

    def values(self, path: str, day: str) -> Values:
        """The partition of a video, by its output path and its day of publication (see `published_day`)."""
        if self.columns == (PUBLISHED_DAY,):
            return (day,)
        found = _folder_values(path.rpartition("/")[0])
        return tuple(found.get(column) or None for column in self.columns)  # Delta takes '' for null

    def folder(self, values: Values) -> str:
        """The folder of a partition. Readers take the values from the transaction, so it only has to be unique."""
        return "/".join(f"{_folder_name(column)}={_folder_name(value)}" for column, value in self.pairs(values))

    def pairs(self, values: Values) -> list[tuple[str, str | None]]:
        """Columns with their values."""
        return list(zip(self.columns, values, strict=True))


def choose_partitioning(paths: Iterable[str]) -> Partitioning:
    """The partitioning for videos with these output paths: the ``key=`` folders that all paths have, in their order.

    A key that is in a path twice, is the name of a column, or is no identifier, does not count. The last keys are left
    out if there would be too many partitions. Without a key the partition is the day of publication.

    >>> choose_partitioning(["dt=2026-01-01/cam=1/a.mp4", "dt=2026-01-02/b.mp4"]).columns
    ('dt',)
    """
    folders: dict[str, int] = {}
    for path in paths:
        folder = path.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) + 1
    found = [_folder_values(folder) for folder in folders]
    shared = [key for key in (found[0] if found else ()) if all(key in values for values in found)]
    allowed = max(PARTITIONS, sum(folders.values()) // VIDEOS_PER_PARTITION)
    while shared and len({tuple(values[key] for key in shared) for values in found}) > allowed:
        shared.pop()
    return Partitioning(tuple(shared) or (PUBLISHED_DAY,))


def published_day(last_modified: float) -> str:
    """The day of publication: the UTC day on which the object of a commit record was written (Unix time, seconds)."""
    return datetime.fromtimestamp(last_modified, UTC).date().isoformat()


def _folder_values(folder: str) -> dict[str, str]:
    """The values of the ``key=value`` folders, where the key can name a column.

    A key that is there twice, in whatever case, cannot; nor can one with characters that Delta Lake forbids.
    """
    pairs = [name.split("=", 1) for name in folder.split("/") if "=" in name]
    keys = [key.casefold() for key, _ in pairs]
    return {
        key: value
        for key, value in pairs
        if key.isidentifier() and keys.count(key.casefold()) == 1 and key.casefold() not in RESERVED
    }


def _folder_name(text: str | None) -> str:
    if text is None:
        return "null"
    if _PLAIN.fullmatch(text) and text != "null":
        return text
    return "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
