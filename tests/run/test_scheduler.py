"""The scheduler on a fake pool, which runs tasks in this process, in a fixed order, and fails as scripted.

The CPU tasks are the real ones, on tiny videos and a local store. Only the networks are left out.
"""

import io
import itertools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_pool import (
    ALWAYS,
    FAST,
    FAST_CLIPS,
    Archive,
    FakePool,
    PlannedPool,
    Task,
    Times,
    facts,
    no_fault,
    process,
)
from support.tiny_video import write_tiny_video

from posebatch.core.errors import (
    AccessDeniedError,
    DamagedVideoError,
    EvictedError,
    IndexDisagreesError,
    InternalError,
    LimitError,
    ObjectChangedError,
    OutputError,
    PosebatchError,
    PreviewError,
    PutRefusedError,
    RunAbortedError,
    StorageUnavailableError,
    WorkerCrashError,
    WorkerDiedError,
)
from posebatch.core.records import VideoRecord
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import CommittedRecord, read_record
from posebatch.dataset.staging import FailedAttempts, StagingArea
from posebatch.dataset.tables.readers import read_poses
from posebatch.dataset.verify import verify
from posebatch.run.context import RunContext
from posebatch.run.outcome import VideoProblem
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.planner import PLANNED_AHEAD
from posebatch.run.pool import Completion
from posebatch.run.progress import Progress
from posebatch.run.scheduler import Scheduler
from posebatch.run.stop_request import StopRequest
from posebatch.run.tally import Tally
from posebatch.run.tasks import (
    ClipTask,
    FinalizeTask,
    PreviewTask,
    ProbeResult,
    ProbeTask,
    PublishPreviewTask,
    RecordAttemptTask,
    RecordFailureTask,
    SegmentResult,
    SegmentTask,
)
from posebatch.run.workers.video_tasks import perform


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


# --- success -------------------------------------------------------------------------------------------------


def cutting(context: RunContext, frames_cut: int) -> Callable[[Task], object]:
    """Workers that find too many persons in so many frames of each segment."""

    def perform_task(task: Task) -> object:
        if isinstance(task, SegmentTask):
            return replace(process(task, context), frames_cut=frames_cut)
        return perform(task, context)

    return perform_task


@pytest.mark.parametrize("cut", [0, 3])
@pytest.mark.parametrize("recut", [False, True])
def test_scheduler_reports_frames_with_too_many_persons_once(archive: Archive, cut: int, recut: bool):
    """Also when the video is decoded again, as one segment."""
    archive.add("a.mp4")
    fault = Times(IndexDisagreesError, SegmentTask, "a", 1, segment=1) if recut else no_fault
    outcome = archive.run(fault, perform_task=cutting(archive.context(max_persons=7), cut), max_persons=7)
    segments = 1 if recut else len(archive.submitted(SegmentTask))
    assert facts(outcome) == (1, 0, 0, 0)
    said = archive.said.getvalue()
    assert (f"{cut * segments} frames hold more than 7 persons" in said) is (cut > 0)
    assert said.count("more than 7 persons") == (cut > 0)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_scheduler_publishes_every_video_once(archive: Archive, count: int):
    archive.add(*(f"{i}.mp4" for i in range(count)))
    outcome = archive.run(videos=archive.videos() if count else [])
    assert facts(outcome) == (count, 0, 0, 0)
    assert (outcome.exit_code, outcome.problems) == (0, ())
    assert len(archive.pools) == (1 if count else 0), "no work, no workers"
    assert (outcome.tally.frames, outcome.tally.persons) == (6 * count, 6 * count)
    assert outcome.tally.bytes_done == pytest.approx(
        sum(video.size_bytes for video in archive.videos()) if count else 0
    )
    assert sorted(record.video for record in archive.records) == sorted(
        video.uri for video in (archive.videos() if count else [])
    )
    assert archive.left_behind() == []
    if count:
        verdict = verify(archive.store)
        assert (verdict.problems, verdict.videos, verdict.frames) == ((), count, 6 * count)
        assert {record.attempts for record in archive.records} == {1}
        assert len(archive.submitted(SegmentTask)) == 2 * count, "each in its two segments, each once"


def test_scheduler_starts_no_workers_without_work(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.run()
    outcome = archive.run()
    assert facts(outcome) == (0, 2, 0, 0)
    assert outcome.exit_code == 0
    assert len(archive.pools) == 1
    archive.add("c.mp4")
    assert facts(archive.run()) == (1, 2, 0, 0)
    assert {task.video.output_path for task in archive.pools[-1].submitted} == {"c.mp4"}


def test_scheduler_recomputes_a_changed_source(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.run()
    archive.add("a.mp4", frames=9, shade=50)
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert archive.record("a.mp4").frames_processed == 9
    assert verify(archive.store).problems == ()


def test_scheduler_overwrites_when_asked(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    before = archive.store.read("poses/a.mp4.parquet")
    assert facts(archive.run(on_existing="overwrite", segment_seconds=100)) == (1, 0, 0, 0)
    assert len(archive.submitted(SegmentTask)) == 1
    assert archive.store.read("poses/a.mp4.parquet") == before, "another cut, the same bytes"


@pytest.mark.parametrize(("limit", "published"), [(1, 1), (2, 2), (5, 3)])
def test_scheduler_works_on_limit_videos(archive: Archive, limit: int, published: int):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    assert facts(archive.run(limit=limit))[0] == published
    assert facts(archive.run(limit=limit))[0] == min(limit, 3 - published), "done videos do not count"


def test_scheduler_does_not_count_skipped_videos_towards_the_limit(archive: Archive):
    archive.add("a.mp4", "c.mp4")
    archive.run()
    archive.add("b.mp4", "d.mp4")
    assert facts(archive.run(limit=1)) == (1, 2, 0, 0), "a and c are skipped, b is done, d is left"
    assert {task.video.output_path for task in archive.pools[-1].submitted} == {"b.mp4"}


# --- transient faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (WorkerDiedError, ProbeTask),
        (WorkerDiedError, SegmentTask),
        (WorkerDiedError, FinalizeTask),
        (AccessDeniedError, SegmentTask),
        (AccessDeniedError, FinalizeTask),
    ],
)
@pytest.mark.parametrize("times", [1, 2])
def test_scheduler_retries_transient_errors(archive: Archive, error, kind, times):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(error, kind, "a", times, segment=1))
    assert facts(outcome) == (2, 0, 0, 0)
    assert (archive.record("a.mp4").attempts, archive.record("b.mp4").attempts) == (times + 1, 1)
    assert f"try {times} of 3 failed: {archive.video('a.mp4').uri}: scripted" in archive.said.getvalue()
    assert verify(archive.store).problems == ()
    assert archive.tries("b.mp4") == {0: 1, 1: 1}
    if kind is SegmentTask:
        assert archive.tries("a.mp4") == {0: 1, 1: times + 1}, "only the interrupted segment is processed again"


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
def test_scheduler_quarantines_a_video_after_its_last_attempt(archive: Archive, max_attempts, kind):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    fault = Times(WorkerDiedError, kind, "b", ALWAYS, segment=1)
    outcome = archive.run(fault, max_attempts=max_attempts)
    uri = archive.video("b.mp4").uri
    assert facts(outcome) == (2, 0, 1, 0)
    assert outcome.exit_code == 3
    assert outcome.problems == (VideoProblem(uri, "failed", f"{uri}: scripted"),)
    assert fault.happened == max_attempts
    record = archive.record("b.mp4")
    assert (record.status, record.error_kind, record.attempts) == ("failed", "worker_died", max_attempts)
    assert record.objects == ()
    assert (record.detector, record.pose) == ("d@1", "p@1")
    assert (record.info is None) is (kind is ProbeTask)
    assert verify(archive.store).problems == ()

    second = archive.run(fault, max_attempts=max_attempts)
    assert (facts(second), second.exit_code) == ((0, 2, 0, 1), 0), "a failure of an earlier run turns no night red"
    assert archive.run(fault, max_attempts=max_attempts, fail_on="any").exit_code == 3
    assert len(archive.pools) == 1, "a quarantined video needs no workers"
    (problem,) = second.problems
    assert (problem.video, problem.status) == (uri, "failed before")
    assert problem.reason.startswith("worker_died")

    third = archive.run(retry_failed=True, max_attempts=max_attempts)
    assert (facts(third), third.exit_code) == ((1, 2, 0, 0), 0)
    assert archive.record("b.mp4").status == "ok"
    assert verify(archive.store).problems == ()


