"""Draw who is who: a colour and a number for each track, and the paths that joints took within the last second."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont

from posebatch.core.frames import FramePoses, check_array
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.report.drawing import DRAWING_THRESHOLDS, JOINT_COLOURS, draw_skeletons
from posebatch.report.labels import draw_angles, draw_boxes
from posebatch.report.overlay import OUTLINE, SUPERSAMPLING, Colour, Overlay, to_layer

NO_TRACK: Final = -1
"""The id of persons without a track."""


TRACK_COLOURS: Final[tuple[Colour, ...]] = (
    (230, 60, 160),
    (70, 200, 90),
    (150, 90, 240),
    (240, 190, 40),
    (40, 200, 200),
    (220, 60, 50),
    (160, 220, 60),
    (60, 100, 230),
    (250, 150, 180),
    (150, 110, 60),
)
"""Colours of tracks 0, 1, 2...; they repeat. Neighbours in the list are easy to tell apart."""


NO_TRACK_COLOUR: Final[Colour] = (200, 200, 200)
"""Grey, for persons without a track."""


TRAIL_SECONDS: Final = 1.0
"""A trail shows where a joint was during this time. Older parts are fainter."""


TRAIL_WIDTH: Final = 1.5
"""Width of a trail, pixels of the image."""


NUMBER_SHARE: Final = 1 / 18
"""Height of a number relative to the shorter side of the image."""


MIN_NUMBER_PX: Final = 16
"""Least height of a number, pixels of the image."""


@dataclass(frozen=True)
class Trail:
    """The path of one joint of one track, the oldest position first."""

    colour: Colour
    frames: NDArray[np.int64]
    """(n,) count of the frames that the clip had shown before. A step of more than one interrupts the line."""
    ages_s: NDArray[np.float64]
    """(n,) seconds since the joint was there."""
    points: NDArray[np.float32]
    """(n, 2) x, y in pixels of the full frame."""

    def __post_init__(self) -> None:
        n = len(self.frames)
        check_array("frames", self.frames, np.int64, (n,))
        check_array("ages_s", self.ages_s, np.float64, (n,))
        check_array("points", self.points, np.float32, (n, 2))


def track_colour(track_id: int) -> Colour:
    """The colour of a track; grey for `NO_TRACK`."""
    return NO_TRACK_COLOUR if track_id == NO_TRACK else TRACK_COLOURS[track_id % len(TRACK_COLOURS)]


def draw_trails(image: NDArray[np.uint8], trails: Sequence[Trail], scale: float = 1.0) -> NDArray[np.uint8]:
    """Draw trails on an RGB image (height, width, 3), which is the frame scaled by ``scale``; returns a new image.

    Without trails the image itself is returned. The parts of a trail fade to nothing in `TRAIL_SECONDS`.
    """
    if not trails:
        return image
    overlay = Overlay(image)
    for trail in trails:
        steps = zip(pairwise(to_layer(trail.points, scale)), pairwise(trail.frames), trail.ages_s[1:], strict=True)
        for (start, end), (before, after), age_s in steps:
            opacity = round(255 * (1 - age_s / TRAIL_SECONDS))
            if after == before + 1 and opacity > 0:
                line, width = [tuple(start), tuple(end)], round(TRAIL_WIDTH * SUPERSAMPLING)
                overlay.pen.line(line, fill=(*trail.colour, opacity), width=width)
    return overlay.flattened()


def draw_numbers(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    track_ids: NDArray[np.int32],
    thresholds: float | NDArray[np.float32],
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Write the number of each track above its person, in the track's colour; returns a new image.

    ``image``, ``keypoints`` (n, 17, 3), ``thresholds`` and ``scale`` are those of `draw_skeletons`. ``track_ids`` are
    (n,). A number stays inside the image. Persons of `NO_TRACK`, or of whom no joint is drawn, get none.
    """
    visible = keypoints[:, :, 2] > thresholds
    numbered = np.flatnonzero((track_ids != NO_TRACK) & visible.any(axis=1))
    if not len(numbered):
        return image
    overlay = Overlay(image)
    width, height = overlay.size_wh
    size = max(MIN_NUMBER_PX * SUPERSAMPLING, min(width, height) * NUMBER_SHARE)
    font = ImageFont.load_default(size)
    for person in numbered:
        joints = to_layer(keypoints[person, visible[person], :2], scale)
        text = str(track_ids[person])
        half = overlay.pen.textlength(text, font) / 2 + SUPERSAMPLING  # the stroke, too
        x = float(np.clip(joints[:, 0].mean(), half, max(half, width - half)))
        y = float(np.clip(joints[:, 1].min() - size / 2, size, height - SUPERSAMPLING))
        overlay.pen.text(
            (x, y),
            text,
            font=font,
            anchor="ms",
            fill=(*track_colour(int(track_ids[person])), 255),
            stroke_width=SUPERSAMPLING,
            stroke_fill=(*OUTLINE[:3], 255),
        )
    return overlay.flattened()


