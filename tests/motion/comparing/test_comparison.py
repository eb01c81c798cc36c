"""Performances with a known truth are aligned; what is not known does not count; what cannot be compared is refused."""

from dataclasses import replace

import numpy as np
import pytest
from support.walkers import angles_of, joints_of_walker, performance_of, seen_in_a_mirror, walk

from posebatch.core.errors import InputError
from posebatch.motion.comparing.comparison import DEFAULT_ANGLES, compare, largest_moments
from posebatch.motion.comparing.mirroring import is_frontal, mirrored
from posebatch.motion.comparing.performance import Performance, in_torsos, torso_px
from posebatch.motion.comparing.reference_band import reference_band
from posebatch.motion.comparing.warping import moving_share, smooth_map, step_costs, warping_path
from posebatch.motion.movement.motion_block import ANGLE_NAMES

NOBODY = Performance("empty.mp4#0", tuple(ANGLE_NAMES), np.zeros(0), np.zeros((0, 19)), np.zeros((0, 17, 3)))


def steady(share):
    return 2 * share


def with_gap(performance: Performance, angles: list[str], rows: slice) -> Performance:
    values = performance.angles.copy()
    values[rows, [performance.angle_names.index(name) for name in angles]] = np.nan
    return replace(performance, angles=values)


def stretched(performance: Performance, name: str, factor: float) -> Performance:
    values = performance.angles.copy()
    values[:, performance.angle_names.index(name)] *= factor
    return replace(performance, angles=values)


# --- aligned ---------------------------------------------------------------------------------------------------------


def test_nobody_is_too_short_to_compare():
    with pytest.raises(
        InputError, match=r"empty.mp4#0: too short to compare: .* known in 0 of 0 rows, and 5 are needed"
    ):
        compare(NOBODY, walk(steady, 2.0))
    with pytest.raises(InputError, match=r"empty.mp4#0: too short"):
        compare(walk(steady, 2.0), NOBODY)


def test_performance_differs_by_nothing_from_itself():
    comparison = compare(walk(steady, 2.0), walk(steady, 2.0))
    np.testing.assert_allclose(comparison.difference, 0, atol=1e-9)
    np.testing.assert_allclose(comparison.time_a, comparison.time_b, atol=1e-9)
    assert comparison.angle_names == DEFAULT_ANGLES


@pytest.mark.parametrize(
    ("cycles", "seconds"),
    [(2, 3.0), (2, 1.6), (6, 8.0)],
    ids=["slower", "faster", "long"],
)
@pytest.mark.parametrize("hurry", [0.0, 0.06, -0.08])
def test_walkers_at_two_speeds_agree_within_3_degrees(cycles, seconds, hurry):
    """One walks evenly; the other, at another speed, hurries and lingers. The truth: no angle differs."""
    even = walk(lambda share: cycles * share, 1.0 * cycles)
    uneven = walk(lambda share: cycles * (share + hurry * np.sin(2 * np.pi * share)), seconds)
    comparison = compare(even, uneven)
    assert np.abs(comparison.difference).max() < 3.0
    truth = even.time_s[-1] * (comparison.time_b / seconds + hurry * np.sin(2 * np.pi * comparison.time_b / seconds))
    assert np.abs(truth - comparison.time_a).max() < 0.06 * cycles


def test_walkers_at_two_speeds_differ_without_warping():
    """The agreement is not one of walkers that are alike anyway."""
    uneven = walk(lambda share: 2 * (share + 0.06 * np.sin(2 * np.pi * share)), 3.0)
    even = walk(steady, 2.0)
    linear = uneven.angles_at(even.time_s * 1.5) - even.angles
    assert np.nanmax(np.abs(linear[:, 0])) > 15


def test_difference_is_found_at_its_size_and_place():
    comparison = compare(walk(steady, 2.0), stretched(walk(steady, 3.0), "left_knee", 0.5))
    knee = comparison.difference[:, comparison.angle_names.index("left_knee")]
    peak = int(np.argmin(knee))
    assert knee[peak] == pytest.approx(-comparison.a[peak, 0] / 2, abs=3)
    assert np.abs(np.delete(comparison.difference, 0, axis=1)).max() < 6
    assert any(abs(comparison.phase[peak] - comparison.phase[step]) < 0.05 for step in largest_moments(comparison))


def test_difference_goes_the_shorter_way_round():
    a = walk(steady, 2.0)
    turned = stretched(a, "trunk", 1.0)
    turned.angles[:, ANGLE_NAMES.index("trunk")] += 350 - 360 * 2
    comparison = compare(a, turned, ["trunk", "left_knee", "right_knee"])
    np.testing.assert_allclose(comparison.difference[:, 0], -10, atol=0.1)


