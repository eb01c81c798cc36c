"""The COCO-17 skeleton: names, edges, left/right pairs and OKS constants."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

KEYPOINT_NAMES: Final[tuple[str, ...]] = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""In COCO's order. *Left* is the person's own left."""


NUM_KEYPOINTS: Final = len(KEYPOINT_NAMES)


SKELETON_EDGES: Final[tuple[tuple[int, int], ...]] = (
    (15, 13),
    (13, 11),
    (16, 14),
    (14, 12),
    (11, 12),
    (5, 11),
    (6, 12),
    (5, 6),
    (5, 7),
    (6, 8),
    (7, 9),
    (8, 10),
    (1, 2),
    (0, 1),
    (0, 2),
    (1, 3),
    (2, 4),
    (3, 5),
    (4, 6),
)
"""Zero-based pairs into `KEYPOINT_NAMES`: the 19 edges of COCO's ``person_keypoints`` category."""


FLIP_PAIRS: Final[tuple[tuple[int, int], ...]] = tuple(
    (i, KEYPOINT_NAMES.index(name.replace("left_", "right_")))
    for i, name in enumerate(KEYPOINT_NAMES)
    if name.startswith("left_")
)
"""Zero-based (left, right) pairs that swap when the image is mirrored."""


FLIP_ORDER: Final[tuple[int, ...]] = tuple(
    {**dict(FLIP_PAIRS), **{right: left for left, right in FLIP_PAIRS}}.get(i, i) for i in range(NUM_KEYPOINTS)
)
"""`FLIP_PAIRS` as a permutation: ``mirrored[:, FLIP_ORDER]`` restores left and right."""


OKS_SIGMAS: Final[NDArray[np.float64]] = np.array(
    [
        0.026,
        0.025,
        0.025,
        0.035,
        0.035,
        0.079,
        0.079,
        0.072,
        0.072,
        0.062,
        0.062,
        0.107,
        0.107,
        0.087,
        0.087,
        0.089,
        0.089,
    ]
)
"""Standard deviation of each keypoint in the COCO evaluation (Ronchi & Perona, ICCV 2017)."""
