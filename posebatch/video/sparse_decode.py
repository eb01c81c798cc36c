"""Decode only the packets that the sampled frames of a segment need."""

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
from posebatch.video.container import OpenVideo, logged_errors
from posebatch.video.frame_numbers import FrameNumbering, NumberedPacket, Sampler
from posebatch.video.full_decode import DecodedFrame
from posebatch.video.packet_kinds import KindOf, kind_reader
from posebatch.video.packets import NeedsFullDecodeError, PacketSource

MAX_HELD_BYTES: Final = 64 << 20
"""Bytes of packets held back for a sampled frame that may need them; beyond that they are decoded anyway."""


PACKET_BYTES: Final = 1024
"""Memory of a packet besides its content, bytes."""


class SparseDecode:
    """The sampled frames of one segment, the same as `FullDecode` gives, by decoding only the packets they need.

    A frame is skipped if it is not sampled and no sampled frame depends on it, directly or not. Each decoded packet
    must yield the one frame that its timestamp announces. Iterate once. Raises `NeedsFullDecodeError` otherwise, and
    for a container or codec that is not known well enough.
    """

    def __init__(self, video: OpenVideo, packets: PacketSource, sampler: Sampler) -> None:
        self.packets = packets
        self._video, self._context = video, video.stream.codec_context
        self._logged_errors = logged_errors()
        self._numbering = FrameNumbering(self.packets, sampler)
        self._pending: list[tuple[int, int, bool]] = []  # heap: pts, number, sampled; of frames inside the decoder
        header = self._context.extradata or b""
        self._kind_of = kind_reader(self._context.codec.canonical_name, header) if packets.lists_frames else None
        self.frames_out = 0
        """Frames that came out of the decoder."""

    def __iter__(self) -> Iterator[DecodedFrame]:
        if self._kind_of is None:
            raise NeedsFullDecodeError
        for needed in needed_packets(self._numbering, self._kind_of):
            if needed.flush_before:
                yield from self._finish()
                self._context.flush_buffers()
            numbered = needed.numbered
            if numbered.frame_index is not None:
                heapq.heappush(self._pending, (numbered.pts, numbered.frame_index, numbered.sampled))
            yield from self._decode(numbered.packet)
        yield from self._finish()

    def report(self) -> DecodeReport:
        """Counts and times of all frames, decoded or not; complete after the iteration."""
        return self._numbering.report()

    def _finish(self) -> Iterator[DecodedFrame]:
        """The frames that the decoder still holds."""
        yield from self._decode(None)
        if self._pending:
            raise NeedsFullDecodeError

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[DecodedFrame]:
        try:
            frames = self._video.decode(packet)
        except av.error.FFmpegError:
            raise NeedsFullDecodeError from None
        if logged_errors() != self._logged_errors:
            raise NeedsFullDecodeError
        for frame in frames:
            self.frames_out += 1
            if frame.pts is None or frame.is_corrupt:
                raise NeedsFullDecodeError
            if not self.packets.contains(frame.pts):
                continue
            if not self._pending or self._pending[0][0] != frame.pts:
                raise NeedsFullDecodeError
            pts, index, sampled = heapq.heappop(self._pending)
            self._video.check_frame(index, pts)
            if sampled:
                yield DecodedFrame(
                    FrameRecord(index, pts, bool(frame.key_frame), "ok"), frame, max(1, frame.duration or 0)
                )


@dataclass(frozen=True)
class NeededPacket:
    """A packet that must be decoded."""

    numbered: NumberedPacket
    flush_before: bool
    """Flush the decoder before this keyframe, because packets were skipped between it and the packet before."""


def needed_packets(numbered: Iterable[NumberedPacket], kind_of: KindOf) -> Iterator[NeededPacket]:
    """The packets that the sampled frames need, in file order.

    Raises `NeedsFullDecodeError` when decoding cannot start at the first packet, or when a sampled frame is presented
    before the keyframe at which decoding started.
    """
    return _PacketSelector(kind_of).select(numbered)


class _PacketSelector:
    """Holds packets back until a sampled frame needs them, or until a keyframe makes them unnecessary."""

    def __init__(self, kind_of: KindOf) -> None:
        self._kind_of = kind_of
        self._held: list[NumberedPacket] = []
        self._held_bytes = 0
        self._keyframe: int | None = None  # position in ``_held`` of a keyframe at which decoding may restart
        self._start_pts: int | None = None  # pts of the keyframe at which decoding started, or will start
        self._flush_before = False  # the next packet restarts decoding

    def select(self, numbered: Iterable[NumberedPacket]) -> Iterator[NeededPacket]:
        """The packets that must be decoded."""
        for packet in numbered:
            yield from self._add(packet)
        if self._keyframe is not None:
            yield from self._restart_at(self._keyframe)

    def _add(self, numbered: NumberedPacket) -> Iterator[NeededPacket]:
        kind = self._kind_of(bytes(numbered.packet), numbered.packet.is_keyframe)
        if not kind.shows_picture:
            raise NeedsFullDecodeError
        if self._start_pts is None:
            if not kind.can_start:
                raise NeedsFullDecodeError
            self._start_pts = numbered.pts
        if self._keyframe is not None and numbered.pts > self._held[self._keyframe].pts:
            yield from self._restart_at(self._keyframe)  # no later packet is presented before that keyframe
        if numbered.pts < self._start_pts:
            if numbered.sampled:
                raise NeedsFullDecodeError
            return
        if not numbered.sampled and not kind.is_reference:
            return
        if kind.can_start and self._held:
            self._keyframe = len(self._held)
        self._held.append(numbered)
        self._held_bytes += numbered.packet.size + PACKET_BYTES
        # a keyframe waits for the packets presented before it, because they may need the held ones
        is_waiting_keyframe = self._keyframe == len(self._held) - 1
        if (numbered.sampled and not is_waiting_keyframe) or self._held_bytes > MAX_HELD_BYTES:
            yield from self._release()

    def _restart_at(self, keyframe: int) -> Iterator[NeededPacket]:
        """Skip the held packets that are presented before a keyframe."""
        self._start_pts = self._held[keyframe].pts
        self._held = [held for held in self._held[keyframe:] if held.pts >= self._start_pts]
        self._held_bytes = sum(held.packet.size + PACKET_BYTES for held in self._held)
        self._keyframe, self._flush_before = None, True
        if self._held[0].sampled:
            yield from self._release()

    def _release(self) -> Iterator[NeededPacket]:
        """All held packets: a sampled frame needs them."""
        held, flush_before = self._held, self._flush_before
        self._held, self._held_bytes, self._keyframe, self._flush_before = [], 0, None, False
        for i, numbered in enumerate(held):
            yield NeededPacket(numbered, flush_before and i == 0)
