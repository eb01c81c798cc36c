"""Read all packets of a stream once, without decoding, and prove at which of them segments may begin."""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import IO, Final

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posebatch.core.errors import IndexDisagreesError
from posebatch.video.container import UNTIMED_FORMATS, OpenVideo, do_nothing, open_video
from posebatch.video.full_decode import MAX_PICTURELESS_BYTES, picture_test_of, window_frames
from posebatch.video.indexes.indexed_packets import SCANNED_FORMATS, IndexedPackets
from posebatch.video.indexes.packet_index import (
    IS_KEYFRAME,
    IS_START,
    NO_INDEX,
    NO_TIME,
    SHOWS_PICTURE,
    PacketIndex,
)
from posebatch.video.indexes.start_rules import StartFinder, reader_of, sets_in_header
from posebatch.video.limits import Limits
from posebatch.video.timestamps import TimestampRepair

MAX_PACKETS: Final = 5_000_000
"""Packets of an index, 55 hours at 25 frames a second: below 1 GB of memory in a scan. Longer streams are one segment.
"""


PROOF_PACKETS: Final = 1 << 16
"""Packets whose times are Python's numbers at once."""


MAX_REORDERED_FRAMES: Final = 16
"""Places by which a frame's number differs from its packet's. H.264 and HEVC reorder no more; a clock set back does."""


SAMPLES: Final = 8
"""Starts that are read again after the scan, to see that segments can be read from there."""


SAMPLE_PACKETS: Final = 3
"""Packets that are read at each."""


CHANGING_SIDE_DATA: Final = ("palette", "new_extradata", "param_change", "encryption_init_info", "encryption_info")
"""Data beside a packet that changes how it is decoded, and is not in the index."""


INDEX_VERSION: Final = 1
"""Raise it whenever a change of the code changes an index."""


def scan_identity(etag: str, video_track: str) -> str:
    """Identifies the index of one track of one version of a file, made by this version of the code and of FFmpeg."""
    libraries = [av.library_versions[name] for name in ("libavformat", "libavcodec")]
    return json.dumps([INDEX_VERSION, libraries, etag, video_track])


def is_scannable(video: OpenVideo) -> bool:
    """Whether an index of packets may show where the video can be cut."""
    context = video.stream.codec_context
    return video.format in SCANNED_FORMATS and reader_of(context.codec.canonical_name, b"") is not None


def scan(
    file: IO[bytes], limits: Limits, video_track: str = "default", on_packet: Callable[[], None] = do_nothing
) -> PacketIndex:
    """Read the whole file once, and index the packets of its video track.

    ``on_packet`` is called after each packet, as a heartbeat. Without packets, the index proves nothing: the video must
    be one segment. Raises what `open_video` raises::

        with open("clip.mkv", "rb") as file:
            index = scan(file, Limits("clip.mkv"))
            segments = index.segments(60 / info.time_base)
    """
    with open_video(file, limits, video_track=video_track) as video:
        if not is_scannable(video):
            return NO_INDEX
        recorder = _Recorder(video)
        try:
            for packet in _packets(video):
                if not recorder.add(packet):
                    return NO_INDEX
                on_packet()
        except av.error.FFmpegError:
            return NO_INDEX
        index = _proven(recorder.index(), window_frames(video.stream.width * video.stream.height), on_packet)
        return index if _can_be_read(index, video, file) else NO_INDEX


def _packets(video: OpenVideo) -> Iterator[Packet[VideoStream]]:
    packets = video.container.demux(video.stream)
    while True:
        try:
            packet = next(packets, None)
        except IndexError:
            return  # PyAV flushes all streams at the end, and fails for streams that appeared inside the file
        if packet is None:
            return
        if packet.size:  # the last packet is empty and only flushes the decoder
            yield packet


