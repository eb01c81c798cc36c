"""The meaning of an error for a task: a pure decision, and the limits it depends on. The scheduler carries it out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from posebatch.core.errors import (
    AccessDeniedError,
    ColdObjectError,
    EvictedError,
    IndexDisagreesError,
    NewerOutputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PosebatchError,
    PutRefusedError,
    StorageUnavailableError,
    WorkerDiedError,
)
from posebatch.dataset.staging import FailedAttempts
from posebatch.run.pool import SEGMENTS_PER_WORKER
from posebatch.run.tasks import (
    ClipTask,
    FinalizeTask,
    PreviewTask,
    PublishPreviewTask,
    RecordFailureTask,
    SegmentTask,
    Task,
)


@dataclass(frozen=True)
class SchedulerLimits:
    """Numbers that the scheduler goes by."""

    retry_seconds: float = 2.0
    """Pause before a storage error is retried; doubles with each retry of the same task."""
    poll_seconds: float = 0.2
    """Longest wait for a completion before the scheduler looks at everything else."""
    max_crashes: int = 2
    """Worker crashes that one video may cause, over all runs, before it is recorded as failed."""
    max_evictions: int = 10
    """Evictions (node lost, killed by a neighbour) tolerated per task before they count as failed attempts."""
    max_storage_retries: int = 6
    """Times per task that the store may give no answer, or refuse a put, before that counts as failed attempts. The
    pauses add up to two minutes. A store that is down ends the run before, by `max_storage_failures`."""
    max_storage_failures: int = 12
    """Storage errors in a row, without a success between them, that end the run: the store is down."""
    videos_per_worker: int = SEGMENTS_PER_WORKER + 1
    """Videos in flight per worker: one for each of its calls, and one that waits. A group of clips counts as one."""
    look_ahead_videos: int = 4
    """Videos in flight beyond these: enough to probe the next ones while the last ones finish."""
    clips_together: int = 16
    """Clips in one call to a worker at most; 1: no video is a clip."""
    clip_bytes: int = 8 << 20
    """Size of the largest video that is taken for a clip before it is probed."""
    group_bytes: int = 32 << 20
    """Size of all clips of a call, which its worker reads into memory."""
    max_problems: int = 1000
    """Problems of this run, and as many of earlier runs, that are kept for the report; ``videos/`` holds all."""


DEFAULT_LIMITS: Final = SchedulerLimits()


class Reaction(Enum):
    """What the scheduler does about an error."""

    ABORT_RUN = "end the run with the error"
    RETRY_ALONE = "retry the segment or clip in a worker of its own, and count nothing"
    RETRY_UNCOUNTED = "retry, after a pause if the store did not answer, and count nothing"
    RETRY = "count a failed attempt, and retry after a pause"
    RETRY_PREVIEW = "count a failed attempt of the preview, and retry after a pause"
    OMIT_PREVIEW = "publish the video without a preview"
    DECODE_AS_ONE_SEGMENT = "decode the video again from its beginning, as one segment"
    PROBE_AGAIN = "count a failed attempt, and begin the video again"
    RECORD_FAILURE = "record the video as failed"
    REPORT_FAILURE = "report the video as failed, without a record"


def reaction(  # noqa: PLR0911 - one row of the table each
    task: Task,
    error: PosebatchError,
    *,
    shared: bool = False,
    uncounted_left: bool = True,
    tables_stay: bool = False,
) -> Reaction:
    """What to do when ``task`` ended with ``error``; the first rule that applies decides.

    ``shared``: the worker died while it had others, too, and the cause may be any. ``uncounted_left``: see
    `uncounted_left`. ``tables_stay``: poses and frames of the video are published, and this run must not replace them.
    """
    is_preview = isinstance(task, PreviewTask)
    reads_staged = isinstance(task, FinalizeTask | PublishPreviewTask)
    if shared and isinstance(task, SegmentTask | ClipTask):
        return Reaction.RETRY_ALONE
    if isinstance(error, NewerOutputError) and not is_preview:
        return Reaction.ABORT_RUN  # a failure record would overwrite what the newer version has published
    if isinstance(task, RecordFailureTask):
        # its process has no part in the failure that it records: a busy machine, or a lost node
        return Reaction.RETRY_UNCOUNTED if error.retryable and uncounted_left else Reaction.REPORT_FAILURE
    if isinstance(error, IndexDisagreesError) and isinstance(task, SegmentTask):
        return Reaction.DECODE_AS_ONE_SEGMENT
    if is_preview and not error.retryable:
        return Reaction.OMIT_PREVIEW
    if isinstance(error, ColdObjectError) or (isinstance(error, ObjectNotFoundError) and not reads_staged):
        return Reaction.REPORT_FAILURE  # a record would quarantine the source when it comes back, or is restored
    if isinstance(error, ObjectChangedError | ObjectNotFoundError) and not tables_stay:
        return Reaction.PROBE_AGAIN  # the source is another version, or the staged data is gone
    if isinstance(error, EvictedError | StorageUnavailableError | PutRefusedError) and uncounted_left:
        return Reaction.RETRY_UNCOUNTED
    if error.retryable or isinstance(error, AccessDeniedError):  # credentials may be renewed in time
        return Reaction.RETRY_PREVIEW if is_preview else Reaction.RETRY
    return Reaction.REPORT_FAILURE if tables_stay else Reaction.RECORD_FAILURE


def uncounted_left(error: PosebatchError, retries: int, limits: SchedulerLimits) -> bool:
    """Whether a task may be retried uncounted once more, after ``retries`` such retries because of such an error.

    The video has no part in the loss of a node, in a store that is down, or in another process that publishes it too.
    """
    return retries < (limits.max_evictions if isinstance(error, EvictedError) else limits.max_storage_retries)


def is_storage_failure(error: PosebatchError) -> bool:
    """Whether the error may mean that the store is down."""
    return isinstance(error, StorageUnavailableError | AccessDeniedError)


def is_out_of_attempts(failed: FailedAttempts, max_attempts: int, limits: SchedulerLimits) -> bool:
    """Whether a video with these failed attempts is given up."""
    return failed.attempts >= max_attempts or failed.kills >= limits.max_crashes


def retry_pause_s(error: PosebatchError, attempts: int, limits: SchedulerLimits) -> float:
    """Seconds before the next attempt, after ``attempts`` failed ones of the same task.

    The pause doubles each time (exponential backoff). A dead worker needs none: its death says nothing of the store.
    """
    return 0.0 if isinstance(error, WorkerDiedError) else limits.retry_seconds * 2 ** (attempts - 1)
