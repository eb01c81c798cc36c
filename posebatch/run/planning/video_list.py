"""The videos of an archive in memory: about 200 bytes each, so that a million fit."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

from posebatch.core.videos import SourceVideo

PACKED_VIDEOS: Final = 1000
"""Videos that a `VideoList` compresses together; their names are alike, so they take about 40 bytes each."""


class VideoList:
    """Videos in the order of their listing, compressed in memory, to be iterated more than once."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._unpacked: list[tuple[Any, ...]] = []
        self.size_bytes = 0
        """Of all videos together."""
        self.folder = ""
        """The deepest folder that holds all output paths, with a slash at the end; empty: none does."""

    def add(self, video: SourceVideo) -> None:
        """Append a video."""
        if not self._packed and not self._unpacked:
            self.folder = _folder_of(video.output_path)
        while not video.output_path.startswith(self.folder):
            self.folder = _folder_of(self.folder[:-1])
        row: tuple[Any, ...] = (video.uri, video.output_path, video.etag, video.size_bytes, video.last_modified)
        if video.cold_class or video.access:
            row = (*row, video.cold_class, video.access)
        self._unpacked.append(row)
        self.size_bytes += video.size_bytes
        if len(self._unpacked) == PACKED_VIDEOS:
            self._packed.append(zlib.compress(json.dumps(self._unpacked).encode(), level=1))
            self._unpacked = []

    def __len__(self) -> int:
        return len(self._packed) * PACKED_VIDEOS + len(self._unpacked)

    def __iter__(self) -> Iterator[SourceVideo]:
        for packed in self._packed:
            yield from (SourceVideo(*row) for row in json.loads(zlib.decompress(packed)))
        yield from (SourceVideo(*row) for row in self._unpacked)


def _folder_of(path: str) -> str:
    """The folder above a path, with a slash at the end; empty if there is none."""
    return path[: path.rfind("/") + 1]
