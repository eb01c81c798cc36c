"""What the networks saw at one instant: the picture, the sentences, and the command."""

import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.factories import encode_video

from posebatch.cli import main
from posebatch.core.settings import EstimatorSettings
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.inspection import inspect
from posebatch.report.explain import explain
from posebatch.report.joint_reasons import judge_joints
from posebatch.video.instant import Instant, frame_at

THRESHOLDS = np.full(17, 0.3, np.float32)


def heatmap_with(*peaks: tuple[int, int, float]) -> np.ndarray:
    heatmap = np.zeros((64, 48), np.float32)
    for x, y, height in peaks:
        heatmap[y, x] = height
    return heatmap


@pytest.mark.parametrize(
    ("joint", "peaks", "reason"),
    [
        ((20, 30, 0.0), [], "no clear place"),
        ((20, 30, 0.9), [(5, 5, 0.9)], ""),
        ((20, 30, 0.2), [(5, 5, 0.2)], "its score 0.20 is not above 0.30: the network sees no clear place for it"),
        ((20, 30, 0.2), [(5, 5, 0.2), (40, 50, 0.19)], "two places compete, the second peak has 95% of the first one"),
        ((20, 30, 0.2), [(5, 5, 0.5), (40, 50, 0.3)], "no clear place"),
        ((20, 30, 0.2), [(5, 5, 0.2), (7, 5, 0.19)], "no clear place"),
        ((-8, 30, 0.2), [(5, 5, 0.2)], r"its place \(-8, 30\) lies outside the picture"),
    ],
)
def test_judge_joints_says_why_a_joint_is_not_drawn(joint, peaks, reason):
    keypoints = np.tile(np.array(joint, np.float32), (17, 1))
    heatmaps = np.tile(heatmap_with(*peaks), (17, 1, 1))
    verdict = judge_joints(keypoints, heatmaps, THRESHOLDS, (100, 100))[3]
    assert verdict.name == "left_ear"
    assert verdict.drawn == (reason == "")
    assert re.search(reason, verdict.reason)


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of a photograph of one person."""
    with (files("posebatch") / "demo/assets/eileen_collins.webp").open("rb") as file:
        picture = np.asarray(Image.open(file).convert("RGB").resize((240, 320)))
    path = tmp_path_factory.mktemp("video") / "portrait.mp4"
    encode_video(path, frames=3, size=(240, 320), draw=lambda _: picture)
    return path


def test_inspect_shows_the_heatmaps_that_the_published_joints_come_from(portrait):
    estimator = PoseEstimator.load(EstimatorSettings())
    with portrait.open("rb") as file:
        _, frame = frame_at(file, "portrait", Instant(0.0))
    inspection = inspect(estimator, frame)
    (person,) = inspection.persons
    np.testing.assert_array_equal(person.keypoints, inspection.poses.keypoints[0])
    tops = [np.unravel_index(heatmap.argmax(), heatmap.shape)[::-1] for heatmap in person.heatmaps]
    assert np.abs(person.points_in_heatmaps - np.array(tops)).max() <= 0.5
    assert person.crop.shape == (256, 192, 3)


def test_explain_draws_a_person_and_names_the_joints_that_are_left_out(portrait):
    explanation = explain(str(portrait), Instant(0.04), EstimatorSettings())
    assert "frame 1 at 0.040 s, 240x320" in explanation.lines[0]
    assert explanation.lines[1].startswith("person 0: box ")
    assert any("ankle: its score" in line for line in explanation.lines), "the portrait ends above the feet"
    assert explanation.picture.width == 1440


def test_show_says_that_nobody_was_found(tmp_path, monkeypatch, capsys):
    encode_video(tmp_path / "empty.mp4", frames=2)
    monkeypatch.chdir(tmp_path)
    assert main(["show", "empty.mp4", "--frame", "1", "--bbox-thr", "0.9"]) == 0
    assert "nobody was found: no box scored 0.9 (--bbox-thr) or more" in capsys.readouterr().out
    assert Image.open(tmp_path / "empty_frame1.png").width == 1440


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.mp4"], "one of the arguments --t --frame is required"),
        (["a.mp4", "--t", "1", "--to", "a.jpg"], "the name must end in .png"),
        (["a.mp4", "--t", "1"], "a.mp4"),
    ],
)
def test_show_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["show", *arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
