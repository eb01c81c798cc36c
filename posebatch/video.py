"""Probe a video, cut it into segments, and decode a segment into `FrameBatch`es.

What a frame *is* must not depend on how a video is cut. So one rule numbers frames everywhere: the frames of the
stream in presentation order, as one sequential decode would give them, with a placeholder for each frame that should
have come out but did not. A segment starts at a keyframe of the container's index, whose position in the index gives
the number of its first frame. The decoder checks what the index promised and raises `IndexDisagreesError` otherwise.

Foreign errors are translated here: no FFmpeg error leaves this module.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from typing import IO, Final

import av
import av.container
import av.error
import av.logging
import numpy as np
from av.codec.context import ThreadType
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posebatch.errors import DamagedVideoError, IndexDisagreesError, NotAVideoError, NoVideoStreamError
from posebatch.settings import SamplingSettings
from posebatch.types import DecodeReport, FrameBatch, FrameRecord, FrameStatus, Segment, VideoInfo, VideoPlan

CONTAINER_FORMATS: Final = "asf,avi,dv,flv,matroska,mov,mpeg,mpegts,mxf,ogg"
"""The demuxers that may open an input. Playlists (HLS, DASH, concat), which make FFmpeg open other files and addresses,
are not among them, whatever an input is called."""

UNSPECIFIED_MATRIX: Final = 2
"""``AVCOL_SPC_UNSPECIFIED``: the stream does not name its colour matrix."""

INDEXED_FORMATS: Final = frozenset({"mov"})
"""Formats whose header lists every packet, so that a keyframe's position says which frame it is."""

UNTIMED_FORMATS: Final = frozenset({"avi"})
"""Formats without presentation times: the k-th frame shown takes the k-th time slot."""

MAX_DEMUX_FAILURES: Final = 16
"""How often in a row a damaged container may fail to give a packet before the rest is given up."""

MAX_PROBE_PACKETS: Final = 1000
"""How far the probe looks for a first frame that can be decoded."""

av.logging.set_level(av.logging.PANIC)  # what matters reaches the caller as an error or a frame's status


def probe(file: IO[bytes], name: str, segment_seconds: float) -> VideoPlan:
    """Read a video's header and first frame, and cut it at keyframes into pieces of about ``segment_seconds``.

    Reads the header and the first frames, not the whole file. Raises `NotAVideoError`, `NoVideoStreamError`,
    `DamagedVideoError`; ``name`` stands in their messages.
    """
    with _open(file, name) as (container, stream):
        segments = _cut(container, stream, segment_seconds)
        frame = _first_frame(container, stream, name)
        rotation = -_quarter_turns(frame) % 4 * 90
        width, height = (frame.width, frame.height)[:: -1 if rotation in (90, 270) else 1]
        rate, duration, time_base = stream.average_rate, stream.duration, _time_base(stream)
        duration_s = float(duration * time_base) if duration else (container.duration or 0) / av.time_base
        info = VideoInfo(
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=frame.format.name,
            width=width,
            height=height,
            rotation=rotation,
            time_base=time_base,
            start_pts=0 if _format(container) in UNTIMED_FORMATS else (frame.pts or 0),
            duration_s=duration_s,
            avg_fps=float(rate) if rate else 0.0,
            frames_in_header=stream.frames,
        )
        return VideoPlan(info, segments)


@dataclass
class SegmentDecoder:
    """Decodes one segment: iterate over it once for the wanted frames, then read ``report`` and ``seconds``.

    Raises `IndexDisagreesError` when the stream does not hold the frames that the index promised, `DamagedVideoError`
    when the container cannot be opened any more.
    """

    file: IO[bytes]
    name: str
    """Stands in error messages."""
    segment: Segment
    info: VideoInfo
    sampling: SamplingSettings
    batch_frames: int
    """Most frames in one batch."""
    threads: int = 1
    scale: float = 1.0
    """Size of the images, relative to the frame."""
    report: DecodeReport = field(default_factory=DecodeReport)
    """Complete once the iteration has ended."""
    seconds: float = 0.0
    """Spent decoding and converting, so far."""

    def __iter__(self) -> Generator[FrameBatch, None, None]:
        batches = self._batches()
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _batches(self) -> Generator[FrameBatch, None, None]:
        attempts = _Attempts(self.file, self.name, self.segment, self.threads)
        wanted = _wanted(attempts, self.sampling, self.info)
        yield from _batched(wanted, self.batch_frames, self.scale)
        self.report = attempts.latest.report()


