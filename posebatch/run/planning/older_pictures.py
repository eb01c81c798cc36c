"""Videos that an earlier version published, and whose pictures it may have taken for others than a player shows.

Before version 3 of the tables every pixel counted as square, a mirrored picture as a turned one, and the first video
track as the right one. The commit records of those versions do not say whether that mattered. So the header of such a
video is read once.
"""

from __future__ import annotations

from posebatch.core.errors import VideoError
from posebatch.core.records import VideoRecord
from posebatch.core.videos import SourceVideo, VideoInfo
from posebatch.run.context import RunContext
from posebatch.storage.open import open_video
from posebatch.video.probe import probe


def changed_picture(video: SourceVideo, record: VideoRecord, context: RunContext) -> str | None:
    """How the picture that a player shows differs from the one that was published; None if it does not.

    Raises `StorageError` if the video cannot be read now.
    """
    if record.info is None:
        return None
    settings = context.settings
    try:
        with open_video(video, context.endpoint_url) as file:
            execution, track = settings.execution, settings.sampling.video_track
            now = probe(file, video.uri, execution.segment_seconds, settings.limits, track).info
    except VideoError as error:
        return f"an earlier version published it, and this one cannot read it: {error}"
    return difference(record.info, now)


def difference(before: VideoInfo, now: VideoInfo) -> str | None:
    """How the picture of a published video differs from what this version finds; None if it does not."""
    if _described(before) == _described(now) and not now.mirrored and not now.matrix_ignored:
        return None
    return f"an earlier version published {_described(before)}; a player shows {_described(now)}{_flags(now)}"


def _described(info: VideoInfo) -> str:
    rotated = f", rotated by {info.rotation} degrees" if info.rotation else ""
    start = f", from {float(info.start_pts * info.time_base):g} s"
    return f"{info.codec} {info.width}x{info.height}{rotated}{start}"


def _flags(info: VideoInfo) -> str:
    return ", mirrored" * info.mirrored + ", with a shear or zoom" * info.matrix_ignored
