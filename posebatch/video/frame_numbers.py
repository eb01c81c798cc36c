"""Know a segment's frames before they are decoded: their numbers, and which are wanted, from their packets' times."""

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
from posebatch.video.packets import NeedsFullDecodeError, SegmentPackets

MAX_HELD_PACKETS: Final = 1000


MAX_HELD_BYTES: Final = 256 << 20
"""How much may wait for its number; where times say that more must, only decoding tells."""


@dataclass(frozen=True)
class NumberedPacket:
    """A packet and what will become of it."""

    packet: Packet[VideoStream]
    pts: int
    frame_index: int | None
    """The number of its frame; None when that belongs to another segment, or is never shown."""
    wanted: bool


class FrameNumbering:
    """A segment's packets in the order of the file, each as soon as what is shown next is known. Iterate once.

    Holds for a stream in which every packet is one frame and nothing is damaged. Raises `NeedsFullDecodeError` where
    times are missing or contradict each other, so that only decoding tells which frames there are.
    """

    def __init__(self, packets: SegmentPackets, sampler: Sampler) -> None:
        self._packets, self._sampler = packets, sampler
        self._held: deque[tuple[Packet[VideoStream], bool]] = deque()  # in file order; whether it is one of our frames
        self._held_bytes = 0
        self._ahead: list[tuple[int, int]] = []  # heap: pts and duration of frames that have no number yet
        self._decided: dict[int, tuple[int, bool]] = {}  # by pts: number, and whether it is wanted
        self._latest: tuple[int, int] | None = None  # pts and duration of the last frame that has a number
        self._numbered = 0
        self._first_pts: int | None = None
        self._intervals: list[int] = []  # shortest and longest

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
            ours = packets.inside(pts) and not packet.is_discard
            if ours and pts < first_pts:
                raise NeedsFullDecodeError  # what is shown before the first keyframe may or may not come out
            if ours:
                heapq.heappush(self._ahead, (pts, packet.duration or 0))
            self._hold(packet, ours)
            while self._ahead and self._ahead[0][0] <= dts:  # pts >= dts: nothing that follows is shown earlier
                self._number(*heapq.heappop(self._ahead))
            yield from self._released()
        while self._ahead:
            self._number(*heapq.heappop(self._ahead))
        self._end()
        if packets.failures or packets.ends_early or packets.promised_frames() not in (None, self._numbered):
            raise NeedsFullDecodeError
        yield from self._released()

    def report(self) -> DecodeReport:
        """What there is; complete after the iteration."""
        shortest, longest = self._intervals or (None, None)
        last_pts = None if self._latest is None else self._latest[0]
        return DecodeReport(self._numbered, 0, False, self._first_pts, last_pts, shortest, longest)

    def _hold(self, packet: Packet[VideoStream], ours: bool) -> None:
        self._held.append((packet, ours))
        self._held_bytes += packet.size
        if len(self._held) > MAX_HELD_PACKETS or self._held_bytes > MAX_HELD_BYTES:
            raise NeedsFullDecodeError

    def _number(self, pts: int, duration: int) -> None:
        """The next frame in presentation order."""
        if not self._packets.inside(pts):
            raise NeedsFullDecodeError
        if self._latest is None:
            self._first_pts = pts
        else:
            self._note_interval(pts - self._latest[0])
            self._decide(until=pts)
        self._latest = pts, duration
        self._numbered += 1

    def _end(self) -> None:
        """After the last frame."""
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
        self._intervals = [min(shortest, ticks), max(longest, ticks)]

    def _decide(self, until: int) -> None:
        """Whether the latest frame is wanted, now that it is known how long it is shown."""
        assert self._latest is not None
        pts, index = self._latest[0], self._packets.first_index + self._numbered - 1
        self._decided[pts] = index, self._sampler.wants(index, pts, until)

    def _released(self) -> Iterator[NumberedPacket]:
        while self._held:
            packet, ours = self._held[0]
            pts = packet.pts
            assert pts is not None
            if ours and pts not in self._decided:
                return
            index, wanted = self._decided.pop(pts) if ours else (None, False)
            self._held.popleft()
            self._held_bytes -= packet.size
            yield NumberedPacket(packet, pts, index, wanted)


@dataclass(frozen=True)
class Sampler:
    """Wants every N-th frame by number, or those on screen at F ticks a second from the first frame on."""

    stride: int
    start_pts: int
    step: Fraction | None
    """From tick to tick, in the stream's time base; None: by number."""

    @classmethod
    def of(cls, sampling: SamplingSettings, info: VideoInfo) -> Sampler:
        """What a run's settings mean for one video."""
        step = None
        if sampling.fps is not None:
            step = 1 / (Fraction(sampling.fps).limit_denominator(1_000_000) * info.time_base)
        return cls(sampling.stride, info.start_pts, step)

    @property
    def wants_all(self) -> bool:
        """Whether every frame is wanted."""
        return self.step is None and self.stride == 1

    def wants(self, frame_index: int, pts: int, until: int) -> bool:
        """Whether a frame is wanted that is on screen for ``pts <= tick < until``."""
        if self.step is None:
            return frame_index % self.stride == 0
        next_tick = self.start_pts + math.ceil((pts - self.start_pts) / self.step) * self.step
        return next_tick < until
