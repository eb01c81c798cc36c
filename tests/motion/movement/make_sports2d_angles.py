"""Write tests/motion/movement/sports2d_angles.npz: angles that Sports2D's own functions give for random poses.

    pip download --no-deps sports2d==0.8.34 pose2sim==0.10.49, and unpack both wheels into FOLDER
    python tests/motion/movement/make_sports2d_angles.py FOLDER

The functions are taken out of the two source files, so that their many libraries need not be installed.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.motion.movement.angles import ANGLE_NAMES

WANTED = {"angle_dict", "points_to_angles", "fixed_angles", "compute_angle", "compute_angles_for_person"}
THEIRS = {"upper_arm": "arm"}


def main(folder: Path) -> None:
    names: dict[str, Any] = {"np": np}
    for file in ("Pose2Sim/common.py", "Sports2D/process.py"):
        tree = ast.parse((folder / file).read_text())
        tree.body = [node for node in tree.body if name_of(node) in WANTED]
        exec(compile(tree, file, "exec"), names)
    rng = np.random.default_rng(7)
    keypoints = rng.uniform(0, 500, (40, 17, 2)).astype(np.float32)
    sides = {side: np.array([angles(names, pose, side) for pose in keypoints]) for side in ("right", "left")}
    np.savez_compressed(
        Path(__file__).with_name("sports2d_angles.npz"),
        keypoints=keypoints,
        **{side: values.astype(np.float32) for side, values in sides.items()},
    )


def name_of(node: ast.stmt) -> str | None:
    if isinstance(node, ast.FunctionDef):
        return node.name
    return node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None


def angles(names: dict[str, Any], pose: np.ndarray, side: str) -> list[float]:
    """The angles of a pose (17, 2), in the order of `ANGLE_NAMES`, for a person whose ``side`` is visible."""
    points = [their_point(name) for name in KEYPOINT_NAMES] + ["Neck", "Hip"]
    middles = [pose[[5, 6]].mean(axis=0), pose[[11, 12]].mean(axis=0)]
    x, y = np.concatenate([pose, middles]).astype(float).T
    theirs = [their_angle(name) for name in ANGLE_NAMES]
    arguments = (x, y, side, False, list(range(len(points))), points, theirs, names["angle_dict"])
    return names["compute_angles_for_person"](*arguments)[1]


def their_point(name: str) -> str:
    side, _, part = name.rpartition("_")
    return f"{side[:1].upper()}{part.capitalize()}"


def their_angle(name: str) -> str:
    side, _, part = name.partition("_")
    return f"{side} {THEIRS.get(part, part)}".strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
