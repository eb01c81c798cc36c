"""Decode a segment by the fastest strategy that can handle it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final

from av.codec.context import ThreadType

from posebatch.core.errors import StorageError
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment, VideoInfo
from posebatch.video.container import OpenVideo, open_video
from posebatch.video.frame_numbers import Sampler
from posebatch.video.full_decode import DecodedFrame, FullDecode
from posebatch.video.indexes.indexed_packets import IndexedPackets
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.limits import Limits
from posebatch.video.nvdec import nvdec, print_once
from posebatch.video.options import DecodeOptions
from posebatch.video.packets import NeedsFullDecodeError, PacketSource, SegmentPackets
from posebatch.video.sparse_decode import SparseDecode

THREADED_CODECS: Final = frozenset({"h264", "hevc", "av1"})
"""Codecs that several threads may decode. In other codecs FFmpeg's threads hide damage (VP8, MJPEG, MPEG-2, MPEG-4), or
crash at it (VP9)."""


MAX_FRAMES_HELD_ON_GPU: Final = 4
"""Frames that may wait for their timestamps in the memory of NVDEC, which has few surfaces."""


@dataclass(frozen=True)
class _Strategy:
    """One way of decoding a segment."""

    threads: int
    sparse: bool = False
    """Decode only the packets that sampled frames need."""
    on_gpu: bool = False


class SampledFrames:
    """The sampled frames of one segment, in presentation order. Iterate once.

    Strategies in order: GPU; sparse decode; full decode in several threads; full decode in one thread. The first sign
    of damage aborts a strategy. The next one restarts the segment and skips the frames that were already yielded.

    Only one thread decodes damage reproducibly. Several threads lose good frames around a bad one, and fill it from
    frames that other threads happen to have decoded. Before the first damage their frames are the same. So several
    threads need a codec that reports damage. The decoder is set to be strict, and an error in FFmpeg's log counts too.
    """

    def __init__(
        self,
        file: IO[bytes],
        limits: Limits,
        segment: Segment,
        info: VideoInfo,
        sampler: Sampler,
        options: DecodeOptions,
        index: PacketIndex = NO_INDEX,
    ) -> None:
        """``index``: that of the scan in which the segment was found, if it was."""
        self._index = index
        self._file, self._limits, self._segment = file, limits, segment
        self._codec, self._sampler, self._options = info.codec, sampler, options
        self._track = "default" if info.track is None else str(info.track)
        self._threads = options.threads if info.codec in THREADED_CODECS else 1
        self._decodes: list[FullDecode | SparseDecode] = []  # one for each strategy so far

    def __iter__(self) -> Iterator[DecodedFrame]:
        yielded = 0
        for strategy in self._strategies():
            try:
                for frame in islice(self._decode(strategy), yielded, None):
                    yielded += 1
                    yield frame
            except NeedsFullDecodeError:
                self._report_fallback(strategy, "damage, or something that only the CPU decodes")
            except Exception as error:
                if not strategy.on_gpu or isinstance(error, StorageError):
                    raise
                self._report_fallback(strategy, str(error))
            else:
                return

    def _strategies(self) -> list[_Strategy]:
        sparse = not self._sampler.takes_all
        strategies = []
        if self._options.on_gpu:
            strategies.append(_Strategy(threads=1, sparse=sparse, on_gpu=True))
        if sparse:
            strategies.append(_Strategy(self._threads, sparse=True))
        strategies.append(_Strategy(self._threads))
        strategies.append(_Strategy(threads=1))
        return strategies

    def _report_fallback(self, strategy: _Strategy, reason: str) -> None:
        if strategy.on_gpu:
            print_once(self._codec, f"{self._limits.name} ({self._codec}) is decoded on the CPU: {reason}")

    def _decode(self, strategy: _Strategy) -> Iterator[DecodedFrame]:
        accelerator = nvdec() if strategy.on_gpu else None
        scanned = self._segment.is_scanned  # its packets come by the index
        with open_video(self._file, self._limits, accelerator, self._options.on_frame, self._track, scanned) as video:
            context = video.stream.codec_context
            if strategy.threads > 1:
                context.options = context.options | {"err_detect": "explode"}
            context.thread_count = strategy.threads
            context.thread_type = ThreadType.AUTO
            packets = self._packets(video)
            decode: FullDecode | SparseDecode
            if strategy.sparse:
                decode = SparseDecode(video, packets, self._sampler)
            else:
                stop_at_damage = strategy.on_gpu or strategy.threads > 1
                held = MAX_FRAMES_HELD_ON_GPU if strategy.on_gpu else None
                decode = FullDecode(video, packets, self._sampler, stop_at_damage, held)
            self._decodes.append(decode)
            yield from decode

    def _packets(self, video: OpenVideo) -> PacketSource:
        if self._segment.is_scanned:
            return IndexedPackets(video, self._file, self._segment, self._index)
        return SegmentPackets(video, self._segment)

    @property
    def first_index(self) -> int:
        """Number of the segment's first frame; known once the iteration has begun."""
        return self._decodes[-1].packets.first_index

    @property
    def frames_out(self) -> int:
        """Frames that have come out of the decoder, in all strategies together."""
        return sum(decode.frames_out for decode in self._decodes)

    def report(self) -> DecodeReport:
        """The report of the last strategy; complete after the iteration."""
        return self._decodes[-1].report()
