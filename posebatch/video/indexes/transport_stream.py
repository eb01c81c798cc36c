"""Read an MPEG-TS from a packet in its middle, as if the recording had begun there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import IO, Final

import av
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from posebatch.video.container import OpenVideo

SYNC: Final = 0x47
SIZES: Final = ((188, 0), (192, 4), (204, 0))
"""Bytes of a packet, and of what stands before its sync byte: plain, with a time code (M2TS), with parity."""


TABLE_BYTES: Final = (1 << 18, 1 << 22)
"""From the beginning of the file. The program tables mostly lie in the first part, and must lie in the second."""


OPENING_BYTES: Final = 188 * 32
"""Bytes by which FFmpeg may look ahead: the program tables come first."""


class _Pipe:
    """Program tables, then the file from a position on, without a way back. FFmpeg then looks for nothing elsewhere."""

    def __init__(self, tables: bytes, file: IO[bytes], position: int) -> None:
        self._tables, self._file, self._position = io.BytesIO(tables), file, position

    def read(self, size: int) -> bytes:
        if content := self._tables.read(size):
            return content
        self._file.seek(self._position)
        content = self._file.read(size)
        self._position += len(content)
        return content


def packets_from(video: OpenVideo, file: IO[bytes], position: int) -> Iterator[Packet[VideoStream]]:
    """The packets of the video's stream from the PES packet at a byte position on.

    Their timestamps are not those of a reading from the beginning, which corrects the clock by what came before. Raises
    ``FFmpegError``; gives nothing where the program tables are not found.
    """
    tables = program_tables(file)
    if not tables:
        return
    options = {"probesize": str(OPENING_BYTES), "analyzeduration": "0"} | video.limits.container_options
    with av.open(_Pipe(tables, file, position), "r", format="mpegts", options=options) as container:
        wanted = [stream for stream in container.streams.video if stream.id == video.stream.id]
        for stream in container.streams:
            if stream not in wanted:
                stream.discard = Discard.all
        if wanted:
            yield from (packet for packet in container.demux(wanted[0]) if packet.size)


def program_tables(file: IO[bytes]) -> bytes:
    """The first PAT and the first PMT of each program, as packets of the file; empty if they are not found."""
    for most in TABLE_BYTES:
        file.seek(0)
        content = file.read(most)
        for size, before in SIZES:
            syncs = content[before : 8 * size : size]
            if syncs and syncs.count(SYNC) == len(syncs) and (tables := _tables(content, size, before)):
                return tables
    return b""


def _tables(content: bytes, size: int, before: int) -> bytes:
    tables: list[bytes] = []
    waiting = {0}
    left: dict[int, int] = {}  # by PID: bytes of its section that are still to come
    for at in range(0, len(content) - size + 1, size):
        packet = content[at + before : at + before + 188]
        pid = (packet[1] & 31) << 8 | packet[2]
        if pid not in waiting or packet[0] != SYNC:
            continue
        payload = packet[5 + packet[4] if packet[3] >> 5 & 1 else 4 :]  # behind an adaptation field
        if packet[1] >> 6 & 1 and len(payload) > payload[0] + 3:  # a section begins
            payload = payload[1 + payload[0] :]
            left[pid] = _section_bytes(payload)
            waiting |= set(_program_pids(payload)) if pid == 0 else set()
        if pid not in left:
            continue
        tables.append(content[at : at + size])
        left[pid] -= len(payload)
        if left[pid] <= 0:
            waiting.discard(pid)
        if not waiting:
            return b"".join(tables)
    return b""


def _section_bytes(section: bytes) -> int:
    return 3 + ((section[1] & 15) << 8 | section[2])


def _program_pids(section: bytes) -> Iterator[int]:
    """The PIDs of the PMTs that a PAT lists (ISO/IEC 13818-1, 2.4.4.3)."""
    for at in range(8, min(_section_bytes(section) - 4, len(section) - 3), 4):
        if int.from_bytes(section[at : at + 2], "big"):
            yield (section[at + 2] & 31) << 8 | section[at + 3]