class _Recorder:
    """Takes the packets of a stream in file order, and finds possible starts by their content."""

    def __init__(self, video: OpenVideo) -> None:
        context = video.stream.codec_context
        codec, header = context.codec.canonical_name, context.extradata or b""
        reader = reader_of(codec, header)
        assert reader is not None
        self._finder = StartFinder(reader, sets_in_header(codec, header))
        self._untimed = video.format in UNTIMED_FORMATS
        self._shows_picture = picture_test_of(video)
        self._integers = tuple(array("q") for _ in range(5))  # pts, dts, duration, position, size
        self._checksums, self._flags = array("L"), bytearray()

    def add(self, packet: Packet[VideoStream]) -> bool:
        """Take a packet; returns whether the stream can still be indexed."""
        content = bytes(packet)
        facts = self._finder.facts(content)
        shows = packet.size > MAX_PICTURELESS_BYTES or self._shows_picture(content)
        if (
            len(self._flags) >= MAX_PACKETS
            or self._finder.is_changed
            or packet.is_discard
            or packet.is_corrupt
            or any(packet.has_sidedata(kind) for kind in CHANGING_SIDE_DATA)
        ):
            return False
        is_start = facts.can_start and packet.is_keyframe and shows and (facts.is_closed or not self._untimed)
        self._flags.append((packet.is_keyframe * IS_KEYFRAME) | (shows * SHOWS_PICTURE) | (is_start * IS_START))
        self._checksums.append(zlib.crc32(content))
        pts, dts = (NO_TIME if time is None else time for time in (packet.pts, packet.dts))
        values = (pts, dts, packet.duration or 0, -1 if packet.pos is None else packet.pos, packet.size)
        for column, value in zip(self._integers, values, strict=True):
            column.append(value)
        return True

    def index(self) -> PacketIndex:
        """All packets; the starts are not proven yet."""
        pts, dts, durations, positions, sizes = (np.array(column, np.int64) for column in self._integers)
        flags = np.frombuffer(bytes(self._flags), np.uint8)
        checksums = np.array(self._checksums, np.uint32)
        return PacketIndex(pts, dts, durations, positions, sizes, checksums, flags, self._untimed)


def _proven(index: PacketIndex, window: int, on_packet: Callable[[], None]) -> PacketIndex:
    """The index with those starts only at which a cut does not show; `NO_INDEX` without two of them.

    ``window``: frames that a sequential decode may hold for their timestamps.
    """
    shown, times = index.shown, index.times
    is_sound = len(index) and index.flags[0] & IS_START and (times[shown] != NO_TIME).all()
    if not is_sound or times[shown].min() < times[0] or not _raises_no_doubt(index, window, on_packet):
        return NO_INDEX
    starts = index.starts
    latest_before = np.concatenate([[NO_TIME], np.maximum.accumulate(np.where(shown, times, NO_TIME))[:-1]])
    position_before = np.concatenate([[-1], index.positions[:-1]])
    begins_in_file = (index.positions >= 0) & (index.positions != position_before)
    good = starts[((latest_before < times) & begins_in_file)[starts]]
    return _with_starts(index, good) if len(good) > 1 and good[0] == 0 else NO_INDEX


def _with_starts(index: PacketIndex, starts: NDArray[np.int64]) -> PacketIndex:
    flags = index.flags & ~np.uint8(IS_START)
    flags[starts] |= IS_START
    return replace(index, flags=flags)


def _raises_no_doubt(index: PacketIndex, window: int, on_packet: Callable[[], None]) -> bool:
    """Whether a sequential decode leaves all times as they are: it repairs those that contradict their neighbours."""
    times, durations = index.times[index.shown], index.durations[index.shown]
    order = np.argsort(times, kind="stable")
    moved = np.abs(order - np.arange(len(order)))
    if (np.diff(times[order]) == 0).any() or moved.max() > MAX_REORDERED_FRAMES:
        return False
    repair: TimestampRepair[None] = TimestampRepair(window)
    for begin in range(0, len(order), PROOF_PACKETS):
        part = order[begin : begin + PROOF_PACKETS]
        for pts, duration in zip(times[part].tolist(), durations[part].tolist(), strict=True):
            if any(timed.status != "ok" for timed in repair.push(None, pts, duration)):
                return False
            on_packet()
    return all(timed.status == "ok" for timed in repair.flush())


def _can_be_read(index: PacketIndex, video: OpenVideo, file: IO[bytes]) -> bool:
    """Whether the packets at some of the starts are read as the scan has found them."""
    bounds = [*index.starts.tolist(), len(index)]
    chosen = np.unique(np.linspace(0, len(bounds) - 2, SAMPLES).astype(int)).tolist() if len(index) else []
    try:
        for i in chosen:
            packets = IndexedPackets(video, file, index.segment(0, bounds[i], bounds[i + 1]), index)
            for _ in islice(packets, SAMPLE_PACKETS):
                pass
    except IndexDisagreesError:
        return False
    return True
