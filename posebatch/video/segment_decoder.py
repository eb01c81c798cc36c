"""Decode a segment into `FrameBatch`es."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from itertools import chain
from typing import IO, Final

from av.video.frame import VideoFrame

from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.fallback import WantedFrames
from posebatch.video.frame_numbers import Sampler
from posebatch.video.full_decode import DecodedFrame
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import lead_in_candidates

MAX_BATCH_PIXELS: Final = 300_000_000
"""With so many pixels a batch is full, however few frames it has: about 1 GB of RGB."""


class SegmentDecoder:
    """Decodes one segment: iterate over it once for the wanted frames, then read ``report`` and ``seconds``.

    Raises `IndexDisagreesError` when the stream does not hold the frames that the index promised, `LimitError` when it
    is more than the limits allow, `DamagedVideoError` when the container cannot be opened any more.
    """

    report: DecodeReport
    """On the segment's own frames; complete once the iteration has ended."""
    seconds: float
    """Spent decoding and converting, so far."""
    frames_out: int
    """How many of the segment's frames came out of the decoder, wanted or not; known once the iteration has ended."""

    def __init__(self, file: IO[bytes], name: str, segment: Segment, info: VideoInfo, options: DecodeOptions) -> None:
        """``name`` stands in error messages."""
        self.name, self.info = name, info
        self._file, self._segment, self._options = file, segment, options
        self._limits = Limits(name, options.limits)
        self.report, self.seconds, self.frames_out = DecodeReport(), 0.0, 0

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
        own = self._wanted(self._segment)
        frames = iter(own)
        first = next(frames, None)
        if first is not None:
            lead_in = self._lead_in(first.record.frame_index, own.first_index)
            yield from _batched(lead_in, self._options, lead_in=True)
            yield from _batched(chain([first], frames), self._options)
        self.report = own.report()
        self.frames_out = own.frames_out

    def _lead_in(self, first_wanted: int, first_own: int) -> Iterator[DecodedFrame]:
        """The wanted frames of the group of frame ``first_wanted`` that come before the segment."""
        group_start = first_wanted - first_wanted % self._options.detect_every
        latest = (
            first_own - 1 if self._options.sampling.fps is not None else first_wanted - self._options.sampling.stride
        )
        if latest < group_start:
            return
        for stretch in lead_in_candidates(self._file, self._limits, self._segment, group_start):
            wanted = self._wanted(stretch)
            frames = iter(wanted)
            first = next(frames, None)
            if wanted.first_index <= group_start:  # else an open GOP, whose keyframe is shown after that frame
                for one in frames if first is None else chain([first], frames):
                    if one.record.frame_index >= group_start:
                        yield one
                return

    def _wanted(self, segment: Segment) -> WantedFrames:
        sampler = Sampler.of(self._options.sampling, self.info)
        return WantedFrames(self._file, self._limits, segment, self.info.codec, sampler, self._options)


def _batched(wanted: Iterable[DecodedFrame], options: DecodeOptions, lead_in: bool = False) -> Iterator[FrameBatch]:
    """Frames put together, as many as fit a batch; a change of the frames' form begins a new one.

    Of huge frames fewer than ``options.batch_frames`` fit.
    """
    packing = options.packing
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
        if len(records) == options.batch_frames or pixels > MAX_BATCH_PIXELS:
            yield FrameBatch(tuple(records), packing.pack(frames), lead_in)
            records, frames = [], []
    if records:
        yield FrameBatch(tuple(records), packing.pack(frames), lead_in)
