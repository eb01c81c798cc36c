"""Decode a segment into `FrameBatch`es."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, Final

from av.video.frame import VideoFrame

from posebatch.settings import LimitSettings, SamplingSettings
from posebatch.types import DecodeReport, FrameBatch, FrameRecord, Segment, VideoInfo
from posebatch.video.attempts import WantedFrames
from posebatch.video.cutting import stretches_before
from posebatch.video.limits import DEFAULT_LIMITS, Limits
from posebatch.video.packing import RGB, Packing
from posebatch.video.presentation import Shown
from posebatch.video.sampling import Sampler

MAX_BATCH_PIXELS: Final = 300_000_000
"""With so many pixels a batch is full, however few frames it has: about 1 GB of RGB."""


@dataclass
class SegmentDecoder:
    """Decodes one segment: iterate over it once for the wanted frames, then read ``report`` and ``seconds``.

    Raises `IndexDisagreesError` when the stream does not hold the frames that the index promised, `LimitError` when it
    is more than the limits allow, `DamagedVideoError` when the container cannot be opened any more.
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
    packing: Packing = RGB
    on_gpu: bool = False
    """Decode by NVDEC, and on the CPU what that cannot. A GPU does not tell of all damage."""
    detect_every: int = 1
    """Persons are followed within groups of so many frames, ``frame_index // detect_every``. A segment that begins
    amid a group gives the group's earlier wanted frames first, in batches marked ``lead_in``."""
    limits: LimitSettings = DEFAULT_LIMITS
    report: DecodeReport = field(default_factory=DecodeReport)
    """On the segment's own frames; complete once the iteration has ended."""
    seconds: float = 0.0
    """Spent decoding and converting, so far."""
    frames_out: int = 0
    """How many of the segment's frames came out of the decoder, wanted or not; known once the iteration has ended."""

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
        own = self._wanted(self.segment)
        frames = iter(own)
        first = next(frames, None)
        if first is not None:
            lead_in = self._lead_in(first.record.frame_index, own.first_index)
            yield from _batched(lead_in, self.batch_frames, self.packing, lead_in=True)
            yield from _batched(chain([first], frames), self.batch_frames, self.packing)
        self.report = own.report()
        self.frames_out = own.frames_out

    def _lead_in(self, first_wanted: int, first_own: int) -> Iterator[Shown]:
        """The wanted frames of the group of frame ``first_wanted`` that come before the segment."""
        group_start = first_wanted - first_wanted % self.detect_every
        latest = first_own - 1 if self.sampling.fps is not None else first_wanted - self.sampling.stride
        if latest < group_start:
            return
        for stretch in stretches_before(self.file, self._limits, self.segment, group_start):
            wanted = self._wanted(stretch)
            frames = iter(wanted)
            first = next(frames, None)
            if wanted.first_index <= group_start:  # else an open GOP, whose keyframe is shown after that frame
                for one in frames if first is None else chain([first], frames):
                    if one.record.frame_index >= group_start:
                        yield one
                return

    def _wanted(self, segment: Segment) -> WantedFrames:
        sampler = Sampler.of(self.sampling, self.info)
        return WantedFrames(self.file, self._limits, segment, self.info.codec, self.threads, sampler, self.on_gpu)

    @property
    def _limits(self) -> Limits:
        return Limits(self.name, self.limits)


def _batched(
    wanted: Iterable[Shown], batch_frames: int, packing: Packing, lead_in: bool = False
) -> Iterator[FrameBatch]:
    """Frames put together, as many as fit a batch; a change of the frames' form begins a new one.

    Of huge frames fewer than ``batch_frames`` fit.
    """
    records: list[FrameRecord] = []
    frames: list[VideoFrame] = []
    for one in wanted:
        if one.frame is not None and frames and packing.form(one.frame) != packing.form(frames[0]):
            yield FrameBatch(tuple(records), packing.pack(frames), lead_in)
            records, frames = [], []
        records.append(one.record)
        if one.frame is not None:
            frames.append(one.frame)
        pixels = sum(frame.width * frame.height for frame in frames)
        if len(records) == batch_frames or pixels > MAX_BATCH_PIXELS:
            yield FrameBatch(tuple(records), packing.pack(frames), lead_in)
            records, frames = [], []
    if records:
        yield FrameBatch(tuple(records), packing.pack(frames), lead_in)