def test_scheduler_grants_all_attempts_again_to_a_retried_video(archive: Archive):
    archive.add("a.mp4")
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=0)
    archive.run(fault)
    archive.run(fault, retry_failed=True)
    assert archive.tries("a.mp4")[0] == 3
    assert archive.record("a.mp4").attempts == 3


def test_scheduler_counts_attempts_over_runs(archive: Archive):
    """Three runs, each stopped after the segment has killed its worker once; in the third, the video fails."""
    archive.add("a.mp4", "b.mp4")
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=1)

    def stop_after_the_attempt(stop: StopRequest, completion: Completion) -> None:
        if isinstance(completion.task, RecordAttemptTask):
            stop.request("SIGTERM")

    archive.after = stop_after_the_attempt
    for night in (1, 2):
        with pytest.raises(RunAbortedError):
            archive.run(fault)
        assert fault.happened == night
        assert read_record(archive.store, "a.mp4") is None
    outcome = archive.run(fault)
    assert facts(outcome)[2] == 1
    assert fault.happened == 3
    assert archive.record("a.mp4").attempts == 3
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize(("retry_failed", "published"), [(False, 0), (True, 1)])
def test_retry_failed_forgets_the_attempts_of_earlier_runs(archive: Archive, retry_failed: bool, published: int):
    archive.add("a.mp4")
    StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint).note_attempt(
        FailedAttempts(2), "x", "x"
    )
    outcome = archive.run(Times(WorkerDiedError, SegmentTask, "a", 2, segment=0), retry_failed=retry_failed)
    assert facts(outcome) == (published, 0, 1 - published, 0)


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("crashing", [0, 2])
@pytest.mark.parametrize("workers", [1, 2])
def test_scheduler_counts_no_attempt_for_the_neighbour_of_a_crashing_segment(
    archive: Archive, max_attempts: int, crashing: int, workers: int
):
    archive.add("a.mp4", "b.mp4", frames=9)
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=crashing)
    outcome = archive.run(fault, workers=workers, max_attempts=max_attempts)
    assert facts(outcome) == (1, 0, 1, 0)
    record = archive.record("a.mp4")
    assert (record.error_kind, record.attempts) == ("worker_died", max_attempts)
    assert archive.record("b.mp4").attempts == 1
    assert max_attempts <= fault.happened <= max_attempts + 1, "once beside another segment, then alone"
    if fault.happened > max_attempts:
        assert "each is tried again alone" in archive.said.getvalue()
    assert verify(archive.store).problems == ()


