"""Draw skeletons on a frame: the person's left side blue, the right side orange, the middle yellow.

Lines may have one colour per person instead. Joints always have the colour of their side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from posebatch.core.skeleton import KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.report.overlay import OUTLINE, SUPERSAMPLING, Colour, Overlay, to_layer

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
"""Scores (17,) above which previews draw a joint: of those with a label, 85 % are right.

docs/accuracy.md has the measurement.
"""


def draw_skeletons(
    image: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    thresholds: float | NDArray[np.float32],
    scale: float = 1.0,
    person_colours: Sequence[Colour] | None = None,
) -> NDArray[np.uint8]:
    """Draw the skeletons of persons on an RGB image (height, width, 3); returns a new image.

    ``keypoints`` are (n, 17, 3): x, y in pixels of the full frame, and score. ``image`` is the frame scaled by
    ``scale``. Joints that score at most their threshold, of one or of (17,) ``thresholds``, and their edges are left
    out. Edges have the colours of their sides, or the one of ``person_colours`` (n). Without persons the image itself
    is returned.

    Example::

        drawn = draw_skeletons(image, poses.keypoints, DRAWING_THRESHOLDS)
    """
    if not len(keypoints):
        return image
    overlay = Overlay(image)
    points, visible = to_layer(keypoints[:, :, :2], scale), keypoints[:, :, 2] > thresholds
    for number in np.flatnonzero(visible.any(axis=1)).tolist():
        colours = EDGE_COLOURS if person_colours is None else (person_colours[number],) * len(SKELETON_EDGES)
        _draw_person(overlay.pen, points[number], visible[number], colours, min(overlay.size_wh))
    return overlay.flattened()


def _draw_person(
    pen: ImageDraw.ImageDraw,
    joints: NDArray[np.float32],
    visible: NDArray[np.bool_],
    edge_colours: Sequence[Colour],
    layer_side: int,
) -> None:
    line = _line_width(joints[visible], layer_side)
    rim = 0.5 * SUPERSAMPLING
    edges = [(a, b, c) for (a, b), c in zip(SKELETON_EDGES, edge_colours, strict=True) if visible[a] and visible[b]]
    for a, b, _ in edges:
        pen.line([tuple(joints[a]), tuple(joints[b])], fill=OUTLINE, width=round(line + 2 * rim))
    for a, b, colour in edges:
        pen.line([tuple(joints[a]), tuple(joints[b])], fill=(*colour, 255), width=round(line))
    for number in np.flatnonzero(visible):
        (x, y), colour = joints[number], JOINT_COLOURS[number]
        for radius, fill in ((line + rim, OUTLINE), (line, (*colour, 255))):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)


def _line_width(joints: NDArray[np.float32], layer_side: int) -> float:
    """Line width in pixels of the layer: proportional to the person, within limits that depend on the frame."""
    extent = float(np.ptp(joints, axis=0).max())
    return min(max(1.0 * SUPERSAMPLING, extent / 80), max(1.25 * SUPERSAMPLING, layer_side / 135))
