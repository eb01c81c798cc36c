"""Decode a segment as often as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import IO, Final

from av.codec.context import ThreadType

from posebatch.core.errors import StorageError
from posebatch.core.records import DecodeReport
from posebatch.core.videos import Segment
from posebatch.video.container import open_video
from posebatch.video.frame_numbers import Sampler
from posebatch.video.full_decode import DecodedFrame, FullDecode
from posebatch.video.limits import Limits
from posebatch.video.nvdec import nvdec, say_once
from posebatch.video.options import DecodeOptions
from posebatch.video.packets import NeedsFullDecodeError
from posebatch.video.sparse_decode import SparseDecode

THREADED_CODECS: Final = frozenset({"h264", "hevc", "av1"})
"""Decoded by several threads. In others FFmpeg's threads pass over damage in silence (VP8, MJPEG, MPEG-2, MPEG-4), or
crash at it (VP9)."""


@dataclass(frozen=True)
class _Strategy:
    """One way of decoding a segment."""

    threads: int
    excerpt: bool = False
    """Only what the wanted frames need is decoded."""
    on_gpu: bool = False


class WantedFrames:
    """The wanted frames of one segment, in presentation order.

    First the GPU decodes them, if it shall. Then only what they need is decoded, if not all are wanted; then
    everything, by several threads; then everything, by one thread. Each way is left at the first thing that it cannot
    settle, and the next one begins from the start. Decoding in several threads loses good frames around a bad one, and
    makes up what is missing from whatever its neighbours have decoded by then, so that a damaged video's frames would
    depend on the number of threads and on chance. Up to the first damage they do not, so what has been given by then is
    not given again. So several threads are used only where the decoder tells of damage, and told to be strict about
    it; what it merely complains of counts too.
    """

    def __init__(
        self, file: IO[bytes], limits: Limits, segment: Segment, codec: str, sampler: Sampler, options: DecodeOptions
    ) -> None:
        self._file, self._limits, self._segment = file, limits, segment
        self._codec, self._sampler, self._options = codec, sampler, options
        self._threads = options.threads if codec in THREADED_CODECS else 1
        self._tried: list[FullDecode | SparseDecode] = []

    def __iter__(self) -> Iterator[DecodedFrame]:
        given = 0
        for way in self._ways():
            try:
                for shown in islice(self._decoded(way), given, None):
                    given += 1
                    yield shown
            except NeedsFullDecodeError:
                self._excuse(way, "damage, or what only the CPU can settle")
            except Exception as error:
                if not way.on_gpu or isinstance(error, StorageError):
                    raise
                self._excuse(way, str(error))
            else:
                return

    def _ways(self) -> list[_Strategy]:
        excerpt = not self._sampler.wants_all
        ways = [_Strategy(1, excerpt, on_gpu=True)] * self._options.on_gpu + [
            _Strategy(self._threads, excerpt=True)
        ] * excerpt
        return [*ways, _Strategy(self._threads), _Strategy(1)]

    def _excuse(self, way: _Strategy, reason: str) -> None:
        if way.on_gpu:
            say_once(self._codec, f"{self._limits.name} ({self._codec}) is decoded on the CPU: {reason}")

    def _decoded(self, way: _Strategy) -> Iterator[DecodedFrame]:
        accelerator = nvdec() if way.on_gpu else None
        with open_video(self._file, self._limits, accelerator, self._options.on_frame) as video:
            context = video.stream.codec_context
            if way.threads > 1:
                context.options = context.options | {"err_detect": "explode"}
            context.thread_count = way.threads
            context.thread_type = ThreadType.AUTO
            what = video, self._segment, self._sampler
            stop_at_damage = way.on_gpu or way.threads > 1
            self._tried.append(SparseDecode(*what) if way.excerpt else FullDecode(*what, stop_at_damage=stop_at_damage))
            yield from self._tried[-1]

    @property
    def first_index(self) -> int:
        """Number of the first frame, once one has been asked for."""
        return self._tried[-1].packets.first_index

    @property
    def frames_out(self) -> int:
        """Frames that have come out of the decoder."""
        return sum(way.frames_out for way in self._tried)

    def report(self) -> DecodeReport:
        """What was seen; complete after the iteration."""
        return self._tried[-1].report()
