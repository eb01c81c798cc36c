import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.core.similarity import oks
from posebatch.core.skeleton import FLIP_ORDER, FLIP_PAIRS, KEYPOINT_NAMES, NUM_KEYPOINTS, OKS_SIGMAS, SKELETON_EDGES

NOBODY = np.zeros((NUM_KEYPOINTS, 2))


def test_keypoint_names_are_those_of_coco():
    assert NUM_KEYPOINTS == 17
    assert len(set(KEYPOINT_NAMES)) == 17
    assert KEYPOINT_NAMES[0] == "nose"
    assert KEYPOINT_NAMES[16] == "right_ankle"


def test_flip_order_swaps_left_and_right():
    assert sorted(FLIP_ORDER) == list(range(NUM_KEYPOINTS))
    assert [FLIP_ORDER[other] for other in FLIP_ORDER] == list(range(NUM_KEYPOINTS))
    swap = {"left": "right", "right": "left"}
    for i, name in enumerate(KEYPOINT_NAMES):
        side, _, rest = name.partition("_")
        assert KEYPOINT_NAMES[FLIP_ORDER[i]] == (f"{swap[side]}_{rest}" if rest else name)


def test_flip_pairs_are_the_eight_pairs():
    assert len(FLIP_PAIRS) == 8
    assert all(FLIP_ORDER[left] == right for left, right in FLIP_PAIRS)


def test_skeleton_edges_are_valid_and_symmetric():
    assert len(SKELETON_EDGES) == len({frozenset(edge) for edge in SKELETON_EDGES}) == 19
    assert all(0 <= a < NUM_KEYPOINTS and 0 <= b < NUM_KEYPOINTS and a != b for a, b in SKELETON_EDGES)
    mirrored = {frozenset(FLIP_ORDER[end] for end in edge) for edge in SKELETON_EDGES}
    assert mirrored == {frozenset(edge) for edge in SKELETON_EDGES}, "a person's skeleton is symmetric"


def test_oks_sigmas_are_symmetric_and_positive():
    assert OKS_SIGMAS.shape == (NUM_KEYPOINTS,)
    assert (OKS_SIGMAS > 0).all()
    np.testing.assert_array_equal(OKS_SIGMAS, OKS_SIGMAS[list(FLIP_ORDER)])


@pytest.mark.parametrize(
    ("shift", "area", "visible", "expected"),
    [
        pytest.param((0, 0), 1.0, [], 0.0, id="nothing visible"),
        pytest.param((5, 5), 1.0, [], 0.0, id="nothing visible, elsewhere"),
        pytest.param((0, 0), 1.0, None, 1.0, id="equal"),
        pytest.param((0, 0), 0.0, None, 1.0, id="equal, without area"),
        # nose alone: sigma 0.026, so k = 0.052; d^2 = 25, area 10000: exp(-25 / (2 * 10000 * 0.052^2))
        pytest.param((3, 4), 10_000.0, [0], 0.629847, id="nose"),
        # hips: sigma 0.107, k = 0.214: exp(-25 / (2 * 10000 * 0.214^2))
        pytest.param((3, 4), 10_000.0, [11, 12], 0.973074, id="hips"),
        pytest.param((3, 4), 10_000.0, [0, 11], (0.629847 + 0.973074) / 2, id="the mean of both"),
        pytest.param((1e4, 0), 1.0, None, 0.0, id="far away"),
    ],
)
def test_oks_of_known_cases(shift, area, visible, expected):
    mask = None if visible is None else np.isin(np.arange(NUM_KEYPOINTS), visible)
    assert oks(NOBODY + shift, NOBODY, area, mask) == pytest.approx(expected, abs=1e-6)


def test_oks_follows_the_formula_of_coco():
    person = np.random.default_rng(1).uniform(0, 200, (NUM_KEYPOINTS, 2))
    detected = person + np.random.default_rng(2).normal(0, 4, person.shape)
    terms = []
    for i in range(NUM_KEYPOINTS):
        d2 = (detected[i, 0] - person[i, 0]) ** 2 + (detected[i, 1] - person[i, 1]) ** 2
        terms.append(math.exp(-d2 / (2 * 9_000 * (2 * OKS_SIGMAS[i]) ** 2)))
    assert oks(detected, person, 9_000) == pytest.approx(sum(terms) / 17)


@given(
    st.lists(st.tuples(*[st.floats(-500, 500)] * 2), min_size=17, max_size=17),
    st.tuples(*[st.floats(-50, 50)] * 2),
    st.floats(0, 3),
    st.floats(10, 1e5),
)
def test_oks_is_symmetric_and_falls_with_distance(person, shift, factor, area):
    reference, shift = np.array(person), np.array(shift)
    near, far = oks(reference + shift, reference, area), oks(reference + shift * (1 + factor), reference, area)
    assert 0 <= far <= near + 1e-9
    assert near <= 1
    assert near == pytest.approx(oks(reference, reference + shift, area), abs=1e-9)
    assert near == pytest.approx(oks(reference - shift, reference, area), abs=1e-9)
