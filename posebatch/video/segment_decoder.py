"""Decode a segment into `FrameBatch`es."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import IO, Final

import av.error
from av.video.frame import VideoFrame

from posebatch.core.errors import DamagedVideoError
from posebatch.core.frames import FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.fallback import SampledFrames
from posebatch.video.frame_numbers import Sampler
from posebatch.video.full_decode import DecodedFrame
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.orientation import Orientation
from posebatch.video.probe import lead_in_candidates

MAX_BATCH_PIXELS: Final = 300_000_000
"""A batch with more pixels is full, however few frames it has: about 1 GB of RGB."""


class SegmentDecoder:
    """The sampled frames of one segment, in batches. Iterate once, then read ``report`` and ``frames_out``.

    Raises `IndexDisagreesError` when the stream does not hold the frames that the index lists, `LimitError` beyond the
    limits, and `DamagedVideoError` when the container cannot be opened any more::

        decoder = SegmentDecoder(file, "clip.mp4", plan.segments[0], plan.info, DecodeOptions(batch_frames=8))
        for batch in decoder:
            print(batch.images.shape)  # (frames, height, width, 3)
    """

    report: DecodeReport
    """On the segment's own frames, without those of the lead-in; complete after the iteration."""
    seconds: float
    """Time spent on decoding and conversion so far, seconds."""
    frames_out: int
    """Frames of the segment that came out of the decoder, sampled or not; known after the iteration."""

    def __init__(
        self,
        file: IO[bytes],
        name: str,
        segment: Segment,
        info: VideoInfo,
        options: DecodeOptions,
        index: PacketIndex = NO_INDEX,
    ) -> None:
        """``name`` stands in error messages. ``index``: that of the scan, for a segment with ``is_scanned``."""
        self._index = index
        self.name, self.info = name, info
        self._file, self._segment, self._options = file, segment, options
        self._limits = Limits(name, options.limits)
        orientation = Orientation.of_rotation(info.rotation, info.mirrored)
        self._format = replace(options.frame_format, size_wh=(info.width, info.height), orientation=orientation)
        self._frames_resized = 0
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
        sampled = self._sampled_frames(self._segment)
        frames = iter(sampled)
        first = next(frames, None)
        if first is not None:
            lead_in = self._lead_in(first.record.frame_index, sampled.first_index)
            yield from self._batched(lead_in, lead_in=True)
            yield from self._batched(chain([first], frames))
        self.report = replace(sampled.report(), frames_resized=self._frames_resized)
        self.frames_out = sampled.frames_out

    def _lead_in(self, first_sampled: int, first_own: int) -> Iterator[DecodedFrame]:
        """The sampled frames before the segment that are in one group with its first sampled frame.

        ``first_sampled`` and ``first_own`` are numbers of the segment's first sampled frame and of its first frame.
        """
        group_start = first_sampled - first_sampled % self._options.group_frames
        sampling = self._options.sampling
        latest = first_own - 1 if sampling.fps is not None else first_sampled - sampling.stride
        if latest < group_start:
            return
        for candidate in self._lead_in_candidates(group_start):
            sampled = self._sampled_frames(candidate)
            frames = iter(sampled)
            first = next(frames, None)
            # A keyframe of an open GOP may be presented after the group's start. Then an earlier keyframe is needed.
            if sampled.first_index <= group_start:
                for frame in frames if first is None else chain([first], frames):
                    if frame.record.frame_index >= group_start:
                        yield frame
                return

    def _lead_in_candidates(self, frame_index: int) -> list[Segment]:
        if self._segment.is_scanned:
            return self._index.lead_in_candidates(self._segment, frame_index)
        return lead_in_candidates(self._file, self._limits, self._segment, frame_index, self._track)

    @property
    def _track(self) -> str:
        return "default" if self.info.track is None else str(self.info.track)

    def _sampled_frames(self, segment: Segment) -> SampledFrames:
        sampler = Sampler.of(self._options.sampling, self.info)
        return SampledFrames(self._file, self._limits, segment, self.info, sampler, self._options, self._index)

    def _batched(self, frames: Iterable[DecodedFrame], lead_in: bool = False) -> Iterator[FrameBatch]:
        """Batches of frames with one `FrameFormat.batch_key`.

        A batch is full with ``options.batch_frames`` frames, or with more than `MAX_BATCH_PIXELS`.
        """
        batch_key, info = self._format.batch_key, self.info
        records: list[FrameRecord] = []
        pictures: list[VideoFrame] = []  # of those records whose frame came out
        for frame in frames:
            picture = frame.frame
            if picture is not None:
                if pictures and batch_key(picture) != batch_key(pictures[0]):
                    yield self._batch(records, pictures, lead_in)
                    records, pictures = [], []
                pictures.append(picture)
                is_resized = info.coded_width and (picture.width, picture.height) != (
                    info.coded_width,
                    info.coded_height,
                )
                self._frames_resized += bool(is_resized and not lead_in)
            records.append(frame.record)
            pixels = sum(picture.width * picture.height for picture in pictures)
            if len(records) == self._options.batch_frames or pixels > MAX_BATCH_PIXELS:
                yield self._batch(records, pictures, lead_in)
                records, pictures = [], []
        if records:
            yield self._batch(records, pictures, lead_in)

    def _batch(self, records: list[FrameRecord], pictures: list[VideoFrame], lead_in: bool) -> FrameBatch:
        try:
            images = self._format.pack(pictures)
        except av.error.FFmpegError as error:
            raise DamagedVideoError(f"{self.name}: its frames cannot be converted ({error.strerror})") from error
        return FrameBatch(tuple(records), images, lead_in)
