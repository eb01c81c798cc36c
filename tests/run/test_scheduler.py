"""The policy of a run, on a pool of our own: in this process, in a fixed order, failing as scripted.

The CPU tasks are the real ones, on tiny real videos and a local store; only the networks are left out.
"""

import io
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fake_pool import ALWAYS, Archive, FakePool, Job, Times, facts, no_fault, process
from support.tiny_video import write_tiny_video

from posebatch.core.errors import (
    AccessDeniedError,
    DamagedVideoError,
    EvictedError,
    IndexDisagreesError,
    InternalError,
    ObjectChangedError,
    ObjectNotFoundError,
    OutputError,
    PosebatchError,
    PreviewError,
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
from posebatch.run import scheduler
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.planner import PLANNED_AHEAD
from posebatch.run.pool import Completion
from posebatch.run.progress import Progress, Tally
from posebatch.run.scheduler import (
    LOOK_AHEAD_VIDEOS,
    POISON_KILLS,
    STORAGE_FAILURES_TO_ABORT,
    TIMES_TAKEN_AWAY,
    VIDEOS_PER_WORKER,
    Runner,
    RunOutcome,
    VideoProblem,
)
from posebatch.run.tasks import (
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
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.01)
    return Archive(tmp_path)


# --- all goes well -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 3])
@pytest.mark.parametrize("recut", [False, True])
def test_frames_with_more_persons_than_wanted_are_named_once(archive: Archive, cut: int, recut: bool):
    """Also when the video is decoded again, as one segment."""
    archive.add("a.mp4")
    context = archive.context(max_persons=7)

    def perform_job(job: Job) -> object:
        if isinstance(job, SegmentTask):
            return replace(process(job, context), frames_cut=cut)
        return perform(job, context)

    fault = Times(IndexDisagreesError, SegmentTask, "a", 1, segment=1) if recut else no_fault
    outcome = archive.run(fault, perform_job=perform_job, max_persons=7)
    segments = 1 if recut else len(archive.submitted(SegmentTask))
    assert facts(outcome) == (1, 0, 0, 0)
    said = archive.said.getvalue()
    assert (f"{cut * segments} frames hold more than 7 persons" in said) is (cut > 0)
    assert said.count("more than 7 persons") == (cut > 0)


@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_every_video_is_published_once(archive: Archive, count: int):
    archive.add(*(f"{i}.mp4" for i in range(count)))
    outcome = archive.run(videos=archive.videos() if count else [])
    assert facts(outcome) == (count, 0, 0, 0)
    assert (outcome.exit_code, outcome.complaints) == (0, ())
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


def test_the_second_night_starts_no_workers(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.run()
    outcome = archive.run()
    assert facts(outcome) == (0, 2, 0, 0)
    assert outcome.exit_code == 0
    assert len(archive.pools) == 1
    archive.add("c.mp4")
    assert facts(archive.run()) == (1, 2, 0, 0)
    assert {job.video.output_path for job in archive.pools[-1].submitted} == {"c.mp4"}


def test_a_source_that_changed_is_done_again(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    archive.run()
    archive.add("a.mp4", frames=9, shade=50)
    assert facts(archive.run()) == (1, 1, 0, 0)
    assert archive.record("a.mp4").frames_processed == 9
    assert verify(archive.store).problems == ()


def test_overwrite(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    before = archive.store.read("poses/a.mp4.parquet")
    assert facts(archive.run(on_existing="overwrite", segment_seconds=100)) == (1, 0, 0, 0)
    assert len(archive.submitted(SegmentTask)) == 1
    assert archive.store.read("poses/a.mp4.parquet") == before, "another cut, the same bytes"


@pytest.mark.parametrize(("limit", "published"), [(1, 1), (2, 2), (5, 3)])
def test_limit(archive: Archive, limit: int, published: int):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    assert facts(archive.run(limit=limit))[0] == published
    assert facts(archive.run(limit=limit))[0] == min(limit, 3 - published), "what is done does not count"


def test_limit_does_not_count_what_is_passed_over(archive: Archive):
    archive.add("a.mp4", "c.mp4")
    archive.run()
    archive.add("b.mp4", "d.mp4")
    assert facts(archive.run(limit=1)) == (1, 2, 0, 0), "a, c are passed over, b is done, d is left"
    assert {job.video.output_path for job in archive.pools[-1].submitted} == {"b.mp4"}


# --- transient faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [WorkerDiedError, StorageUnavailableError, AccessDeniedError])
@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
@pytest.mark.parametrize("times", [1, 2])
def test_what_may_pass_is_tried_again(archive: Archive, error, kind, times):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(error, kind, "a", times, segment=1))
    assert facts(outcome) == (2, 0, 0, 0)
    assert (archive.record("a.mp4").attempts, archive.record("b.mp4").attempts) == (times + 1, 1)
    assert f"try {times} of 3 failed: {archive.video('a.mp4').uri}: scripted" in archive.said.getvalue()
    assert verify(archive.store).problems == ()
    assert archive.tries("b.mp4") == {0: 1, 1: 1}
    if kind is SegmentTask:
        assert archive.tries("a.mp4") == {0: 1, 1: times + 1}, "only what was interrupted is done again"


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
def test_what_does_not_pass_fails_and_is_quarantined(archive: Archive, max_attempts, kind):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    fault = Times(WorkerDiedError, kind, "b", ALWAYS, segment=1)
    outcome = archive.run(fault, max_attempts=max_attempts)
    uri = archive.video("b.mp4").uri
    assert facts(outcome) == (2, 0, 1, 0)
    assert outcome.exit_code == 3
    assert outcome.complaints == (VideoProblem(uri, "failed", f"{uri}: scripted"),)
    assert fault.happened == max_attempts
    record = archive.record("b.mp4")
    assert (record.status, record.error_kind, record.attempts) == ("failed", "worker_died", max_attempts)
    assert record.objects == ()
    assert (record.detector, record.pose) == ("d@1", "p@1")
    assert (record.info is None) is (kind is ProbeTask)
    assert verify(archive.store).problems == ()

    second = archive.run(fault, max_attempts=max_attempts)
    assert (facts(second), second.exit_code) == ((0, 2, 0, 1), 3)
    assert len(archive.pools) == 1, "what is quarantined needs no workers"
    (complaint,) = second.complaints
    assert (complaint.video, complaint.status) == (uri, "failed before")
    assert complaint.reason.startswith("worker_died")

    third = archive.run(retry_failed=True, max_attempts=max_attempts)
    assert (facts(third), third.exit_code) == ((1, 2, 0, 0), 0)
    assert archive.record("b.mp4").status == "ok"
    assert verify(archive.store).problems == ()


def test_retrying_in_vain_has_all_attempts_again(archive: Archive):
    archive.add("a.mp4")
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=0)
    archive.run(fault)
    archive.run(fault, retry_failed=True)
    assert archive.tries("a.mp4")[0] == 3
    assert archive.record("a.mp4").attempts == 3


def test_attempts_are_counted_over_runs(archive: Archive):
    """Three nights, each stopped after the segment has killed its worker once: on the third it is given up."""
    archive.add("a.mp4", "b.mp4")
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=1)

    def stop_when_noted(runner: Runner, completion: Completion) -> None:
        if isinstance(completion.job, RecordAttemptTask):
            runner.stop("SIGTERM")

    archive.after = stop_when_noted
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
def test_retry_failed_forgets_the_tries_of_earlier_runs(archive: Archive, retry_failed: bool, published: int):
    archive.add("a.mp4")
    StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint).note_attempt(
        FailedAttempts(2), "x", "x"
    )
    outcome = archive.run(Times(WorkerDiedError, SegmentTask, "a", 2, segment=0), retry_failed=retry_failed)
    assert facts(outcome) == (published, 0, 1 - published, 0)


