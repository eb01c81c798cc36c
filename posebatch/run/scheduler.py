"""The scheduler: which videos are in flight, which task comes next, and how the end of each task is handled.

Independent of Ray: tasks go to a `Pool`, which returns how each ended. The scheduler holds the videos in flight and
counters; of its parts, only the commit index grows with the archive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from posebatch.core.errors import PosebatchError, WorkerDiedError
from posebatch.core.records import VideoRecord
from posebatch.core.videos import SourceVideo
from posebatch.dataset.publication import CommittedRecord
from posebatch.run.abort_conditions import IdleTimeout, StorageOutage
from posebatch.run.accounts import Accounts
from posebatch.run.admission import Admission
from posebatch.run.context import RunContext
from posebatch.run.failure_policy import (
    DEFAULT_LIMITS,
    Reaction,
    SchedulerLimits,
    is_out_of_attempts,
    reaction,
    retry_pause_s,
    uncounted_left,
)
from posebatch.run.flights import PROBE_AGAIN_STEP, Flights, Step, VideoInFlight, begin_flight, step_of
from posebatch.run.outcome import RunOutcome, exit_code
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.decisions import RECORD_DAMAGED, lacks_preview
from posebatch.run.planning.planner import Decide, Planned, Planner, SkippedVideos, decisions
from posebatch.run.pool import Completion, Pool
from posebatch.run.progress import Progress
from posebatch.run.stop_request import StopRequest
from posebatch.run.tasks import (
    ClipResult,
    ClipTask,
    DeriveTask,
    PreviewOutcome,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    PublishPreviewTask,
    RecordAttemptTask,
    RecordFailureTask,
    SegmentResult,
    SegmentTask,
    Task,
)
from posebatch.run.work_queue import WorkQueue


class Scheduler:
    """One run over an archive."""

    def __init__(
        self,
        context: RunContext,
        index: CommitIndex,
        progress: Progress,
        stop: StopRequest,
        on_record: Callable[[VideoRecord], None] = lambda _: None,
        limits: SchedulerLimits = DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
        admission: Admission | None = None,
    ) -> None:
        """``on_record`` receives each commit record of this run. ``clock``: seconds, monotonic; see `Admission`."""
        self._context, self._index, self._progress, self._stop = context, index, progress, stop
        self._on_record, self._limits = on_record, limits
        self._tally = progress.tally
        self._admission = admission or Admission(context.settings.night, progress.tally)
        self._flights = Flights(limits.clips_together)
        self._queue = WorkQueue(clock, limits, progress.meter.note_queue)
        self._outage = StorageOutage(limits)
        self._idle = IdleTimeout(context.settings.limits.max_idle_minutes, clock)
        self._events = 0  # planned items taken and tasks ended
        self._accounts = Accounts(context, progress, limits.max_problems)

    def run(
        self, videos: Iterable[SourceVideo], start_pool: Callable[[], Pool], decide: Decide = decisions
    ) -> RunOutcome:
        """Process every video until it has a commit record; ``start_pool`` is called once there is work.

        ``decide`` says what to do with each video. Raises `RunAbortedError` when the run is stopped or cannot go on,
        and `NewerOutputError` when a newer version of posebatch has published one of the videos.
        """
        planner = Planner(videos, self._index, self._context, decide=decide, may_begin=lambda: self._admission.is_open)
        try:
            if self._find_work(planner):
                self._work(planner, start_pool())
        finally:
            planner.close()
        self._tally.videos_unfinished = len(self._flights)
        code = exit_code(self._tally, self._context.settings.selection)
        return RunOutcome(self._tally, self._progress.elapsed_s, self._accounts.problems.in_order(), code)

    def _find_work(self, planner: Planner) -> bool:
        """Skip the videos that need no work, up to the first that does: without any, no worker is started."""
        while not self._flights and not planner.exhausted:
            self._stop.check()
            self._idle.check(self._events, self._flights.addresses)
            if (upcoming := planner.poll(self._limits.poll_seconds)) is not None:
                self._take(upcoming)
            self._progress.show()
        return bool(self._flights)

    def _work(self, planner: Planner, pool: Pool) -> None:
        while (self._flights or not planner.exhausted) and not self._admission.is_over:
            self._stop.check()
            self._idle.check((self._events, pool.activity()), self._flights.addresses)
            self._queue.submit_to(pool)
            capacity = pool.capacity()
            self._admission.note_gpus(capacity.ready * capacity.gpu_share)
            if capacity.requested:
                self._progress.note_workers(capacity.ready, capacity.workers)
            else:
                self._progress.enter("tables and previews from stored poses")
            self._admit(planner, self._limits.videos_per_worker * capacity.workers + self._limits.look_ahead_videos)
            for completion in pool.wait(self._limits.poll_seconds):
                self._events += 1
                self._handle(completion)
                self._outage.check(capacity.workers)
            self._progress.show()

    # --- admission ------------------------------------------------------------------------------------------------

    def _admit(self, planner: Planner, max_flights: int) -> None:
        """Take planned videos while there is room; waiting CPU tasks come first, as they finish videos."""
        while self._flights.load < max_flights and not self._queue.has_cpu_tasks:
            if (upcoming := planner.poll()) is None:
                return
            self._take(upcoming)

    def _take(self, upcoming: Planned | SkippedVideos) -> None:
        self._events += 1
        match upcoming:
            case SkippedVideos():
                self._accounts.count_skipped(upcoming)
            case Planned():
                if upcoming.decision.reason == RECORD_DAMAGED:
                    self._progress.warn(f"{RECORD_DAMAGED}, and is written again: {upcoming.video.uri}")
                flight, task = begin_flight(upcoming, self._context, self._limits)
                self._flights.add(flight)
                self._queue.add(task)

    # --- completions ----------------------------------------------------------------------------------------------

    def _handle(self, completion: Completion) -> None:
        task = completion.task
        flight = self._flights.get(task.video.uri)
        if flight is None or isinstance(task, RecordAttemptTask) or not flight.expects(task):
            return
        self._outage.count(completion.error, 1 / self._limits.clips_together if isinstance(task, ClipTask) else 1)
        if completion.error is not None:
            self._handle_error(flight, task, completion.error, completion.shared)
            return
        match task, completion.result:
            case ClipTask(), ClipResult() as done:
                self._clip_ended(flight, done)
            case ProbeTask() | ClipTask(), ProbeResult() as probed:
                self._begin_segments(flight, probed)
            case SegmentTask(), SegmentResult() as result:
                self._segment_staged(flight, task, result)
            case PreviewTask(), PreviewOutcome() as drawn:
                self._preview_ended(flight, drawn)
            case DeriveTask(), CommittedRecord() as derived if lacks_preview(derived.record, self._context):
                self._queue.add(PreviewTask(flight.video, None))
            case _, CommittedRecord() as committed:
                self._committed(flight, committed)
            case _:
                raise AssertionError(f"{type(task).__name__} ended with {completion.result!r}")

    def _clip_ended(self, flight: VideoInFlight, done: ClipResult) -> None:
        if isinstance(done.end, CommittedRecord):
            self._accounts.count_segment(flight, done.counts, segments=1)
            self._committed(flight, done.end)
            return
        self._flights.count_as_one(flight)
        (staged,) = flight.begin(done.end)
        self._segment_staged(flight, staged, done.counts)

    def _begin_segments(self, flight: VideoInFlight, probed: ProbeResult) -> None:
        self._flights.count_as_one(flight)
        for task in flight.begin(probed):
            self._queue.add(task)
        self._accounts.count_staged(flight, probed)
        self._finish_if_staged(flight)

    def _segment_staged(self, flight: VideoInFlight, task: SegmentTask, result: SegmentResult) -> None:
        assert flight.plan is not None
        flight.unstaged.discard(task.segment)
        self._accounts.count_segment(flight, result, len(flight.plan.segments))
        self._finish_if_staged(flight)

    def _finish_if_staged(self, flight: VideoInFlight) -> None:
        if flight.unstaged:
            return
        if self._context.preview_fingerprints:
            self._queue.add(PreviewTask(flight.video, flight.plan))
        else:
            self._queue.add(flight.finalize_task())

    def _preview_ended(self, flight: VideoInFlight, preview: PreviewOutcome) -> None:
        flight.preview = preview
        if preview.error:
            self._progress.warn(f"preview of {flight.video.uri} left out: {preview.error}")
        only_preview = PublishPreviewTask(flight.video, preview)
        self._queue.add(only_preview if flight.preview_only else flight.finalize_task())

    def _committed(self, flight: VideoInFlight, committed: CommittedRecord) -> None:
        self._flights.end(flight)
        self._index.add(committed)
        self._on_record(committed.record)
        self._accounts.count_commit(flight, committed.record)

    # --- errors: failure_policy decides, these carry it out -------------------------------------------------------

    def _handle_error(self, flight: VideoInFlight, task: Task, error: PosebatchError, shared: bool) -> None:
        left, stay = uncounted_left(error, flight.uncounted_of(task, error), self._limits), flight.tables_stay
        match reaction(task, error, shared=shared, uncounted_left=left, tables_stay=stay), task:
            case Reaction.ABORT_RUN, _:
                raise error
            case Reaction.RETRY_ALONE, _:
                self._progress.warn(
                    f"a worker died with two segments or more in it; each is tried again alone: {error}"
                )
                self._queue.add(flight.again(task, alone=True))
            case Reaction.RETRY_UNCOUNTED, _:
                retries = flight.count_uncounted(task, error)
                self._progress.warn(f"tried again, and not counted: {error}")
                self._queue.add(flight.again(task), retry_pause_s(error, retries, self._limits))
            case Reaction.RETRY, _:
                self._retry(flight, task, error)
            case Reaction.RETRY_PREVIEW, _:
                self._retry_preview(flight, task, error)
            case Reaction.OMIT_PREVIEW, _:
                self._preview_ended(flight, PreviewOutcome(error=str(error)))
            case Reaction.DECODE_AS_ONE_SEGMENT, _:
                self._queue.drop_segments(flight.video.uri)
                self._queue.add(flight.begin_as_one_segment())
            case Reaction.PROBE_AGAIN, _:
                self._probe_again(flight, error)
            case Reaction.RECORD_FAILURE, _:
                self._record_failure(flight, error)
            case Reaction.REPORT_FAILURE, _:
                self._report_failure(flight, error)

    def _retry(self, flight: VideoInFlight, task: Task, error: PosebatchError) -> None:
        step = step_of(task)
        if self._is_given_up(flight, step, error):
            return
        pause_s = retry_pause_s(error, flight.failures_at(step), self._limits)
        self._queue.add(flight.again(task, alone=isinstance(error, WorkerDiedError)), pause_s)

    def _retry_preview(self, flight: VideoInFlight, task: Task, error: PosebatchError) -> None:
        flight.preview_failures += 1
        if flight.preview_failures >= self._context.settings.selection.max_attempts:
            self._preview_ended(flight, PreviewOutcome(error=str(error)))
        else:
            self._queue.add(task, self._limits.retry_seconds)

    def _probe_again(self, flight: VideoInFlight, error: PosebatchError) -> None:
        if self._is_given_up(flight, PROBE_AGAIN_STEP, error):
            return
        self._queue.drop_segments(flight.video.uri)
        flight.forget_plan()
        self._flights.count_as_one(flight)
        self._queue.add(ProbeTask(flight.video, relist=True), self._limits.retry_seconds)

    def _is_given_up(self, flight: VideoInFlight, step: Step, error: PosebatchError) -> bool:
        """Count a failed attempt; if it was the last one, record the video as failed."""
        flight.count_failure(step, error)
        failed, max_attempts = flight.failed_attempts, self._context.settings.selection.max_attempts
        self._progress.warn(f"try {failed.attempts} of {max_attempts} failed: {error}")
        if is_out_of_attempts(failed, max_attempts, self._limits):
            give_up = self._report_failure if flight.tables_stay else self._record_failure
            give_up(flight, error)
            return True
        if not flight.tables_stay:
            self._queue.add(RecordAttemptTask(flight.video, failed, error.kind, str(error)))
        return False

    def _record_failure(self, flight: VideoInFlight, error: PosebatchError) -> None:
        self._queue.drop_segments(flight.video.uri)
        flight.unstaged, flight.is_failing = set(), True
        self._queue.add(RecordFailureTask(flight.video, flight.failure_record(error, self._context)))

    def _report_failure(self, flight: VideoInFlight, error: PosebatchError) -> None:
        self._queue.drop_segments(flight.video.uri)
        self._flights.end(flight)
        self._accounts.count_failed(flight, str(error))
