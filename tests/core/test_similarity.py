import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.core.similarity import oks_nms, rescore
from posebatch.core.skeleton import NUM_KEYPOINTS, OKS_SIGMAS

PERSON = np.random.default_rng(3).uniform(0, 100, (NUM_KEYPOINTS, 2))


def at(*shifts):
    """Copies of one person, shifted to the right by the given pixels: (n, 17, 2)."""
    return np.stack([PERSON + np.array([shift, 0]) for shift in shifts]) if shifts else np.zeros((0, NUM_KEYPOINTS, 2))


@pytest.mark.parametrize(
    ("box_scores", "keypoint_scores", "expected"),
    [
        pytest.param([], np.zeros((0, 3)), [], id="nobody"),
        pytest.param([0.5], [[0, 0, 0]], [0], id="no keypoint above"),
        pytest.param([0.5], [[0.2, 0.2, 0.2]], [0], id="at the threshold is not above it"),
        pytest.param([0.5], [[0.8, 0.4, 0.1]], [0.3], id="the mean of those above"),
        pytest.param([0.5, 1], [[1, 1, 1], [0.3, 0, 0]], [0.5, 0.3], id="each by its own"),
        pytest.param([1], [[-0.4, 0.6, 0]], [0.6], id="below zero"),
    ],
)
def test_rescore_multiplies_box_score_and_mean_keypoint_score(box_scores, keypoint_scores, expected):
    scores = rescore(np.array(box_scores), np.asarray(keypoint_scores), 0.2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("shifts", "scores", "kept"),
    [
        pytest.param([], [], [], id="nobody"),
        pytest.param([0], [0.5], [0], id="one"),
        pytest.param([0, 500], [0.5, 0.6], [1, 0], id="two, apart: the better first"),
        pytest.param([0, 0], [0.5, 0.6], [1], id="equal poses: the better stays"),
        pytest.param([0, 0], [0.5, 0.5], [0], id="equal scores: the first"),
        pytest.param([0, 0.1, 500], [0.7, 0.9, 0.8], [1, 2], id="another stands between them"),
        pytest.param([0, 6, 12], [0.9, 0.8, 0.7], [0, 2], id="a dropped person drops no other"),
    ],
)
def test_oks_nms_drops_repeated_persons(shifts, scores, kept):
    areas = np.full(len(shifts), 10_000.0)
    kept_indices = oks_nms(at(*shifts), np.array(scores), areas, 0.75)
    assert kept_indices.tolist() == kept
    assert kept_indices.dtype == np.intp


def test_oks_nms_uses_the_mean_area():
    """Shifted by d, areas a and b: mean(exp(-d^2 / (2 ((a + b) / 2) (2 sigma)^2)))."""
    alike = np.exp(-(10.0**2) / (2 * (2_000 + 18_000) / 2 * (2 * OKS_SIGMAS) ** 2)).mean()
    areas = np.array([2_000.0, 18_000.0])
    assert len(oks_nms(at(0, 10), np.array([1, 0.5]), areas, alike - 1e-9)) == 1
    assert len(oks_nms(at(0, 10), np.array([1, 0.5]), areas, alike + 1e-9)) == 2


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 1)), max_size=8), st.floats(0, 1))
def test_oks_nms_keeps_dissimilar_and_drops_similar_persons(persons, oks_thr):
    shifts, scores = [shift for shift, _ in persons], np.array([score for _, score in persons])
    people, areas = at(*shifts), np.full(len(persons), 5_000.0)
    kept = oks_nms(people, scores, areas, oks_thr).tolist()
    assert scores[kept].tolist() == sorted(scores[kept], reverse=True)

    def alike(first, other):
        d = shifts[first] - shifts[other]
        return np.exp(-(d**2) / (2 * 5_000 * (2 * OKS_SIGMAS) ** 2)).mean()

    for position, person in enumerate(kept):
        assert all(alike(person, better) <= oks_thr + 1e-9 for better in kept[:position])
    for person in set(range(len(persons))) - set(kept):
        assert any(alike(person, better) > oks_thr - 1e-9 for better in kept if scores[better] >= scores[person])


def test_oks_nms_with_threshold_one_keeps_all():
    assert oks_nms(at(0, 0, 0), np.array([0.1, 0.3, 0.2]), np.ones(3), 1.0).tolist() == [1, 2, 0]
