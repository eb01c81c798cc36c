"""The failure policy as one table: every error, for every kind of task."""

from fractions import Fraction

import pytest

from posebatch.core import errors
from posebatch.core.records import VideoRecord
from posebatch.core.videos import Segment, SourceVideo, VideoInfo, VideoPlan
from posebatch.dataset.staging import FailedAttempts
from posebatch.run.failure_policy import (
    Reaction,
    SchedulerLimits,
    is_out_of_attempts,
    is_storage_failure,
    reaction,
    retry_pause_s,
    uncounted_left,
)
from posebatch.run.tasks import (
    FinalizeTask,
    PreviewOutcome,
    PreviewTask,
    ProbeTask,
    PublishPreviewTask,
    RecordFailureTask,
    SegmentTask,
)

VIDEO = SourceVideo("/in/a.mp4", "a.mp4", "e", 1, 1.0)
INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
PLAN = VideoPlan(INFO, (Segment(),))

TASKS = [
    ProbeTask(VIDEO),
    SegmentTask(VIDEO, INFO, Segment()),
    PreviewTask(VIDEO, PLAN),
    FinalizeTask(VIDEO, PLAN, 1),
    PublishPreviewTask(VIDEO, PreviewOutcome({"preview": 1})),
    RecordFailureTask(VIDEO, VideoRecord("/in/a.mp4", "e", 1, 1.0, "failed", "f", "r", "0")),
]
"""The columns of the table."""

ABORT, RETRY, UNCOUNTED, DRAW = Reaction.ABORT_RUN, Reaction.RETRY, Reaction.RETRY_UNCOUNTED, Reaction.RETRY_PREVIEW
OMIT, ONE, PROBE = Reaction.OMIT_PREVIEW, Reaction.DECODE_AS_ONE_SEGMENT, Reaction.PROBE_AGAIN
FAIL, REPORT = Reaction.RECORD_FAILURE, Reaction.REPORT_FAILURE

PERMANENT = [FAIL, FAIL, OMIT, FAIL, FAIL, REPORT]
TRANSIENT = [RETRY, RETRY, DRAW, RETRY, RETRY, UNCOUNTED]

TABLE = {
    # error: probe, segment, preview, finalize, publish preview, record failure
    "NewerOutputError": [ABORT, ABORT, OMIT, ABORT, ABORT, ABORT],
    "IndexDisagreesError": [FAIL, ONE, OMIT, FAIL, FAIL, REPORT],
    "ObjectNotFoundError": [REPORT, REPORT, OMIT, PROBE, PROBE, REPORT],
    "BucketNotFoundError": [REPORT, REPORT, OMIT, PROBE, PROBE, REPORT],
    "ObjectChangedError": [PROBE, PROBE, PROBE, PROBE, PROBE, UNCOUNTED],
    "AccessDeniedError": [RETRY, RETRY, OMIT, RETRY, RETRY, REPORT],
    **dict.fromkeys(["EvictedError", "StorageUnavailableError", "PutRefusedError"], [UNCOUNTED] * 6),
    **dict.fromkeys(["WorkerDiedError", "WorkerCrashError"], TRANSIENT),
    **dict.fromkeys(["VideoError", "NotAVideoError", "NoVideoStreamError", "EncryptedVideoError"], PERMANENT),
    **dict.fromkeys(["DamagedVideoError", "PreviewError", "StorageError", "StagedError"], PERMANENT),
    "DamagedRecordError": PERMANENT,
    **dict.fromkeys(["UnsupportedError", "InternalError", "RunAbortedError", "UsageError"], PERMANENT),
    **dict.fromkeys(["SettingsError", "InputError", "OutputError", "OutputHeldError"], PERMANENT),
    **dict.fromkeys(["LimitError", "WeightsError", "TrainingError", "ArchiveError"], PERMANENT),
    "ColdObjectError": [REPORT, REPORT, OMIT, REPORT, REPORT, REPORT],
}


def subclasses(error: type) -> set[type]:
    return {error}.union(*map(subclasses, error.__subclasses__()))


def test_reaction_table_holds_every_error():
    every = {error.__name__ for error in subclasses(errors.PosebatchError) if error.__module__ == errors.__name__}
    assert set(TABLE) == every - {"PosebatchError"}


@pytest.mark.parametrize("name", TABLE)
def test_reaction_to_each_error_of_each_task(name: str):
    error = getattr(errors, name)("scripted")
    assert [reaction(task, error) for task in TASKS] == TABLE[name]


@pytest.mark.parametrize("name", ["EvictedError", "StorageUnavailableError", "PutRefusedError"])
def test_reaction_counts_what_is_not_the_video_s_doing_once_too_much_has_passed(name: str):
    error = getattr(errors, name)("scripted")
    assert [reaction(task, error, uncounted_left=False) for task in TASKS] == [*TRANSIENT[:-1], REPORT]


@pytest.mark.parametrize(
    ("name", "most"), [("EvictedError", 10), ("StorageUnavailableError", 6), ("PutRefusedError", 6)]
)
def test_uncounted_retries_are_bounded(name: str, most: int):
    error = getattr(errors, name)("scripted")
    assert [uncounted_left(error, retries, SchedulerLimits()) for retries in (0, most - 1, most)] == [True, True, False]


def test_reaction_to_a_shared_death_is_a_retry_alone():
    died = errors.WorkerDiedError("killed")
    assert [reaction(task, died, shared=True) for task in TASKS] == [RETRY, Reaction.RETRY_ALONE, *TRANSIENT[2:]]


def test_storage_failures_are_those_that_a_store_that_is_down_causes():
    down = {name for name in TABLE if is_storage_failure(getattr(errors, name)("scripted"))}
    assert down == {"StorageUnavailableError", "AccessDeniedError"}


@pytest.mark.parametrize(
    ("attempts", "kills", "out"), [(0, 0, False), (2, 1, False), (3, 0, True), (2, 2, True), (9, 9, True)]
)
def test_a_video_is_out_of_attempts_by_failures_or_by_crashes(attempts: int, kills: int, out: bool):
    assert is_out_of_attempts(FailedAttempts(attempts, kills), 3, SchedulerLimits(max_crashes=2)) is out


def test_retry_pauses_double_and_a_dead_worker_needs_none():
    limits = SchedulerLimits(retry_seconds=2.0)
    unavailable, died = errors.StorageUnavailableError("slow down"), errors.WorkerDiedError("killed")
    assert [retry_pause_s(unavailable, attempts, limits) for attempts in (1, 2, 3)] == [2.0, 4.0, 8.0]
    assert retry_pause_s(died, 3, limits) == 0.0