# --- unknown ---------------------------------------------------------------------------------------------------------


def test_gap_stays_a_gap_and_does_not_disturb_the_alignment():
    whole, b = walk(steady, 2.0), walk(steady, 3.0)
    comparison = compare(whole, with_gap(b, ["left_knee"], slice(20, 30)))
    knee = comparison.difference[:, 0]
    inside = (comparison.time_b > 20 / 25) & (comparison.time_b < 29 / 25)
    assert np.isnan(knee[inside]).all()
    assert not np.isnan(knee[~((comparison.time_b > 18 / 25) & (comparison.time_b < 31 / 25))]).any()
    assert np.nanmax(np.abs(comparison.difference)) < 3


def test_gap_of_everything_is_bridged():
    b = with_gap(walk(steady, 3.0), list(ANGLE_NAMES), slice(20, 30))
    comparison = compare(walk(steady, 2.0), b)
    assert np.nanmax(np.abs(comparison.difference)) < 4
    assert 0.05 < np.isnan(comparison.root_mean_square).mean() < 0.3


def test_angle_that_is_hardly_known_is_left_out():
    b = with_gap(walk(steady, 3.0), ["left_elbow"], slice(5, None))
    comparison = compare(walk(steady, 2.0), b)
    assert comparison.left_out == ("left_elbow",)
    assert "left_elbow" not in comparison.angle_names
    assert comparison.a.shape[1] == len(DEFAULT_ANGLES) - 1


def test_too_little_overlap_is_refused_with_its_share():
    a, b = walk(steady, 2.0), walk(steady, 2.0, label="other.mp4#1")
    a = with_gap(a, ["left_knee"], slice(4, 47))
    b = with_gap(with_gap(b, ["left_knee"], slice(1, 20)), ["left_knee"], slice(30, 50))
    with pytest.raises(InputError, match=r"walk.mp4#0 and other.mp4#1 cannot be compared: too little .* left_knee, is"):
        compare(a, b, ["left_knee"])


def test_no_common_angle_is_refused():
    a = with_gap(walk(steady, 2.0), ["left_knee"], slice(None))
    b = with_gap(walk(steady, 2.0), ["right_knee"], slice(None))
    with pytest.raises(InputError, match="no angle of left_knee, right_knee is known in both"):
        compare(a, b, ["left_knee", "right_knee"])


def test_performances_without_a_common_course_are_refused():
    """One bends at once and stays; the other stays, and bends at the end."""
    bend = np.concatenate([np.linspace(0, 90, 10), np.full(90, 90.0)])

    def bending(angles):
        values = np.tile(angles[:, None], (1, len(ANGLE_NAMES)))
        return Performance("x", tuple(ANGLE_NAMES), np.arange(100) / 25, values, np.zeros((100, 17, 3)))

    with pytest.raises(InputError, match=r"cannot be aligned: they have \d+% of their course in common"):
        compare(bending(bend), bending(90 - bend[::-1]))


# --- mirrored --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", [0.0, 0.3], ids=["in side view", "turned to the viewer"])
def test_mirrored_walker_is_the_walker_again(heading):
    walker = walk(steady, 2.0, heading)
    in_the_mirror = performance_of(seen_in_a_mirror(walker.joints), walker.time_s, facing=-1)
    back = mirrored(in_the_mirror)
    np.testing.assert_allclose(compare(walker, back, ANGLE_NAMES).difference, 0, atol=1e-6)
    np.testing.assert_allclose(in_torsos(back.joints, 1.0), in_torsos(walker.joints, 1.0), atol=1e-6)


def test_frontal_mirrored_walker_is_the_walker_again():
    """From the front nobody faces a side: the angles of the mirrored picture have other signs."""
    walker = walk(steady, 2.0, 1.2)
    in_the_mirror = performance_of(seen_in_a_mirror(walker.joints), walker.time_s)
    assert is_frontal(in_the_mirror)
    assert not is_frontal(walk(steady, 2.0))
    exchanged = in_the_mirror.angles[:, ANGLE_NAMES.index("right_forearm")]
    assert np.abs(exchanged - walker.angles[:, ANGLE_NAMES.index("left_forearm")]).max() > 3
    np.testing.assert_allclose(mirrored(in_the_mirror).angles, walker.angles, atol=1e-6)


