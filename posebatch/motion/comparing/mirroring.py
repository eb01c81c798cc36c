"""The movement that a mirror would show: a left-hander as a right-hander.

Angles are those of the picture, with x mirrored for a person who faces left (`posebatch.motion.angles`). A person in
side view faces the other way in the mirror, so each angle keeps its value and only changes its side. In front view the
person has no side to face, so x is not mirrored: joint angles change their sign, and a segment at ``a`` degrees against
the horizontal lies at ``180 - a``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.motion.comparing.angle_facts import is_segment, periods, wrapped
from posebatch.motion.comparing.performance import SHOULDERS, Performance, torso_px
from posebatch.motion.movement.facing import FRONTAL

_SEGMENT_ENDS: Final = {
    "thigh": ("hip", "knee"),
    "shank": ("knee", "ankle"),
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
}


def mirrored(performance: Performance) -> Performance:
    """The performance in a mirror: left and right exchanged, x mirrored about 0, angles as the mirror shows them.

    Every second call gives the performance back, but for the width of the view.

    >>> mirrored(left_hander).angle_names == left_hander.angle_names  # doctest: +SKIP
    True
    """
    joints = performance.joints[:, FLIP_ORDER].copy()
    joints[:, :, 0] *= -1
    names = performance.angle_names
    angles = performance.angles[:, [_position(names, _other_side(name)) for name in names]]
    if is_frontal(performance):
        turned = np.array([180.0 if is_segment(name) else 0.0 for name in names]) - angles
        angles = wrapped(turned, periods(names))
    return replace(performance, angles=angles, joints=joints)


def is_frontal(performance: Performance) -> bool:
    """Whether the person is mostly seen from the front or from behind, and never faces left.

    A person for whom the angles count leftwards as forwards has a known side, however it turns afterwards.
    """
    if _faces_left(performance).any():
        return False
    apart = np.abs(np.diff(performance.joints[:, SHOULDERS, 0], axis=1)[:, 0]) / torso_px(performance.joints)
    known = apart[~np.isnan(apart)]
    return bool(len(known)) and float(np.median(known)) > FRONTAL


def _faces_left(performance: Performance) -> NDArray[np.bool_]:
    """Rows (m,) whose segment angles are those of the mirrored picture; false where no segment tells."""
    votes = np.zeros(len(performance.time_s))
    for number, name in enumerate(performance.angle_names):
        ends = _ends(name)
        if ends is None:
            continue
        along = np.diff(performance.joints[:, ends, 0], axis=1)[:, 0]
        stated = np.cos(np.radians(performance.angles[:, number]))
        votes += np.nan_to_num(np.sign(along) * stated)
    return votes < 0


def _ends(angle: str) -> list[int] | None:
    """Upper and lower joint of a limb's segment; None for other angles."""
    side, _, part = angle.partition("_")
    ends = _SEGMENT_ENDS.get(part)
    return None if ends is None else [KEYPOINT_NAMES.index(f"{side}_{joint}") for joint in ends]


def _other_side(name: str) -> str:
    side, _, part = name.partition("_")
    return {"left": f"right_{part}", "right": f"left_{part}"}.get(side, name)


def _position(names: tuple[str, ...], name: str) -> int:
    if name not in names:
        raise ValueError(f"a mirrored performance needs {name} too")
    return names.index(name)
