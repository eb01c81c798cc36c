"""The choice among the peaks of heatmaps by the track of a person."""

import numpy as np
import pytest
from evaluate_peaks import main as evaluate_peaks

from posebatch.evaluation.peak_choice import PEAKS, Track, choices, choose, top_peaks
from posebatch.pose.heatmaps import encode_heatmaps

FRAMES, JOINTS = 12, 17
TIME_S = np.arange(FRAMES) / 30
TORSO = np.full(FRAMES, 50.0)


def peaks_of(*scores: float):
    """Peaks of joints that walk to the right by 5 pixels a frame; the second lies 60 pixels below, the third 90."""
    peaks = np.zeros((FRAMES, JOINTS, PEAKS, 3))
    peaks[..., 0] = 5.0 * np.arange(FRAMES)[:, None, None] + 20 * np.arange(JOINTS)[:, None]
    peaks[..., 1] = [100, 160, 190]
    peaks[..., 2] = scores
    return peaks


def exchange(peaks, frame: int, joint: int) -> None:
    """Let another place score highest in a frame: the first two peaks trade places, not scores."""
    peaks[frame, joint, :2, :2] = peaks[frame, joint, 1::-1, :2].copy()


def test_top_peaks_come_by_score_and_leave_out_neighbours():
    places = np.array([[[10.0, 20.0], [30.0, 40.0]]])
    maps = encode_heatmaps(places, (48, 64))
    both = maps[:, :1] + 0.5 * maps[:, 1:]
    found = top_peaks(both)[0, 0]
    assert found[:2] == pytest.approx(np.array([[10, 20, 1], [30, 40, 0.5]]), abs=0.05)
    assert found[2, 2] < 0.2


def test_top_peaks_of_an_empty_map_score_nothing():
    assert not top_peaks(np.zeros((1, JOINTS, 64, 48), np.float32)).any()


def test_choose_keeps_the_highest_peaks_of_a_steady_movement():
    assert not choose(peaks_of(0.8, 0.7, 0), TIME_S, TORSO).any()


@pytest.mark.parametrize(("second", "chosen"), [(0.7, 1), (0.3, 0)])
def test_choose_follows_the_track_where_the_other_peak_scores_enough(second, chosen):
    peaks = peaks_of(0.8, second, 0)
    exchange(peaks, 6, 9)
    best = choose(peaks, TIME_S, TORSO)
    assert best[6, 9] == chosen
    best[6, 9] = 0
    assert not best.any()


def test_choose_predicts_nothing_over_a_pause():
    peaks = peaks_of(0.8, 0.7, 0)
    peaks[..., 0] = 100  # a person who stands still is expected at the same place after any time
    for frame in range(6, FRAMES):
        exchange(peaks, frame, 9)
    assert not choose(peaks, TIME_S + 2.0 * (np.arange(FRAMES) >= 6), TORSO).any()


def test_choose_leaves_a_track_of_one_frame():
    assert not choose(peaks_of(0.8, 0.7, 0)[:1], TIME_S[:1], TORSO[:1]).any()


def test_choices_name_the_peak_nearest_to_the_truth():
    peaks = peaks_of(0.8, 0.7, 0)
    track = Track(TIME_S, peaks, (640, 480), joints=peaks[:, :, 1, :2], visible=np.ones((FRAMES, JOINTS), bool))
    found = choices(track)
    assert found["best of 3"] == pytest.approx(peaks[:, :, 1])
    assert found["highest"] == pytest.approx(peaks[:, :, 0])


@pytest.mark.slow
def test_evaluate_peaks_compares_three_choices_on_the_walker(capsys):
    assert evaluate_peaks(["--frames", "3"]) == 0
    _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 9
    assert float(rows[0].split()[3]) < 0.2