class ClipPainter:
    """Draws the persons of one clip, and remembers where their joints were::

    painter = ClipPainter(by_track=True, trail_joints=["left_wrist"], scale=0.5)
    for poses, time_s, image in clip:
        painter.remember(poses, time_s)   # every frame in turn
        drawn = painter.draw(poses, image)   # any frame, once it is remembered
    """

    def __init__(
        self, by_track: bool, trail_joints: Iterable[str] = (), scale: float = 1.0, show: Collection[str] = ()
    ) -> None:
        """With ``by_track``, lines have the colour of the track, and its number is written at the person.

        ``trail_joints`` are names of joints. ``scale`` is the size of the images relative to the frame. ``show`` holds
        any of "boxes", "ids" and "angles".
        """
        self._by_track, self._scale, self._show = by_track, scale, frozenset(show)
        self._joints = tuple(dict.fromkeys(KEYPOINT_NAMES.index(name) for name in trail_joints))
        self._frames, self._now_s = 0, 0.0
        self._paths: dict[tuple[int, int], deque[tuple[int, float, NDArray[np.float32]]]] = {}  # by track and joint

    def remember(self, poses: FramePoses, time_s: float) -> None:
        """Add a frame to the trails. Joints too unsure to be drawn interrupt their trail."""
        self._frames, self._now_s = self._frames + 1, time_s
        for keypoints, track_id in zip(poses.keypoints, self._ids(poses).tolist(), strict=True):
            for joint in self._joints if track_id != NO_TRACK else ():
                if keypoints[joint, 2] > DRAWING_THRESHOLDS[joint]:
                    path = self._paths.setdefault((track_id, joint), deque())
                    path.append((self._frames, time_s, keypoints[joint, :2]))
        for key, path in list(self._paths.items()):
            while path and path[0][1] <= time_s - TRAIL_SECONDS:
                path.popleft()
            if not path:
                del self._paths[key]

    def draw(
        self, poses: FramePoses, image: NDArray[np.uint8], angles: Sequence[Mapping[int, float]] = ()
    ) -> NDArray[np.uint8]:
        """Draw trails, boxes, skeletons, angles and numbers on the image of a frame; returns a new image.

        Persons are drawn in the colours of their sides if the frame has no track ids at all. ``angles`` are those of
        `draw_angles`; without "angles" in ``show`` they are not needed.
        """
        joints, scale = poses.keypoints, self._scale
        by_track = self._by_track and poses.track_ids is not None
        colours = [track_colour(track_id) if by_track else NO_TRACK_COLOUR for track_id in self._ids(poses).tolist()]
        drawn = draw_trails(image, self._trails(), scale)
        if "boxes" in self._show:
            drawn = draw_boxes(drawn, poses.bbox_xyxy, colours, scale)
        drawn = draw_skeletons(drawn, joints, DRAWING_THRESHOLDS, scale, colours if by_track else None)
        if "angles" in self._show:
            drawn = draw_angles(drawn, joints, angles, DRAWING_THRESHOLDS, scale)
        if by_track or "ids" in self._show:
            drawn = draw_numbers(drawn, joints, self._ids(poses), DRAWING_THRESHOLDS, scale)
        return drawn

    def _ids(self, poses: FramePoses) -> NDArray[np.int32]:
        return np.full(len(poses), NO_TRACK, np.int32) if poses.track_ids is None else poses.track_ids

    def _trails(self) -> list[Trail]:
        return [
            Trail(
                track_colour(track_id) if self._by_track else JOINT_COLOURS[joint],
                np.array([frame for frame, _, _ in path], np.int64),
                np.array([self._now_s - time_s for _, time_s, _ in path]),
                np.array([point for _, _, point in path], np.float32),
            )
            for (track_id, joint), path in self._paths.items()
        ]