@dataclass(frozen=True)
class _Shown:
    """One presented frame, before anybody has asked for its pixels."""

    record: FrameRecord
    frame: VideoFrame | None
    """None unless the status is ``ok``."""
    duration: int
    """Ticks, at least 1."""


class _DamageMet(Exception):  # noqa: N818 - a signal that never leaves this module
    """Several threads have come upon something that one thread has to decode."""


class _Attempts:
    """The frames of one segment: decoded by several threads up to the first damage, then by one thread from the start.

    Decoding in several threads loses good frames around a bad one, so that a damaged video's frames would depend on the
    number of threads. Up to the first damage they do not, so what has been given by then is not given again.
    """

    latest: _Presented

    def __init__(self, file: IO[bytes], name: str, segment: Segment, threads: int) -> None:
        self._file, self._name, self._segment, self._threads = file, name, segment, threads

    def __iter__(self) -> Iterator[_Shown]:
        given = 0
        for threads in (self._threads, 1):
            with _open(self._file, self._name) as (container, stream), contextlib.suppress(_DamageMet):
                stream.codec_context.thread_count = threads
                stream.codec_context.thread_type = ThreadType.AUTO
                self.latest = _Presented(container, stream, self._segment, self._name, stop_at_damage=threads > 1)
                for shown in islice(self.latest, given, None):
                    given += 1
                    yield shown
                return

    @property
    def end_pts(self) -> int | None:
        """pts of the next segment's first frame, once its keyframe has been read."""
        return self.latest.end_pts


