"""The functions that `import posebatch` offers: poses of one file, a run over many, the check of a dataset."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from numpy.typing import NDArray

from posebatch.core.errors import SettingsError
from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.settings import EstimatorSettings, Settings, settings_from
from posebatch.core.videos import Segment

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from posebatch.dataset.verify import Verdict
    from posebatch.run.outcome import RunOutcome
    from posebatch.video.options import DecodeOptions

WHOLE_VIDEO_SECONDS: Final = 1e9
"""No video is cut: one process decodes it."""


def decode(path: str | os.PathLike[str], stride: int = 1, batch_frames: int = 16) -> Iterator[FrameBatch]:
    """Decode a video on this machine: every ``stride``-th frame, in batches of at most ``batch_frames`` frames.

    ``batch.images`` is an array (n, height, width, 3), uint8 RGB, rotated as displayed. Frames that cannot be decoded
    have a record in ``batch.records`` and no image.

    Raises `InputError` or `StorageError` for a file that cannot be read, `VideoError` for one that is no video, and
    `SettingsError` for the other arguments.

    >>> batches = list(posebatch.decode("clip.mp4", stride=10))
    >>> batches[0].images.shape
    (3, 120, 160, 3)
    """
    from posebatch.video.options import DecodeOptions  # noqa: PLC0415 - FFmpeg is loaded when it is needed

    if not isinstance(batch_frames, int) or batch_frames < 1:
        raise SettingsError(f"decode: batch_frames must be a whole number from 1 on, got {batch_frames!r}")
    return _decode(os.fspath(path), DecodeOptions(settings_from({"stride": stride}, "decode").sampling, batch_frames))


def estimate(
    path: str | os.PathLike[str], settings: EstimatorSettings | None = None, stride: int = 1, device: str = "auto"
) -> Iterator[FramePoses]:
    """Find the persons in every ``stride``-th frame of a video on this machine, in presentation order.

    ``device`` is ``auto``, ``cpu`` or ``cuda``. ``poses.keypoints`` is an array (persons, 17, 3) of x and y in pixels
    of the displayed frame, and a score; its joints are `posebatch.KEYPOINT_NAMES`.

    Raises `InputError`, `StorageError` or `VideoError` for the file, and `SettingsError` or `WeightsError` for the
    settings.

    >>> for poses in posebatch.estimate("clip.mp4", stride=10):
    ...     print(poses.record.frame_index, poses.keypoints.shape)
    0 (0, 17, 3)
    10 (0, 17, 3)
    20 (0, 17, 3)
    """
    from posebatch.pose.estimator import PoseEstimator  # noqa: PLC0415 - torch takes seconds to load
    from posebatch.video.options import DecodeOptions  # noqa: PLC0415

    if not isinstance(settings, EstimatorSettings | None):
        raise SettingsError(f"estimate: settings must be EstimatorSettings, got {type(settings).__name__}")
    settings = settings or EstimatorSettings()
    checked = settings_from({"stride": stride, "device": device}, "estimate")
    estimator = PoseEstimator.load(settings, checked.execution.device)
    options = DecodeOptions(checked.sampling, estimator.batch_frames, group_frames=settings.group_frames)
    return estimator.estimate(_decode(os.fspath(path), options))


def plot(
    output: str,
    video: str,
    joint: str | Sequence[str] = "left_knee",
    track: int | None = None,
    endpoint_url: str | None = None,
) -> Figure:
    """Plot angles of a person over time, as ``posebatch plot VIDEO --output OUTPUT`` does; returns the figure.

    ``video`` may have a track and a range: ``clip.mp4#1@2-8``; ``track`` is the same as ``#1``. Without either the
    main person is shown. ``joint`` is one angle of the table ``motion`` or several, such as ``left_knee``. A gap is a
    gap in the curve, and interpolated parts are dashed. A notebook shows the figure that a cell ends with.

    Raises `InputError` for a video or track that is not there, and `UsageError` if matplotlib is not installed.

    >>> figure = posebatch.plot("out", "clip.mp4", joint=["left_knee", "right_knee"])  # doctest: +SKIP
    >>> figure.savefig("knees.png")  # doctest: +SKIP
    """
    from posebatch.report.plots import plot_angles  # noqa: PLC0415 - Arrow is loaded when it is needed

    return plot_angles(output, video, [joint] if isinstance(joint, str) else list(joint), track, endpoint_url)


def draw(image: NDArray[np.uint8], poses: FramePoses) -> NDArray[np.uint8]:
    """Draw the persons of a frame on its image (height, width, 3), RGB; returns a new image.

    Unsure joints are left out, as in previews.

    >>> batch = next(posebatch.decode("clip.mp4"))
    >>> poses = next(posebatch.estimate("clip.mp4"))
    >>> posebatch.draw(batch.images[0], poses).shape
    (120, 160, 3)
    """
    from posebatch.report.drawing import DRAWING_THRESHOLDS, draw_skeletons  # noqa: PLC0415 - Pillow is loaded here

    return draw_skeletons(image, poses.keypoints, DRAWING_THRESHOLDS)


def run(inputs: str | Sequence[str], output: str, settings: Settings | None = None) -> RunOutcome:
    """Run the job, as ``posebatch run INPUTS --output OUTPUT`` does; returns counts and problems.

    ``inputs`` are files, folders, globs or ``s3://`` addresses; ``output`` is a folder or ``s3://bucket/prefix``. An
    output that another run has in use raises `OutputHeldError`; a run that cannot go on raises `RunAbortedError`.

    >>> outcome = posebatch.run("videos/", "out", posebatch.settings_from({"stride": 5}))  # doctest: +SKIP
    >>> outcome.tally.published  # doctest: +SKIP
    12
    """
    from posebatch.run.driver import run_job  # noqa: PLC0415 - planning and storage are loaded when they are needed

    return run_job([inputs] if isinstance(inputs, str) else list(inputs), output, settings or Settings())


def export(
    output: str,
    format: str,  # noqa: A002 - the name of the flag
    to: str,
    match: str = "*",
    track: int | Literal["all", "main"] = "all",
    height_cm: float | None = None,
    raw: bool = False,
    endpoint_url: str | None = None,
) -> list[str]:
    """Write tracks and motion as files of another program, as ``posebatch export`` does; returns their addresses.

    ``format`` is ``coco``, ``dlc``, ``sleap``, ``trc``, ``mot``, ``c3d``, ``csv``, ``xlsx`` or ``ndjson``.
    ``height_cm`` is the height of the person, for formats in metres; None assumes 170 cm. ``raw`` takes joints as the
    networks found them instead of the smoothed ones. Raises `InputError` if no video matches, none has motion or none
    has the track, and `UsageError` for an unknown format or a library that is not installed.

    >>> posebatch.export("out", "trc", "opensim", track="main", height_cm=178)  # doctest: +SKIP
    ['/home/me/opensim/ski/run.mp4.track0.trc']
    """
    from posebatch.dataset.export.reading import MotionChoice  # noqa: PLC0415 - pandas is loaded when it is needed
    from posebatch.dataset.export.video_motion import BodyHeight  # noqa: PLC0415
    from posebatch.dataset.export.whole_output import export_output  # noqa: PLC0415

    body = BodyHeight() if height_cm is None else BodyHeight(height_cm, is_assumed=False)
    videos = export_output(output, to, format, match, MotionChoice(track, raw, body), endpoint_url)
    return [address for video in videos for address in video.files]


def verify(output: str, deep: bool = False, endpoint_url: str | None = None) -> Verdict:
    """Check a dataset, as ``posebatch verify`` does: nothing lost, nothing doubled, nothing half-written.

    ``deep`` reads every byte. ``endpoint_url`` names an S3-compatible store other than AWS.

    >>> posebatch.verify("out").problems  # doctest: +SKIP
    ()
    """
    from posebatch.dataset.verify import verify as verify_store  # noqa: PLC0415 - Arrow is loaded when it is needed
    from posebatch.storage.open import open_store  # noqa: PLC0415

    return verify_store(open_store(output, endpoint_url), deep)


def _decode(name: str, options: DecodeOptions) -> Iterator[FrameBatch]:
    from posebatch.storage.open import open_newest  # noqa: PLC0415
    from posebatch.video.probe import probe  # noqa: PLC0415
    from posebatch.video.segment_decoder import SegmentDecoder  # noqa: PLC0415

    with open_newest(name) as file:
        info = probe(file, name, segment_seconds=WHOLE_VIDEO_SECONDS, limits=options.limits).info
        yield from SegmentDecoder(file, name, Segment(), info, options)
