"""The packets of one segment, in the order of the file, and which frames they show."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from posebatch.core.errors import IndexDisagreesError
from posebatch.core.videos import Segment
from posebatch.video.container import INDEXED_FORMATS, OpenVideo

MAX_DEMUX_FAILURES: Final = 16
"""How often in a row a damaged container may fail to give a packet before the rest is given up."""


MAX_LEADING_PACKETS: Final = 1000
"""How many packets after a keyframe may be shown before it, before the index is called wrong."""


class NeedsFullDecodeError(Exception):
    """A faster way of decoding has met what only the slowest one settles: every packet, by one thread. Never leaves
    this package.
    """


class SegmentPackets:
    """The packets to decode: from the segment's keyframe to the last one shown before the next segment's.

    Iterate once. Raises `IndexDisagreesError` when a keyframe is not where the index promised it.
    """

    def __init__(self, video: OpenVideo, segment: Segment) -> None:
        self._video, self._segment = video, segment
        self._leading = 0  # after this segment's keyframe, shown before it
        self._next_leading = 0  # after the next segment's keyframe, shown before it
        self._count = 0  # before the next segment's keyframe
        self.start_pts: int | None = None
        """pts of the segment's keyframe, once it has been read; None for a segment from the beginning."""
        self.end_pts: int | None = None
        """pts of the next segment's first frame, once its keyframe has been read."""
        self.failures = 0
        """How often the container failed to give a packet."""
        self.ends_early = False
        """The stream stopped before the index or the header said it would."""

    def __iter__(self) -> Iterator[Packet[VideoStream]]:
        packets = self._bounded()
        opening = self._opening(packets)
        self._leading = sum(packet.pts is not None and not self.inside(packet.pts) for packet in opening)
        return chain(opening, packets)

    def inside(self, pts: int) -> bool:
        """Whether a frame belongs to the segment, as far as is known."""
        after_start = self.start_pts is None or pts >= self.start_pts
        return after_start and (self.end_pts is None or pts < self.end_pts)

    @property
    def first_index(self) -> int:
        """Number of the segment's first frame, once a packet has been read."""
        return self._segment.first_packet + self._leading

    def promised_frames(self) -> int | None:
        """How many frames the index promises; None where nothing was promised, or the stream ends early."""
        segment = self._segment
        whole_video = segment.start_dts is None and segment.end_dts is None
        if whole_video or segment.num_packets is None or self.ends_early:
            return None
        return segment.num_packets - self._leading + self._next_leading

    def disagrees(self, what: str) -> IndexDisagreesError:
        """The error to raise when the stream is not what the index promised."""
        return IndexDisagreesError(f"{self._video.name}: segment {self._segment.index}: {what}")

    def _opening(self, packets: Iterator[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        """The first packets of a segment that starts inside the video, as many as tell what is shown before it."""
        if self._segment.start_dts is None:
            return []
        opening: list[Packet[VideoStream]] = []
        for packet in packets:
            opening.append(packet)
            first_pts = opening[0].pts
            if first_pts is None or not opening[0].is_keyframe:
                raise self.disagrees(f"no keyframe at decode time {self._segment.start_dts}")
            if packet.dts is None or packet.dts >= first_pts:
                break
            if len(opening) > MAX_LEADING_PACKETS:
                raise self.disagrees(f"the frame of decode time {self._segment.start_dts} is shown at {first_pts} only")
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
                    raise self.disagrees(f"no packet with decode time {start}")
                continue  # a seek may land on an earlier keyframe
            started = True
            if end is not None and dts is not None and dts >= end and self.end_pts is None:
                if dts != end or packet.pts is None:
                    raise self.disagrees(f"no packet with decode time {end}")
                self.end_pts = packet.pts
            if self.end_pts is not None and (dts is None or dts >= self.end_pts):
                return  # pts >= dts: nothing from here on is shown before the next segment
            if not packet.is_discard:
                self._count += self.end_pts is None
                self._next_leading += self.end_pts is not None and packet.pts is not None and packet.pts < self.end_pts
            yield packet
        if (self.end_pts is None and end is not None) or self._count < self._promised_packets():
            self.ends_early = True

    def _promised_packets(self) -> int:
        """How many packets the index lists; 0 when it does not say."""
        if self._segment.num_packets is None and self._video.format in INDEXED_FORMATS:
            return sum(not entry.is_discard for entry in self._video.stream.index_entries)
        return self._segment.num_packets or 0

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets from the segment's seek point on, past damage where the demuxer finds its way again."""
        failures = read = 0
        if self._segment.start_dts is not None:
            self._video.container.seek(self._segment.start_dts, stream=self._video.stream, backward=True)
        while failures < MAX_DEMUX_FAILURES:
            try:
                for packet in self._video.container.demux(self._video.stream):
                    read += 1
                    self._video.limits.check_frames(read // 2)  # some packets show nothing, but never so many
                    if packet.size:  # the last, empty one only flushes
                        failures = 0
                        yield packet
            except av.error.FFmpegError:
                failures += 1
                self.failures += 1
            except IndexError:
                return  # at the end, PyAV looks for what has ended in streams too that appeared only on the way
            else:
                return
        self.ends_early = True
