"""Decode every packet of a segment: every frame, in presentation order, with its number and status."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import av.error
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.core.frames import FrameRecord, FrameStatus
from posebatch.core.records import DecodeReport
from posebatch.video.container import UNTIMED_FORMATS, OpenVideo, last_logged_error, logged_errors
from posebatch.video.frame_numbers import Sampler
from posebatch.video.packet_kinds import ShowsPicture, picture_test
from posebatch.video.packets import NeedsFullDecodeError, PacketSource
from posebatch.video.timestamps import WINDOW_FRAMES, Timed, TimestampRepair

MAX_PENDING_PACKETS: Final = 1000
"""Upper bound on packets still inside the decoder; anything older is considered lost."""


MAX_PICTURELESS_BYTES: Final = 1 << 16
"""Larger packets hold a picture: parameter sets and messages are smaller."""


OPENING_PACKETS: Final = 32
"""Packets that show whether a container states presentation times."""


COMPOSITION_OFFSET_FORMATS: Final = frozenset({"flv"})
"""Formats whose writers may leave out the offsets from decode times to presentation times."""


DEEPLY_REORDERED_CODECS: Final = frozenset({"h264", "hevc", "av1", "vvc"})
"""Codecs that reorder more than one frame. Older ones hold back one frame for B-frames, or none."""


MAX_HELD_BYTES: Final = 256 << 20
"""Decoded frames that wait for their timestamps."""


MIN_WINDOW_FRAMES: Final = 8


@dataclass(frozen=True)
class DecodedFrame:
    """One presented frame; its pixels are not converted yet."""

    record: FrameRecord
    frame: VideoFrame | None
    """None unless the status is ``ok``."""
    duration: int
    """Ticks, at least 1."""


@dataclass(frozen=True)
class _Unplaced:
    """A frame in presentation order, before its place in time is known."""

    frame: VideoFrame | None
    pts: int | None
    """As the stream states it."""
    status: FrameStatus
    duration: int
    """Ticks; 0 if unknown."""


def window_frames(pixels: int) -> int:
    """Frames of so many pixels that may wait for their timestamps: as many as fit into `MAX_HELD_BYTES`."""
    return max(MIN_WINDOW_FRAMES, min(WINDOW_FRAMES, MAX_HELD_BYTES // max(1, 3 * pixels // 2)))


def picture_test_of(video: OpenVideo) -> ShowsPicture:
    """The test by which a full decode tells the packets of a video that show a picture."""
    context = video.stream.codec_context
    codec = context.codec.canonical_name
    # In AVI the slot of a "not coded" VOP may belong to a picture that was packed into the packet before.
    is_packed = video.format in UNTIMED_FORMATS and codec == "mpeg4"
    return picture_test("" if is_packed else codec, context.extradata or b"")


class FullDecode:
    """The sampled frames of one segment, by decoding every packet. Iterate once.

    With ``stop_at_damage`` raises `NeedsFullDecodeError` at the first sign of damage.
    """

    def __init__(
        self,
        video: OpenVideo,
        packets: PacketSource,
        sampler: Sampler,
        stop_at_damage: bool = False,
        max_held_frames: int | None = None,
    ) -> None:
        """More than ``max_held_frames`` frames held for their timestamps raise `NeedsFullDecodeError`."""
        self.packets = packets
        stream = video.stream
        self._shows_picture = picture_test_of(video)
        self._times: TimestampRepair[_Unplaced] = TimestampRepair(window_frames(stream.width * stream.height))
        self._max_held_frames = max_held_frames
        self._repaired = 0
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
        damaged, ends_early = self._damaged, self.packets.ends_early
        return DecodeReport(decoded, damaged, ends_early, first, last, shortest, longest, self._repaired)

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
        """All frames with their places in time, in presentation order."""
        for frame in self._presented_frames():
            yield from self._number(self._times.push(frame, frame.pts, frame.duration))
            if self._max_held_frames is not None and self._times.held > self._max_held_frames:
                raise NeedsFullDecodeError
        yield from self._number(self._times.flush())
        self._check_count()
        if self.packets.end_pts is not None and self._pts_range:
            self._note_interval(self.packets.end_pts - self._pts_range[1])

    def _presented_frames(self) -> Iterator[_Unplaced]:
        """All frames with their own timestamps, in presentation order."""
        packets = iter(self.packets)
        opening = list(islice(packets, OPENING_PACKETS))
        self._untimed = self._untimed or self._lacks_composition_offsets(opening)
        self._next_index = self.packets.first_index
        for packet in chain(opening, packets):
            yield from self._decode(packet)
            if len(self._pending) > MAX_PENDING_PACKETS:
                yield from self._give_up(before=self._pending[0] + 1)
        yield from self._decode(None)
        yield from self._give_up(before=None)

    def _lacks_composition_offsets(self, packets: Sequence[Packet[VideoStream]]) -> bool:
        """Whether the stream reorders frames, but the container states decode times only, as some FLV writers do."""
        if self._video.format not in COMPOSITION_OFFSET_FORMATS or not self._video.stream.codec_context.has_b_frames:
            return False
        return len(packets) > 2 and all(packet.pts == packet.dts is not None for packet in packets)

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[_Unplaced]:
        """Give the decoder a packet, and present the frames that come out; with None, those that it still holds."""
        shows_picture = packet is None or packet.size > MAX_PICTURELESS_BYTES or self._shows_picture(bytes(packet))
        pts = self._note_pending(packet) if shows_picture else None
        try:
            frames = self._video.decode(packet)
        except av.error.FFmpegError:
            if not shows_picture:
                return  # the decoder has read its parameter sets, and misses the picture
            self._check_damage(None if packet is None else packet.pts)
            self._decode_errors += 1
            if pts is not None and self._untimed:
                self._lost_slots.add(pts)
            return
        if logged_errors() != self._logged_errors:
            self._check_damage(None if packet is None else packet.pts, last_logged_error())
        if not frames and pts is not None and self._untimed and len(self._pending) > self._most_delayed_frames:
            self._pending.remove(pts)  # a packet that changes nothing: its slot shows no picture of its own
            heapq.heapify(self._pending)
        for frame in frames:
            self.frames_out += 1
            self.packets.check_order(frame.pts)
            if frame.is_corrupt:
                self._check_damage(frame.pts)
            yield from self._present(frame)

    @property
    def _most_delayed_frames(self) -> int:
        """Frames that the decoder may hold back for reordering, in formats without presentation times."""
        context = self._video.stream.codec_context
        if context.codec.canonical_name in DEEPLY_REORDERED_CODECS or context.thread_count != 1:
            return MAX_PENDING_PACKETS
        return int(context.has_b_frames)

    def _check_damage(self, pts: int | None, message: str = "") -> None:
        """Called at each sign of damage. A missing frame is one: several threads may omit frames at the end.

        ``message``: the line in FFmpeg's log, if that is the only sign.
        """
        if self._stop_at_damage:
            raise NeedsFullDecodeError
        self.packets.check_damage(pts, message)
        self._logged_errors = logged_errors()

    def _note_pending(self, packet: Packet[VideoStream] | None) -> int | None:
        """The pts at which a packet's frame is due; None when it is in another segment, or is never presented."""
        pts = None if packet is None or packet.is_discard else packet.dts if self._untimed else packet.pts
        if pts is None or not self.packets.contains(pts):
            return None
        heapq.heappush(self._pending, pts)
        return pts

    def _present(self, frame: VideoFrame) -> Iterator[_Unplaced]:
        pts = frame.pts
        if self._untimed:
            pts = min((slot for slot in self._pending if slot not in self._lost_slots), default=None)
            if pts is None and not self._decode_errors:
                return  # FFmpeg repeats the last picture where the stream ends with a slot without one
        if frame.pts in self._given_up or (pts is not None and not self.packets.contains(pts)):
            return
        if pts is not None:
            if self._times.is_near(pts):  # a pts that jumps far ahead is doubtful: it proves no frame lost
                yield from self._give_up(before=pts)
            if pts in self._pending:
                self._pending.remove(pts)
                heapq.heapify(self._pending)
        yield _Unplaced(frame, pts, "corrupt" if frame.is_corrupt else "ok", max(0, frame.duration or 0))

    def _give_up(self, before: int | None) -> Iterator[_Unplaced]:
        """Present as missing the frames of pending packets before a pts, or of all of them.

        Without any error those are frames that the stream does not present; they get no number.
        """
        while self._pending and (before is None or self._pending[0] < before):
            pts = heapq.heappop(self._pending)
            self._check_damage(pts)
            if (self._decode_errors or self.packets.failures) and self._times.is_ahead(pts):
                self._given_up.add(pts)
                yield _Unplaced(None, pts, "missing", 0)

    def _number(self, frames: Sequence[Timed[_Unplaced]]) -> Iterator[DecodedFrame]:
        """Give the next frames in presentation order their numbers."""
        for timed in frames:
            unplaced, pts = timed.item, timed.pts
            if timed.status != "ok":
                self._check_whole_video()
                self._repaired += 1
            self._video.check_frame(self._next_index, pts)
            is_keyframe = bool(unplaced.frame and unplaced.frame.key_frame)
            record = FrameRecord(self._next_index, pts, is_keyframe, unplaced.status, timed.status)
            self._next_index += 1
            self._presented += 1
            if self._pts_range:
                self._note_interval(pts - self._pts_range[1])
            self._pts_range = [self._pts_range[0] if self._pts_range else pts, pts]
            yield DecodedFrame(record, unplaced.frame if unplaced.status == "ok" else None, max(1, unplaced.duration))

    def _check_whole_video(self) -> None:
        """Neighbours on both sides decide on a timestamp, so a video with a wrong one is not cut into segments."""
        if not self.packets.is_whole_video:
            raise self.packets.index_error("its timestamps contradict each other")

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