@pytest.mark.parametrize("max_attempts", [1, 2, 3])
@pytest.mark.parametrize("poisonous", [0, 1, 2])
@pytest.mark.parametrize("workers", [1, 2])
def test_whoever_dies_beside_a_poisonous_segment_is_not_blamed(
    archive: Archive, max_attempts: int, poisonous: int, workers: int
):
    archive.add("a.mp4", "b.mp4", frames=9)
    fault = Times(WorkerDiedError, SegmentTask, "a", ALWAYS, segment=poisonous)
    outcome = archive.run(fault, workers=workers, max_attempts=max_attempts)
    assert facts(outcome) == (1, 0, 1, 0)
    record = archive.record("a.mp4")
    assert (record.error_kind, record.attempts) == ("worker_died", max_attempts)
    assert archive.record("b.mp4").attempts == 1
    assert max_attempts <= fault.happened <= max_attempts + 1, "once with another in its worker, then alone"
    if fault.happened > max_attempts:
        assert "each is tried again alone" in archive.said.getvalue()
    assert verify(archive.store).problems == ()


def test_a_segment_that_is_to_be_alone_is_alone(archive: Archive):
    archive.add("a.mp4", frames=30)
    companions = []

    def fault(job: Job) -> PosebatchError | None:
        if isinstance(job, SegmentTask) and job.alone:
            (mine,) = (jobs for jobs in archive.pools[-1].in_workers if job in jobs)
            companions.append(len(mine) - 1)
        return die_once(job)

    die_once = Times(WorkerDiedError, SegmentTask, "a", 1, segment=1)
    assert facts(archive.run(fault, workers=1)) == (1, 0, 0, 0)
    assert companions == [0, 0]
    assert archive.record("a.mp4").attempts == 1, "nobody was to blame"
    assert archive.tries("a.mp4") == {i: 2 if i in (1, 2) else 1 for i in range(10)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_deaths_are_bounded_and_fall_on_the_guilty(archive: Archive, data: st.DataObject):
    """Poisonous segments kill their worker, in the networks or while they are decoded ahead; others do no harm."""
    segments_of = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    every = [(video, segment) for video, count in enumerate(segments_of) for segment in range(count)]
    poisonous = data.draw(st.sets(st.sampled_from(every)))
    workers, max_attempts = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    # drawn before the run: what is planned by when, and so how often this is asked, depends on threads
    kills_early = data.draw(st.lists(st.booleans(), min_size=1, max_size=16))
    deaths: list[Job] = []

    def is_poisonous(job: SegmentTask) -> bool:
        return (int(job.video.output_path), job.segment.index) in poisonous

    def fault(job: Job) -> PosebatchError | None:
        if not isinstance(job, SegmentTask):
            return None
        (mine,) = (jobs for jobs in archive.pools[-1].in_workers if job in jobs)
        kills = is_poisonous(job) or (any(map(is_poisonous, mine)) and kills_early[len(deaths) % len(kills_early)])
        if not kills:
            return None
        deaths.append(job)
        return WorkerDiedError("killed")

    def perform_job(job: Job) -> object:
        if isinstance(job, ProbeTask):
            cut = (Segment(i, i, 1) for i in range(segments_of[int(job.video.output_path)]))
            return ProbeResult(job.video, VideoPlan(INFO, tuple(cut)), frozenset())
        if isinstance(job, SegmentTask):
            return SegmentResult(1, 0, 0.1)
        if isinstance(job, RecordAttemptTask):
            return None
        done = VideoRecord(job.video.uri, "e", 1, 1.0, "ok", "f", "r", "0")
        return CommittedRecord(job.video.output_path, "e", job.record if isinstance(job, RecordFailureTask) else done)

    videos = [SourceVideo(f"/in/{i}", str(i), "e", 1, 1.0) for i in range(len(segments_of))]
    archive.run(fault, videos=videos, perform_job=perform_job, workers=workers, max_attempts=max_attempts)
    failed = {int(Path(record.video).name) for record in archive.records if record.status == "failed"}
    assert failed == {video for video, _ in poisonous}
    assert len(archive.records) == len(videos)
    assert len(deaths) <= len(poisonous) * (max_attempts + 1)
    assert {record.attempts for record in archive.records if record.status == "failed"} <= {max_attempts}


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
@pytest.mark.parametrize("max_attempts", [1, 2, 9])
def test_what_kills_its_process_twice_is_given_up(archive: Archive, kind: type, max_attempts: int):
    archive.add("a.mp4", "b.mp4", "c.mp4")
    fault = Times(WorkerCrashError, kind, "b", ALWAYS, segment=1)
    outcome = archive.run(fault, max_attempts=max_attempts)
    assert facts(outcome) == (2, 0, 1, 0), "and the others are published"
    record = archive.record("b.mp4")
    kills = min(POISON_KILLS, max_attempts)
    assert (fault.happened, record.attempts, record.error_kind) == (kills, kills, "poison")
    assert all(archive.record(name).attempts == 1 for name in ("a.mp4", "c.mp4"))
    assert facts(archive.run(fault)) == (0, 2, 0, 1), "and stays away"
    fault.left = 0
    assert facts(archive.run(fault, retry_failed=True)) == (1, 2, 0, 0)
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize(("error", "most"), [(WorkerCrashError, 2), (WorkerDiedError, 6)])
def test_a_video_that_is_bad_all_over_does_not_end_a_process_for_each_segment(archive: Archive, error: type, most: int):
    archive.add("a.mp4", frames=60)
    fault = Times(error, SegmentTask, "a", ALWAYS)
    assert facts(archive.run(fault, workers=1, max_attempts=3)) == (0, 0, 1, 0)
    assert fault.happened <= most < 20


def test_after_its_first_kill_a_segment_is_alone(archive: Archive):
    archive.add("a.mp4", frames=30)
    alone = []

    def fault(job: Job) -> PosebatchError | None:
        if isinstance(job, SegmentTask) and job.segment.index == 1:
            alone.append(job.alone)
        return kill_once(job)

    kill_once = Times(WorkerCrashError, SegmentTask, "a", 1, segment=1)
    assert facts(archive.run(fault, workers=1)) == (1, 0, 0, 0)
    assert alone == [False, True]
    assert archive.tries("a.mp4") == {i: 2 if i in (1, 2) else 1 for i in range(10)}, "its neighbour was in the process"
    assert "and not counted: scripted: ended by another segment" in archive.said.getvalue()


def test_kills_are_counted_across_runs(archive: Archive):
    """The run is stopped after each kill; the count stays, also while other tries fail for other reasons."""
    archive.add("a.mp4")

    def stop(runner: Runner, completion: Completion) -> None:
        if isinstance(completion.job, RecordAttemptTask):
            runner.stop("the test")

    archive.after = stop
    for error in (WorkerCrashError, StorageUnavailableError):
        with pytest.raises(RunAbortedError):
            archive.run(Times(error, SegmentTask, "a", segment=1), max_attempts=9)
    work = StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint)
    assert work.failed_attempts() == FailedAttempts(attempts=2, kills=1)
    outcome = archive.run(Times(WorkerCrashError, SegmentTask, "a", segment=1), max_attempts=9)
    assert (facts(outcome), archive.record("a.mp4").attempts) == ((0, 0, 1, 0), 3)


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
def test_what_is_taken_away_costs_nothing(archive: Archive, kind: type):
    archive.add("a.mp4", "b.mp4")
    fault = Times(EvictedError, kind, "a", TIMES_TAKEN_AWAY, segment=1)
    assert facts(archive.run(fault)) == (2, 0, 0, 0)
    assert (fault.happened, archive.record("a.mp4").attempts) == (TIMES_TAKEN_AWAY, 1)


