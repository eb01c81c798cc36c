"""TRC, the text of marker trajectories that OpenSim reads: one file a track.

Rules: OpenSim's reader, ``OpenSim/Common/TRCFileAdapter.cpp``. Each line ends with a tab, as those of OpenSim's own
writer: its reader drops an empty last cell that no tab follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from posebatch.core.redaction import visible
from posebatch.dataset.export.files import ExportedFile
from posebatch.dataset.export.markers import MARKER_NAMES, NO_SCALE, Markers, each_markers
from posebatch.dataset.export.video_motion import VideoMotion

_KEYS: Final = (
    *("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"),
    *("OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
)


VARIABLE_MARK: Final = ".variable-rate"
"""In the name of a file whose times are not even, for programs that read the header's rate and not the times."""


def trc_files(motion: VideoMotion) -> Iterator[ExportedFile]:
    """One file a track: the times of the frames themselves, positions in metres, empty where not known."""
    for track_id, markers in each_markers(motion):
        yield _trc_file(markers) if markers else ExportedFile(f".track{track_id}.trc", None, NO_SCALE)


def _trc_file(markers: Markers) -> ExportedFile:
    variable = "" if markers.timing.is_constant else VARIABLE_MARK
    suffix = f".track{markers.track_id}{markers.body.mark}{variable}.trc"
    rate = "the frame rate varies: read the column Time, not DataRate" if variable else ""
    note = "; ".join(filter(None, (markers.note, rate)))
    return ExportedFile(suffix, trc_text(markers, _name(markers.video, suffix)).encode(), note)


def trc_text(markers: Markers, name: str) -> str:
    """The text of a TRC file. ``name`` stands in its first line."""
    rate, count = f"{markers.timing.rate_hz:.6f}", len(markers.time_s)
    values = (rate, rate, count, len(MARKER_NAMES), "m", rate, 1, count)
    axes = [f"{axis}{number}" for number in range(1, len(MARKER_NAMES) + 1) for axis in "XYZ"]
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{name}",
        "\t".join(_KEYS),
        "\t".join(map(str, values)),
        "Frame#\tTime\t" + "".join(f"{marker}\t\t\t" for marker in MARKER_NAMES),
        "\t\t" + "".join(f"{axis}\t" for axis in axes),
        "",
    ]
    cells = markers.points.reshape(count, -1)
    for number, (time_s, row) in enumerate(zip(markers.time_s.tolist(), cells, strict=True), 1):
        lines.append(f"{number}\t{time_s!r}\t" + "".join(f"{_cell(value)}\t" for value in row.tolist()))
    return "\n".join(lines) + "\n"


def _name(video: str, suffix: str) -> str:
    """The file's name as one cell: without tabs and line ends."""
    return f"{visible(video.rpartition('/')[2])}{suffix}"


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
