"""Shards: an archive in N parts, so that N runs work on one output at once.

The part of a video follows from its output path alone: it is the same in every run, on every machine, whatever else
is listed. Equal output paths are in one shard, so no two shards write the same keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from posebatch.core.errors import SettingsError

MAX_SHARDS: Final = 10_000


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count`` parts of an archive; ``number`` is 1 to ``count``."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``--shard`` names. Raises `SettingsError` unless it is K/N with 1 <= K <= N.

        >>> Shard.parse("3/64")
        Shard(number=3, count=64)
        """
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.number <= shard.count <= MAX_SHARDS:
            raise SettingsError(
                f"shard must be K/N, such as 3/64, with K from 1 to N and N at most {MAX_SHARDS}, got {text!r}"
            )
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def within(self) -> Iterator[Shard]:
        """The larger shards that hold all of this one, the smallest first. Not 1/1, which is everything.

        >>> [str(larger) for larger in Shard(7, 12).within()]
        ['1/6', '3/4', '1/3', '1/2']
        """
        for count in range(self.count // 2, 1, -1):
            if self.count % count == 0:
                yield Shard((self.number - 1) % count + 1, count)

    def holds(self, path_digest: bytes) -> bool:
        """Whether a video is in this shard. ``path_digest``: `posebatch.core.fingerprints.digest` of its output path.

        The first eight bytes of the digest are taken as a number. With twice as many shards each shard is cut in two.
        """
        return int.from_bytes(path_digest[:8], "big") % self.count == self.number - 1