def test_what_is_taken_away_for_ever_is_given_up(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    fault = Times(EvictedError, SegmentTask, "a", ALWAYS, segment=1)
    assert facts(archive.run(fault)) == (1, 0, 1, 0)
    assert fault.happened == TIMES_TAKEN_AWAY + 3
    assert archive.record("a.mp4").error_kind == "taken_away"


@pytest.mark.parametrize("waits_for", ["a segment", "the listing"])
def test_a_run_in_which_nothing_moves_gives_up(archive: Archive, waits_for: str):
    archive.add("a.mp4", "b.mp4")
    listing, never = archive.videos(), threading.Event()

    def stalled() -> Iterator[SourceVideo]:
        never.wait(3)
        yield from listing

    videos = stalled() if waits_for == "the listing" else None
    with pytest.raises(RunAbortedError, match=r"nothing has moved for 0.01 minutes .*under way: ") as raised:
        archive.run(held=lambda job: isinstance(job, SegmentTask), videos=videos, max_idle_minutes=0.01)
    never.set()
    assert ("a.mp4" if videos is None else "the listing of the inputs") in str(raised.value)
    assert facts(archive.run()) == (2, 0, 0, 0)


def test_a_long_segment_that_moves_on_is_waited_for(archive: Archive):
    archive.add("a.mp4")
    activity = iter(range(10**9))
    until = time.monotonic() + 1.5

    def held(job: Job) -> bool:
        return isinstance(job, SegmentTask) and time.monotonic() < until

    assert facts(archive.run(held=held, alive=lambda: next(activity), max_idle_minutes=0.01)) == (1, 0, 0, 0)


def test_pauses_grow_and_a_death_needs_none(archive: Archive, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 2.0)
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(scheduler, "time", clock)
    archive.add("a.mp4")
    begun: list[float] = []

    def fault(job: Job) -> PosebatchError | None:
        if not isinstance(job, SegmentTask):
            return None
        begun.append(clock.now)
        errors = [StorageUnavailableError("slow down"), StorageUnavailableError("slow down"), WorkerDiedError("killed")]
        return errors[len(begun) - 1] if len(begun) <= len(errors) else None

    class Idling(FakePool):
        def wait(self, timeout_s: float) -> list[Completion]:
            clock.now += 0.25  # time passes although nothing ends
            return super().wait(timeout_s)

    monkeypatch.setattr(f"{__name__}.FakePool", Idling)
    archive.run(fault, segment_seconds=100, max_attempts=9)
    pauses = np.diff(begun)
    assert 2 <= pauses[0] < 4, "the first pause"
    assert 4 <= pauses[1] < 6, "twice as long"
    assert pauses[2] < 2, "a process that died says nothing of the store"


# --- faults of one video -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DamagedVideoError, InternalError])
@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, FinalizeTask])
def test_what_will_fail_again_fails_at_once(archive: Archive, error, kind):
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


