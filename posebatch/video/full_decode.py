"""Decode every packet of a segment: every frame, in presentation order, with its number and status."""

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
from posebatch.video.container import UNTIMED_FORMATS, OpenVideo, logged_errors
from posebatch.video.frame_numbers import Sampler
from posebatch.video.packets import NeedsFullDecodeError, SegmentPackets

MAX_PENDING_PACKETS: Final = 1000
"""Upper bound on packets still inside the decoder; anything older is considered lost."""


@dataclass(frozen=True)
class DecodedFrame:
    """One presented frame; its pixels are not converted yet."""

    record: FrameRecord
    frame: VideoFrame | None
    """None unless the status is ``ok``."""
    duration: int
    """Ticks, at least 1."""


class FullDecode:
    """The sampled frames of one segment, by decoding every packet. Iterate once.

    With ``stop_at_damage`` raises `NeedsFullDecodeError` at the first sign of damage.
    """

    def __init__(self, video: OpenVideo, segment: Segment, sampler: Sampler, stop_at_damage: bool = False) -> None:
        self.packets = SegmentPackets(video, segment)
        self._video, self._sampler = video, sampler
        self._stop_at_damage = stop_at_damage
        self._logged_errors = logged_errors()
        self._untimed = video.format in UNTIMED_FORMATS
        self._pending: list[int] = []  # heap: pts of packets inside the decoder, whose frames have not come out
        self._lost_slots: set[int] = set()  # in untimed formats: time slots of packets that could not be decoded
        self._given_up: set[int] = set()  # pts of frames presented as missing; after damage some come out too late
        self._decode_errors = 0
        self._next_index = 0
        self._presented = self._damaged = 0
        self.frames_out = 0
        """Frames that came out of the decoder."""
        self._pts_range: list[int] = []  # pts of the first and the last presented frame
        self._intervals: list[int] = []  # shortest and longest, ticks

    def __iter__(self) -> Iterator[DecodedFrame]:
        for frame in self._sampled():
            self._damaged += frame.record.status != "ok"
            yield frame

    def report(self) -> DecodeReport:
        """Counts and times of all frames; complete after the iteration."""
        first, last = self._pts_range or (None, None)
        shortest, longest = self._intervals or (None, None)
        decoded = self._presented - self._damaged
        return DecodeReport(decoded, self._damaged, self.packets.ends_early, first, last, shortest, longest)

    def _sampled(self) -> Iterator[DecodedFrame]:
        previous: DecodedFrame | None = None
        for frame in self._all():
            if previous is not None and self._takes(previous, until=frame.record.pts):
                yield previous
            previous = frame
        if previous is not None:
            end = self.packets.end_pts
            if self._takes(previous, until=previous.record.pts + previous.duration if end is None else end):
                yield previous

    def _takes(self, frame: DecodedFrame, until: int) -> bool:
        return self._sampler.takes(frame.record.frame_index, frame.record.pts, until)

    def _all(self) -> Iterator[DecodedFrame]:
        packets = iter(self.packets)
        self._next_index = self.packets.first_index
        for packet in packets:
            yield from self._decode(packet)
            if len(self._pending) > MAX_PENDING_PACKETS:
                yield from self._give_up(before=self._pending[0] + 1)
        yield from self._decode(None)
        yield from self._give_up(before=None)
        self._check_count()
        if self.packets.end_pts is not None and self._pts_range:
            self._note_interval(self.packets.end_pts - self._pts_range[1])

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[DecodedFrame]:
        """Give the decoder a packet, and present the frames that come out; with None, those that it still holds."""
        pts = self._note_pending(packet)
        try:
            frames = self._video.decode(packet)
        except av.error.FFmpegError:
            self._check_damage()
            self._decode_errors += 1
            if pts is not None and self._untimed:
                self._lost_slots.add(pts)
            return
        if logged_errors() != self._logged_errors:
            self._check_damage()
        for frame in frames:
            self.frames_out += 1
            if frame.is_corrupt:
                self._check_damage()
            yield from self._present(frame)

    def _check_damage(self) -> None:
        """Called at each sign of damage. A missing frame is one: several threads may omit frames at the end."""
        if self._stop_at_damage:
            raise NeedsFullDecodeError

    def _note_pending(self, packet: Packet[VideoStream] | None) -> int | None:
        """The pts at which a packet's frame is due; None when it is in another segment, or is never presented."""
        pts = None if packet is None or packet.is_discard else packet.dts if self._untimed else packet.pts
        if pts is None or not self.packets.contains(pts):
            return None
        heapq.heappush(self._pending, pts)
        return pts

    def _present(self, frame: VideoFrame) -> Iterator[DecodedFrame]:
        pts = self._pts_of(frame)
        if not self.packets.contains(pts) or frame.pts in self._given_up:
            return
        yield from self._give_up(before=pts)
        if self._pending and self._pending[0] == pts:
            heapq.heappop(self._pending)
        yield self._number(pts, "corrupt" if frame.is_corrupt else "ok", frame)

    def _pts_of(self, frame: VideoFrame) -> int:
        """The frame's own pts. Where it is missing or runs backwards, the nearest pts that keeps the order."""
        pts = (
            min((slot for slot in self._pending if slot not in self._lost_slots), default=None)
            if self._untimed
            else frame.pts
        )
        last = self._pts_range[1] if self._pts_range else None
        if pts is not None and (last is None or pts > last):
            return pts
        return 0 if last is None else last + max(1, frame.duration or 0)

    def _give_up(self, before: int | None) -> Iterator[DecodedFrame]:
        """Present as missing the frames of pending packets before a pts, or of all of them.

        Without any error those are frames that the stream does not present; they get no number.
        """
        while self._pending and (before is None or self._pending[0] < before):
            self._check_damage()
            pts = heapq.heappop(self._pending)
            last = self._pts_range[1] if self._pts_range else None
            if (self._decode_errors or self.packets.failures) and (last is None or pts > last):
                self._given_up.add(pts)
                yield self._number(pts, "missing", None)

    def _number(self, pts: int, status: FrameStatus, frame: VideoFrame | None) -> DecodedFrame:
        """The next frame in presentation order."""
        self._video.check_frame(self._next_index, pts)
        record = FrameRecord(self._next_index, pts, bool(frame and frame.key_frame), status)
        self._next_index += 1
        self._presented += 1
        if self._pts_range:
            self._note_interval(pts - self._pts_range[1])
        self._pts_range = [self._pts_range[0] if self._pts_range else pts, pts]
        return DecodedFrame(record, frame if status == "ok" else None, max(1, (frame and frame.duration) or 0))

    def _note_interval(self, ticks: int) -> None:
        shortest, longest = self._intervals or (ticks, ticks)
        self._intervals = [min(shortest, ticks), max(longest, ticks)]

    def _check_count(self) -> None:
        """Raise `IndexDisagreesError` when the index has another number of frames, or another end of the segment.

        Damage explains a difference.
        """
        listed = self.packets.frames_in_index()
        if listed not in (None, self._presented):
            raise self.packets.index_error(f"the index promises {listed} frames, the stream has {self._presented}")
        end = self.packets.end_pts
        if end is not None and self._pts_range and self._pts_range[1] >= end:
            raise self.packets.index_error(
                f"its last frame stands at {self._pts_range[1]}, the next one begins at {end}"
            )
