"""Every frame of a segment, in presentation order, each with its number and status."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.core.frames import FrameRecord, FrameStatus
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment
from posebatch.video.container import UNTIMED_FORMATS, OpenVideo, complaints
from posebatch.video.frame_numbers import Sampler
from posebatch.video.packets import NeedsFullDecodeError, SegmentPackets

MAX_AWAITED: Final = 1000
"""Packets whose frames may still come out of a decoder; what more of them there are will not come any more."""


@dataclass(frozen=True)
class DecodedFrame:
    """One presented frame, before anybody has asked for its pixels."""

    record: FrameRecord
    frame: VideoFrame | None
    """None unless the status is ``ok``."""
    duration: int
    """Ticks, at least 1."""


class FullDecode:
    """The wanted frames of one segment, found by decoding every packet. Iterate once.

    With ``stop_at_damage`` raises `NeedsFullDecodeError` at the first sign of it.
    """

    def __init__(self, video: OpenVideo, segment: Segment, sampler: Sampler, stop_at_damage: bool = False) -> None:
        self.packets = SegmentPackets(video, segment)
        self._video, self._sampler = video, sampler
        self._stop_at_damage = stop_at_damage
        self._complaints = complaints()
        self._untimed = video.format in UNTIMED_FORMATS
        self._awaited: list[int] = []  # heap: pts of packets given to the decoder whose frames have not come out
        self._lost: set[int] = set()  # time slots of packets that could not be decoded, where frames carry no pts
        self._given_up: set[int] = set()  # pts of frames shown as missing; amid damage some come after all, too late
        self._errors = 0
        self._next_index = 0
        self._presented = self._damaged = 0
        self.frames_out = 0
        """Frames that came out of the decoder."""
        self._shown_pts: list[int] = []  # first and last
        self._intervals: list[int] = []  # shortest and longest

    def __iter__(self) -> Iterator[DecodedFrame]:
        for shown in self._wanted():
            self._damaged += shown.record.status != "ok"
            yield shown

    def report(self) -> DecodeReport:
        """What was seen; complete after the iteration."""
        first, last = self._shown_pts or (None, None)
        shortest, longest = self._intervals or (None, None)
        decoded = self._presented - self._damaged
        return DecodeReport(decoded, self._damaged, self.packets.ends_early, first, last, shortest, longest)

    def _wanted(self) -> Iterator[DecodedFrame]:
        previous: DecodedFrame | None = None
        for one in self._all():
            if previous is not None and self._wants(previous, until=one.record.pts):
                yield previous
            previous = one
        if previous is not None:
            end = self.packets.end_pts
            if self._wants(previous, until=previous.record.pts + previous.duration if end is None else end):
                yield previous

    def _wants(self, shown: DecodedFrame, until: int) -> bool:
        return self._sampler.wants(shown.record.frame_index, shown.record.pts, until)

    def _all(self) -> Iterator[DecodedFrame]:
        packets = iter(self.packets)
        self._next_index = self.packets.first_index
        for packet in packets:
            yield from self._decode(packet)
            if len(self._awaited) > MAX_AWAITED:
                yield from self._unclaimed(before=self._awaited[0] + 1)
        yield from self._decode(None)
        yield from self._unclaimed(before=None)
        self._check_count()
        if self.packets.end_pts is not None and self._shown_pts:
            self._note_interval(self.packets.end_pts - self._shown_pts[1])

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[DecodedFrame]:
        """Give the decoder a packet, or None for those it still holds, and present what comes out."""
        due = self._await(packet)
        try:
            frames = self._video.decode(packet)
        except av.error.FFmpegError:
            self._check_damage()
            self._errors += 1
            if due is not None and self._untimed:
                self._lost.add(due)
            return
        if complaints() != self._complaints:
            self._check_damage()
        for frame in frames:
            self.frames_out += 1
            if frame.is_corrupt:
                self._check_damage()
            yield from self._present(frame)

    def _check_damage(self) -> None:
        """Called at each sign of it; several threads at the end of a stream just leave frames out."""
        if self._stop_at_damage:
            raise NeedsFullDecodeError

    def _await(self, packet: Packet[VideoStream] | None) -> int | None:
        """Note when the frame of a packet is due; None when it belongs elsewhere or nowhere."""
        due = None if packet is None or packet.is_discard else packet.dts if self._untimed else packet.pts
        if due is None or not self.packets.inside(due):
            return None
        heapq.heappush(self._awaited, due)
        return due

    def _present(self, frame: VideoFrame) -> Iterator[DecodedFrame]:
        pts = self._pts_of(frame)
        if not self.packets.inside(pts) or frame.pts in self._given_up:
            return
        yield from self._unclaimed(before=pts)
        if self._awaited and self._awaited[0] == pts:
            heapq.heappop(self._awaited)
        yield self._number(pts, "corrupt" if frame.is_corrupt else "ok", frame)

    def _pts_of(self, frame: VideoFrame) -> int:
        """The frame's own pts; where there is none, or it runs backwards, the nearest that keeps the order."""
        pts = (
            min((slot for slot in self._awaited if slot not in self._lost), default=None)
            if self._untimed
            else frame.pts
        )
        last = self._shown_pts[1] if self._shown_pts else None
        if pts is not None and (last is None or pts > last):
            return pts
        return 0 if last is None else last + max(1, frame.duration or 0)

    def _unclaimed(self, before: int | None) -> Iterator[DecodedFrame]:
        """Packets whose frames never came out: lost ones after an error, else frames meant to stay hidden."""
        while self._awaited and (before is None or self._awaited[0] < before):
            self._check_damage()
            pts = heapq.heappop(self._awaited)
            last = self._shown_pts[1] if self._shown_pts else None
            if (self._errors or self.packets.failures) and (last is None or pts > last):
                self._given_up.add(pts)
                yield self._number(pts, "missing", None)

    def _number(self, pts: int, status: FrameStatus, frame: VideoFrame | None) -> DecodedFrame:
        self._video.check_frame(self._next_index, pts)
        record = FrameRecord(self._next_index, pts, bool(frame and frame.key_frame), status)
        self._next_index += 1
        self._presented += 1
        if self._shown_pts:
            self._note_interval(pts - self._shown_pts[1])
        self._shown_pts = [self._shown_pts[0] if self._shown_pts else pts, pts]
        return DecodedFrame(record, frame if status == "ok" else None, max(1, (frame and frame.duration) or 0))

    def _note_interval(self, ticks: int) -> None:
        shortest, longest = self._intervals or (ticks, ticks)
        self._intervals = [min(shortest, ticks), max(longest, ticks)]

    def _check_count(self) -> None:
        """Refuse an index that promised other frames than came, unless damage explains it, or parts them wrongly."""
        promised = self.packets.promised_frames()
        if promised not in (None, self._presented):
            raise self.packets.disagrees(f"the index promises {promised} frames, the stream has {self._presented}")
        end = self.packets.end_pts
        if end is not None and self._shown_pts and self._shown_pts[1] >= end:
            raise self.packets.disagrees(f"its last frame stands at {self._shown_pts[1]}, the next one begins at {end}")
