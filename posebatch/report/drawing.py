"""Draw skeletons on a frame: the person's left side blue, the right side orange, the middle yellow."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES

Colour = tuple[int, int, int]
"""RGB."""


LEFT_COLOUR: Final[Colour] = (0, 170, 255)
"""Blue. It and orange stay apart for people who see red and green alike."""


RIGHT_COLOUR: Final[Colour] = (255, 100, 0)
"""Orange."""


MIDDLE_COLOUR: Final[Colour] = (255, 235, 60)
"""Yellow."""


def _colour_of(names: set[str]) -> Colour:
    """The colour of joints, or of an edge between them: that of their common side."""
    sides = {name.partition("_")[0] for name in names} - {KEYPOINT_NAMES[0]}
    return {"left": LEFT_COLOUR, "right": RIGHT_COLOUR}[sides.pop()] if len(sides) == 1 else MIDDLE_COLOUR


JOINT_COLOURS: Final = tuple(_colour_of({name}) for name in KEYPOINT_NAMES)
"""Colour of each joint."""


EDGE_COLOURS: Final = tuple(_colour_of({KEYPOINT_NAMES[a], KEYPOINT_NAMES[b]}) for a, b in SKELETON_EDGES)
"""Colour of each edge of the skeleton."""


_SCORE_OF_JOINT: Final = {"elbow": 0.3, "wrist": 0.4, "hip": 0.4, "knee": 0.4, "ankle": 0.4}


DRAWING_THRESHOLDS: Final[NDArray[np.float32]] = np.array(
    [_SCORE_OF_JOINT.get(name.rpartition("_")[2], 0.2) for name in KEYPOINT_NAMES], np.float32
)
"""Scores (17,) above which previews draw a joint: of those with a label, 85 % are right (ankles: 80 %).

docs/accuracy.md has the measurement.
"""


SUPERSAMPLING: Final = 3
"""Factor by which lines are drawn larger and then reduced, which smooths their edges."""


OUTLINE: Final[Colour] = (0, 0, 0)
"""A thin rim keeps lines visible on any background."""


OUTLINE_ALPHA: Final = 110
"""Opacity of the rim, of 255."""


def draw_skeletons(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    thresholds: float | NDArray[np.float32],
    scale: float = 1.0,
) -> NDArray[np.uint8]:
    """Draw the skeletons of persons on an RGB image (height, width, 3); returns a new image.

    ``keypoints`` are (n, 17, 3): x, y in pixels of the full frame, and score. ``image`` is the frame scaled by
    ``scale``. Joints that score at most their threshold, of one or of (17,) ``thresholds``, and their edges are left
    out. Without persons the image itself is returned.

    Example::

        drawn = draw_skeletons(image, poses.keypoints, DRAWING_THRESHOLDS)
    """
    if not len(keypoints):
        return image
    height, width = image.shape[:2]
    overlay = Image.new("RGBA", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    pen = ImageDraw.Draw(overlay)
    points = (keypoints[:, :, :2] + 0.5) * scale * SUPERSAMPLING - 0.5  # an integer is the centre of a pixel
    for person, visible in zip(points, keypoints[:, :, 2] > thresholds, strict=True):
        if visible.any():
            _draw_person(pen, person, visible, min(width, height) * SUPERSAMPLING)
    canvas = Image.fromarray(np.ascontiguousarray(image)).convert("RGBA")
    canvas.alpha_composite(overlay.reduce(SUPERSAMPLING))
    return np.asarray(canvas.convert("RGB"))


def _draw_person(
    pen: ImageDraw.ImageDraw, joints: NDArray[np.float32], visible: NDArray[np.bool_], frame_side: int
) -> None:
    line = _line_width(joints[visible], frame_side)
    rim = 0.5 * SUPERSAMPLING
    edges = [(a, b, c) for (a, b), c in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True) if visible[a] and visible[b]]
    for a, b, _ in edges:
        pen.line([tuple(joints[a]), tuple(joints[b])], fill=(*OUTLINE, OUTLINE_ALPHA), width=round(line + 2 * rim))
    for a, b, colour in edges:
        pen.line([tuple(joints[a]), tuple(joints[b])], fill=(*colour, 255), width=round(line))
    for number in np.flatnonzero(visible):
        (x, y), colour = joints[number], JOINT_COLOURS[number]
        for radius, fill in ((line + rim, (*OUTLINE, OUTLINE_ALPHA)), (line, (*colour, 255))):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)


def _line_width(joints: NDArray[np.float32], frame_side: int) -> float:
    """Line width in supersampled pixels: proportional to the person, within limits that depend on the frame."""
    extent = float(np.ptp(joints, axis=0).max())
    return min(max(1.0 * SUPERSAMPLING, extent / 80), max(1.25 * SUPERSAMPLING, frame_side / 135))
