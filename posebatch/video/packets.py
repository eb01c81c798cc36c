"""The packets of one segment, in file order, checked against the container's index."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, Protocol

import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from posebatch.core.errors import EncryptedVideoError, IndexDisagreesError
from posebatch.core.videos import Segment
from posebatch.video.container import INDEXED_FORMATS, OpenVideo

MAX_DEMUX_FAILURES: Final = 16
"""Failures in a row to read a packet from a damaged container, before the rest is given up."""


MAX_LEADING_PACKETS: Final = 1000
"""Packets after a keyframe that may be presented before it; with more, the index counts as wrong."""


class NeedsFullDecodeError(Exception):
    """A fast path met something that only the single-threaded full decode handles. Never leaves this package."""


class PacketSource(Protocol):
    """The packets of one segment, and what is known of its bounds. Iterate once.

    The iteration raises `IndexDisagreesError` when the file does not hold the packets that an index lists.
    """

    end_pts: int | None
    """pts of the next segment's first frame, as soon as it is known; None at the end of the stream."""

    @property
    def failures(self) -> int:
        """Failures to read a packet from the container."""

    @property
    def ends_early(self) -> bool:
        """Whether the stream stopped before the end that the index or the header announces."""

    def __iter__(self) -> Iterator[Packet[VideoStream]]: ...

    def contains(self, pts: int) -> bool:
        """Whether a frame belongs to the segment, as far as its bounds are known."""

    @property
    def first_index(self) -> int:
        """Number of the segment's first frame, once a packet has been read."""

    @property
    def is_whole_video(self) -> bool:
        """Whether the segment is the whole video."""

    @property
    def lists_frames(self) -> bool:
        """Whether each packet is known to be one frame with a time of its own."""

    def frames_in_index(self) -> int | None:
        """Frames of the segment by the index; None without an index, or when the stream ends early."""

    def check_damage(self, pts: int | None, message: str) -> None:
        """Raise `IndexDisagreesError` if damage at this time may look otherwise in a decode from the beginning.

        ``message``: the line in FFmpeg's log, if that is the only sign of damage.
        """

    def check_order(self, pts: int | None) -> None:
        """Take each frame that comes out of the decoder. May raise `IndexDisagreesError` if their times go back."""

    def index_error(self, reason: str) -> IndexDisagreesError:
        """The error to raise when the stream differs from the index."""