def test_scheduler_runs_a_suspected_segment_alone(archive: Archive):
    archive.add("a.mp4", frames=30)
    companions = []

    def fault(task: Task) -> PosebatchError | None:
        if isinstance(task, SegmentTask) and task.alone:
            companions.append(len(archive.pools[-1].companions(task)))
        return die_once(task)

    die_once = Times(WorkerDiedError, SegmentTask, "a", 1, segment=1)
    assert facts(archive.run(fault, workers=1)) == (1, 0, 0, 0)
    assert companions == [0, 0]
    assert archive.record("a.mp4").attempts == 1, "the death may have been caused by either"
    assert archive.tries("a.mp4") == {i: 2 if i in (1, 2) else 1 for i in range(10)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_scheduler_fails_exactly_the_videos_that_kill_workers(archive: Archive, data: st.DataObject):
    """Some segments kill their worker, in the networks or while they are decoded ahead; the others are harmless."""
    segments_of = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    every = [(video, segment) for video, count in enumerate(segments_of) for segment in range(count)]
    deadly = data.draw(st.sets(st.sampled_from(every)))
    workers, max_attempts = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    # Drawn before the run, because the number of draws during the run would depend on threads.
    kills_early = data.draw(st.lists(st.booleans(), min_size=1, max_size=16))
    deaths: list[Task] = []

    def is_deadly(task: SegmentTask) -> bool:
        return (int(task.video.output_path), task.segment.index) in deadly

    def fault(task: Task) -> PosebatchError | None:
        if not isinstance(task, SegmentTask):
            return None
        companions = archive.pools[-1].companions(task)
        kills = is_deadly(task) or (any(map(is_deadly, companions)) and kills_early[len(deaths) % len(kills_early)])
        if not kills:
            return None
        deaths.append(task)
        return WorkerDiedError("killed")

    def perform_task(task: Task) -> object:
        if isinstance(task, ProbeTask):
            cut = (Segment(i, i, 1) for i in range(segments_of[int(task.video.output_path)]))
            return ProbeResult(task.video, VideoPlan(INFO, tuple(cut)), frozenset())
        if isinstance(task, SegmentTask):
            return SegmentResult(1, 0, 0.1)
        if isinstance(task, RecordAttemptTask):
            return None
        done = VideoRecord(task.video.uri, "e", 1, 1.0, "ok", "f", "r", "0")
        return CommittedRecord(
            task.video.output_path, "e", task.record if isinstance(task, RecordFailureTask) else done
        )

    videos = [SourceVideo(f"/in/{i}", str(i), "e", 1, 1.0) for i in range(len(segments_of))]
    archive.run(fault, videos=videos, perform_task=perform_task, workers=workers, max_attempts=max_attempts)
    failed = {int(Path(record.video).name) for record in archive.records if record.status == "failed"}
    assert failed == {video for video, _ in deadly}
    assert len(archive.records) == len(videos)
    assert len(deaths) <= len(deadly) * (max_attempts + 1)
    assert {record.attempts for record in archive.records if record.status == "failed"} <= {max_attempts}


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
@pytest.mark.parametrize("max_attempts", [1, 9])
def test_scheduler_gives_up_a_video_after_two_crashes(archive: Archive, kind: type, max_attempts: int):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    fault = Times(WorkerCrashError, kind, "b", ALWAYS, segment=1)
    outcome = archive.run(fault, max_attempts=max_attempts)
    assert facts(outcome) == (2, 0, 1, 0), "the others are published"
    record = archive.record("b.mp4")
    kills = min(FAST.max_crashes, max_attempts)
    assert (fault.happened, record.attempts, record.error_kind) == (kills, kills, "poison")
    assert all(archive.record(name).attempts == 1 for name in ("a.mp4", "c.mp4"))
    assert facts(archive.run(fault)) == (0, 2, 0, 1), "and it stays quarantined"
    fault.left = 0
    assert facts(archive.run(fault, retry_failed=True)) == (1, 2, 0, 0)
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize(("error", "most"), [(WorkerCrashError, 2), (WorkerDiedError, 6)])
def test_scheduler_bounds_the_deaths_caused_by_a_wholly_corrupt_video(archive: Archive, error: type, most: int):
    archive.add("a.mp4", frames=60)
    fault = Times(error, SegmentTask, "a", ALWAYS)
    assert facts(archive.run(fault, workers=1, max_attempts=3)) == (0, 0, 1, 0)
    assert fault.happened <= most < 20


def test_scheduler_runs_a_segment_alone_after_its_first_crash(archive: Archive):
    archive.add("a.mp4", frames=30)
    alone = []

    def fault(task: Task) -> PosebatchError | None:
        if isinstance(task, SegmentTask) and task.segment.index == 1:
            alone.append(task.alone)
        return kill_once(task)

    kill_once = Times(WorkerCrashError, SegmentTask, "a", 1, segment=1)
    assert facts(archive.run(fault, workers=1)) == (1, 0, 0, 0)
    assert alone == [False, True]
    assert archive.tries("a.mp4") == {i: 2 if i in (1, 2) else 1 for i in range(10)}, "its neighbour shared the worker"
    assert "and not counted: scripted: ended by another segment" in archive.said.getvalue()


def test_scheduler_counts_crashes_over_runs(archive: Archive):
    """Each run stops after one failure. The count of crashes stays, also when other attempts fail otherwise."""
    archive.add("a.mp4")

    def stop_run(stop: StopRequest, completion: Completion) -> None:
        if isinstance(completion.task, RecordAttemptTask):
            stop.request("the test")

    archive.after = stop_run
    for error in (WorkerCrashError, AccessDeniedError):
        with pytest.raises(RunAbortedError):
            archive.run(Times(error, SegmentTask, "a", segment=1), max_attempts=9)
    staging = StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint)
    assert staging.failed_attempts() == FailedAttempts(attempts=2, kills=1)
    outcome = archive.run(Times(WorkerCrashError, SegmentTask, "a", segment=1), max_attempts=9)
    assert (facts(outcome), archive.record("a.mp4").attempts) == ((0, 0, 1, 0), 3)


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
@pytest.mark.parametrize(
    ("error", "most"),
    [
        (EvictedError, FAST.max_evictions),
        (StorageUnavailableError, FAST.max_storage_retries),
        (PutRefusedError, FAST.max_storage_retries),
    ],
)
def test_scheduler_does_not_count_what_is_not_the_video_s_doing(archive: Archive, kind: type, error, most: int):
    archive.add("a.mp4", "b.mp4")
    fault = Times(error, kind, "a", most, segment=1)
    assert facts(archive.run(fault)) == (2, 0, 0, 0)
    assert (fault.happened, archive.record("a.mp4").attempts) == (most, 1)
    assert not any(archive.store.list("_state/attempts/"))


def test_scheduler_gives_up_a_video_whose_source_never_answers(archive: Archive):
    """Other videos go on beside it, so the store is not down."""
    archive.add("a.mp4", *(f"b{number}.mp4" for number in range(9)))
    fault = Times(StorageUnavailableError, SegmentTask, "a.mp4", ALWAYS, segment=1)
    assert facts(archive.run(fault)) == (9, 0, 1, 0)
    assert fault.happened == FAST.max_storage_retries + 3
    assert archive.record("a.mp4").attempts == 3