class _Presented:
    """The frames of one segment in presentation order, each with its number and status."""

    def __init__(
        self,
        container: av.container.InputContainer,
        stream: VideoStream,
        segment: Segment,
        name: str,
        stop_at_damage: bool = False,
    ) -> None:
        self._container, self._stream, self._segment, self._name = container, stream, segment, name
        self._stop_at_damage = stop_at_damage
        self._untimed = _format(container) in UNTIMED_FORMATS
        self._awaited: list[int] = []  # heap: pts of packets given to the decoder whose frames have not come out
        self._lost: set[int] = set()  # time slots of packets that could not be decoded, where frames carry no pts
        self._given_up: set[int] = set()  # pts of frames shown as missing; amid damage some come after all, too late
        self._errors = 0
        self._packets = 0  # before the next segment's keyframe
        self._leading = 0  # after this segment's keyframe, shown before it
        self._next_leading = 0  # after the next segment's keyframe, shown before it
        self._ends_early = False
        self._start_pts: int | None = None
        self.end_pts: int | None = None
        self._next_index = 0
        self._decoded = self._damaged = 0
        self._shown_pts: list[int] = []  # first and last
        self._intervals: list[int] = []  # shortest and longest

    def __iter__(self) -> Iterator[_Shown]:
        packets = self.packets()
        opening = self._opening(packets)
        self._leading = sum(packet.pts is not None and not self._inside(packet.pts) for packet in opening)
        self._next_index = self._segment.first_packet + self._leading
        for packet in chain(opening, packets):
            yield from self._decode(packet)
        yield from self._decode(None)
        yield from self._unclaimed(before=None)
        self._check_count()
        if self.end_pts is not None and self._shown_pts:
            self._note_interval(self.end_pts - self._shown_pts[1])

    def report(self) -> DecodeReport:
        """What was seen; complete after the iteration."""
        first, last = self._shown_pts or (None, None)
        shortest, longest = self._intervals or (None, None)
        return DecodeReport(self._decoded, self._damaged, self._ends_early, first, last, shortest, longest)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets to decode: from the segment's keyframe to the last one shown before the next segment's."""
        start, end = self._segment.start_dts, self._segment.end_dts
        started = start is None
        for packet in self._demuxed():
            dts = packet.dts
            if not started and start is not None and dts != start:
                if dts is not None and dts > start:
                    raise self._disagrees(f"no packet with decode time {start}")
                continue  # a seek may land on an earlier keyframe
            started = True
            if end is not None and dts is not None and dts >= end and self.end_pts is None:
                if dts != end or packet.pts is None:
                    raise self._disagrees(f"no packet with decode time {end}")
                self.end_pts = packet.pts
            if self.end_pts is not None and (dts is None or dts >= self.end_pts):
                return  # pts >= dts: nothing from here on is shown before the next segment
            if not packet.is_discard:
                self._packets += self.end_pts is None
                self._next_leading += self.end_pts is not None and packet.pts is not None and packet.pts < self.end_pts
            yield packet
        if (self.end_pts is None and end is not None) or self._packets < self._promised_packets():
            self._ends_early = True

    def _promised_packets(self) -> int:
        """How many packets the index lists; 0 when it does not say."""
        if self._segment.num_packets is None and _format(self._container) in INDEXED_FORMATS:
            return sum(not entry.is_discard for entry in self._stream.index_entries)
        return self._segment.num_packets or 0

    def _demuxed(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets from the segment's seek point on, past damage where the demuxer finds its way again."""
        failures = 0
        if self._segment.start_dts is not None:
            self._container.seek(self._segment.start_dts, stream=self._stream, backward=True)
        while failures < MAX_DEMUX_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:  # the last, empty one only flushes
                        failures = 0
                        yield packet
            except av.error.FFmpegError:
                failures += 1
                self._errors += 1
            else:
                return
        self._ends_early = True

    def _opening(self, packets: Iterator[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        """The first packets of a segment that starts inside the video, as many as tell what is shown before it."""
        if self._segment.start_dts is None:
            return []
        opening: list[Packet[VideoStream]] = []
        for packet in packets:
            opening.append(packet)
            first_pts = opening[0].pts
            if first_pts is None or not opening[0].is_keyframe:
                raise self._disagrees(f"no keyframe at decode time {self._segment.start_dts}")
            if packet.dts is None or packet.dts >= first_pts:
                break
        if opening:
            self._start_pts = opening[0].pts
        return opening

    def _decode(self, packet: Packet[VideoStream] | None) -> Iterator[_Shown]:
        """Give the decoder a packet, or None for those it still holds, and present what comes out."""
        due = self._await(packet)
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self._check_damage()
            self._errors += 1
            if due is not None and self._untimed:
                self._lost.add(due)
            return
        for frame in frames:
            if frame.is_corrupt:
                self._check_damage()
            yield from self._present(frame)

    def _check_damage(self) -> None:
        """Called at each sign of it; several threads at the end of a stream just leave frames out."""
        if self._stop_at_damage:
            raise _DamageMet

    def _await(self, packet: Packet[VideoStream] | None) -> int | None:
        """Note when the frame of a packet is due; None when it belongs elsewhere or nowhere."""
        due = None if packet is None or packet.is_discard else packet.dts if self._untimed else packet.pts
        if due is None or not self._inside(due):
            return None
        heapq.heappush(self._awaited, due)
        return due

    def _present(self, frame: VideoFrame) -> Iterator[_Shown]:
        pts = self._pts_of(frame)
        if not self._inside(pts) or frame.pts in self._given_up:
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

    def _unclaimed(self, before: int | None) -> Iterator[_Shown]:
        """Packets whose frames never came out: lost ones after a decoding error, else frames meant to stay hidden."""
        while self._awaited and (before is None or self._awaited[0] < before):
            self._check_damage()
            pts = heapq.heappop(self._awaited)
            last = self._shown_pts[1] if self._shown_pts else None
            if self._errors and (last is None or pts > last):
                self._given_up.add(pts)
                yield self._number(pts, "missing", None)

    def _number(self, pts: int, status: FrameStatus, frame: VideoFrame | None) -> _Shown:
        record = FrameRecord(self._next_index, pts, bool(frame and frame.key_frame), status)
        self._next_index += 1
        self._decoded += status == "ok"
        self._damaged += status != "ok"
        if self._shown_pts:
            self._note_interval(pts - self._shown_pts[1])
        self._shown_pts = [self._shown_pts[0] if self._shown_pts else pts, pts]
        return _Shown(record, frame if status == "ok" else None, max(1, (frame and frame.duration) or 0))

    def _inside(self, pts: int) -> bool:
        after_start = self._start_pts is None or pts >= self._start_pts
        return after_start and (self.end_pts is None or pts < self.end_pts)

    def _note_interval(self, ticks: int) -> None:
        shortest, longest = self._intervals or (ticks, ticks)
        self._intervals = [min(shortest, ticks), max(longest, ticks)]

    def _check_count(self) -> None:
        """Refuse an index that promised other frames than came, unless damage explains it."""
        segment = self._segment
        whole_video = segment.start_dts is None and segment.end_dts is None
        if whole_video or segment.num_packets is None or self._ends_early:
            return
        promised = segment.num_packets - self._leading + self._next_leading
        if self._decoded + self._damaged != promised:
            raise self._disagrees(
                f"the index promises {promised} frames, the stream has {self._decoded + self._damaged}"
            )

    def _disagrees(self, what: str) -> IndexDisagreesError:
        return IndexDisagreesError(f"{self._name}: segment {self._segment.index}: {what}")


def _wanted(shown: _Attempts, sampling: SamplingSettings, info: VideoInfo) -> Iterator[_Shown]:
    """The frames to process: every N-th by number, or those on screen at F ticks a second from the first frame on."""
    if sampling.fps is None:
        for one in shown:
            if one.record.frame_index % sampling.stride == 0:
                yield one
        return
    step = 1 / (Fraction(sampling.fps).limit_denominator(1_000_000) * info.time_base)
    previous: _Shown | None = None
    for one in shown:
        if previous is not None and _on_screen_at_tick(previous.record.pts, one.record.pts, info.start_pts, step):
            yield previous
        previous = one
    if previous is not None:
        until = shown.end_pts if shown.end_pts is not None else previous.record.pts + previous.duration
        if _on_screen_at_tick(previous.record.pts, until, info.start_pts, step):
            yield previous


def _on_screen_at_tick(pts: int, until: int, start: int, step: Fraction) -> bool:
    """Whether a tick ``start + k * step`` falls into ``pts <= tick < until``."""
    return start + math.ceil((pts - start) / step) * step < until


def _batched(wanted: Iterable[_Shown], batch_frames: int, scale: float) -> Iterator[FrameBatch]:
    """Frames converted and put together, as many as fit a batch; a change of the frame size begins a new one."""
    records: list[FrameRecord] = []
    images: list[NDArray[np.uint8]] = []
    for one in wanted:
        image = None if one.frame is None else to_rgb(one.frame, scale)
        if image is not None and images and image.shape != images[0].shape:
            yield _stacked(records, images)
            records, images = [], []
        records.append(one.record)
        if image is not None:
            images.append(image)
        if len(records) == batch_frames:
            yield _stacked(records, images)
            records, images = [], []
    if records:
        yield _stacked(records, images)


def _stacked(records: list[FrameRecord], images: list[NDArray[np.uint8]]) -> FrameBatch:
    pixels = np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8)
    return FrameBatch(tuple(records), pixels)


def to_rgb(frame: VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A decoded frame as it is displayed: (height, width, 3) RGB, rotated.

    Where the stream does not name its colour matrix, HD is BT.709 and smaller frames are BT.601, as players assume.
    """
    matrix = frame.colorspace
    if matrix == UNSPECIFIED_MATRIX:
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    width, height = (max(1, round(length * scale)) for length in (frame.width, frame.height))
    smooth = Interpolation.AREA if scale < 1 else Interpolation.BILINEAR
    rgb = frame.reformat(width, height, "rgb24", src_colorspace=matrix, interpolation=smooth)
    return np.rot90(rgb.to_ndarray(), _quarter_turns(frame))


def _quarter_turns(frame: VideoFrame) -> int:
    """Counter-clockwise, as the display matrix asks; other angles go to the nearest, for probing and decoding alike."""
    return round(frame.rotation / 90)


def _cut(container: av.container.InputContainer, stream: VideoStream, segment_seconds: float) -> tuple[Segment, ...]:
    """Segments of about ``segment_seconds`` that start on keyframes of the container's index."""
    entries = stream.index_entries
    if _format(container) not in INDEXED_FORMATS or len(entries) != stream.frames or not len(entries):
        return (Segment(),)
    step = segment_seconds / _time_base(stream)
    starts = [(0, entries[0].timestamp)]
    shown = 0
    for entry in entries:
        if entry.is_keyframe and not entry.is_discard and entry.timestamp >= starts[-1][1] + step:
            starts.append((shown, entry.timestamp))
        shown += not entry.is_discard
    ends = [*starts[1:], (shown, None)]
    return tuple(
        Segment(i, first, end - first, dts if i else None, end_dts)
        for i, ((first, dts), (end, end_dts)) in enumerate(zip(starts, ends, strict=True))
    )


def _first_frame(container: av.container.InputContainer, stream: VideoStream, name: str) -> VideoFrame:
    presented = _Presented(container, stream, Segment(), name)
    stream.codec_context.thread_count = 1
    for packets, packet in enumerate(presented.packets()):
        with contextlib.suppress(av.error.FFmpegError):
            for frame in stream.codec_context.decode(packet):
                return frame
        if packets > MAX_PROBE_PACKETS:
            break
    with contextlib.suppress(av.error.FFmpegError):
        for frame in stream.codec_context.decode(None):
            return frame
    raise DamagedVideoError(
        f"{name}: no frame can be decoded; the video stream ({stream.codec_context.name}) is damaged"
    )


@contextlib.contextmanager
def _open(file: IO[bytes], name: str) -> Iterator[tuple[av.container.InputContainer, VideoStream]]:
    """The container and its main video stream."""
    if file.seek(0, 2) == 0:
        raise NotAVideoError(f"{name}: the file is empty (0 bytes)")
    file.seek(0)
    options = {"format_whitelist": CONTAINER_FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(_Nameless(file), "r", options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _open_error(error, name) from error
    with container:
        stream = _video_stream(container, name)
        try:
            yield container, stream
        finally:
            # Waits for the decoder's threads without Python's lock. PyAV frees a decoder while holding that lock, and a
            # thread that meets damage needs it for its message: the two would wait for each other for ever.
            stream.codec_context.flush_buffers()


class _Nameless:
    """A file without its name, so that FFmpeg judges by content alone: a text called .mp4 is no damaged MP4."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _open_error(error: av.error.FFmpegError, name: str) -> NotAVideoError | DamagedVideoError:
    said = str(error).partition("last error log: ")[2].strip() or error.strerror or "unknown data"
    if "moov" in said:
        return DamagedVideoError(
            f"{name}: this MP4/MOV has no index (moov): the recording was not finished or the file was cut off"
        )
    if "whitelist" in said or "hls" in said:
        return NotAVideoError(f"{name}: a playlist or another format that is not read ({said}); give the video itself")
    return NotAVideoError(f"{name}: not a video in a format that is read ({said})")


def _video_stream(container: av.container.InputContainer, name: str) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        # what is of type video here are attached pictures
        found = {"cover picture" if stream.type == "video" else stream.type for stream in container.streams}
        kinds = ", ".join(sorted(found)) or "nothing"
        raise NoVideoStreamError(f"{name}: no video stream in it, only {kinds}")
    for stream in container.streams:
        if stream.index != streams[0].index:
            stream.discard = Discard.all
    if streams[0].codec_context is None:
        raise DamagedVideoError(f"{name}: no decoder for its video codec")
    return streams[0]


def _time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick; streams read from a container always have one."""
    assert stream.time_base is not None
    return stream.time_base


def _format(container: av.container.InputContainer) -> str:
    return container.format.name.split(",")[0]
