"""The movement of a video as the player needs it: whole numbers, thinned until they fit into a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import StorageError
from posebatch.core.skeleton import NUM_KEYPOINTS, SKELETON_EDGES
from posebatch.dataset.tables.page_data import FrameLine, MovementRows
from posebatch.motion.movement.motion_block import ANGLE_NAMES
from posebatch.report.drawing import DRAWING_THRESHOLDS, EDGE_COLOURS, JOINT_COLOURS
from posebatch.report.pages.packing import base64_text, carried, packed, quantised

HIDDEN, SEEN, INTERPOLATED, UNSURE = range(4)
"""States of a joint. The player draws those seen, hollow those interpolated, and no others."""


COORDINATE_STEPS: Final = 4096
"""Steps of a coordinate along the longer side of a frame: finer than a pixel of the player."""


DEGREES: Final = 0.1


TORSOS: Final = 0.002


MAX_DATA_BYTES: Final = 4_600_000
"""Maximum size of series and stills in a page, as text, so that the page stays below 5 MB."""


FIRST_ROWS: Final = 200_000
"""More rows than this are not even tried: they would exceed `MAX_DATA_BYTES`."""


@dataclass(frozen=True)
class PlayerData:
    """What the script of a page unpacks."""

    head: dict[str, Any]
    """Sizes, units and tracks; goes into the page as JSON."""
    frames: str
    """Index, time in ms, persons and status of each frame: 32 bits, packed, base64."""
    rows: str
    """Joints, their states, angles and so on of each row: 16 bits, packed, base64."""
    step: int
    """The page shows every ``step``-th processed frame."""


def player_data(
    line: FrameLine,
    rows_of: Callable[[NDArray[np.int64]], MovementRows],
    size_wh: tuple[int, int],
    rows: int,
    stills_bytes: int = 0,
) -> PlayerData:
    """The data of a page: of every frame, or where that is too large of every second, every fourth and so on.

    ``rows_of`` reads the rows of some frames. ``rows``: of the motion table, all together. ``stills_bytes``: of the
    pictures in the page, as text. Raises `StorageError` if a track lacks a row of one of its frames.
    """
    step = 1
    while rows > FIRST_ROWS * step:
        step *= 2
    while True:
        data = encoded(line.every(step), rows_of, size_wh, step)
        if len(data.rows) + len(data.frames) + stills_bytes <= MAX_DATA_BYTES or len(line) <= step:
            return data
        step *= 2


def encoded(
    line: FrameLine, rows_of: Callable[[NDArray[np.int64]], MovementRows], size_wh: tuple[int, int], step: int
) -> PlayerData:
    """The data of a page that shows the frames of ``line``."""
    movement = rows_of(line.index)
    unit = max(size_wh) / COORDINATE_STEPS
    head = {
        "frames": len(line),
        "rows": len(movement),
        "step": step,
        "width": size_wh[0],
        "height": size_wh[1],
        "unit": unit,
        "degrees": DEGREES,
        "torsos": TORSOS,
        "angles": ANGLE_NAMES,
        "edges": SKELETON_EDGES,
        "edgeColours": EDGE_COLOURS,
        "jointColours": JOINT_COLOURS,
        "tracks": track_spans(movement, line.index),
    }
    return PlayerData(head, _frames_text(line), _rows_text(movement, unit), step)


def track_spans(movement: MovementRows, frames: NDArray[np.int64]) -> list[dict[str, int]]:
    """Of each track: its id, its first row, its number of rows, and the position of its first frame in ``frames``.

    Raises `StorageError` if a track lacks a row of one of its frames.
    """
    ids, firsts, counts = np.unique(movement.track_id, return_index=True, return_counts=True)
    positions = np.searchsorted(frames, movement.frame_index)
    spans = []
    for track, first, count in zip(ids.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        start = int(positions[first])
        if int(positions[first + count - 1]) != start + count - 1:
            raise StorageError(f"motion: track {track} lacks rows of some of its frames; derive the video again")
        spans.append({"id": track, "row": first, "rows": count, "start": start})
    return spans


def joint_states(joints: NDArray[np.float32]) -> NDArray[np.int16]:
    """The state (m, 17) of each joint of (m, 17, 3)."""
    score = joints[:, :, 2]
    states = np.full(score.shape, UNSURE, np.int16)
    states[score > DRAWING_THRESHOLDS] = SEEN
    states[score == 0] = INTERPOLATED
    states[np.isnan(joints).any(axis=2)] = HIDDEN
    return states


def _frames_text(line: FrameLine) -> str:
    milliseconds = np.rint(line.time_s * 1000)
    columns = np.stack([line.index, milliseconds, line.persons, line.decoded], axis=1).astype(np.int32)
    return base64_text(packed(columns))


def _rows_text(movement: MovementRows, unit: float) -> str:
    states = joint_states(movement.joints)
    shown = (states == SEEN) | (states == INTERPOLATED)
    columns = [quantised(carried(movement.joints[:, :, axis], shown), unit) for axis in (0, 1)]
    columns.append(states)
    columns.append(quantised(movement.angles, DEGREES))
    columns.append(movement.gap.astype(np.int16)[:, None])
    columns.append(quantised(movement.hip_height_torso, TORSOS)[:, None])
    columns.append(quantised(movement.speed_torso_per_s, TORSOS)[:, None])
    assert columns[0].shape[1] == NUM_KEYPOINTS
    return base64_text(packed(np.concatenate(columns, axis=1)))
