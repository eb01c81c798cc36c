"""The tree of all errors that posebatch raises deliberately.

::

    PosebatchError
    ├── UsageError                the command cannot be carried out as given: exit code 2
    │   ├── SettingsError         an option or a settings file is wrong
    │   ├── InputError            an input is wrong, or conflicts with another or with the output
    │   ├── OutputError           the output cannot be written, or is none of posebatch
    │   │   └── NewerOutputError  a newer version of posebatch wrote something that this one does not know
    │   ├── OutputHeldError       another run holds the output
    │   ├── WeightsError          a weight file is missing, damaged, or of another network
    │   └── TrainingError         a training cannot continue with its settings
    ├── VideoError                the video is faulty; the same bytes would fail again
    │   ├── NotAVideoError        not a container that posebatch reads, or an empty file
    │   ├── NoVideoStreamError    a container without a video stream
    │   ├── EncryptedVideoError   the video stream is encrypted
    │   ├── ArchiveError          an archive is damaged, or a member of it cannot be read by ranges
    │   ├── LimitError            larger or longer than the limits in the settings
    │   ├── DamagedVideoError     the container's index or the stream cannot be read
    │   └── IndexDisagreesError   the container's index lists other frames than the stream holds
    ├── PreviewError              a preview could not be drawn; the tables are not affected
    ├── StorageError              an object could not be read or written
    │   ├── ObjectNotFoundError   no such bucket, key or file
    │   │   └── BucketNotFoundError  no such bucket: exit code 2, if a command ends with it
    │   ├── StagedError           a staged segment was not written by this version, or is damaged
    │   ├── DamagedRecordError    a commit record cannot be read
    │   ├── AccessDeniedError     the credentials or permissions do not suffice
    │   ├── ColdObjectError       the object must be restored from its storage class before it can be read
    │   ├── UnsupportedError      the store does not support the operation
    │   ├── PutRefusedError       (retryable) the object of a conditional put has changed in the meantime
    │   ├── ObjectChangedError    (retryable) the object is not the version that was planned
    │   └── StorageUnavailableError  (retryable) the store did not answer, or asked to slow down
    ├── WorkerDiedError           (retryable) the worker process ended
    │   ├── WorkerCrashError      (retryable) the video caused it: a crash, a hang, or exhausted memory
    │   └── EvictedError          (retryable) the video did not cause it
    ├── InternalError             a bug in posebatch, met while working on one video
    └── RunAbortedError           the run cannot continue: exit code 1

``retryable`` says whether the same work may succeed when it is repeated. All errors survive pickling, because Ray
sends them between processes: each takes one message and passes it to ``Exception.__init__``.
"""

from __future__ import annotations

from typing import ClassVar

from posebatch.core.redaction import redacted


class PosebatchError(Exception):
    """Base of all errors. The message says what is wrong, in which input, and how to fix it.

    Credentials in the message are masked, because messages are printed, logged, published and sent to other machines.
    """

    retryable: ClassVar[bool] = False
    kind: ClassVar[str] = "error"
    """The value of the column ``error_kind`` in the videos table."""

    def __init__(self, message: str) -> None:
        super().__init__(redacted(message))


class UsageError(PosebatchError):
    """The command cannot be carried out as given."""

    kind = "usage"


class SettingsError(UsageError):
    """An option or a settings file is wrong."""

    kind = "settings"


class InputError(UsageError):
    """An input does not exist, is empty, or conflicts with another input or with the output."""

    kind = "input"


class OutputError(UsageError):
    """The output cannot be written, or is no output of posebatch."""

    kind = "output"


class NewerOutputError(OutputError):
    """A newer version of posebatch wrote a file that this version cannot read and therefore must not change."""

    kind = "newer_output"


class OutputHeldError(UsageError):
    """Another run holds the output."""

    kind = "output_held"


class WeightsError(UsageError):
    """A weight file is missing, damaged, or of another network."""

    kind = "weights"


class TrainingError(UsageError):
    """A training cannot continue with its settings."""

    kind = "training"


class VideoError(PosebatchError):
    """The video is faulty; the same bytes would fail again."""

    kind = "video"


class NotAVideoError(VideoError):
    """The bytes are not a video container that posebatch reads."""

    kind = "not_a_video"


class NoVideoStreamError(VideoError):
    """The container holds no video stream."""

    kind = "no_video_stream"


class EncryptedVideoError(VideoError):
    """The video stream is encrypted (DRM). Without its key a decoder gives noise, or nothing."""

    kind = "encrypted"


class ArchiveError(VideoError):
    """An archive is damaged or of a kind that cannot be read by ranges, or one of its members is."""

    kind = "archive"


class LimitError(VideoError):
    """The video is larger or longer than the limits in the settings."""

    kind = "limit"


class DamagedVideoError(VideoError):
    """The container or its video stream cannot be read."""

    kind = "damaged"


class IndexDisagreesError(VideoError):
    """The container's index lists other frames than the stream holds, so the video must be decoded as one segment."""

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


class BucketNotFoundError(ObjectNotFoundError):
    """No such bucket. A command that ends with this error was given a wrong address."""

    kind = "bucket_not_found"


class StagedError(StorageError):
    """A staged segment is damaged, or was written by another version of posebatch."""

    kind = "staged"


class DamagedRecordError(StorageError):
    """The object at the key of a commit record is none."""

    kind = "damaged_record"


class AccessDeniedError(StorageError):
    """The credentials or file permissions do not suffice."""

    kind = "access_denied"


class ColdObjectError(StorageError):
    """The object lies in a storage class from which it must be restored before it can be read."""

    kind = "cold"


class UnsupportedError(StorageError):
    """The store does not support the operation, such as a conditional put."""

    kind = "unsupported"


class PutRefusedError(StorageError):
    """A conditional put was refused, because the object has changed in the meantime."""

    retryable = True
    kind = "put_refused"


class ObjectChangedError(StorageError):
    """The object is not the version that was planned."""

    retryable = True
    kind = "source_changed"


class StorageUnavailableError(StorageError):
    """The store did not answer, or asked to slow down."""

    retryable = True
    kind = "storage_unavailable"


class WorkerDiedError(PosebatchError):
    """The worker process ended."""

    retryable = True
    kind = "worker_died"


class WorkerCrashError(WorkerDiedError):
    """The worker process ended because of the video: it crashed, hung, or exhausted its memory."""

    kind = "poison"


class EvictedError(WorkerDiedError):
    """The worker process ended for another reason than the video: its node was lost, or another segment ended it."""

    kind = "taken_away"


class InternalError(PosebatchError):
    """A bug in posebatch, met while working on one video. The message contains the traceback."""

    kind = "internal"


class RunAbortedError(PosebatchError):
    """The run cannot continue. Published results stay, and the same command continues the run."""

    kind = "aborted"
