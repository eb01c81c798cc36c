"""An index of all packets of a stream: where segments may begin, and which packets each of them must hold."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import StagedError
from posebatch.core.videos import Segment

NO_TIME: Final = -(1 << 63)
"""Stands for a timestamp that a packet does not have."""


IS_KEYFRAME, SHOWS_PICTURE, IS_START = 1, 2, 4
"""Bits of `PacketIndex.flags`. A start is a keyframe at which a segment may begin."""


DIGEST_BYTES: Final = 32


@dataclass(frozen=True, eq=False)
class PacketIndex:
    """All packets of one stream in file order, as one sequential reading of the file gives them.

    All arrays have the shape (packets,). Without packets it proves nothing, and the video is one segment.
    """

    pts: NDArray[np.int64]
    """Ticks, or `NO_TIME`."""
    dts: NDArray[np.int64]
    """Ticks, or `NO_TIME`."""
    durations: NDArray[np.int64]
    """Ticks; 0 if unknown."""
    positions: NDArray[np.int64]
    """Of the packet in the file as the demuxer states them, bytes."""
    sizes: NDArray[np.int64]
    """Bytes."""
    checksums: NDArray[np.uint32]
    """CRC-32 of the content."""
    flags: NDArray[np.uint8]
    is_untimed: bool
    """The container states no presentation times: packets take their time slots, the dts, in order."""

    def __len__(self) -> int:
        return len(self.flags)

    @property
    def times(self) -> NDArray[np.int64]:
        """The times by which packets belong to segments, ticks."""
        return self.dts if self.is_untimed else self.pts

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """Which packets show a picture. Only these have frame numbers."""
        return (self.flags & SHOWS_PICTURE).astype(bool)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The packets at which segments may begin."""
        return np.flatnonzero(self.flags & IS_START)

    def segments(self, step: float | Fraction) -> tuple[Segment, ...]:
        """Segments of about ``step`` ticks from start to start; without two starts a single one, of the whole video."""
        firsts: list[int] = []
        for first in self.starts.tolist():
            if not firsts or self.times[first] >= self.times[firsts[-1]] + step:
                firsts.append(first)
        if len(firsts) < 2:
            return (Segment(),)
        ends = [*firsts[1:], len(self)]
        return tuple(self.segment(i, first, end) for i, (first, end) in enumerate(zip(firsts, ends, strict=True)))

    def segment(self, number: int, first: int, end: int) -> Segment:
        """The segment from the start ``first`` to the start ``end``, or to the end of the stream."""
        return Segment(
            number,
            first,
            end - first,
            int(self.times[first]) if first else None,
            int(self.times[end]) if end < len(self) else None,
            is_scanned=True,
        )

    def lead_in_candidates(self, segment: Segment, frame_index: int) -> list[Segment]:
        """Segments that end at ``segment`` and may contain frame ``frame_index``: one per earlier start, nearest first.

        The last one begins at the beginning of the video.
        """
        end = segment.first_packet
        starts = [first for first in self.starts.tolist() if first <= frame_index and first < end]
        return [self.segment(segment.index, first, end) for first in reversed(starts)]

    def to_bytes(self, source: str) -> bytes:
        """The index as a file. ``source`` identifies the stream and its version."""
        buffer = io.BytesIO()
        times = {name: np.diff(getattr(self, name), prepend=0) for name in ("pts", "dts", "positions")}
        np.savez_compressed(
            buffer,
            source=np.array(source),
            durations=self.durations,
            sizes=self.sizes,
            checksums=self.checksums,
            flags=self.flags,
            is_untimed=np.array(self.is_untimed),
            **times,
        )
        content = buffer.getvalue()
        return hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> PacketIndex:
        """The inverse of `to_bytes`. Raises `StagedError` for a damaged file, and for one of another ``source``."""
        digest, arrays = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(arrays).digest() != digest:
            raise StagedError("a damaged index of packets")
        try:
            with np.load(io.BytesIO(arrays), allow_pickle=False) as loaded:
                if str(loaded["source"]) != source:
                    raise StagedError("an index of packets of another video")
                return cls(
                    np.cumsum(loaded["pts"]),
                    np.cumsum(loaded["dts"]),
                    loaded["durations"],
                    np.cumsum(loaded["positions"]),
                    loaded["sizes"],
                    loaded["checksums"],
                    loaded["flags"],
                    bool(loaded["is_untimed"]),
                )
        except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise StagedError(f"no index of packets that this version reads: {error}") from error


_NONE = np.zeros(0, np.int64)


NO_INDEX: Final = PacketIndex(
    _NONE, _NONE, _NONE, _NONE, _NONE, _NONE.astype(np.uint32), _NONE.astype(np.uint8), is_untimed=False
)
"""The index of a stream of which a scan proves nothing."""