def test_files_that_are_no_videos(archive: Archive):
    archive.add("a.mp4", "z.mp4")
    for name, content in (("empty.mp4", b""), ("text.mp4", b"hello" * 100)):
        (archive.root / name).write_bytes(content)
    outcome = archive.run()
    assert facts(outcome) == (2, 0, 2, 0)
    assert {archive.record(name).error_kind for name in ("empty.mp4", "text.mp4")} == {"not_a_video"}
    assert sorted(complaint.reason for complaint in outcome.complaints)[0].endswith("the file is empty (0 bytes)")
    assert verify(archive.store).problems == ()


def test_a_video_that_fails_now_loses_what_an_older_version_had(archive: Archive):
    archive.add("a.mp4")
    archive.run(preview="gif")
    (archive.root / "a.mp4").write_bytes(b"overwritten")
    assert facts(archive.run(preview="gif")) == (0, 0, 1, 0)
    assert [found.key for folder in ("poses/", "frames/", "previews/") for found in archive.store.list(folder)] == []
    assert verify(archive.store).problems == ()


def test_a_video_that_was_published_before_and_is_restored(archive: Archive):
    archive.add("a.mp4")
    (archive.root / "b.mp4").write_bytes(b"cut off")
    assert facts(archive.run()) == (1, 0, 1, 0)
    archive.add("b.mp4")
    assert facts(archive.run()) == (1, 1, 0, 0), "a source that changed is no longer quarantined"


