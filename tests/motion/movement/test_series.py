"""The movement of tracks: known figures, gaps, cuts, swaps, and independence of blocks."""

import itertools
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.motion_figures import TORSO, frame_block, links_of, movement, movement_of, scored, side_view, walking

from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.motion.movement import series as series_module
from posebatch.motion.movement.motion_block import ANGLE_NAMES, MotionBlock
from posebatch.motion.movement.windows import frames_between
from posebatch.motion.tracking.links import Links

WRIST, KNEE, ANKLE = (KEYPOINT_NAMES.index(f"left_{part}") for part in ("wrist", "knee", "ankle"))


def column(rows, name):
    return rows.angles[:, ANGLE_NAMES.index(name)]


def rate(rows, name):
    return rows.rates[:, ANGLE_NAMES.index(name)]


def no_links():
    return Links(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.mark.parametrize("times", [[], [0.0, 0.1, 0.2]])
def test_movement_of_nobody_is_nothing(times):
    series = series_module.Movement(no_links(), series_module.MotionSettings(), (1920, 1080), 0.3)
    block = frame_block(np.array(times), [None for _ in times]) if times else None
    assert not [row for block in ([block] if block else []) for row in series.add(block)]
    assert not list(series.finish())
    assert series.summaries() == ()


def test_links_of_other_frames_are_refused():
    block = frame_block(np.array([0.0]), [scored(walking(1))])
    series = series_module.Movement(no_links(), series_module.MotionSettings(), (1920, 1080), 0.3)
    with pytest.raises(ValueError, match="links cover 0 rows"):
        list(series.add(block))


def test_pendulum_has_its_angle_and_its_speed():
    time = np.arange(300) / 60
    turn = 2 * np.pi * 0.7
    rows, _ = movement_of(scored(side_view(300, arm=(40 * np.sin(turn * time), 0.0))), fps=60)
    angle, speed = 40 * np.sin(turn * time) - 90, 40 * turn * np.cos(turn * time)
    inside = slice(20, -20)
    np.testing.assert_allclose(column(rows, "left_upper_arm")[inside], angle[inside], atol=0.2)
    np.testing.assert_allclose(rate(rows, "left_upper_arm")[inside], speed[inside], atol=0.01 * 40 * turn)


def test_wheel_turns_at_a_constant_speed():
    """The angle of a forearm that turns round passes the end of its range; its speed does not notice."""
    time = np.arange(240) / 60
    rows, _ = movement_of(scored(side_view(240, elbow=(180 * time, 0.0))), fps=60)
    assert np.ptp(column(rows, "left_forearm")) > 350
    np.testing.assert_allclose(rate(rows, "left_forearm")[20:-20], 180, rtol=0.01)


def test_walker_has_the_angles_that_it_was_made_with():
    phase = 2 * np.pi * np.arange(200) / 30 / 1.1
    rows, summary = movement_of(scored(walking(200)))
    np.testing.assert_allclose(column(rows, "left_knee")[15:-15], (25 - 20 * np.cos(phase))[15:-15], atol=0.5)
    np.testing.assert_allclose(column(rows, "left_hip")[15:-15], (25 * np.sin(phase))[15:-15], atol=0.5)
    np.testing.assert_allclose(rows.speed_torso_per_s, 200 / TORSO, rtol=0.02)
    assert summary.grade == "A"
    assert summary.is_main


def test_mirrored_walker_has_the_angles_of_the_other_side():
    xy = walking(200)
    rows, _ = movement_of(scored(xy))
    mirrored, _ = movement_of(scored((xy * [-1, 1] + [1900, 0])[:, FLIP_ORDER]))
    for name in ("knee", "hip", "elbow", "shoulder", "thigh", "shank"):
        np.testing.assert_allclose(column(mirrored, f"right_{name}"), column(rows, f"left_{name}"), atol=0.01)
        np.testing.assert_allclose(rate(mirrored, f"right_{name}"), rate(rows, f"left_{name}"), atol=0.5)


def test_side_is_remembered_in_later_windows(monkeypatch):
    """The knees tell the side at first; later the legs are straight and the head is not seen."""
    bent = np.where(np.arange(600) < 100, 40.0, 0.0)
    keypoints = scored(side_view(600, knee=(bent, bent), arm=(30.0, 30.0)) * [-1, 1] + [1900, 0])
    keypoints[:, :5, 2] = 0.1
    monkeypatch.setattr(series_module, "WINDOW_S", 3.0)
    rows, _ = movement_of(keypoints, max_gap_seconds=0.1, cutoff_hz=12.0)
    np.testing.assert_allclose(column(rows, "left_shoulder"), 30, atol=0.1)


@pytest.mark.parametrize("degrees", [-90, 90, 180])
def test_joint_angles_stay_where_the_camera_is_rotated(degrees):
    turn = np.radians(degrees)
    xy = walking(200)
    rotated = xy @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    rows, _ = movement_of(scored(xy))
    other, _ = movement_of(scored(rotated))
    for name in ("left_knee", "right_hip", "left_elbow", "right_shoulder"):
        np.testing.assert_allclose(column(other, name), column(rows, name), atol=0.05)
    change = (column(other, "left_thigh") - column(rows, "left_thigh") - degrees + 180) % 360 - 180
    np.testing.assert_allclose(change, 0, atol=0.05)


def test_person_who_turns_round_has_no_speed_from_the_turn():
    """Which side a person faces changes at once; the limbs hang still."""
    right = side_view(150)
    left = right.copy()
    left[..., 0] = 1000 - left[..., 0]
    rows, _ = movement_of(scored(np.concatenate([right, left])))
    limbs = [ANGLE_NAMES.index(name) for name in ("left_knee", "left_thigh", "right_elbow", "trunk")]
    assert np.nanmax(np.abs(rows.rates[:, limbs])) < 1


def test_person_who_walks_away_keeps_its_height_in_torso_lengths():
    size = np.linspace(1.0, 0.4, 600)[:, None, None]
    rows, summary = movement_of(scored((side_view(600) - [500, 300]) * size + [500, 300]))
    np.testing.assert_allclose(rows.hip_height_torso, 1.6, rtol=0.015)
    assert summary.bone_length_cv_worst < 0.03


@pytest.mark.parametrize(("frames", "known"), [(20, True), (60, False)])
def test_gap_is_interpolated_up_to_its_limit(frames, known):
    keypoints = scored(walking(200))
    keypoints[100 : 100 + frames, WRIST, 2] = 0.1
    rows, summary = movement_of(keypoints)
    gap = rows.joints[100 : 100 + frames, WRIST]
    if known:
        assert (gap[:, 2] == 0).all()
        assert np.isfinite(gap).all()
    else:
        assert np.isnan(gap).all()
        assert np.isnan(column(rows, "left_elbow")[100 : 100 + frames]).all()
    assert summary.joint_seen[WRIST] == pytest.approx(1 - frames / 200)


def test_track_has_rows_where_its_person_is_not_found():
    poses = [pose[None] for pose in scored(walking(90))]
    poses[40:50] = [None] * 10
    block = frame_block(np.arange(90) / 30, poses)
    rows, (summary,) = movement([block], links_of(block, [0] * 80))
    assert rows.frame_index.tolist() == list(range(90))
    assert np.flatnonzero(rows.person < 0).tolist() == list(range(40, 50))
    assert (rows.joints[40:50, :, 2] == 0).all()
    assert np.isfinite(rows.angles).all()
    assert (summary.frames_seen, summary.frames_gap) == (80, 10)


def test_raw_joint_below_the_threshold_changes_nothing():
    keypoints = scored(walking(100))
    keypoints[50, KNEE, 2] = 0.2
    other = keypoints.copy()
    other[50, KNEE, :2] += 300
    for name in ("joints", "angles", "rates"):
        np.testing.assert_array_equal(getattr(movement_of(other)[0], name), getattr(movement_of(keypoints)[0], name))


def test_track_after_a_cut_changes_nothing_before_it():
    keypoints = scored(walking(200))
    moved = keypoints.copy()
    moved[100:, :, 0] += 700

    def both(poses):
        block = frame_block(np.arange(200) / 30, [pose[None] for pose in poses])
        return movement([block], links_of(block, [0] * 100 + [1] * 100))[0]

    a, b = both(keypoints), both(moved)
    np.testing.assert_array_equal(a.joints[:100], b.joints[:100])
    np.testing.assert_array_equal(a.rates[:100], b.rates[:100])


def test_jump_inside_a_track_is_reported_and_does_not_leak():
    keypoints = scored(walking(200))
    moved = keypoints.copy()
    moved[100:, :, 0] += 300
    rows, summary = movement_of(moved)
    plain, _ = movement_of(keypoints)
    assert summary.jump_suspects == 1
    before = np.abs(rows.joints[:100, :, 0] - plain.joints[:100, :, 0]) / 300
    assert np.nanmax(before) < 0.01
    assert np.nanmax(rows.speed_torso_per_s) < 4


@pytest.mark.parametrize("first", [92, 95, *range(101, 130, 3)])  # at 98 arms and legs cross: nothing to see
def test_swap_of_5_frames_is_reported_and_repaired_only_on_request(first):
    keypoints = scored(walking(200))
    swapped = keypoints.copy()
    swapped[first : first + 5] = swapped[first : first + 5][:, FLIP_ORDER]
    plain, clean = movement_of(keypoints)
    reported, summary = movement_of(swapped)
    repaired, same = movement_of(swapped, repair_swaps=True)
    assert clean.swap_suspects == 0
    assert summary.swap_suspects == same.swap_suspects == 5
    np.testing.assert_allclose(repaired.joints, plain.joints, atol=0.01)
    np.testing.assert_allclose(reported.joints[first + 2, 5:, :2], swapped[first + 2, 5:, :2], atol=0.01)


def test_short_swap_is_not_taken_for_outliers():
    keypoints = scored(walking(200))
    keypoints[107:109] = keypoints[107:109][:, FLIP_ORDER]
    rows, _ = movement_of(keypoints)
    np.testing.assert_array_equal(rows.joints[107:109, 5:], keypoints[107:109, 5:])
    assert np.isnan(rate(rows, "left_knee")[107:109]).all()


def test_uneven_timestamps_give_speeds_per_true_second():
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.012, 0.022, 400))
    rows, _ = movement_of(scored(side_view(400, elbow=(60 * time % 360, 0.0))), time_s=time)
    np.testing.assert_allclose(rate(rows, "left_forearm")[20:-20], 60, rtol=0.05)