def test_unmirrored_limping_is_found_on_the_other_side():
    limping = stretched(walk(steady, 2.0), "right_knee", 0.5)
    flipped = mirrored(limping)
    np.testing.assert_allclose(
        flipped.angles[:, ANGLE_NAMES.index("left_knee")], limping.angles[:, ANGLE_NAMES.index("right_knee")]
    )


def test_mirroring_twice_changes_nothing():
    walker = walk(steady, 2.0)
    again = mirrored(mirrored(walker))
    np.testing.assert_allclose(again.angles, walker.angles)
    np.testing.assert_allclose(again.joints, walker.joints)


# --- parts -----------------------------------------------------------------------------------------------------------


def test_costs_are_mean_squares_of_what_both_know():
    a, b = np.array([[0.0, 10.0], [np.nan, 20.0], [np.nan, np.nan]]), np.array([[4.0, 10.0], [np.nan, 350.0]])
    expected = np.array([[8.0, 400.0], [100.0, 900.0]])
    costs = step_costs(a, b, np.array([360.0, 360.0]))
    np.testing.assert_allclose(costs[:2], expected)
    np.testing.assert_allclose(costs[2], np.median(expected))
    assert np.isnan(step_costs(a[2:], b, np.array([360.0, 360.0]))).all()


def test_path_and_map_of_equal_steps_are_straight():
    path = warping_path(np.abs(np.subtract.outer(np.arange(100.0), np.arange(100.0))) ** 2)
    np.testing.assert_array_equal(path, np.repeat(np.arange(100)[:, None], 2, axis=1))
    assert moving_share(path) == 1
    np.testing.assert_allclose(smooth_map(path), np.arange(100))


def test_map_never_falls_and_keeps_its_ends():
    rng = np.random.default_rng(2)
    path = warping_path(rng.random((120, 90)) * 400)
    steps = smooth_map(path)
    assert (np.diff(steps) >= 0).all()
    assert (steps[0], steps[-1]) == (pytest.approx(0, abs=2), pytest.approx(89, abs=2))


def test_values_between_rows_need_both_rows():
    one = performance_of(joints_of_walker(np.zeros(3)), np.array([0.0, 1.0, 2.0]))
    one.angles[:, 0] = [170, -170, np.nan]
    values = one.angles_at(np.array([0.0, 0.5, 1.0, 1.5, 2.0]))[:, 0]
    np.testing.assert_allclose(values, [170, -180, -170, np.nan, np.nan])


def test_range_includes_both_ends_and_may_be_empty():
    one = walk(steady, 2.0)
    assert len(one.between(5, 6).time_s) == 0
    np.testing.assert_allclose(one.between(0.4, 0.8).time_s, np.arange(10, 21) / 25)


def test_torso_of_nobody_is_unknown():
    assert np.isnan(torso_px(np.zeros((0, 17, 3))))
    assert torso_px(walk(steady, 1.0).joints) == pytest.approx(100, rel=0.1)


def test_band_without_other_references_is_none():
    assert reference_band(compare(walk(steady, 2.0), walk(steady, 2.0)), []) is None


def test_band_holds_the_quartiles_of_all_references():
    a = walk(steady, 2.0)
    first = compare(a, a)
    others = []
    for offset in (4.0, 8.0, 12.0, 16.0):
        other = replace(a, angles=a.angles.copy())
        other.angles[:, ANGLE_NAMES.index("trunk")] += offset
        others.append(compare(a, other))
    band = reference_band(first, others)
    trunk = first.angle_names.index("trunk")
    assert band.references == 5
    for values, expected in ((band.low, 4), (band.median, 8), (band.high, 12)):
        np.testing.assert_allclose(values[:, trunk] - first.a[:, trunk], expected, atol=0.5)


def test_moments_are_apart_and_in_order():
    comparison = compare(walk(steady, 2.0), stretched(walk(steady, 3.0), "left_knee", 0.5))
    moments = largest_moments(comparison, count=4, apart=0.1)
    assert len(moments) == 4
    assert (np.diff(comparison.phase[list(moments)]) >= 0.1).all()


def test_walkers_of_these_tests_have_the_angles_of_winter():
    """The truth is what the literature says of level walking: the knee bends by 60 degrees in the swing."""
    angles = angles_of(joints_of_walker(np.linspace(0, 1, 11)))
    knee = angles[:-1, ANGLE_NAMES.index("left_knee")]
    np.testing.assert_allclose(knee, (4, 15, 16, 9, 5, 10, 36, 60, 46, 14), atol=1)