@pytest.mark.parametrize("segment", [0, 1])
def test_a_wrong_index_makes_one_segment(archive: Archive, segment: int):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(IndexDisagreesError, SegmentTask, "a", 1, segment))
    assert facts(outcome) == (2, 0, 0, 0)
    jobs = [job.segment for job in archive.submitted(SegmentTask) if job.video.output_path == "a.mp4"]
    assert jobs.count(Segment()) == 1
    (finalized,) = (job for job in archive.submitted(FinalizeTask) if job.video.output_path == "a.mp4")
    assert finalized.plan.segments == (Segment(),)
    assert archive.record("a.mp4").frames_processed == 6
    assert archive.record("a.mp4").attempts == 1
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []


def test_a_wrong_index_that_both_segments_notice(archive: Archive):
    archive.add("a.mp4")
    cut_only = Times(IndexDisagreesError, SegmentTask, "a", 2)
    assert facts(archive.run(lambda job: None if job_segment(job) == Segment() else cut_only(job))) == (1, 0, 0, 0)
    assert [job.segment for job in archive.submitted(SegmentTask)].count(Segment()) == 1
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize("error", [DamagedVideoError, InternalError, WorkerDiedError])
def test_what_befalls_a_cut_that_was_given_up_counts_for_nothing(archive: Archive, error):
    archive.add("a.mp4")
    wrong = Times(IndexDisagreesError, SegmentTask, "a", 1, segment=0)
    late = Times(error, SegmentTask, "a", 1, segment=1)
    outcome = archive.run(lambda job: wrong(job) or late(job))
    assert (wrong.happened, late.happened) == (1, 1)
    assert facts(outcome) == (1, 0, 0, 0), "the whole video decides"
    assert archive.record("a.mp4").attempts == 1
    assert verify(archive.store).problems == ()


def job_segment(job: Job) -> Segment | None:
    return job.segment if isinstance(job, SegmentTask) else None


@pytest.mark.parametrize("kind", [ProbeTask, SegmentTask, PreviewTask])
def test_a_source_that_changes_meanwhile_is_listed_again(archive: Archive, kind):
    archive.add("a.mp4", "b.mp4")
    changed = []

    def fault(job: Job) -> None:
        if isinstance(job, kind) and job.video.output_path == "a.mp4" and not changed:
            archive.add("a.mp4", frames=9, shade=40)
            changed.append(archive.video("a.mp4"))

    outcome = archive.run(fault, preview="gif")
    assert facts(outcome) == (2, 0, 0, 0)
    record = archive.record("a.mp4")
    assert (record.etag, record.size_bytes) == (changed[0].etag, changed[0].size_bytes)
    assert (record.frames_processed, record.attempts) == (9, 2)
    assert verify(archive.store).problems == ()
    assert facts(archive.run(preview="gif")) == (0, 2, 0, 0)