def test_joints_of_short_runs_stay_as_measured_and_have_no_speed():
    keypoints = scored(walking(6))
    rows, _ = movement_of(keypoints)
    np.testing.assert_array_equal(rows.joints, keypoints)
    assert np.isfinite(rows.angles).all()
    assert np.isnan(rows.rates).all()
    assert np.isnan(rows.speed_torso_per_s).all()


def test_main_person_is_long_large_and_central():
    small = (side_view(90) - [500, 300]) * 0.5 + [960, 500]
    edge, middle = side_view(90, hip_xy=(100, 400)), side_view(90, hip_xy=(960, 400))
    block = frame_block(np.arange(90) / 30, list(np.stack([scored(xy) for xy in (small, edge, middle)], axis=1)))
    _, summaries = movement([block], links_of(block, [0, 1, 2] * 90))
    assert [summary.is_main for summary in summaries] == [False, False, True]


def crowd(seed):
    """Three persons over 80 s with missing joints and frames, uneven times, and rows without track."""
    rng = np.random.default_rng(seed)
    time = np.cumsum(rng.choice([0.1, 0.12, 0.9], 500, p=[0.6, 0.35, 0.05]))
    people = np.stack([scored(walking(500) + rng.normal(0, 3, (500, 17, 2)) + [0, 20 * i]) for i in range(3)], axis=1)
    people[rng.random((500, 3, 17)) < 0.1, 2] = 0.1
    found = rng.random((500, 3)) < 0.9
    block = frame_block(time, [poses[kept] for poses, kept in zip(people, found, strict=True)])
    late = np.nonzero(found)[0] > 300
    ids = np.where(late & (np.nonzero(found)[1] == 1), 3, np.nonzero(found)[1])
    ids[rng.random(len(ids)) < 0.02] = -1
    return block, links_of(block, ids)


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(0, 2), st.lists(st.integers(0, 500), max_size=30))
def test_results_do_not_depend_on_blocks(seed, cuts):
    block, links = crowd(seed)
    edges = [0, *sorted(cuts), 500]
    pieces = [frames_between(block, low, high)[0] for low, high in itertools.pairwise(edges)]
    whole, cut = movement([block], links), movement(pieces, links)
    for field in fields(MotionBlock):
        assert getattr(whole[0], field.name).tobytes() == getattr(cut[0], field.name).tobytes(), field.name
    assert repr(whole[1]) == repr(cut[1])


def test_rows_are_ordered_by_frame_and_track():
    block, links = crowd(0)
    rows, summaries = movement([block], links)
    keys = list(zip(rows.frame_index.tolist(), rows.track_id.tolist(), strict=True))
    assert keys == sorted(set(keys))
    assert len(keys) == sum(summary.frames_seen + summary.frames_gap for summary in summaries)


def test_window_ends_are_not_seen_in_the_results(monkeypatch):
    keypoints = scored(walking(900) + np.random.default_rng(0).normal(0, 2, (900, 17, 2)))
    a, one = movement_of(keypoints)
    monkeypatch.setattr(series_module, "WINDOW_S", 7.0)
    b, other = movement_of(keypoints)
    np.testing.assert_allclose(a.joints, b.joints, atol=1e-3)
    np.testing.assert_allclose(a.rates, b.rates, atol=0.05)
    assert one.jitter_torso == pytest.approx(other.jitter_torso, rel=0.01)
