"""Frame numbers from the timestamps of packets, before decoding; and which frames are sampled."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from av.packet import Packet
from av.video.stream import VideoStream

from posebatch.core.records import DecodeReport
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import VideoInfo
from posebatch.video.packets import NeedsFullDecodeError, PacketSource
from posebatch.video.timestamps import STRAY_JUMP

MAX_REORDERED_FRAMES: Final = 64
"""Frames that wait for their number. H.264 and HEVC reorder at most 16, but a stream may present all frames late."""


MAX_HELD_PACKETS: Final = 1000
"""Packets buffered until their frame number is known. If the timestamps demand more, fall back to a full decode."""


MAX_HELD_BYTES: Final = 256 << 20
"""The same limit in bytes."""


@dataclass(frozen=True)
class NumberedPacket:
    """A packet with the number of its frame."""

    packet: Packet[VideoStream]
    pts: int
    frame_index: int | None
    """None when the frame belongs to another segment, or is never presented."""
    sampled: bool


class FrameNumbering:
    """The packets of a segment in file order, each as soon as the number of its frame is known. Iterate once.

    A number is known when no packet can follow whose frame is presented earlier. This holds for an undamaged stream
    with one frame in every packet. Raises `NeedsFullDecodeError` where timestamps are missing or contradict each other.
    """

    def __init__(self, packets: PacketSource, sampler: Sampler) -> None:
        self._packets, self._sampler = packets, sampler
        self._held: deque[tuple[Packet[VideoStream], bool]] = deque()  # in file order; whether it is in the segment
        self._held_bytes = 0
        self._unnumbered: list[tuple[int, int]] = []  # heap: pts and duration of frames without a number
        self._decided: dict[int, tuple[int, bool]] = {}  # by pts: frame number, and whether it is sampled
        self._latest: tuple[int, int] | None = None  # pts and duration of the last frame with a number
        self._numbered = 0
        self._first_pts: int | None = None
        self._intervals: list[int] = []  # shortest and longest, ticks

    def __iter__(self) -> Iterator[NumberedPacket]:
        packets = self._packets
        first_pts = last_dts = None
        for packet in packets:
            pts, dts = packet.pts, packet.dts
            if (
                pts is None
                or dts is None
                or pts < dts
                or packet.is_corrupt
                or (last_dts is not None and dts <= last_dts)
            ):
                raise NeedsFullDecodeError
            first_pts, last_dts = pts if first_pts is None else first_pts, dts
            in_segment = packets.contains(pts) and not packet.is_discard
            if in_segment and pts < first_pts:
                raise NeedsFullDecodeError  # a frame before the first keyframe may or may not come out
            if in_segment:
                heapq.heappush(self._unnumbered, (pts, packet.duration or 0))
            self._hold(packet, in_segment)
            if len(self._unnumbered) > MAX_REORDERED_FRAMES:
                raise NeedsFullDecodeError  # a timestamp far ahead: no codec reorders so many frames
            while self._unnumbered and self._unnumbered[0][0] <= dts:  # pts >= dts: no later packet is presented before
                self._number(*heapq.heappop(self._unnumbered))
            yield from self._released()
        while self._unnumbered:
            self._number(*heapq.heappop(self._unnumbered))
        self._number_end()
        if packets.failures or packets.ends_early or packets.frames_in_index() not in (None, self._numbered):
            raise NeedsFullDecodeError
        yield from self._released()

    def report(self) -> DecodeReport:
        """Counts and times of all frames; complete after the iteration."""
        shortest, longest = self._intervals or (None, None)
        last_pts = None if self._latest is None else self._latest[0]
        return DecodeReport(self._numbered, 0, False, self._first_pts, last_pts, shortest, longest)

    def _hold(self, packet: Packet[VideoStream], in_segment: bool) -> None:
        self._held.append((packet, in_segment))
        self._held_bytes += packet.size
        if len(self._held) > MAX_HELD_PACKETS or self._held_bytes > MAX_HELD_BYTES:
            raise NeedsFullDecodeError

    def _number(self, pts: int, duration: int) -> None:
        """Number the next frame in presentation order, and decide on the one before it."""
        if not self._packets.contains(pts):
            raise NeedsFullDecodeError
        if self._latest is None:
            self._first_pts = pts
        else:
            self._note_interval(pts - self._latest[0])
            self._decide(until=pts)
        self._latest = pts, duration
        self._numbered += 1

    def _number_end(self) -> None:
        """Decide on the last frame of the segment."""
        if self._latest is None:
            return
        (pts, duration), end = self._latest, self._packets.end_pts
        if end is not None:
            self._note_interval(end - pts)
        self._decide(until=pts + max(1, duration) if end is None else end)

    def _note_interval(self, ticks: int) -> None:
        if ticks <= 0:
            raise NeedsFullDecodeError
        shortest, longest = self._intervals or (ticks, ticks)
        shortest, longest = min(shortest, ticks), max(longest, ticks)
        if longest > STRAY_JUMP * shortest:
            raise NeedsFullDecodeError  # a timestamp may be wrong
        self._intervals = [shortest, longest]

    def _decide(self, until: int) -> None:
        """Decide whether the latest frame is sampled; it stays on screen up to the tick ``until``."""
        assert self._latest is not None
        pts, index = self._latest[0], self._packets.first_index + self._numbered - 1
        self._decided[pts] = index, self._sampler.takes(index, pts, until)

    def _released(self) -> Iterator[NumberedPacket]:
        """The held packets up to the first whose frame is not decided yet."""
        while self._held:
            packet, in_segment = self._held[0]
            pts = packet.pts
            assert pts is not None
            if in_segment and pts not in self._decided:
                return
            index, sampled = self._decided.pop(pts) if in_segment else (None, False)
            self._held.popleft()
            self._held_bytes -= packet.size
            yield NumberedPacket(packet, pts, index, sampled)


@dataclass(frozen=True)
class Sampler:
    """Takes every ``stride``-th frame by number, or the frame on screen at each tick of a fixed rate."""

    stride: int
    start_pts: int
    """pts of the video's first frame, and of the first tick."""
    step: Fraction | None
    """Distance of two ticks, in units of the stream's time base; None: by number."""

    @classmethod
    def of(cls, sampling: SamplingSettings, info: VideoInfo) -> Sampler:
        """The sampler of one video, by the settings of a run."""
        step = None
        if sampling.fps is not None:
            step = 1 / (Fraction(sampling.fps).limit_denominator(1_000_000) * info.time_base)
        return cls(sampling.stride, info.start_pts, step)

    @property
    def takes_all(self) -> bool:
        """Whether every frame is sampled."""
        return self.step is None and self.stride == 1

    def takes(self, frame_index: int, pts: int, until: int) -> bool:
        """Whether a frame is sampled that is on screen for ``pts <= tick < until``."""
        if self.step is None:
            return frame_index % self.stride == 0
        next_tick = self.start_pts + math.ceil((pts - self.start_pts) / self.step) * self.step
        return next_tick < until
