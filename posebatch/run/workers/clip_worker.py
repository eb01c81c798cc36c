"""Several short videos in one call to a worker: fetched ahead, probed, decoded, estimated as one stream, published.

Each clip ends on its own, with a result or an error. Its rows never go through the store: they are published by the
process that has them, unless a preview is wanted.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import IO, Final, TypeAlias

from posebatch.core.errors import IndexDisagreesError
from posebatch.core.records import VideoRecord
from posebatch.core.videos import Segment, VideoPlan
from posebatch.dataset.publication import CommittedRecord, fetch_if_readable
from posebatch.dataset.tables.staged import StagedWriter, read_staged
from posebatch.run.context import RunContext
from posebatch.run.tasks import ClipResult, ClipsTask, ClipTask, FinalizeTask, ProbeResult, SegmentResult
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.pieces import Piece
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import cut_by_scan, staged_segments
from posebatch.storage.open import check_unchanged, open_video
from posebatch.storage.spool import spooled
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

CLIP_SECONDS: Final = 20.0
"""A longer video is no clip: the clips of a call are reported together, so a call must not take long."""

FETCHERS: Final = 4
"""Clips of a call that are read from the store at once."""

PUBLISHERS: Final = 4
"""Clips of a call that are published at once. A publication waits for the store most of the time."""

ClipEnd: TypeAlias = ClipResult | ProbeResult


class _SettledError(Exception):
    """A clip has its end before the networks begin with it."""

    def __init__(self, end: ClipEnd) -> None:
        super().__init__(str(end))
        self.end = end


@dataclass(frozen=True)
class _Source:
    """A clip in memory, and what is staged of it."""

    file: IO[bytes]
    staged_keys: set[str]


@dataclass(eq=False)
class _Clip:
    """A clip on its way through the worker."""

    task: ClipTask
    fetched: Future[_Source]
    spool: IO[bytes]
    """Its rows, as a staged file."""
    piece: Piece
    plan: VideoPlan | None = None
    """None until it is probed."""


class ClipProcessor:
    """The processing of groups of clips by the threads and networks of a `SegmentProcessor`. Knows nothing of Ray."""

    def __init__(self, context: RunContext, segments: SegmentProcessor) -> None:
        self._context, self._segments = context, segments

    def process(self, task: ClipsTask) -> list[Future[ClipEnd]]:
        """Process clips; returns the end of each, in their order. On return, no thread works on them any more.

        A clip's own error ends only that clip. If the networks failed, the clips that have not passed through them end
        with `WorkerDiedError`, as any may be the cause: each must be tried alone. The only one left, if it is one, ends
        with `WorkerCrashError`. A clip that is too long, or that has staged segments, ends with a `ProbeResult`.
        """
        with (
            ExitStack() as opened,
            ThreadPoolExecutor(FETCHERS, "fetch") as fetchers,
            ThreadPoolExecutor(PUBLISHERS, "publish") as publishers,
        ):
            clips = [
                self._clip(clip, fetchers.submit(self._fetch, clip), opened.enter_context(spooled()))
                for clip in task.clips
            ]
            ends = [publishers.submit(self._end, clip) for clip in clips]
            self._segments.run(task.name, [clip.piece for clip in clips])
        return ends

    def _clip(self, task: ClipTask, fetched: Future[_Source], spool: IO[bytes]) -> _Clip:
        clip = _Clip(task, fetched, spool, Piece(task.name, lambda: self._opened(clip), StagedWriter(spool)))
        return clip

    # --- before the networks ------------------------------------------------------------------------------------------

    def _fetch(self, task: ClipTask) -> _Source:
        """Read a source into memory: a clip is small, and each of its parts would take a request."""
        video, context = task.video, self._context
        with heartbeat.step("fetch", task.name):
            if task.again and (committed := self._published_before(task)):
                raise _SettledError(ClipResult(_counts_of(committed.record), committed))
            with open_video(video, context.endpoint_url) as file:
                content = file.read()
            check_unchanged(video.uri, video.etag)
            return _Source(io.BytesIO(content), context.staging(video).staged_keys())

    def _published_before(self, task: ClipTask) -> CommittedRecord | None:
        """The commit record of a clip that this run has published, before the worker died that did it."""
        committed = fetch_if_readable(self._context.store(), task.video.output_path)
        if not isinstance(committed, CommittedRecord):
            return None
        record, context = committed.record, self._context
        found = (record.run_id, record.etag, record.settings_fingerprint, record.status == "failed")
        wanted = (context.run_id, task.video.etag, context.data_fingerprint, False)
        return committed if found == wanted else None

    @contextmanager
    def _opened(self, clip: _Clip) -> Iterator[SegmentDecoder]:
        source, video, settings = clip.fetched.result(), clip.task.video, self._context.settings
        seconds = settings.execution.segment_seconds
        with heartbeat.step("probe", clip.task.name):
            plan = probe(source.file, video.uri, seconds, settings.limits, settings.sampling.video_track)
            plan = cut_by_scan(plan, video, source.staged_keys, self._context)
        staged = staged_segments(self._context.staging(video), plan, source.staged_keys)
        is_short = len(plan.segments) == 1 and 0 < plan.info.duration_s <= min(seconds, CLIP_SECONDS)
        if staged or not is_short:
            raise _SettledError(ProbeResult(video, plan, staged))
        clip.plan = plan
        yield self._segments.decoder_of(source.file, video, plan.segments[0], plan.info)

    # --- behind the networks ------------------------------------------------------------------------------------------

    def _end(self, clip: _Clip) -> ClipEnd:
        """Wait until a clip has passed through the networks, and publish it. Raises its error."""
        video = clip.task.video
        try:
            counts = clip.piece.complete(self._segments.device)
        except _SettledError as settled:
            return settled.end
        except IndexDisagreesError:
            assert clip.plan is not None
            return ProbeResult(video, replace(clip.plan, segments=(Segment(),)), frozenset())
        assert clip.plan is not None
        if self._context.preview_fingerprints:
            with heartbeat.step("stage", clip.task.name):
                self._context.staging(video).stage(clip.plan.segments[0], clip.spool)
            return ClipResult(counts, ProbeResult(video, clip.plan, frozenset()))
        with heartbeat.step("publish", clip.task.name):
            return ClipResult(counts, self._publish(clip, clip.plan))

    def _publish(self, clip: _Clip, plan: VideoPlan) -> CommittedRecord:
        with heartbeat.waiting():  # loads SciPy: see `video_tasks`
            from posebatch.run.workers.finalize import publish_video  # noqa: PLC0415
        task, staged_keys = clip.task, clip.fetched.result().staged_keys
        clip.spool.seek(0)
        content = clip.spool.read()
        finalize = FinalizeTask(task.video, plan, task.attempts)
        committed = publish_video(finalize, lambda _: read_staged(content), self._context)
        if staged_keys or task.attempts > 1:
            self._context.staging(task.video).clear(staged_keys)
        return committed


def _counts_of(record: VideoRecord) -> SegmentResult:
    """The counts of a clip that is published."""
    return SegmentResult(record.frames_processed, record.persons, record.info.duration_s if record.info else 0.0)
