"""Segments on their way through a worker: several pass through the networks as one stream of frames.

The frames of all of them share batches, so that the networks are full from the first frame to the last. Each row
depends on its own frame alone, because batches have a constant shape.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.records import SegmentReport, StageSeconds
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.run.tasks import SegmentResult
from posebatch.run.workers.channel import Channel
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.video.segment_decoder import SegmentDecoder


@dataclass(frozen=True)
class Passed:
    """A segment that has passed through both stages. Its rows are written."""

    decoder: SegmentDecoder
    frames: int
    persons: int
    frames_cut: int
    """See `SegmentResult.frames_cut`."""
    seconds: StageSeconds


@dataclass(eq=False)
class Piece:
    """A segment on its way through a worker."""

    name: str
    """The name of its task."""
    opened: Callable[[], AbstractContextManager[SegmentDecoder]]
    """Opens its source, in the decoding thread. An error that it raises is that of the piece."""
    writer: StagedWriter
    """Receives its rows."""
    passed: Future[Passed] = field(default_factory=Future)
    """Ends when its last row is written, or with its error."""

    def complete(self, device: str) -> SegmentResult:
        """Wait until the piece has passed, and complete its staged file. Raises its error."""
        passed = self.passed.result()
        report = passed.decoder.report
        seconds = replace(passed.seconds, decode=passed.decoder.seconds)
        self.writer.close(SegmentReport(report, seconds, device))
        covered = _covered_seconds(passed.decoder)
        return SegmentResult(passed.frames, passed.persons, covered, passed.frames_cut, seconds)


@dataclass(frozen=True)
class Decoded:
    """What the decoding thread hands over: frames of a piece, or its end."""

    piece: Piece
    batch: FrameBatch | None = None
    """None at the end of the piece."""
    end: SegmentDecoder | Exception | None = None
    """The decoder of a piece that was decoded, or the error that ended it."""


class PiecesInNetworks:
    """The thread of the networks: takes the frames of several pieces, and gives each piece its rows."""

    def __init__(self, estimator: PoseEstimator, frames: Channel[Decoded]) -> None:
        self._estimator, self._frames = estimator, frames
        self._clock = StageClock()
        self._pieces = deque[Piece]()  # those whose frames have come, and that have not passed; in order
        self._ends: dict[Piece, SegmentDecoder | Exception] = {}
        self._owners = deque[Piece]()  # of the frames in the networks, in order
        self._sums = _Sums()

    def run(self) -> None:
        """Work until the channel ends. Raises `ChannelClosedError`, and what the networks raise."""
        self._sums.begin(self._clock, self._frames.waited_s)
        for frame in self._estimator.estimate(self._batches(), self._clock):
            piece = self._owners.popleft()
            while self._pieces[0] is not piece:  # results come in order: the pieces before this one have all of theirs
                self._end_first()
            piece.writer.add(frame)
            self._sums.add(frame)
            heartbeat.beat()
        while self._pieces:
            self._end_first()

    def _batches(self) -> Iterator[FrameBatch]:
        """The frames for the estimator, with the number of their piece."""
        number = -1
        for decoded in _await_items(self._frames):
            piece, batch = decoded.piece, decoded.batch
            if not self._pieces or self._pieces[-1] is not piece:
                number += 1
                self._pieces.append(piece)
            if batch is None:
                assert decoded.end is not None
                self._ends[piece] = decoded.end
                continue
            if not batch.lead_in:
                self._owners.extend([piece] * len(batch.records))
            yield replace(batch, segment=number) if number else batch

    def _end_first(self) -> None:
        """End the piece that came first. Its share of the networks' time is what has passed since the one before."""
        piece = self._pieces.popleft()
        end, sums = self._ends.pop(piece), self._sums
        seconds = sums.seconds(self._clock, self._frames.waited_s)
        if isinstance(end, Exception):
            piece.passed.set_exception(end)
        else:
            piece.passed.set_result(Passed(end, sums.frames, sums.persons, sums.frames_cut, seconds))
        sums.begin(self._clock, self._frames.waited_s)


@dataclass
class _Sums:
    """Sums over the frames of a piece."""

    frames: int = 0
    persons: int = 0
    frames_cut: int = 0
    _began: StageSeconds = field(default_factory=StageSeconds)

    def begin(self, clock: StageClock, waited_s: float) -> None:
        """Begin the next piece."""
        self.frames = self.persons = self.frames_cut = 0
        self._began = _reading(clock, waited_s)

    def add(self, frame: FramePoses) -> None:
        """Count a frame."""
        self.frames += 1
        self.persons += len(frame)
        self.frames_cut += frame.left_out > 0

    def seconds(self, clock: StageClock, waited_s: float) -> StageSeconds:
        """Seconds since the piece began."""
        now, began = _reading(clock, waited_s), self._began
        return StageSeconds(
            detect=now.detect - began.detect,
            pose=now.pose - began.pose,
            total=now.total - began.total,
            wait=now.wait - began.wait,
        )


def _reading(clock: StageClock, waited_s: float) -> StageSeconds:
    return StageSeconds(detect=clock.detect_seconds, pose=clock.pose_seconds, total=time.perf_counter(), wait=waited_s)


def _await_items(items: Iterable[Decoded]) -> Iterator[Decoded]:
    """The same items. Time spent waiting for the decoder does not count for the step of the networks."""
    iterator = iter(items)
    while True:
        with heartbeat.waiting():
            item = next(iterator, None)
        if item is None:
            return
        yield item


def _covered_seconds(decoder: SegmentDecoder) -> float:
    """Seconds of the video from the first to the last frame of the segment."""
    first, last = decoder.report.first_pts, decoder.report.last_pts
    return 0.0 if first is None or last is None else float((last - first) * decoder.info.time_base)
