"""Decode no more of a segment than its wanted frames need."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import av.error
from av.packet import Packet
from av.video.stream import VideoStream

from posebatch.core.frames import FrameRecord
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment
from posebatch.video.container import INDEXED_FORMATS, OpenVideo, complaints
from posebatch.video.frame_numbers import FrameNumbering, NumberedPacket, Sampler
from posebatch.video.full_decode import DecodedFrame
from posebatch.video.packet_kinds import KindOf, kind_reader
from posebatch.video.packets import NeedsFullDecodeError, SegmentPackets

MAX_HELD_BYTES: Final = 64 << 20
"""How much may wait for a wanted frame that needs it, before it is decoded all the same."""


PACKET_BYTES: Final = 1024
"""What a packet takes beside its content."""


class SparseDecode:
    """The wanted frames of one segment, as `Presentation` gives them, for which only what they need is decoded.

    A frame is left out when nobody wants it and no other frame is built on it, or nobody wants anything that is. Each
    packet that is decoded must give the one frame that it promised. Iterate once; raises `NeedsFullDecodeError` at
    anything else, also at a container or codec of which too little is known.
    """

    def __init__(self, video: OpenVideo, segment: Segment, sampler: Sampler) -> None:
        self.packets = SegmentPackets(video, segment)
        self._video, stream = video, video.stream
        self._context = stream.codec_context
        self._complaints = complaints()
        self._foresight = FrameNumbering(self.packets, sampler)
        self._due: list[tuple[int, int, bool]] = []  # heap: pts, number, whether wanted, of frames in the decoder
        indexed = video.format in INDEXED_FORMATS and len(stream.index_entries) == stream.frames > 0
        header = self._context.extradata or b""
        self._kind_of = kind_reader(self._context.codec.canonical_name, header) if indexed else None
        self.frames_out = 0
        """Frames that came out of the decoder."""

    def __iter__(self) -> Iterator[DecodedFrame]:
        if self._kind_of is None:
            raise NeedsFullDecodeError
        for needed in needed_packets(self._foresight, self._kind_of):
            if needed.flush_before:
                yield from self._finish()
                self._context.flush_buffers()
            frame = needed.foreseen
            if frame.frame_index is not None:
                heapq.heappush(self._due, (frame.pts, frame.frame_index, frame.wanted))
            yield from self._decode(frame.packet)
        yield from self._finish()

    def report(self) -> DecodeReport:
        """What was seen; complete after the iteration."""
        return self._foresight.report()

    def _finish(self) -> Iterator[DecodedFrame]:
        """The frames that the decoder still holds."""
        yield from self._decode(None)
        if self._due:
            raise NeedsFullDecodeError

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[DecodedFrame]:
        try:
            frames = self._video.decode(packet)
        except av.error.FFmpegError:
            raise NeedsFullDecodeError from None
        if complaints() != self._complaints:
            raise NeedsFullDecodeError
        for frame in frames:
            self.frames_out += 1
            if frame.pts is None or frame.is_corrupt:
                raise NeedsFullDecodeError
            if not self.packets.inside(frame.pts):
                continue
            if not self._due or self._due[0][0] != frame.pts:
                raise NeedsFullDecodeError
            pts, index, wanted = heapq.heappop(self._due)
            self._video.check_frame(index, pts)
            if wanted:
                yield DecodedFrame(
                    FrameRecord(index, pts, bool(frame.key_frame), "ok"), frame, max(1, frame.duration or 0)
                )


@dataclass(frozen=True)
class Needed:
    """A packet that the decoder must be given."""

    foreseen: NumberedPacket
    flush_before: bool
    """Decoding starts anew with it, because packets between it and the one before were left out."""


def needed_packets(foreseen: Iterable[NumberedPacket], kind_of: KindOf) -> Iterator[Needed]:
    """The packets that the wanted frames need, in the order of the file.

    Raises `NeedsFullDecodeError` when decoding cannot start at the first one, or a frame is wanted that is shown before
    the keyframe at which decoding started.
    """
    return _PacketSelector(kind_of).passed(foreseen)


class _PacketSelector:
    """Holds packets back until a frame is wanted that needs them, or one comes from which decoding can start anew."""

    def __init__(self, kind_of: KindOf) -> None:
        self._kind_of = kind_of
        self._held: list[NumberedPacket] = []
        self._held_bytes = 0
        self._keyframe: int | None = None  # place among those held of one at which decoding might start anew
        self._start_pts: int | None = None  # of the keyframe at which decoding started, or will
        self._afresh = False

    def passed(self, foreseen: Iterable[NumberedPacket]) -> Iterator[Needed]:
        for one in foreseen:
            yield from self._take(one)
        if self._keyframe is not None:
            yield from self._start_anew(self._keyframe)

    def _take(self, one: NumberedPacket) -> Iterator[Needed]:
        kind = self._kind_of(bytes(one.packet), one.packet.is_keyframe)
        if self._start_pts is None:
            if not kind.can_start:
                raise NeedsFullDecodeError
            self._start_pts = one.pts
        if self._keyframe is not None and one.pts > self._held[self._keyframe].pts:
            yield from self._start_anew(self._keyframe)  # nothing more is shown before that keyframe
        if one.pts < self._start_pts:
            if one.wanted:
                raise NeedsFullDecodeError
            return
        if not one.wanted and not kind.is_reference:
            return
        if kind.can_start and self._held:
            self._keyframe = len(self._held)
        self._held.append(one)
        self._held_bytes += one.packet.size + PACKET_BYTES
        waits = self._keyframe == len(self._held) - 1  # for what is shown before it, which may need those held
        if (one.wanted and not waits) or self._held_bytes > MAX_HELD_BYTES:
            yield from self._pass_on()

    def _start_anew(self, keyframe: int) -> Iterator[Needed]:
        """Leave out what is held from before a keyframe."""
        self._start_pts = self._held[keyframe].pts
        self._held = [one for one in self._held[keyframe:] if one.pts >= self._start_pts]
        self._held_bytes = sum(one.packet.size + PACKET_BYTES for one in self._held)
        self._keyframe, self._afresh = None, True
        if self._held[0].wanted:
            yield from self._pass_on()

    def _pass_on(self) -> Iterator[Needed]:
        """Whatever is held is needed after all."""
        held, flush_before = self._held, self._afresh
        self._held, self._held_bytes, self._keyframe, self._afresh = [], 0, None, False
        for i, one in enumerate(held):
            yield Needed(one, flush_before and i == 0)