def test_a_source_that_never_rests_fails(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    outcome = archive.run(Times(ObjectChangedError, SegmentTask, "a", ALWAYS, segment=0))
    assert facts(outcome) == (1, 0, 1, 0)
    assert archive.record("a.mp4").error_kind == "source_changed"


def test_late_segments_of_the_old_source_count_for_nothing(archive: Archive):
    """Local files are checked at a segment's end: long after the first one has noticed, the others notice too."""
    archive.add("a.mp4", frames=12)
    old = archive.video("a.mp4")
    state = {"probes": 0}

    def held(job: Job) -> bool:
        late = isinstance(job, SegmentTask) and job.video == old and job.segment.index > 0
        return late and state["probes"] < 2

    def fault(job: Job) -> PosebatchError | None:
        state["probes"] += isinstance(job, ProbeTask)
        if isinstance(job, SegmentTask) and job.video == old:
            if job.segment.index == 0:
                archive.add("a.mp4", frames=12, shade=40)
            return ObjectChangedError("changed while it was being processed")
        return None

    outcome = archive.run(fault, held, workers=4)
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").attempts == 2
    assert verify(archive.store).problems == ()


def test_a_late_segment_of_the_old_source_is_not_taken_for_one_of_the_new(archive: Archive):
    archive.add("a.mp4")
    old = archive.video("a.mp4")
    state = {"probes": 0}

    def held(job: Job) -> bool:
        return isinstance(job, SegmentTask) and job.video == old and job.segment.index == 1 and state["probes"] < 2

    def fault(job: Job) -> PosebatchError | None:
        state["probes"] += isinstance(job, ProbeTask)
        if isinstance(job, SegmentTask) and job.video == old and job.segment.index == 0:
            archive.add("a.mp4", shade=40)
            return ObjectChangedError("changed while it was being processed")
        return None

    context = archive.context()

    def perform_job(job: Job) -> object:
        if isinstance(job, SegmentTask) and job.video == old:
            return SegmentResult(3, 3, 0.1)  # it had read all it needed before the change
        return process(job, context) if isinstance(job, SegmentTask) else perform(job, context)

    outcome = archive.run(fault, held, perform_job=perform_job)
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").attempts == 2
    assert outcome.tally.frames == 6
    assert verify(archive.store).problems == ()


def test_a_source_that_has_gone_is_named_but_not_recorded(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    listed = list(archive.videos())
    (archive.root / "a.mp4").unlink()
    outcome = archive.run(videos=listed)
    assert (facts(outcome), outcome.exit_code) == ((1, 0, 1, 0), 3)
    assert outcome.complaints[0].video == listed[0].uri
    assert read_record(archive.store, "a.mp4") is None
    assert archive.run().exit_code == 0, "the next night does not know of it"


def test_many_sources_that_have_gone_do_not_end_the_run(archive: Archive):
    count = 2 * STORAGE_FAILURES_TO_ABORT
    archive.add("z.mp4")
    gone = [replace(archive.video("z.mp4"), uri=f"/nowhere/{i}.mp4", output_path=f"{i}.mp4") for i in range(count)]
    outcome = archive.run(videos=[*gone, archive.video("z.mp4")])
    assert facts(outcome) == (1, 0, count, 0)


def test_what_was_staged_and_has_gone_is_computed_again(archive: Archive):
    archive.add("a.mp4")
    lost = []

    def fault(job: Job) -> None:
        if isinstance(job, FinalizeTask) and not lost:
            work = StagingArea.of(archive.store, job.video, archive.context().data_fingerprint)
            lost.append(work.segment_key(job.plan.segments[0]))
            archive.store.delete(lost[0])

    assert facts(archive.run(fault)) == (1, 0, 0, 0)
    assert archive.tries("a.mp4") == {0: 2, 1: 1}
    assert archive.record("a.mp4").attempts == 2
    assert verify(archive.store).problems == ()


def test_a_failure_that_cannot_be_recorded_is_named(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    broken = Times(DamagedVideoError, ProbeTask, "a")
    unwritable = Times(StorageUnavailableError, RecordFailureTask, "a", ALWAYS)
    outcome = archive.run(lambda job: broken(job) or unwritable(job))
    assert (facts(outcome), outcome.exit_code) == ((1, 0, 1, 0), 3)
    assert read_record(archive.store, "a.mp4") is None


# --- previews ------------------------------------------------------------------------------------------------------


def test_previews(archive: Archive):
    archive.add("a.mp4", "b.mp4")
    assert facts(archive.run(preview="gif")) == (2, 0, 0, 0)
    assert archive.store.read("previews/a.mp4.gif").startswith(b"GIF89a")
    assert archive.record("a.mp4").objects[-1].kind == "preview"
    assert archive.record("a.mp4").objects[-1].rows == 6
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []
    assert facts(archive.run(preview="gif")) == (0, 2, 0, 0)


def test_a_preview_alone_needs_no_segments(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    before = archive.record("a.mp4")
    outcome = archive.run(preview="gif")
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.submitted(SegmentTask, ProbeTask, FinalizeTask) == []
    assert [type(job) for job in archive.pools[-1].submitted] == [PreviewTask, PublishPreviewTask]
    assert archive.record("a.mp4").objects[:2] == before.objects
    assert verify(archive.store).problems == ()


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (PreviewError, 1),
        (InternalError, 1),
        (WorkerDiedError, 3),
        (StorageUnavailableError, 3),
        (ObjectNotFoundError, 1),
    ],
)
@pytest.mark.parametrize("tables_first", [False, True])
def test_a_preview_never_costs_the_tables(archive: Archive, error, tries, tables_first):
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


def test_a_preview_never_costs_the_tables_of_a_video_that_had_a_hard_time(archive: Archive):
    """Two tries were in vain in earlier runs: the preview's first failure must not be the video's last."""
    archive.add("a.mp4")
    StagingArea.of(archive.store, archive.video("a.mp4"), archive.context().data_fingerprint).note_attempt(
        FailedAttempts(2), "x", "x"
    )
    outcome = archive.run(Times(WorkerDiedError, PreviewTask, "a", ALWAYS), preview="gif")
    assert facts(outcome) == (1, 0, 0, 0)
    assert archive.record("a.mp4").status == "ok"
    assert verify(archive.store).problems == ()


def test_a_preview_that_dies_once_is_drawn_again(archive: Archive):
    archive.add("a.mp4")
    archive.run(Times(WorkerDiedError, PreviewTask, "a", 1), preview="gif")
    assert archive.record("a.mp4").objects[-1].kind == "preview"
    assert verify(archive.store).problems == ()


# --- the end of a run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StorageUnavailableError, AccessDeniedError])
def test_a_store_that_is_down_ends_the_run(archive: Archive, error):
    archive.add(*(f"{i}.mp4" for i in range(9)))
    fault = Times(error, object, "", ALWAYS)
    with pytest.raises(RunAbortedError) as caught:
        archive.run(fault, max_attempts=99)
    assert f"{STORAGE_FAILURES_TO_ABORT} storage errors in a row, the last one: " in str(caught.value)
    assert "run the same command again" in str(caught.value)
    assert list(archive.store.list("videos/")) == [], "no video is blamed"
    assert facts(archive.run()) == (9, 0, 0, 0)


def test_storage_errors_with_success_between_them_do_not_end_the_run(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(20)))
    seen: Counter = Counter()

    def fault(job: Job) -> PosebatchError | None:
        seen[job.video.uri] += isinstance(job, ProbeTask)
        return StorageUnavailableError("slow down") if isinstance(job, ProbeTask) and seen[job.video.uri] == 1 else None

    assert facts(archive.run(fault)) == (20, 0, 0, 0)


def test_stopping_keeps_what_is_finished(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(4)))

    def after(runner: Runner, completion: Completion) -> None:
        if isinstance(completion.job, FinalizeTask):
            runner.stop("SIGTERM")

    archive.after = after
    with pytest.raises(RunAbortedError, match="stopped by SIGTERM; the same command goes on from here"):
        archive.run()
    assert archive.tally.published == 1
    archive.after = lambda *_: None
    assert facts(archive.run()) == (3, 1, 0, 0)
    assert verify(archive.store).problems == ()
    assert archive.left_behind() == []


