"""The packets of one segment by an index of packets, each proven to be the one that a sequential reading gives."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import IO, Final, cast

import av.error
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from posebatch.core.errors import IndexDisagreesError
from posebatch.core.videos import Segment
from posebatch.video.container import OpenVideo
from posebatch.video.indexes.packet_index import IS_KEYFRAME, IS_START, NO_TIME, PacketIndex
from posebatch.video.indexes.transport_stream import packets_from

CONTENT_OFFSETS: Final = {"matroska": 4, "avi": 0, "mov": 0}
"""By format: bytes between the position of a packet, as the demuxer states it, and its content. In Matroska, a block's
track number, time and flags lie between."""


SPLICED_FORMATS: Final = frozenset({"mpegts"})
"""Formats whose packets do not lie in the file in one piece. They are read by the demuxer, from a packet on."""


SCANNED_FORMATS: Final = frozenset(CONTENT_OFFSETS) | SPLICED_FORMATS
"""Formats whose segments are read by an index of packets."""


GIVEN_UP_REFERENCE: Final = "mmco: unref short failure"
"""FFmpeg's line where H.264 gives up a reference that the decoder does not have."""


OPENING_PACKETS: Final = 20
"""Packets in which that may happen after a start: H.264 has 16 references."""


class IndexedPackets:
    """The packets to decode, like `SegmentPackets`: from the segment's start to the last one that it presents.

    Contents, order and times are those of a sequential reading of the file, or `IndexDisagreesError` is raised. A
    decoder that is opened at the file's beginning therefore gets what it would get in a sequential decode.
    """

    failures: Final = 0
    """No failure to read the container is passed over."""
    ends_early: Final = False
    """The index lists a stream that ends where its container ends."""

    def __init__(self, video: OpenVideo, file: IO[bytes], segment: Segment, index: PacketIndex) -> None:
        """Raises `IndexDisagreesError` if the segment is not one of the index."""
        self._video, self._file, self._segment, self._index = video, file, segment, index
        first, count = segment.first_packet, segment.num_packets or 0
        end = first + count
        if end > len(index) or not self._is_start(first) or not (end == len(index) or self._is_start(end)):
            raise self.index_error("it does not lie between two starts of the index")
        times = index.times
        self.start_pts = int(times[first]) if segment.start_dts is not None else None
        """Time of the segment's first frame, ticks; None for a segment from the beginning."""
        self.end_pts = int(times[end]) if segment.end_dts is not None else None
        """Time of the next segment's first frame, ticks; None at the end of the stream."""
        if (self.start_pts, self.end_pts) != (segment.start_dts, segment.end_dts):
            raise self.index_error("the index has other times for it")
        lowest = NO_TIME if self.start_pts is None else self.start_pts
        earlier = index.shown if self.end_pts is None else index.shown & (times < self.end_pts)
        # The next start is decoded, too: in a damaged stream it may come out before frames of this segment. At the end
        # of the stream, packets that show no picture may make another one come out.
        following = 0 if index.is_untimed or self.end_pts is None else end + 1
        latest = int(np.flatnonzero(earlier)[-1]) + 1
        self._stop = len(index) if self.end_pts is None else max(latest, following)
        self.first_index = int(np.count_nonzero(index.shown & (times < lowest)))
        """Number of the segment's first frame."""
        self._read_packets = 0
        self._latest_pts: int | None = None  # of the frames that came out of the decoder
        self._frames = int(np.count_nonzero(earlier)) - self.first_index

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        first, number = self._segment.first_packet, self._segment.first_packet
        for packet in self._read(first):
            self._read_packets += 1
            if not self._agrees(packet, number):
                raise self.index_error(f"packet {number} is not the one that the scan has found")
            yield self._timed(packet, number)
            number += 1
            if number == self._stop:
                return
        raise self.index_error(f"packet {number} is not there")

    def contains(self, pts: int) -> bool:
        """Whether a frame belongs to the segment."""
        return (self.start_pts is None or pts >= self.start_pts) and (self.end_pts is None or pts < self.end_pts)

    @property
    def is_whole_video(self) -> bool:
        """Whether the segment is the whole video."""
        return self._segment.start_dts is None and self._segment.end_dts is None

    @property
    def lists_frames(self) -> bool:
        """False: a damaged packet may show no picture, and its frame then has no number. All packets are decoded."""
        return False

    def frames_in_index(self) -> int:
        """Frames of the segment."""
        return self._frames

    def check_damage(self, pts: int | None, message: str) -> None:
        """Raise `IndexDisagreesError` for damage in the segment: it may be filled from pictures before the segment.

        Packets that follow the start in the file and are presented before it are no part of the segment. Without the
        pictures before the start they look damaged. And the first pictures may give up references before the start.
        """
        is_before = (
            pts is not None and self.start_pts is not None and pts < self.start_pts and not self._index.is_untimed
        )
        is_opening = self._read_packets <= OPENING_PACKETS and message == GIVEN_UP_REFERENCE
        if not is_before and not is_opening:
            raise self.index_error("it is damaged, so the video is decoded from its beginning")

    def check_order(self, pts: int | None) -> None:
        """Raise `IndexDisagreesError` if the decoder presents frames in another order than that of their times.

        This counts for frames outside the segment, too: a wrong time may have moved a frame into another segment.
        """
        if self._index.is_untimed:
            return
        if pts is None or (self._latest_pts is not None and pts <= self._latest_pts):
            raise self.index_error("its frames are presented in another order than that of their times")
        self._latest_pts = pts

    def index_error(self, reason: str) -> IndexDisagreesError:
        """The error to raise when the stream differs from the index."""
        return IndexDisagreesError(f"{self._video.name}: segment {self._segment.index}: {reason}")

    def _is_start(self, packet: int) -> bool:
        return packet < len(self._index) and bool(self._index.flags[packet] & IS_START)

    def _read(self, first: int) -> Iterator[Packet[VideoStream]]:
        if self._video.format in SPLICED_FORMATS:
            return self._spliced(int(self._index.positions[first]))
        return self._contents(first)

    def _contents(self, first: int) -> Iterator[Packet[VideoStream]]:
        offset = CONTENT_OFFSETS[self._video.format]
        for number in range(first, self._stop):
            self._file.seek(int(self._index.positions[number]) + offset)
            content = self._file.read(int(self._index.sizes[number]))
            # of its own, with zeros behind it: a packet made from bytes ends where they do, and decoders read further
            packet = cast("Packet[VideoStream]", Packet(len(content)))
            packet.update(content)
            yield packet

    def _spliced(self, position: int) -> Iterator[Packet[VideoStream]]:
        try:
            yield from packets_from(self._video, self._file, position)
        except av.error.FFmpegError as error:
            raise self.index_error(f"its packets cannot be read ({error.strerror})") from error

    def _agrees(self, packet: Packet[VideoStream], number: int) -> bool:
        index = self._index
        return (
            packet.size == index.sizes[number]
            and not packet.is_corrupt
            and zlib.crc32(packet) == index.checksums[number]
        )

    def _timed(self, packet: Packet[VideoStream], number: int) -> Packet[VideoStream]:
        """The packet with what a sequential reading says of it."""
        index = self._index
        pts, dts = int(index.pts[number]), int(index.dts[number])
        packet.time_base = self._video.time_base
        packet.pts = None if pts == NO_TIME else pts
        packet.dts = None if dts == NO_TIME else dts
        packet.duration = int(index.durations[number])
        packet.is_keyframe = bool(index.flags[number] & IS_KEYFRAME)
        return packet
