"""C3D, the binary file of motion capture: one file a track, written by ezc3d."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.dataset.export.files import ExportedFile, bytes_written
from posebatch.dataset.export.markers import MARKER_NAMES, NO_SCALE, Markers, each_markers
from posebatch.dataset.export.timing import resampled
from posebatch.dataset.export.video_motion import VideoMotion

MAX_FRAMES: Final = 65_535
"""Frames that readers see: the header counts them in 16 bits, and ezc3d reads no more."""


RESAMPLED_MARK: Final = ".resampled"
"""In the name of a file whose frames are not those of the video, because a C3D file has one rate."""


def c3d_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """One file a track: positions in metres at one frame rate, not valid where a joint is not known.

    Frames at a variable rate are resampled to the rate of the median interval.
    """
    for track_id, markers in each_markers(motion):
        yield _c3d_file(markers) if markers else ExportedFile(f".track{track_id}.c3d", None, NO_SCALE)


def _c3d_file(markers: Markers) -> ExportedFile:
    changed, points = "", markers.points
    if not markers.timing.is_constant:
        changed, points = RESAMPLED_MARK, resampled(markers.time_s, points, markers.timing.rate_hz)[1]
    suffix = f".track{markers.track_id}{markers.body.mark}{changed}.c3d"
    if len(points) > MAX_FRAMES:
        why = f"{len(points):,} frames, and a C3D file takes {MAX_FRAMES:,}; export it as trc"
        return ExportedFile(suffix, None, why, is_refused=True)
    rate = f"the frame rate varies: resampled to {markers.timing.rate_hz:.3f} Hz" if changed else ""
    note = "; ".join(filter(None, (markers.note, rate)))
    return ExportedFile(suffix, c3d_bytes(markers, points, bool(changed)), note)


def c3d_bytes(markers: Markers, points: NDArray[np.float64], is_resampled: bool) -> bytes:
    """The bytes of a C3D file with these points (frames, 17, 3). The group POSEBATCH says where they come from."""
    from ezc3d import c3d  # noqa: PLC0415 - an optional extra

    file: Any = c3d()
    file["parameters"]["POINT"]["RATE"]["value"] = [markers.timing.rate_hz]
    file["parameters"]["POINT"]["LABELS"]["value"] = list(MARKER_NAMES)
    file["parameters"]["POINT"]["UNITS"]["value"] = ["m"]
    file.add_parameter("POINT", "X_SCREEN", "+X")
    file.add_parameter("POINT", "Y_SCREEN", "+Y")
    height = f"{markers.body.cm:g} cm, {'assumed' if markers.body.is_assumed else 'as stated'}"
    for name, value in (
        ("VIDEO", markers.video.encode("ascii", "backslashreplace").decode()[:127]),
        ("TRACK", [markers.track_id]),
        ("START_S", [float(markers.time_s[0])]),
        ("FIRST_FRAME", [int(markers.frame_index[0])]),
        ("BODY_HEIGHT", height),
        ("METRES_PER_PX", [markers.scale.metres_per_px]),
        ("RESAMPLED", [int(is_resampled)]),
    ):
        file.add_parameter("POSEBATCH", name, value)
    homogeneous = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2)  # (frames, 17, 4)
    file["data"]["points"] = homogeneous.transpose(2, 1, 0)
    return bytes_written(file.write, ".c3d")
