"""Agreement of two sets of poses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from support.evaluation_factories import box_of, frame_poses, standing

from posebatch.evaluation.agreement import compare

KPT_THR = 0.2


def frame(*places, moved=(0, 0), score=0.8):
    """A frame with persons 100 pixels high, at each x."""
    joints = np.array([standing(x) for x in places]).reshape(-1, 17, 3) * [1, 1, 0] + [*moved, score]
    return frame_poses([box_of(x) for x in places], [0.9] * len(places), joints)


def test_compare_of_no_frames_gives_no_figures():
    empty = compare([], [], KPT_THR)
    assert (empty.frames, empty.reference_persons, empty.kept, empty.added, empty.joints) == (0,) * 5
    assert all(map(math.isnan, (empty.pixels.median, empty.heights.p95, empty.noticeable, empty.ap)))


def test_compare_of_equal_poses_agrees_fully():
    poses = [frame(50.0, 250.0), frame(), frame(100.0)]
    agreement = compare(poses, poses, KPT_THR)
    assert (agreement.kept, agreement.added, agreement.joints) == (3, 0, 51)
    assert (agreement.pixels.most, agreement.noticeable, agreement.ap, agreement.ar) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("reference", "poses", "kept", "added"),
    [
        pytest.param(frame(), frame(50.0), 0, 1, id="no person before"),
        pytest.param(frame(50.0), frame(), 0, 0, id="no person after"),
        pytest.param(frame(50.0, 250.0), frame(250.0), 1, 0, id="one is gone"),
        pytest.param(frame(50.0), frame(250.0), 0, 1, id="elsewhere"),
        pytest.param(frame(50.0), frame(50.0, 51.0), 1, 1, id="twice"),
        pytest.param(frame(50.0, 51.0), frame(50.0), 1, 0, id="no longer twice"),
    ],
)
def test_compare_matches_each_pose_to_one_person(reference, poses, kept, added):
    agreement = compare([reference], [poses], KPT_THR)
    assert (agreement.reference_persons, agreement.kept, agreement.added) == (len(reference), kept, added)


def test_compare_measures_joints_that_the_reference_sees():
    reference = frame(50.0)
    unseen = reference.keypoints.copy()
    unseen[0, 1:, 2] = 0.1
    moved = frame(50.0, moved=(0.6, 0.8))
    assert compare([reference], [moved], KPT_THR).joints == 17
    agreement = compare([replace(reference, keypoints=unseen)], [moved], KPT_THR)
    assert agreement.joints == 1
    assert agreement.pixels.median == agreement.pixels.p99 == pytest.approx(1, abs=1e-4)
    assert agreement.heights.median == pytest.approx(0.01, abs=1e-5)
    assert agreement.noticeable == 1


def test_compare_refuses_different_frames():
    other = replace(frame(), record=replace(frame().record, frame_index=7))
    with pytest.raises(ValueError, match="not the same"):
        compare([frame()], [other], KPT_THR)
