"""The policy of a run: what is admitted when, what is tried again, when to give up, what is said at the end.

Knows nothing of Ray: work is handed to a `Pool`, which says later how each job ended. Holds the videos in flight and
counters, nothing that grows with the archive.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from posebatch.core.errors import (
    AccessDeniedError,
    EvictedError,
    IndexDisagreesError,
    NewerOutputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PosebatchError,
    RunAbortedError,
    StorageError,
    StorageUnavailableError,
    WorkerCrashError,
    WorkerDiedError,
)
from posebatch.core.records import VideoRecord
from posebatch.core.version import __version__
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.publication import CommittedRecord
from posebatch.dataset.staging import NO_FAILED_ATTEMPTS, FailedAttempts
from posebatch.run.context import RunContext
from posebatch.run.outcome import ProblemStatus, RunOutcome, VideoProblem
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import Action
from posebatch.run.planning.planner import Notice, Planned, Planner, SkippedVideos
from posebatch.run.pool import SEGMENTS_PER_WORKER, Completion, Pool
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import (
    FinalizeTask,
    PreviewOutcome,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    PublishPreviewTask,
    RecordAttemptTask,
    RecordFailureTask,
    SegmentResult,
    SegmentTask,
    VideoTask,
)

VIDEOS_PER_WORKER: Final = SEGMENTS_PER_WORKER + 1
"""Videos in flight for each worker: one for each of its segments and one that waits."""


LOOK_AHEAD_VIDEOS: Final = 4
"""Videos in flight beyond these: enough to probe the next ones while the last ones finish."""


RETRY_SECONDS: Final = 2.0
"""Pause before a storage error is tried again; doubles each time."""


STORAGE_FAILURES_TO_ABORT: Final = 12
"""Storage errors in a row, with no success between them, after which the store is taken to be down."""


POISON_KILLS: Final = 2
"""So often may a piece of a video end the process that works on it, before the video is given up."""


TIMES_TAKEN_AWAY: Final = 10
"""So often may a process be taken away from under one piece of a video, before that counts as a try in vain."""


POLL_SECONDS: Final = 0.2


@dataclass
class _VideoInFlight:
    """A video between being planned and being settled."""

    video: SourceVideo
    plan: VideoPlan | None = None
    before: FailedAttempts = NO_FAILED_ATTEMPTS
    """In vain, in earlier runs."""
    tries: Counter[object] = field(default_factory=Counter)
    """In vain, in this run, by the piece of work."""
    kills: int = 0
    """Those among them that ended the process, of all pieces: one that is bad all over must not end one for each."""
    taken_away: Counter[object] = field(default_factory=Counter)
    """How often a process was taken away from under a piece of work."""
    unstaged: set[Segment] = field(default_factory=set)
    frames_cut: int = 0
    """See `SegmentResult.frames_cut`; of the segments that this run has staged."""
    only_preview: bool = False
    preview: PreviewOutcome | None = None
    preview_tries: int = 0
    failing: bool = False
    """Its failure is being recorded."""

    @property
    def attempts(self) -> int:
        """Tries in vain of the piece that was tried most, or as many as ended the process, over all runs."""
        return self.failed_attempts.attempts

    @property
    def failed_attempts(self) -> FailedAttempts:
        """The same, and how many tries ended the process."""
        attempts = max([self.kills, *self.tries.values()])
        return FailedAttempts(self.before.attempts + attempts, self.before.kills + self.kills)


def _piece(job: SegmentTask | VideoTask) -> object:
    """What tries are counted by."""
    return job.segment if isinstance(job, SegmentTask) else type(job)


MAX_COMPLAINTS: Final = 1000
"""Complaints that are kept to be named at the end; the rest stand in the videos table."""


class Scheduler:
    """One run over an archive."""

    def __init__(
        self,
        context: RunContext,
        standings: CommitIndex,
        progress: Progress,
        stop: StopRequest,
        on_record: Callable[[VideoRecord], None] = lambda _: None,
    ) -> None:
        self._context, self._standings, self._progress = context, standings, progress
        self._stop, self._on_record = stop, on_record
        self._tally = progress.tally
        self._flights: dict[str, _VideoInFlight] = {}
        self._segments: deque[SegmentTask] = deque()
        self._tasks: deque[VideoTask] = deque()
        self._later: list[tuple[float, SegmentTask | VideoTask]] = []
        self._storage_failures = 0
        self._moves = 0  # videos taken and jobs ended
        self._last_move: tuple[object, float] = (None, time.monotonic())
        self._complaints: list[VideoProblem] = []

    def run(self, videos: Iterable[SourceVideo], start_pool: Callable[[], Pool]) -> RunOutcome:
        """Settle every video; ``start_pool`` is called once there is something to do.

        Raises `RunAbortedError` when the run cannot go on or is stopped, and `NewerOutputError` when a later version of
        posebatch has published one of them.
        """
        planned = Planner(videos, self._standings, self._context)
        try:
            if self._anything_to_do(planned):
                self._pool = start_pool()
                self._work_off(planned)
        finally:
            planned.close()
        return RunOutcome(self._tally, self._progress.elapsed_s, tuple(self._complaints))

    def _anything_to_do(self, planned: Planner) -> bool:
        """Pass over what is settled; a night with nothing new should not even start workers."""
        while not self._flights and not planned.exhausted:
            self._stop.check()
            self._check_idle()
            upcoming = planned.poll(POLL_SECONDS)
            if upcoming is not None:
                self._take(upcoming)
            self._progress.show()
        return bool(self._flights)

    def _work_off(self, planned: Planner) -> None:
        while self._flights or not planned.exhausted:
            self._stop.check()
            self._check_idle(self._pool.activity())
            self._admit(planned)
            for completion in self._pool.wait(POLL_SECONDS):
                self._moves += 1
                self._settle(completion)
            self._progress.show()

    def _check_idle(self, activity: int = 0) -> None:
        """Give up when nothing at all has moved for too long: a run must never just hang."""
        state, now = (self._moves, activity), time.monotonic()
        if state != self._last_move[0]:
            self._last_move = state, now
        limit = self._context.settings.limits.max_idle_minutes
        if now - self._last_move[1] < limit * 60:
            return
        under_way = ", ".join(sorted(self._flights)[:5]) or "the listing of the inputs"
        more = f" and {len(self._flights) - 5} more" if len(self._flights) > 5 else ""
        raise RunAbortedError(
            f"nothing has moved for {limit:g} minutes (--max-idle-minutes); under way: {under_way}{more}. "
            "What is published stays; run the same command again"
        )

    # --- admission, downstream first ------------------------------------------------------------------------------

    def _admit(self, planned: Planner) -> None:
        now = time.monotonic()
        due = [job for when, job in self._later if when <= now]
        self._later = [(when, job) for when, job in self._later if when > now]
        for job in due:
            self._enqueue(job)
        for _ in range(min(self._pool.capacity().task_slots, len(self._tasks))):
            self._pool.submit(self._tasks.popleft())
        self._hand_out_segments()
        most_flights = VIDEOS_PER_WORKER * self._pool.capacity().workers + LOOK_AHEAD_VIDEOS
        while len(self._flights) < most_flights and not self._tasks:
            upcoming = planned.poll()
            if upcoming is None:
                return
            self._take(upcoming)

    def _hand_out_segments(self) -> None:
        for _ in range(min(self._pool.capacity().idle, len(self._segments))):
            self._pool.submit(self._segments.popleft())
        capacity = self._pool.capacity()
        # The last ones go to whoever has nothing left to do; and one that is to be alone waits for such a worker.
        for _ in range(capacity.shareable):
            if len(self._segments) < capacity.workers or self._segments[0].alone:
                return
            self._pool.submit(self._segments.popleft())

    def _enqueue(self, job: SegmentTask | VideoTask) -> None:
        if isinstance(job, SegmentTask) and job.alone:
            self._segments.appendleft(job)  # under suspicion: find out before more of its kind are begun
        elif isinstance(job, SegmentTask):
            self._segments.append(job)
        else:
            self._tasks.append(job)

    def _take(self, upcoming: Planned | SkippedVideos | Notice) -> None:
        self._moves += 1
        match upcoming:
            case Notice(text):
                self._progress.say(text)
            case SkippedVideos():
                self._pass_over(upcoming)
            case Planned(video) if upcoming.decision.action is Action.PREVIEW:
                self._flights[video.uri] = _VideoInFlight(video, only_preview=True)
                self._tasks.append(PreviewTask(video, None))
            case Planned(video):
                self._flights[video.uri] = _VideoInFlight(video, before=upcoming.tries)
                self._tasks.append(ProbeTask(video))

    def _pass_over(self, passed: SkippedVideos) -> None:
        self._tally.up_to_date += passed.up_to_date
        self._tally.quarantined += passed.quarantined
        self._tally.partial += passed.partial
        self._tally.bytes_passed += passed.size_bytes
        for video, decision in ((planned.video, planned.decision) for planned in passed.complained):
            if decision.action is Action.QUARANTINED:
                self._complain(video, "failed before", decision.reason)
            else:
                self._complain(video, "partial", str(decision.partial))

    # --- completions ----------------------------------------------------------------------------------------------

    def _settle(self, completion: Completion) -> None:
        job = completion.task
        flight = self._flights.get(job.video.uri)
        if flight is None or isinstance(job, RecordAttemptTask):
            return  # the video was settled while this was under way
        if job.video.etag != flight.video.etag or (flight.failing and not isinstance(job, RecordFailureTask)):
            return  # of a version that is no more, or of a video that is given up
        if isinstance(job, SegmentTask) and job.segment not in flight.unstaged:
            return  # of a cut that is no more
        if completion.error is not None:
            if completion.shared and isinstance(job, SegmentTask):
                self._try_alone(job, completion.error)
            else:
                self._handle_error(flight, job, completion.error)
            return
        self._storage_failures = 0
        match job, completion.result:
            case ProbeTask(), ProbeResult() as probed:
                self._begin_segments(flight, probed)
            case SegmentTask(), SegmentResult() as done:
                self._segment_staged(flight, job, done)
            case PreviewTask(), int(frames):
                self._preview_ended(flight, PreviewOutcome(frames))
            case _, CommittedRecord() as done:
                self._settled(flight, done)
            case _:
                raise AssertionError(f"{type(job).__name__} ended with {completion.result!r}")

    def _begin_segments(self, flight: _VideoInFlight, probed: ProbeResult) -> None:
        flight.video, flight.plan = probed.video, probed.plan
        flight.unstaged = {segment for segment in probed.plan.segments if segment not in probed.staged}
        for segment in probed.plan.segments:
            if segment in flight.unstaged:
                self._segments.append(SegmentTask(flight.video, probed.plan.info, segment))
        self._tally.bytes_passed += flight.video.size_bytes * len(probed.staged) / len(probed.plan.segments)
        self._finish_if_staged(flight)

    def _segment_staged(self, flight: _VideoInFlight, job: SegmentTask, done: SegmentResult) -> None:
        assert flight.plan is not None
        flight.unstaged.discard(job.segment)
        self._tally.frames += done.frames
        self._tally.persons += done.persons
        self._tally.frames_cut += done.frames_cut
        flight.frames_cut += done.frames_cut
        self._tally.video_seconds += done.video_seconds
        self._tally.bytes_done += flight.video.size_bytes / len(flight.plan.segments)
        self._finish_if_staged(flight)

    def _finish_if_staged(self, flight: _VideoInFlight) -> None:
        if flight.unstaged or flight.plan is None:
            return
        if self._context.preview_fingerprint is not None:
            self._tasks.append(PreviewTask(flight.video, flight.plan))
        else:
            self._tasks.append(self._finalize_job(flight))

    def _finalize_job(self, flight: _VideoInFlight) -> FinalizeTask:
        assert flight.plan is not None
        return FinalizeTask(flight.video, flight.plan, flight.attempts + 1, flight.preview)

    def _preview_ended(self, flight: _VideoInFlight, outcome: PreviewOutcome) -> None:
        flight.preview = outcome
        if outcome.error:
            self._progress.say(f"preview of {flight.video.uri} left out: {outcome.error}")
        self._tasks.append(
            PublishPreviewTask(flight.video, outcome) if flight.only_preview else self._finalize_job(flight)
        )

    def _settled(self, flight: _VideoInFlight, done: CommittedRecord) -> None:
        record = done.record
        del self._flights[flight.video.uri]
        self._standings.note(done)
        self._on_record(record)
        if record.status == "failed":
            self._tally.failed += 1
            self._complain(flight.video, "failed", str(record.error))
            return
        self._tally.published += 1
        if flight.frames_cut:
            most = self._context.settings.estimator.max_persons
            self._progress.say(
                f"{flight.video.uri}: {flight.frames_cut} frames hold more than {most} persons, of whom only the best "
                f"{most} are in the table; --max-persons raises that"
            )
        if record.status == "partial":
            self._tally.partial += 1
            self._complain(flight.video, "partial", str(record.error))

    # --- errors ---------------------------------------------------------------------------------------------------

    def _handle_error(self, flight: _VideoInFlight, job: SegmentTask | VideoTask, error: PosebatchError) -> None:
        if isinstance(error, NewerOutputError) and not isinstance(job, PreviewTask):
            raise error  # a record of failure would be written over what a newer version has published
        if isinstance(error, StorageUnavailableError | AccessDeniedError):
            self._count_storage_failure(error)
        staged_is_gone = isinstance(job, FinalizeTask | PublishPreviewTask) and isinstance(error, ObjectNotFoundError)
        if isinstance(job, RecordFailureTask):
            self._give_up_unrecorded(flight, error)
        elif isinstance(error, IndexDisagreesError) and isinstance(job, SegmentTask):
            self._recut(flight)
        elif isinstance(job, PreviewTask) and not error.retryable:
            self._preview_ended(flight, PreviewOutcome(error=str(error)))
        elif isinstance(error, ObjectNotFoundError) and not staged_is_gone:
            self._give_up_unrecorded(flight, error)
        elif isinstance(error, ObjectChangedError) or staged_is_gone:
            self._start_again(flight, error)
        elif isinstance(error, EvictedError) and self._bear(flight, job):
            self._progress.say(f"tried again, and not counted: {error}")
        elif error.retryable or isinstance(error, AccessDeniedError):
            self._try_again(flight, job, error)
        else:
            self._fail(flight, error)

    def _try_alone(self, job: SegmentTask, error: PosebatchError) -> None:
        """It may be another segment's fault, so it counts for nothing, but from now on this one has a worker to itself:
        a segment can die without being counted only once.
        """
        self._progress.say(f"a worker died with two segments in it; each is tried again alone: {error}")
        self._enqueue(replace(job, alone=True))

    def _bear(self, flight: _VideoInFlight, job: SegmentTask | VideoTask) -> bool:
        """Try again what was no fault of the video, within reason."""
        piece = _piece(job)
        flight.taken_away[piece] += 1
        if flight.taken_away[piece] > TIMES_TAKEN_AWAY:
            return False
        self._enqueue(job)
        return True

    def _recut(self, flight: _VideoInFlight) -> None:
        """The container's index is wrong: decode the video from its beginning, as one segment."""
        assert flight.plan is not None
        whole = Segment()
        self._drop_waiting(flight)
        flight.plan = replace(flight.plan, segments=(whole,))
        flight.unstaged, flight.frames_cut = {whole}, 0
        self._segments.append(SegmentTask(flight.video, flight.plan.info, whole))

    def _start_again(self, flight: _VideoInFlight, error: PosebatchError) -> None:
        """The source is another object now: what was planned for the old one is void."""
        if self._exhausted(flight, "source", error):
            return
        self._drop_waiting(flight)
        flight.plan, flight.unstaged, flight.only_preview, flight.frames_cut = None, set(), False, 0
        self._later.append((time.monotonic() + RETRY_SECONDS, ProbeTask(flight.video, relist=True)))

    def _try_again(self, flight: _VideoInFlight, job: SegmentTask | VideoTask, error: PosebatchError) -> None:
        if isinstance(job, PreviewTask):
            self._try_preview_again(flight, job, error)
            return
        piece = _piece(job)
        if self._exhausted(flight, piece, error):
            return
        pause = 0.0 if isinstance(error, WorkerDiedError) else RETRY_SECONDS * 2 ** (flight.tries[piece] - 1)
        if isinstance(job, FinalizeTask):
            job = self._finalize_job(flight)  # it states the attempts
        elif isinstance(job, SegmentTask) and isinstance(error, WorkerDiedError):
            job = replace(job, alone=True)
        self._later.append((time.monotonic() + pause, job))

    def _try_preview_again(self, flight: _VideoInFlight, job: PreviewTask, error: PosebatchError) -> None:
        """Its tries are counted apart: they must not use up those of the tables."""
        flight.preview_tries += 1
        if flight.preview_tries >= self._max_attempts:
            self._preview_ended(flight, PreviewOutcome(error=str(error)))
        else:
            self._later.append((time.monotonic() + RETRY_SECONDS, job))

    def _exhausted(self, flight: _VideoInFlight, piece: object, error: PosebatchError) -> bool:
        """Count a try in vain; when it was the last one, record the video as failed."""
        flight.tries[piece] += 1
        flight.kills += isinstance(error, WorkerCrashError)
        failed_attempts = flight.failed_attempts
        self._progress.say(f"try {failed_attempts.attempts} of {self._max_attempts} failed: {error}")
        if failed_attempts.attempts >= self._max_attempts or failed_attempts.kills >= POISON_KILLS:
            self._fail(flight, error)
            return True
        self._tasks.append(RecordAttemptTask(flight.video, failed_attempts, error.kind, str(error)))
        return False

    @property
    def _max_attempts(self) -> int:
        return self._context.settings.selection.max_attempts

    def _fail(self, flight: _VideoInFlight, error: PosebatchError) -> None:
        self._drop_waiting(flight)
        flight.unstaged, flight.failing = set(), True
        record = VideoRecord(
            video=flight.video.uri,
            etag=flight.video.etag,
            size_bytes=flight.video.size_bytes,
            last_modified=flight.video.last_modified,
            status="failed",
            settings_fingerprint=self._context.data_fingerprint,
            run_id=self._context.run_id,
            posebatch_version=__version__,
            error_kind=error.kind,
            error=str(error),
            attempts=max(1, flight.attempts),
            info=flight.plan.info if flight.plan else None,
            detector=self._context.detector,
            pose=self._context.pose,
        )
        self._tasks.append(RecordFailureTask(flight.video, record))

    def _drop_waiting(self, flight: _VideoInFlight) -> None:
        """Take back the segments of a video that no worker has begun."""
        self._segments = deque(waiting for waiting in self._segments if waiting.video.uri != flight.video.uri)

    def _give_up_unrecorded(self, flight: _VideoInFlight, error: PosebatchError) -> None:
        """Name the failure without recording it: the source has gone, or the store takes no record."""
        self._drop_waiting(flight)
        del self._flights[flight.video.uri]
        self._tally.failed += 1
        self._complain(flight.video, "failed", str(error))

    def _complain(self, video: SourceVideo, status: ProblemStatus, reason: str) -> None:
        if len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(VideoProblem(video.uri, status, reason))

    def _count_storage_failure(self, error: StorageError) -> None:
        self._storage_failures += 1
        at_once = SEGMENTS_PER_WORKER * self._pool.capacity().workers
        if self._storage_failures >= max(STORAGE_FAILURES_TO_ABORT, 3 * at_once):
            raise RunAbortedError(
                f"{self._storage_failures} storage errors in a row, the last one: {error}. "
                "What is published stays; run the same command again when the store answers"
            )