class SegmentPackets:
    """The packets to decode: from the segment's keyframe to the last one presented before the next segment.

    Iterate once. Raises `IndexDisagreesError` when a keyframe is not where the index lists it.
    """

    def __init__(self, video: OpenVideo, segment: Segment) -> None:
        self._video, self._segment = video, segment
        self._leading = 0  # packets after this segment's keyframe that are presented before it
        self._next_leading = 0  # packets after the next segment's keyframe that are presented before it
        self._count = 0  # packets before the next segment's keyframe
        self.start_pts: int | None = None
        """pts of the segment's keyframe, once it has been read; None for a segment from the beginning."""
        self.end_pts: int | None = None
        """pts of the next segment's first frame, once its keyframe has been read."""
        self.failures = 0
        """Failures to read a packet from the container."""
        self.ends_early = False
        """The stream stopped before the end that the index or the header announces."""

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        packets = self._bounded()
        opening = self._opening(packets)
        self._leading = sum(packet.pts is not None and not self.contains(packet.pts) for packet in opening)
        return chain(opening, packets)

    def contains(self, pts: int) -> bool:
        """Whether a frame belongs to the segment, as far as its bounds have been read."""
        after_start = self.start_pts is None or pts >= self.start_pts
        return after_start and (self.end_pts is None or pts < self.end_pts)

    @property
    def first_index(self) -> int:
        """Number of the segment's first frame, once a packet has been read."""
        return self._segment.first_packet + self._leading

    @property
    def is_whole_video(self) -> bool:
        """Whether the segment is the whole video."""
        return self._segment.start_dts is None and self._segment.end_dts is None

    @property
    def lists_frames(self) -> bool:
        """Whether each packet is known to be one frame with a time of its own: the container has a complete index."""
        return self._video.lists_packets

    def frames_in_index(self) -> int | None:
        """Frames of the segment by the index; None without an index, or when the stream ends early."""
        segment = self._segment
        if self.is_whole_video or segment.num_packets is None or self.ends_early:
            return None
        return segment.num_packets - self._leading + self._next_leading

    def check_damage(self, pts: int | None, message: str) -> None:
        """Damage is marked, and the segments of a container with an index of its own stay."""

    def check_order(self, pts: int | None) -> None:
        """The times of the frames are judged together, see `TimestampRepair`."""

    def index_error(self, reason: str) -> IndexDisagreesError:
        """The error to raise when the stream differs from the index."""
        return IndexDisagreesError(f"{self._video.name}: segment {self._segment.index}: {reason}")

    def _opening(self, packets: Iterator[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        """The first packets of a segment inside the video, up to the last one that is presented before its keyframe."""
        if self._segment.start_dts is None:
            return []
        opening: list[Packet[VideoStream]] = []
        for packet in packets:
            opening.append(packet)
            first_pts = opening[0].pts
            if first_pts is None or not opening[0].is_keyframe:
                raise self.index_error(f"no keyframe at decode time {self._segment.start_dts}")
            if packet.dts is None or packet.dts >= first_pts:
                break
            if len(opening) > MAX_LEADING_PACKETS:
                raise self.index_error(
                    f"the frame of decode time {self._segment.start_dts} is shown at {first_pts} only"
                )
        if opening:
            self.start_pts = opening[0].pts
        return opening

    def _bounded(self) -> Iterator[Packet[VideoStream]]:
        start, end = self._segment.start_dts, self._segment.end_dts
        started = start is None
        for packet in self._demuxed():
            dts = packet.dts
            if not started and start is not None and dts != start:
                if dts is not None and dts > start:
                    raise self.index_error(f"no packet with decode time {start}")
                continue  # a seek may land on an earlier keyframe
            started = True
            if end is not None and dts is not None and dts >= end and self.end_pts is None:
                if dts != end or packet.pts is None:
                    raise self.index_error(f"no packet with decode time {end}")
                self.end_pts = packet.pts
            if self.end_pts is not None and (dts is None or dts >= self.end_pts):
                return  # pts >= dts: no later packet is presented before the next segment
            if not packet.is_discard:
                self._count += self.end_pts is None
                self._next_leading += self.end_pts is not None and packet.pts is not None and packet.pts < self.end_pts
            yield packet
        if (self.end_pts is None and end is not None) or self._count < self._packets_in_index():
            self.ends_early = True

    def _packets_in_index(self) -> int:
        """Packets of the segment by the index; 0 without an index."""
        if self._segment.num_packets is None and self._video.format in INDEXED_FORMATS:
            return sum(not entry.is_discard for entry in self._video.stream.index_entries)
        return self._segment.num_packets or 0

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets from the segment's keyframe on, and past damage where the demuxer recovers."""
        failures = packets_read = 0
        self._seek()
        while failures < MAX_DEMUX_FAILURES:
            try:
                for packet in self._video.container.demux(self._video.stream):
                    packets_read += 1
                    self._video.limits.check_frames(packets_read // 2)  # some packets hold no frame, but not half
                    if packet.has_sidedata("encryption_info"):
                        raise EncryptedVideoError(f"{self._video.name}: its video is encrypted (DRM)")
                    if packet.size:  # the last packet is empty and only flushes the decoder
                        failures = 0
                        yield packet
            except av.error.FFmpegError:
                failures += 1
                self.failures += 1
            except IndexError:
                return  # PyAV flushes all streams at the end, and fails for streams that appeared inside the file
            else:
                return
        self.ends_early = True

    def _seek(self) -> None:
        start = self._segment.start_dts
        if start is None:
            return
        try:
            self._video.container.seek(start, stream=self._video.stream, backward=True)
        except av.error.FFmpegError as error:
            raise self.index_error(f"decode time {start} cannot be reached ({error.strerror})") from error