def test_stopping_before_there_is_anything_to_do(archive: Archive):
    archive.add("a.mp4")
    archive.run()
    (video,) = archive.videos()
    runner_context = archive.context()
    runner = Runner(
        runner_context, CommitIndex(archive.store), lambda: pytest.fail("no pool"), Progress(Tally(), io.StringIO())
    )

    def endless() -> Iterator[SourceVideo]:
        for i in range(10**9):
            if i == 3 * PLANNED_AHEAD:
                runner.stop("SIGINT")
            yield video

    with pytest.raises(RunAbortedError, match="stopped by SIGINT"):
        runner.run(endless())
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_staged_segments_are_not_computed_again(archive: Archive):
    archive.add("a.mp4", frames=12)
    staged = []

    def after(runner: Runner, completion: Completion) -> None:
        if isinstance(completion.result, SegmentResult):
            staged.append(completion.job.segment.index)
            if len(staged) == 2:
                runner.stop("SIGTERM")

    archive.after = after
    with pytest.raises(RunAbortedError):
        archive.run()
    archive.after = lambda *_: None
    outcome = archive.run()
    assert facts(outcome) == (1, 0, 0, 0)
    assert sorted([*staged, *archive.tries("a.mp4")]) == [0, 1, 2, 3], "each segment once in both runs"
    assert outcome.tally.frames == 6
    assert outcome.tally.bytes_passed + outcome.tally.bytes_done == pytest.approx(archive.video("a.mp4").size_bytes)
    assert read_poses(archive.store.root)["frame_index"].tolist() == list(range(12))
    assert verify(archive.store).problems == ()


def test_another_cut_does_not_use_the_segments_of_the_old_one(archive: Archive):
    archive.add("a.mp4", frames=12)

    def after(runner: Runner, completion: Completion) -> None:
        if isinstance(completion.result, SegmentResult):
            runner.stop("SIGTERM")

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
def test_the_driver_holds_a_bounded_number_of_videos(archive: Archive, workers: int):
    """Nothing is real here but the policy: a thousand videos pass, a handful is held at any time."""
    listed, settled, most = Counter(), [], Counter()

    def videos() -> Iterator[SourceVideo]:
        for i in range(1000):
            listed["videos"] += 1
            yield SourceVideo(f"/in/{i}.mp4", f"{i}.mp4", "e", 1, 1.0)

    def perform_job(job: Job) -> object:
        begun = {one.video.uri for one in archive.pools[-1].submitted}
        most["flights"] = max(most["flights"], len(begun) - len(settled))
        most["listed"] = max(most["listed"], listed["videos"] - len(settled))
        if isinstance(job, ProbeTask):
            return ProbeResult(job.video, VideoPlan(INFO, (Segment(),)), frozenset())
        if isinstance(job, SegmentTask):
            return SegmentResult(1, 0, 0.1)
        settled.append(job.video.uri)
        record = VideoRecord(job.video.uri, "e", 1, 1.0, "ok", "f", "r", "0")
        return CommittedRecord(job.video.output_path, "e", record)

    outcome = archive.run(videos=videos(), perform_job=perform_job, workers=workers)
    assert facts(outcome) == (1000, 0, 0, 0)
    assert len(settled) == len(set(settled)) == 1000
    bound = VIDEOS_PER_WORKER * workers + LOOK_AHEAD_VIDEOS
    assert workers < most["flights"] <= bound
    assert most["listed"] <= bound + 2 * PLANNED_AHEAD + 2


