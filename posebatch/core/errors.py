"""Every error that posebatch raises on purpose, in one tree.

::

    PosebatchError
    ├── UsageError                what was asked for cannot be done: exit code 2
    │   ├── SettingsError         an option or a settings file
    │   ├── InputError            an input, or how inputs and output lie to each other
    │   ├── OutputError           the output cannot be written
    │   │   └── NewerOutputError  a newer posebatch wrote in it what this one does not know
    │   ├── OutputHeldError       another run has the output
    │   ├── WeightsError          a weight file: missing, damaged, of another network
    │   └── TrainingError         a training that cannot go on as it is set up
    ├── VideoError                one video is at fault; the same bytes will fail again
    │   ├── NotAVideoError        no container that we read, or nothing in the file
    │   ├── NoVideoStreamError    a container without a video stream
    │   ├── LimitError            larger or longer than the limits that are set
    │   ├── DamagedVideoError     a container whose index or stream cannot be read
    │   └── IndexDisagreesError   the container's index promises other frames than the stream holds
    ├── PreviewError              a preview could not be drawn; the tables do not suffer
    ├── StorageError              an object could not be read or written
    │   ├── ObjectNotFoundError   no such bucket, key or file
    │   ├── StagedError           a staged segment is not one of this version
    │   ├── AccessDeniedError     the credentials do not suffice
    │   ├── UnsupportedError      the store cannot do what was asked of it
    │   ├── PutRefusedError       (retryable) something else was written where a conditional put went
    │   ├── ObjectChangedError    (retryable) the object is no longer the version that was planned
    │   └── StorageUnavailableError  (retryable) the store did not answer, or asked to slow down
    ├── WorkerDiedError           (retryable) the process doing the work ended
    │   ├── WorkerCrashError           (retryable) ... by what it worked on: a crash, a hang, a memory without end
    │   └── EvictedError        (retryable) ... through no fault of what it worked on
    ├── InternalError             a bug of ours, met by one video
    └── RunAbortedError           the run cannot go on: exit code 1

``retryable`` says whether the same work may succeed when tried again. All survive pickling, because Ray ships them
between processes: each passes all of its arguments to ``Exception.__init__`` and takes nothing but a message.
"""

from __future__ import annotations

from typing import ClassVar

from posebatch.core.redaction import redacted


class PosebatchError(Exception):
    """Anything posebatch raises on purpose. The message says what was wrong, in which input, and what to do.

    Messages go to terminals, logs, tables and other machines, so credentials are struck out of them here.
    """

    retryable: ClassVar[bool] = False
    kind: ClassVar[str] = "error"
    """The short name that stands in the column ``error_kind`` of the videos table."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class UsageError(PosebatchError):
    """What was asked for cannot be done as asked."""

    kind = "usage"


class SettingsError(UsageError):
    """An option or a settings file is wrong."""

    kind = "settings"


class InputError(UsageError):
    """An input does not exist, is empty, or collides with another or with the output."""

    kind = "input"


class OutputError(UsageError):
    """The output cannot be written."""

    kind = "output"


class NewerOutputError(OutputError):
    """A newer posebatch has written what this one can neither read nor judge, and so must not touch."""

    kind = "newer_output"


class OutputHeldError(UsageError):
    """Another run has the output."""

    kind = "output_held"


class WeightsError(UsageError):
    """A weight file is missing, damaged, or belongs to another network."""

    kind = "weights"


class TrainingError(UsageError):
    """A training run cannot go on as it is set up."""

    kind = "training"


class VideoError(PosebatchError):
    """One video is at fault; trying the same bytes again gives the same error."""

    kind = "video"


class NotAVideoError(VideoError):
    """The bytes are no video container that we read."""

    kind = "not_a_video"


class NoVideoStreamError(VideoError):
    """The container holds no video stream."""

    kind = "no_video_stream"


class LimitError(VideoError):
    """The video is larger or longer than the limits that are set."""

    kind = "limit"


class DamagedVideoError(VideoError):
    """The container or its video stream cannot be read."""

    kind = "damaged"


class IndexDisagreesError(VideoError):
    """The container's index promises other frames than the stream holds; the video must be read as one segment."""

    kind = "index_disagrees"


class PreviewError(PosebatchError):
    """A preview could not be drawn."""

    kind = "preview"


class StorageError(PosebatchError):
    """An object could not be read or written."""

    kind = "storage"


class ObjectNotFoundError(StorageError):
    """No such bucket, key or file."""

    kind = "not_found"


class StagedError(StorageError):
    """A staged segment is damaged, or of another version of posebatch."""

    kind = "staged"


class AccessDeniedError(StorageError):
    """The credentials or file permissions do not suffice."""

    kind = "access_denied"


class UnsupportedError(StorageError):
    """The store cannot do what was asked of it."""

    kind = "unsupported"


class PutRefusedError(StorageError):
    """Something else was written where a conditional put went."""

    retryable = True
    kind = "put_refused"


class ObjectChangedError(StorageError):
    """The object is no longer the version that was planned."""

    retryable = True
    kind = "source_changed"


class StorageUnavailableError(StorageError):
    """The store did not answer, or asked to slow down."""

    retryable = True
    kind = "storage_unavailable"


class WorkerDiedError(PosebatchError):
    """The process that did the work ended: killed, out of memory, or crashed by what it read."""

    retryable = True
    kind = "worker_died"


class WorkerCrashError(WorkerDiedError):
    """The process ended by what it worked on: it crashed, hung, or took memory without end."""

    kind = "poison"


class EvictedError(WorkerDiedError):
    """The process ended through no fault of what it worked on: its node went away, or another segment ended it."""

    kind = "taken_away"


class InternalError(PosebatchError):
    """A bug, met while working on one video; the message holds the traceback."""

    kind = "internal"


class RunAbortedError(PosebatchError):
    """The run cannot go on; what is published stays, and the same command continues it."""

    kind = "aborted"