def test_scheduler_gives_up_a_task_that_is_always_evicted(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    fault = Times(EvictedError, SegmentTask, "a", ALWAYS, segment=1)
    assert facts(archive.run(fault)) == (1, 0, 1, 0)
    assert fault.happened == FAST.max_evictions + 3
    assert archive.record("a.mp4").error_kind == "taken_away"


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that moves on by so many seconds whenever it is read."""
    return map(seconds.__mul__, itertools.count()).__next__


def test_scheduler_aborts_a_run_in_which_no_task_ends(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.clock = ticking(0.01)
    with pytest.raises(RunAbortedError, match=r"nothing has moved for 0.1 minutes .*under way: .*a\.mp4"):
        archive.run(held=lambda task: isinstance(task, SegmentTask), max_idle_minutes=0.1)
    archive.clock = time.monotonic
    assert facts(archive.run()) == (2, 0, 0, 0)


def test_scheduler_aborts_a_run_whose_listing_stalls(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    listing, never = archive.videos(), threading.Event()

    def stalled() -> Iterator[SourceVideo]:
        never.wait(2)  # the planner ends only then
        yield from listing

    archive.clock = ticking(10)
    with pytest.raises(RunAbortedError, match=r"nothing has moved for 0.1 minutes .*the listing of the inputs"):
        archive.run(videos=stalled(), max_idle_minutes=0.1)
    archive.clock = time.monotonic
    assert facts(archive.run()) == (2, 0, 0, 0)


def test_scheduler_waits_for_a_long_segment_that_makes_progress(archive: Archive):
    archive.add("a.mp4")
    activity = itertools.count()
    archive.clock = ticking(0.1)

    def held(task: Task) -> bool:
        """For 30 seconds of the clock, five times the limit."""
        return isinstance(task, SegmentTask) and archive.clock() < 30

    assert facts(archive.run(held=held, alive=lambda: next(activity), max_idle_minutes=0.1)) == (1, 0, 0, 0)


def test_scheduler_pauses_before_retries_but_not_after_a_death(archive: Archive):
    clock = SimpleNamespace(now=0.0)
    archive.limits, archive.clock = replace(FAST, retry_seconds=2.0), lambda: clock.now
    archive.add("a.mp4")
    begun: list[float] = []

    def fault(task: Task) -> PosebatchError | None:
        if not isinstance(task, SegmentTask):
            return None
        begun.append(clock.now)
        errors = [StorageUnavailableError("slow down"), StorageUnavailableError("slow down"), WorkerDiedError("killed")]
        return errors[len(begun) - 1] if len(begun) <= len(errors) else None

    class Idling(FakePool):
        def wait(self, timeout_s: float) -> list[Completion]:
            clock.now += 0.25  # seconds
            return super().wait(timeout_s)

    archive.pool_class = Idling
    archive.run(fault, segment_seconds=100, max_attempts=9)
    pauses = np.diff(begun)
    assert 2 <= pauses[0] < 4, "the first pause"
    assert 4 <= pauses[1] < 6, "twice as long"
    assert pauses[2] < 2, "a dead worker says nothing of the store"


# --- faults of one video -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DamagedVideoError, ProbeTask),
        (DamagedVideoError, SegmentTask),
        (DamagedVideoError, FinalizeTask),
        (InternalError, SegmentTask),
    ],
)
def test_scheduler_fails_a_video_at_once_on_a_permanent_error(archive: Archive, error, kind):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    fault = Times(error, kind, "b", ALWAYS)
    outcome = archive.run(fault)
    assert facts(outcome) == (2, 0, 1, 0)
    record = archive.record("b.mp4")
    assert (record.status, record.error_kind, record.attempts) == ("failed", error.kind, 1)
    assert fault.happened <= 2, "at most once for each of its segments"
    assert len(archive.submitted(RecordFailureTask)) == 1
    assert verify(archive.store).problems == ()
    assert archive.record("a.mp4").status == archive.record("c.mp4").status == "ok"


def test_scheduler_fails_files_that_are_no_videos(archive: Archive):
    archive.add("a.mp4", "z.mp4")
    for name, content in (("empty.mp4", b""), ("text.mp4", b"hello" * 100)):
        (archive.root / name).write_bytes(content)
    outcome = archive.run()
    assert facts(outcome) == (2, 0, 2, 0)
    assert {archive.record(name).error_kind for name in ("empty.mp4", "text.mp4")} == {"not_a_video"}
    assert sorted(problem.reason for problem in outcome.problems)[0].endswith("the file is empty (0 bytes)")
    assert verify(archive.store).problems == ()


def test_scheduler_removes_the_tables_of_an_older_version_of_a_failed_video(archive: Archive):
    archive.add("a.mp4")
    archive.run(preview="gif")
    (archive.root / "a.mp4").write_bytes(b"overwritten")
    assert facts(archive.run(preview="gif")) == (0, 0, 1, 0)
    assert [found.key for folder in ("poses/", "frames/", "previews/") for found in archive.store.list(folder)] == []
    assert verify(archive.store).problems == ()


def test_scheduler_recomputes_a_failed_video_whose_source_changed(archive: Archive):
    archive.add("a.mp4")
    (archive.root / "b.mp4").write_bytes(b"cut off")
    assert facts(archive.run()) == (1, 0, 1, 0)
    archive.add("b.mp4")
    assert facts(archive.run()) == (1, 1, 0, 0), "a source that changed is no longer quarantined"


@pytest.mark.parametrize("segment", [0, 1])
def test_scheduler_decodes_a_video_with_a_wrong_index_as_one_segment(archive: Archive, segment: int):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(IndexDisagreesError, SegmentTask, "a", 1, segment))
    assert facts(outcome) == (2, 0, 0, 0)
    tasks = [task.segment for task in archive.submitted(SegmentTask) if task.video.output_path == "a.mp4"]
    assert tasks.count(Segment()) == 1
    (finalized,) = (task for task in archive.submitted(FinalizeTask) if task.video.output_path == "a.mp4")
    assert finalized.plan.segments == (Segment(),)
    assert archive.record("a.mp4").frames_processed == 6
    assert archive.record("a.mp4").attempts == 1
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []


def test_scheduler_recuts_once_when_two_segments_report_a_wrong_index(archive: Archive):
    archive.add("a.mp4")
    cut_only = Times(IndexDisagreesError, SegmentTask, "a", 2)
    assert facts(archive.run(lambda task: None if segment_of(task) == Segment() else cut_only(task))) == (1, 0, 0, 0)
    assert [task.segment for task in archive.submitted(SegmentTask)].count(Segment()) == 1
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize("error", [DamagedVideoError, InternalError, WorkerDiedError])
def test_scheduler_ignores_errors_of_a_cut_that_was_given_up(archive: Archive, error):
    archive.add("a.mp4")
    wrong = Times(IndexDisagreesError, SegmentTask, "a", 1, segment=0)
    late = Times(error, SegmentTask, "a", 1, segment=1)
    outcome = archive.run(lambda task: wrong(task) or late(task))
    assert (wrong.happened, late.happened) == (1, 1)
    assert facts(outcome) == (1, 0, 0, 0), "the outcome of the whole video counts"
    assert archive.record("a.mp4").attempts == 1
    assert verify(archive.store).problems == ()


def segment_of(task: Task) -> Segment | None:
    return task.segment if isinstance(task, SegmentTask) else None


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, PreviewTask])
def test_scheduler_relists_a_source_that_changes_meanwhile(archive: Archive, kind):
    archive.add("a.mp4", "b.mp4")
    changed = []

    def fault(task: Task) -> None:
        if isinstance(task, kind) and task.video.output_path == "a.mp4" and not changed:
            archive.add("a.mp4", frames=9, shade=40)
            changed.append(archive.video("a.mp4"))

    outcome = archive.run(fault, preview="gif")
    assert facts(outcome) == (2, 0, 0, 0)
    record = archive.record("a.mp4")
    assert (record.etag, record.size_bytes) == (changed[0].etag, changed[0].size_bytes)
    assert (record.frames_processed, record.attempts) == (9, 2)
    assert verify(archive.store).problems == ()
    assert facts(archive.run(preview="gif")) == (0, 2, 0, 0)


def test_scheduler_fails_a_source_that_keeps_changing(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(ObjectChangedError, SegmentTask, "a", ALWAYS, segment=0))
    assert facts(outcome) == (1, 0, 1, 0)
    assert archive.record("a.mp4").error_kind == "source_changed"


def test_scheduler_ignores_late_errors_of_an_old_source(archive: Archive):
    """Local files are checked at the end of a segment, so several segments report one change, at different times."""
    archive.add("a.mp4", frames=12)
    old = archive.video("a.mp4")
    state = {"probes": 0}

    def held(task: Task) -> bool:
        late = isinstance(task, SegmentTask) and task.video == old and task.segment.index > 0
        return late and state["probes"] < 2

    def fault(task: Task) -> PosebatchError | None:
        state["probes"] += isinstance(task, ProbeTask)
        if isinstance(task, SegmentTask) and task.video == old:
            if task.segment.index == 0:
                archive.add("a.mp4", frames=12, shade=40)
            return ObjectChangedError("changed while it was being processed")
        return None

    outcome = archive.run(fault, held, workers=4)
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").attempts == 2
    assert verify(archive.store).problems == ()


def test_scheduler_ignores_late_results_of_an_old_source(archive: Archive):
    archive.add("a.mp4")
    old = archive.video("a.mp4")
    state = {"probes": 0}

    def held(task: Task) -> bool:
        return isinstance(task, SegmentTask) and task.video == old and task.segment.index == 1 and state["probes"] < 2

    def fault(task: Task) -> PosebatchError | None:
        state["probes"] += isinstance(task, ProbeTask)
        if isinstance(task, SegmentTask) and task.video == old and task.segment.index == 0:
            archive.add("a.mp4", shade=40)
            return ObjectChangedError("changed while it was being processed")
        return None

    context = archive.context()

    def perform_task(task: Task) -> object:
        if isinstance(task, SegmentTask) and task.video == old:
            return SegmentResult(3, 3, 0.1)  # it read everything before the change
        return process(task, context) if isinstance(task, SegmentTask) else perform(task, context)

    outcome = archive.run(fault, held, perform_task=perform_task)
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").attempts == 2
    assert outcome.tally.frames == 6
    assert verify(archive.store).problems == ()


def test_scheduler_reports_a_source_that_is_gone_without_a_record(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    listed = list(archive.videos())
    (archive.root / "a.mp4").unlink()
    outcome = archive.run(videos=listed)
    assert (facts(outcome), outcome.exit_code) == ((1, 0, 1, 0), 3)
    assert outcome.problems[0].video == listed[0].uri
    assert read_record(archive.store, "a.mp4") is None
    assert archive.run().exit_code == 0, "the next run does not know of it"


def test_scheduler_does_not_take_missing_sources_for_a_store_that_is_down(archive: Archive):
    count = 2 * FAST.max_storage_failures
    archive.add("z.mp4")
    gone = [replace(archive.video("z.mp4"), uri=f"/nowhere/{i}.mp4", output_path=f"{i}.mp4") for i in range(count)]
    outcome = archive.run(videos=[*gone, archive.video("z.mp4")])
    assert facts(outcome) == (1, 0, count, 0)


def test_scheduler_recomputes_a_staged_segment_that_is_gone(archive: Archive):
    archive.add("a.mp4")
    lost = []

    def fault(task: Task) -> None:
        if isinstance(task, FinalizeTask) and not lost:
            lost.append(archive.context().staging(task.video).segment_key(task.plan.segments[0]))
            archive.store.delete(lost[0])

    assert facts(archive.run(fault)) == (1, 0, 0, 0)
    assert archive.tries("a.mp4") == {0: 2, 1: 1}
    assert archive.record("a.mp4").attempts == 2
    assert verify(archive.store).problems == ()


def test_scheduler_reports_a_failure_that_cannot_be_recorded(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    broken = Times(DamagedVideoError, ProbeTask, "a")
    unwritable = Times(StorageUnavailableError, RecordFailureTask, "a", ALWAYS)
    outcome = archive.run(lambda task: broken(task) or unwritable(task))
    assert (facts(outcome), outcome.exit_code) == ((1, 0, 1, 0), 3)
    assert read_record(archive.store, "a.mp4") is None


def test_scheduler_records_a_failure_again_whose_process_died(archive: Archive):
    archive.add("a.mp4")
    broken = Times(DamagedVideoError, ProbeTask, "a")
    killed = Times(WorkerCrashError, RecordFailureTask, "a", 3)
    assert facts(archive.run(lambda task: broken(task) or killed(task))) == (0, 0, 1, 0)
    record = archive.record("a.mp4")
    assert (record.error_kind, record.attempts) == (DamagedVideoError.kind, 1)


# --- clips ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(archive: Archive) -> Archive:
    """An archive whose videos are taken for clips, and are ones with `WHOLE`."""
    archive.limits, archive.pool_class = FAST_CLIPS, PlannedPool
    return archive


WHOLE = {"segment_seconds": 100}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [1, 4, 23])
def test_scheduler_processes_clips_in_groups(clips: Archive, count: int, workers: int):
    clips.add(*(f"{i:02d}.mp4" for i in range(count)))
    outcome = clips.run(workers=workers, **WHOLE)
    assert facts(outcome) == (count, 0, 0, 0)
    assert (outcome.tally.frames, outcome.tally.persons) == (6 * count, 6 * count)
    assert outcome.tally.bytes_done == pytest.approx(sum(video.size_bytes for video in clips.videos()))
    assert {type(task) for task in clips.pools[-1].submitted} == {ClipTask}, "a clip takes one task"
    sizes = [len(group.clips) for group in clips.pools[-1].groups]
    assert (sum(sizes), max(sizes) <= FAST_CLIPS.clips_together) == (count, True)
    assert len(sizes) < count or count <= workers + 3, "one that is planned late begins a group of its own"
    assert len(clips.records) == count
    assert clips.left_behind() == []
    assert verify(clips.store).problems == ()
    assert facts(clips.run(workers=workers, **WHOLE)) == (0, count, 0, 0)


def test_scheduler_bounds_the_bytes_of_a_group(clips: Archive):
    clips.add(*(f"{i}.mp4" for i in range(5)))
    size = clips.video("0.mp4").size_bytes
    clips.limits = replace(FAST_CLIPS, group_bytes=2 * size + 1)
    clips.run(workers=1, **WHOLE)
    assert {len(group.clips) for group in clips.pools[-1].groups} == {1, 2}


def test_scheduler_cuts_clips_that_turn_out_long(clips: Archive):
    """Beside one that is short, and one that is no clip by its size."""
    clips.add("a.mp4", frames=12)
    clips.add("b.mp4", frames=3)
    clips.add("c.mp4", frames=60)
    clips.limits = replace(FAST_CLIPS, clip_bytes=clips.video("c.mp4").size_bytes - 1)
    outcome = clips.run(segment_seconds=0.3)
    assert facts(outcome) == (3, 0, 0, 0)
    assert outcome.tally.frames == 75
    assert {task.video.output_path for task in clips.submitted(ClipTask)} == {"a.mp4", "b.mp4"}
    assert {task.video.output_path for task in clips.submitted(SegmentTask)} == {"a.mp4", "c.mp4"}
    assert {task.video.output_path for task in clips.submitted(ProbeTask)} == {"c.mp4"}
    assert verify(clips.store).problems == ()
    assert clips.left_behind() == []


def test_scheduler_draws_previews_of_clips(clips: Archive):
    clips.add("a.mp4", "b.mp4")
    outcome = clips.run(preview="gif", **WHOLE)
    assert (facts(outcome), outcome.tally.frames) == ((2, 0, 0, 0), 12)
    assert outcome.tally.bytes_done == pytest.approx(sum(video.size_bytes for video in clips.videos()))
    assert clips.submitted(SegmentTask, ProbeTask) == []
    assert clips.record("a.mp4").objects[-1].kind == "preview"
    assert clips.left_behind() == []
    assert verify(clips.store).problems == ()


@pytest.mark.parametrize(
    ("error", "kind"), [(DamagedVideoError, "damaged"), (InternalError, "internal"), (LimitError, "limit")]
)
def test_scheduler_fails_one_clip_of_a_group(clips: Archive, error: type, kind: str):
    clips.add(*(f"{i}.mp4" for i in range(4)))
    outcome = clips.run(Times(error, ClipTask, "1", ALWAYS), **WHOLE)
    assert (facts(outcome), outcome.exit_code) == ((3, 0, 1, 0), 3)
    assert (clips.record("1.mp4").error_kind, clips.record("1.mp4").attempts) == (kind, 1)
    assert Counter(task.video.output_path for task in clips.submitted(ClipTask)).most_common(1)[0][1] == 1


def test_scheduler_probes_a_clip_again_that_has_changed(clips: Archive):
    clips.add("a.mp4", "b.mp4")
    assert facts(clips.run(Times(ObjectChangedError, ClipTask, "a"), **WHOLE)) == (2, 0, 0, 0)
    assert [task.relist for task in clips.submitted(ProbeTask)] == [True]
    assert clips.record("a.mp4").attempts == 2


@pytest.mark.parametrize("error", [WorkerDiedError, WorkerCrashError, StorageUnavailableError, EvictedError])
def test_scheduler_tries_a_clip_again(clips: Archive, error: type):
    """Whatever becomes of its group: all others are published at their first attempt."""
    clips.add(*(f"{i}.mp4" for i in range(8)))
    assert facts(clips.run(Times(error, ClipTask, "2"), **WHOLE)) == (8, 0, 0, 0)
    assert [[clip.video.output_path for clip in group.clips] for group in clips.pools[0].groups[:3]] == [
        ["0.mp4"],
        ["1.mp4", "2.mp4"],
        ["3.mp4", "4.mp4"],
    ]
    blamed = error is WorkerCrashError
    assert {record.video[-5]: record.attempts for record in clips.records} == {
        str(i): 2 if i == 2 and blamed else 1 for i in range(8)
    }
    tasks = [task for task in clips.submitted(ClipTask) if task.video.output_path == "2.mp4"]
    alone = error in (WorkerCrashError, WorkerDiedError)
    assert [(task.alone, task.again) for task in tasks] == [(False, False), (alone, True)]
    assert verify(clips.store).problems == ()
    assert clips.left_behind() == []


@pytest.mark.parametrize(
    ("error", "kind", "most"), [(WorkerDiedError, "worker_died", 4), (WorkerCrashError, "poison", 2)]
)
def test_scheduler_fails_exactly_the_clip_that_kills_its_worker(clips: Archive, error: type, kind: str, most: int):
    """A group whose worker dies is tried clip by clip; those that it had published are not computed again."""
    clips.add(*(f"{i}.mp4" for i in range(9)))
    fault = Times(error, ClipTask, "2", ALWAYS)
    outcome = clips.run(fault, workers=2, **WHOLE)
    assert facts(outcome) == (8, 0, 1, 0)
    assert fault.happened <= most
    record = clips.record("2.mp4")
    assert (record.status, record.error_kind) == ("failed", kind)
    assert {record.attempts for record in clips.records if record.status == "ok"} == {1}
    assert all(len(group.clips) == 1 for group in clips.pools[-1].groups if group.alone)
    assert outcome.tally.published == 8
    assert verify(clips.store).problems == ()
    assert facts(clips.run(fault, **WHOLE)) == (0, 8, 0, 1)


def test_scheduler_runs_a_clip_alone_that_crashed_in_an_earlier_run(clips: Archive):
    clips.add(*(f"{i}.mp4" for i in range(4)))
    staging = StagingArea.of(clips.store, clips.video("2.mp4"), clips.context(**WHOLE).data_fingerprint)
    staging.note_attempt(FailedAttempts(1, kills=1), "poison", "x")
    assert facts(clips.run(**WHOLE)) == (4, 0, 0, 0)
    assert [task.video.output_path for task in clips.submitted(ClipTask) if task.alone] == ["2.mp4"]
    assert clips.record("2.mp4").attempts == 2


def test_scheduler_takes_a_failed_group_for_one_storage_error(clips: Archive):
    """A hiccup of the store meets all clips of a group at once. It must not end the run."""
    clips.add(*(f"{i:02d}.mp4" for i in range(2 * FAST.max_storage_failures)))
    seen = Counter[str]()

    def fault(task: Task) -> PosebatchError | None:
        seen[task.video.uri] += isinstance(task, ClipTask)
        return StorageUnavailableError("slow down") if seen[task.video.uri] == 1 else None

    assert facts(clips.run(fault, **WHOLE)) == (2 * FAST.max_storage_failures, 0, 0, 0)
    with pytest.raises(RunAbortedError, match="storage errors in a row"):
        clips.run(
            Times(StorageUnavailableError, ClipTask, "", ALWAYS), max_attempts=99, on_existing="overwrite", **WHOLE
        )


# --- previews ------------------------------------------------------------------------------------------------------


def test_scheduler_publishes_previews(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    assert facts(archive.run(preview="gif")) == (2, 0, 0, 0)
    assert archive.store.read("previews/a.mp4.gif").startswith(b"GIF89a")
    assert archive.record("a.mp4").objects[-1].kind == "preview"
    assert archive.record("a.mp4").objects[-1].rows == 6
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []
    assert facts(archive.run(preview="gif")) == (0, 2, 0, 0)


def test_scheduler_makes_a_missing_preview_without_segments(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    before = archive.record("a.mp4")
    outcome = archive.run(preview="gif")
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.submitted(SegmentTask, ProbeTask, FinalizeTask) == []
    assert [type(task) for task in archive.pools[-1].submitted] == [PreviewTask, PublishPreviewTask]
    assert archive.record("a.mp4").objects[:4] == before.objects
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (PreviewError, 1),
        (WorkerDiedError, 3),
        (StorageUnavailableError, FAST.max_storage_retries + 3),
    ],
)
@pytest.mark.parametrize("tables_first", [False, True])
def test_scheduler_publishes_the_tables_when_the_preview_fails(archive: Archive, error, tries, tables_first):
    archive.add("a.mp4", "b.mp4")
    if tables_first:
        archive.run()
    fault = Times(error, PreviewTask, "a", ALWAYS)
    outcome = archive.run(fault, preview="gif")
    assert (facts(outcome), outcome.exit_code) == ((2, 0, 0, 0), 0)
    assert fault.happened == tries
    record = archive.record("a.mp4")
    assert (record.status, record.error_kind, record.frames_processed) == ("ok", "preview", 6)
    assert "scripted" in str(record.error)
    assert "preview of" in archive.said.getvalue()
    assert archive.record("b.mp4").objects[-1].kind == "preview"
    assert verify(archive.store).problems == ()
    assert facts(archive.run(fault, preview="gif")) == (0, 2, 0, 0), "the same frames would fail again"
    assert facts(archive.run(preview="gif", retry_failed=True)) == (1, 1, 0, 0)
    assert archive.record("a.mp4").error_kind is None


def test_scheduler_counts_attempts_at_previews_apart(archive: Archive):
    """Two attempts failed in earlier runs: the first failure of the preview must not be the last one of the video."""
    archive.add("a.mp4")
    StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint).note_attempt(
        FailedAttempts(2), "x", "x"
    )
    outcome = archive.run(Times(WorkerDiedError, PreviewTask, "a", ALWAYS), preview="gif")
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").status == "ok"
    assert verify(archive.store).problems == ()


def test_scheduler_retries_a_preview(archive: Archive):
    archive.add("a.mp4")
    archive.run(Times(WorkerDiedError, PreviewTask, "a", 1), preview="gif")
    assert archive.record("a.mp4").objects[-1].kind == "preview"
    assert verify(archive.store).problems == ()


# --- the end of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageUnavailableError, AccessDeniedError])
def test_scheduler_aborts_when_the_store_is_down(archive: Archive, error):
    archive.add(*(f"{i}.mp4" for i in range(9)))
    fault = Times(error, object, "", ALWAYS)
    with pytest.raises(RunAbortedError) as caught:
        archive.run(fault, max_attempts=99)
    assert f"{FAST.max_storage_failures} storage errors in a row, the last one: " in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert list(archive.store.list("videos/")) == [], "no video is recorded as failed"
    assert facts(archive.run()) == (9, 0, 0, 0)


def test_scheduler_bears_storage_errors_with_successes_between(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(20)))
    seen: Counter = Counter()

    def fault(task: Task) -> PosebatchError | None:
        seen[task.video.uri] += isinstance(task, ProbeTask)
        return (
            StorageUnavailableError("slow down") if isinstance(task, ProbeTask) and seen[task.video.uri] == 1 else None
        )

    assert facts(archive.run(fault)) == (20, 0, 0, 0)


def test_scheduler_keeps_finished_videos_when_stopped(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(4)))

    def after(stop: StopRequest, completion: Completion) -> None:
        if isinstance(completion.task, FinalizeTask):
            stop.request("SIGTERM")

    archive.after = after
    with pytest.raises(RunAbortedError, match="stopped by SIGTERM; the same command goes on from here"):
        archive.run()
    assert archive.tally.published == 1
    archive.after = lambda *_: None
    assert facts(archive.run()) == (3, 1, 0, 0)
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []


def test_scheduler_stops_while_it_skips_videos(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    (video,) = archive.videos()
    stop, progress = StopRequest(), Progress(Tally(), io.StringIO())
    scheduler = Scheduler(archive.context(), CommitIndex.load(archive.store, 0), progress, stop)

    def endless() -> Iterator[SourceVideo]:
        for i in range(10**9):
            if i == 3 * PLANNED_AHEAD:
                stop.request("SIGINT")
            yield video

    with pytest.raises(RunAbortedError, match="stopped by SIGINT"):
        scheduler.run(endless(), lambda: pytest.fail("no pool"))
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_scheduler_resumes_with_the_staged_segments(archive: Archive):
    archive.add("a.mp4", frames=12)
    staged = []

    def after(stop: StopRequest, completion: Completion) -> None:
        if isinstance(completion.result, SegmentResult):
            staged.append(completion.task.segment.index)
            if len(staged) == 2:
                stop.request("SIGTERM")

    archive.after = after
    with pytest.raises(RunAbortedError):
        archive.run()
    archive.after = lambda *_: None
    outcome = archive.run()
    assert facts(outcome) == (1, 0, 0, 0)
    assert sorted([*staged, *archive.tries("a.mp4")]) == [0, 1, 2, 3], "each segment once over both runs"
    assert outcome.tally.frames == 6
    assert outcome.tally.bytes_passed + outcome.tally.bytes_done == pytest.approx(archive.video("a.mp4").size_bytes)
    assert read_poses(archive.store.root)["frame_index"].tolist() == list(range(12))
    assert verify(archive.store).problems == ()


def test_scheduler_does_not_use_staged_segments_of_another_cut(archive: Archive):
    archive.add("a.mp4", frames=12)

    def after(stop: StopRequest, completion: Completion) -> None:
        if isinstance(completion.result, SegmentResult):
            stop.request("SIGTERM")

    archive.after = after
    with pytest.raises(RunAbortedError):
        archive.run()
    archive.after = lambda *_: None
    assert facts(archive.run(segment_seconds=0.5)) == (1, 0, 0, 0)
    assert read_poses(archive.store.root)["frame_index"].tolist() == list(range(12))
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []


# --- bounds --------------------------------------------------------------------------------------------------------

INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_scheduler_holds_a_bounded_number_of_videos(archive: Archive, workers: int):
    """All is faked but the scheduler: a thousand videos pass, and a few are in flight at any time."""
    listed, settled, most = Counter(), [], Counter()

    def videos() -> Iterator[SourceVideo]:
        for i in range(1000):
            listed["videos"] += 1
            yield SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0)

    def perform_task(task: Task) -> object:
        begun = {submitted.video.uri for submitted in archive.pools[-1].submitted}
        most["flights"] = max(most["flights"], len(begun) - len(settled))
        most["listed"] = max(most["listed"], listed["videos"] - len(settled))
        if isinstance(task, ProbeTask):
            return ProbeResult(task.video, VideoPlan(INFO, (Segment(),)), frozenset())
        if isinstance(task, SegmentTask):
            return SegmentResult(1, 0, 0.1)
        settled.append(task.video.uri)
        record = VideoRecord(task.video.uri, "e", 1, 1.0, "ok", "f", "r", "0")
        return CommittedRecord(task.video.output_path, "e", record)

    outcome = archive.run(videos=videos(), perform_task=perform_task, workers=workers)
    assert facts(outcome) == (1000, 0, 0, 0)
    assert len(settled) == len(set(settled)) == 1000
    bound = FAST.videos_per_worker * workers + FAST.look_ahead_videos
    assert workers < most["flights"] <= bound
    assert most["listed"] <= bound + 2 * PLANNED_AHEAD + 2


def test_scheduler_keeps_workers_busy(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(6)))
    in_workers: list[Counter] = []

    def fault(task: Task) -> None:
        if isinstance(task, SegmentTask):
            in_workers.append(Counter(map(len, archive.pools[-1].segments)))

    archive.run(fault, workers=3)
    assert sum(count[0] == 0 for count in in_workers) > len(in_workers) / 2, "no worker is idle"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_scheduler_submits_the_next_segment_before_one_ends(archive: Archive, workers: int):
    archive.add("a.mp4", frames=36)
    alone = []

    def fault(task: Task) -> None:
        if isinstance(task, SegmentTask) and not archive.pools[-1].companions(task):
            alone.append(task.segment.index)

    archive.run(fault, workers=workers)
    assert len(archive.submitted(SegmentTask)) == 12
    assert len(alone) == 2 * workers - 1, "except for the last ones, which wait for an idle worker"


def test_scheduler_keeps_at_most_one_segment_behind_a_slow_one(archive: Archive):
    archive.add("a.mp4", frames=24)
    ended = set()

    def held(task: Task) -> bool:
        return segment_index(task) == 0 and len(ended) < 6

    def fault(task: Task) -> None:
        ended.add(segment_index(task))

    archive.run(fault, held)
    assert facts(archive.run()) == (0, 1, 0, 0)


def segment_index(task: Task) -> int | None:
    return task.segment.index if isinstance(task, SegmentTask) else None


def test_scheduler_bounds_the_problems_it_keeps(archive: Archive):
    archive.limits = replace(FAST, max_problems=2)
    for i in range(4):
        (archive.root / f"{i}.mp4").write_bytes(b"")
    outcome = archive.run()
    assert (facts(outcome), len(outcome.problems)) == ((0, 0, 4, 0), 2)


# --- planning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 3 * PLANNED_AHEAD])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
        (StorageUnavailableError("listing broke off"), RunAbortedError, "cannot be read: listing broke off"),
        (OutputError("x"), RunAbortedError, "cannot be read: x"),
    ],
)
def test_scheduler_raises_errors_of_the_planner(archive: Archive, before, error, expected, message):
    def videos() -> Iterator[SourceVideo]:
        for i in range(before):
            yield SourceVideo(f"/nowhere/{i}.mp4", f"{i}.mp4", "e", 1, 1.0)
        raise error

    with pytest.raises(expected, match=message):
        archive.run(videos=videos())


def test_scheduler_computes_a_video_again_whose_record_is_damaged(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.run()
    wanted = archive.record("a.mp4")
    archive.store.put(record_key("a.mp4"), b"half")
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert "its commit record is damaged, and is written again: " in archive.said.getvalue()
    assert replace(archive.record("a.mp4"), seconds=wanted.seconds) == wanted
    assert verify(archive.store, deep=True).problems == ()
    assert facts(archive.run()) == (0, 2, 0, 0)


def test_scheduler_ends_the_planner_when_the_pool_fails(archive: Archive):
    archive.add("a.mp4")

    def fault(task: Task) -> None:
        raise RunAbortedError("no worker became ready")

    with pytest.raises(RunAbortedError, match="no worker became ready"):
        archive.run(fault)
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_scheduler_raises_on_a_result_of_the_wrong_type(archive: Archive):
    archive.add("a.mp4")
    with pytest.raises(AssertionError, match="ProbeTask ended with 'nonsense'"):
        archive.run(perform_task=lambda _: "nonsense")


@pytest.mark.skipif(os.name != "posix", reason="names are UTF-8")
def test_scheduler_publishes_a_file_whose_name_is_not_utf8(archive: Archive):
    write_tiny_video(archive.root / "plain.mp4")
    os.rename(os.fsencode(archive.root / "plain.mp4"), os.fsencode(archive.root) + b"/\xff\xfe.mp4")
    assert facts(archive.run(preview="gif")) == (1, 0, 0, 0)
    assert facts(archive.run(preview="gif")) == (0, 1, 0, 0)
    assert verify(archive.store).problems == ()


def test_scheduler_counts_frames_with_too_many_persons_over_videos(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    chosen = {"max_persons": 7, "segment_seconds": 1000}
    archive.run(perform_task=cutting(archive.context(**chosen), 2), **chosen)
    for name in ("a.mp4", "b.mp4"):
        said = f"{archive.video(name).uri}: 2 frames hold more than 7 persons"
        assert said in archive.said.getvalue()
    assert archive.tally.frames_cut == 4