def test_workers_are_kept_busy(archive: Archive):
    archive.add(*(f"{i}.mp4" for i in range(6)))
    in_workers: list[Counter] = []

    def fault(job: Job) -> None:
        if isinstance(job, SegmentTask):
            in_workers.append(Counter(map(len, archive.pools[-1].in_workers)))

    archive.run(fault, workers=3)
    assert sum(count[0] == 0 for count in in_workers) > len(in_workers) / 2, "nobody is idle"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_worker_has_the_next_segment_before_it_ends_one(archive: Archive, workers: int):
    archive.add("a.mp4", frames=36)
    alone = []

    def fault(job: Job) -> None:
        if isinstance(job, SegmentTask):
            (mine,) = (jobs for jobs in archive.pools[-1].in_workers if job in jobs)
            if len(mine) == 1:
                alone.append(job.segment.index)

    archive.run(fault, workers=workers)
    assert len(archive.submitted(SegmentTask)) == 12
    assert len(alone) == 2 * workers - 1, "but for the last ones, which go to whoever is idle first"


def test_a_slow_segment_keeps_one_waiting_at_most(archive: Archive):
    archive.add("a.mp4", frames=24)
    ended = set()

    def held(job: Job) -> bool:
        return job_index(job) == 0 and len(ended) < 6

    def fault(job: Job) -> None:
        ended.add(job_index(job))

    archive.run(fault, held)
    assert facts(archive.run()) == (0, 1, 0, 0)


def job_index(job: Job) -> int | None:
    return job.segment.index if isinstance(job, SegmentTask) else None


def test_named_failures_are_bounded(archive: Archive, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "MAX_COMPLAINTS", 2)
    for i in range(4):
        (archive.root / f"{i}.mp4").write_bytes(b"")
    outcome = archive.run()
    assert (facts(outcome), len(outcome.complaints)) == ((0, 0, 4, 0), 2)


# --- planning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1, 3 * PLANNED_AHEAD])
@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (ZeroDivisionError("a bug"), ZeroDivisionError, "a bug"),
        (StorageUnavailableError("listing broke off"), RunAbortedError, "cannot be read: listing broke off"),
        (OutputError("x"), RunAbortedError, "cannot be read: x"),
    ],
)
def test_an_error_while_planning_surfaces(archive: Archive, before, error, expected, message):
    def videos() -> Iterator[SourceVideo]:
        for i in range(before):
            yield SourceVideo(f"/nowhere/{i}.mp4", f"{i}.mp4", "e", 1, 1.0)
        raise error

    with pytest.raises(expected, match=message):
        archive.run(videos=videos())


def test_an_unreadable_record_is_named(archive: Archive):
    archive.add("a.mp4")
    archive.store.put(record_key("a.mp4"), b"half")
    with pytest.raises(RunAbortedError, match=r"out/videos/a\.mp4\.parquet: a commit record cannot be read"):
        archive.run()


def test_no_workers_to_be_had(archive: Archive):
    archive.add("a.mp4")

    def fault(job: Job) -> None:
        raise RunAbortedError("no worker became ready")

    with pytest.raises(RunAbortedError, match="no worker became ready"):
        archive.run(fault)
    assert "planner" not in {thread.name for thread in threading.enumerate()}


def test_an_answer_that_makes_no_sense_is_a_bug(archive: Archive):
    archive.add("a.mp4")
    with pytest.raises(AssertionError, match="ProbeTask ended with 'what'"):
        archive.run(perform_job=lambda _: "what")


@pytest.mark.parametrize(
    ("tally", "code"),
    [
        (Tally(), 0),
        (Tally(published=2, up_to_date=1), 0),
        (Tally(failed=1), 3),
        (Tally(quarantined=1, published=2), 3),
        (Tally(published=1, partial=1), 3),
    ],
)
def test_exit_code(tally, code):
    assert RunOutcome(tally, 0.0, ()).exit_code == code


@pytest.mark.skipif(os.name != "posix", reason="names that are no text")
def test_a_file_whose_name_is_no_text(archive: Archive):
    write_tiny_video(archive.root / "plain.mp4")
    os.rename(os.fsencode(archive.root / "plain.mp4"), os.fsencode(archive.root) + b"/\xff\xfe.mp4")
    assert facts(archive.run(preview="gif")) == (1, 0, 0, 0)
    assert facts(archive.run(preview="gif")) == (0, 1, 0, 0)
    assert verify(archive.store).problems == ()


def test_frames_with_too_many_persons_are_said_of_each_video_and_counted(archive, monkeypatch):
    monkeypatch.setitem(
        globals(), "process", lambda job, context, true=process: replace(true(job, context), frames_cut=2)
    )
    archive.add("a.mp4", "b.mp4")
    archive.run(max_persons=7, segment_seconds=1000)
    for name in ("a.mp4", "b.mp4"):
        said = f"{archive.video(name).uri}: 2 frames hold more than 7 persons"
        assert said in archive.said.getvalue()
    assert archive.tally.frames_cut == 4
