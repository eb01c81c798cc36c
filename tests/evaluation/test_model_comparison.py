"""The comparison of two networks: how far joints move, who is found, what it costs, and its page."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.evaluation_factories import box_of, frame_poses, standing

from posebatch.cli import main
from posebatch.core.errors import InputError, SettingsError
from posebatch.core.settings import settings_from
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.demo.sample import write_sample
from posebatch.evaluation.joint_moves import FrameMoves, joint_moves, moved_most, persons_differ
from posebatch.evaluation.model_comparison import (
    ModelComparison,
    comparison_lines,
    comparison_of,
    joints_sentence,
    model_settings,
)
from posebatch.evaluation.model_pictures import FramePair, move_words, persons_words
from posebatch.evaluation.model_report import report_page
from posebatch.evaluation.setting_runs import SettingRun

FORMER = "simplebaseline_mobilenet_v2_256x192_relabelled"
PRESENT = "simplebaseline_mobilenet_v2_w175_256x192"
SSDLITE = "ssdlite_mobilenet_v2_320"
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
WRIST = KEYPOINT_NAMES.index("left_wrist")


def frame(*places, wrist=(0, 0), index=0):
    """A frame with persons 100 pixels high, at each x, whose left wrists are moved."""
    joints = np.array([standing(x) for x in places]).reshape(-1, 17, 3) * [1, 1, 0] + [0, 0, 0.8]
    joints[:, WRIST, :2] += wrist
    poses = frame_poses([box_of(x) for x in places], [0.9] * len(places), joints)
    return replace(poses, record=replace(poses.record, frame_index=index))


def moves(old, new, video=0, position=0) -> FrameMoves:
    return FrameMoves.of(video, position, old, new, kpt_thr=0.2)


def compared(old, new, names=("old", "new"), seconds=(2.0, 4.0)) -> ModelComparison:
    """A comparison of one video's frames."""
    settings = (settings_from({"pose": FORMER}), settings_from({}))
    runs = [[SettingRun(tuple(poses), len(poses), len(poses), s)] for poses, s in zip((old, new), seconds, strict=True)]
    return comparison_of(names, settings, ["/in/a.mp4"], *runs)


# --- the figures -------------------------------------------------------------------------------------------------


def test_joint_moves_of_no_frames_are_empty():
    rows = joint_moves([])
    assert [row.joint for row in rows] == [*KEYPOINT_NAMES, "all joints"]
    assert all(row.count == 0 and math.isnan(row.pixels.median) and math.isnan(row.far) for row in rows)


def test_joint_moves_measure_each_joint_alone():
    frames = [moves(frame(50.0, 250.0), frame(50.0, 250.0, wrist=by)) for by in [(0, 0), (3, 4), (9, 12)]]
    rows = {row.joint: row for row in joint_moves(frames)}
    wrist, nose, everywhere = rows["left_wrist"], rows["nose"], rows["all joints"]
    assert (wrist.count, wrist.pixels.median, wrist.pixels.most) == pytest.approx((6, 5, 15), abs=1e-4)
    assert (wrist.heights.median, wrist.heights.most, wrist.far) == pytest.approx((0.05, 0.15, 1 / 3), abs=1e-5)
    assert (nose.count, nose.pixels.most, nose.far) == (6, 0, 0)
    assert (everywhere.count, everywhere.far) == (6 * 17, pytest.approx(1 / 3 / 17))


def test_joints_that_the_old_network_does_not_see_do_not_count():
    old = frame(50.0)
    old.keypoints[0, WRIST, 2] = 0.1
    assert {row.joint: row.count for row in joint_moves([moves(old, frame(50.0))])}["left_wrist"] == 0


@pytest.mark.parametrize(
    ("old", "new", "lost", "added"),
    [
        pytest.param(frame(), frame(), [], [], id="nobody"),
        pytest.param(frame(50.0, 250.0), frame(250.0), [0], [], id="lost"),
        pytest.param(frame(50.0), frame(250.0, 50.0), [], [0], id="added"),
        pytest.param(frame(50.0), frame(250.0), [0], [0], id="elsewhere"),
    ],
)
def test_frame_names_persons_of_one_network_alone(old, new, lost, added):
    found = moves(old, new)
    assert (found.lost.tolist(), found.added.tolist(), found.persons_changed) == (lost, added, len(lost) + len(added))


def test_frames_that_differ_most_lie_apart():
    """100 frames of one video: of neighbours the worst alone is shown. Frames without a difference never are."""
    by = {10: 6, 11: 9, 12: 8, 40: 3, 41: 2, 90: 1}
    frames = [moves(frame(50.0), frame(50.0, wrist=(by.get(i, 0), 0)), 0, i) for i in range(100)]
    assert [one.position for one in moved_most(frames, 6)] == [11, 40, 90]
    assert [one.position for one in moved_most(frames, 2)] == [11, 40]
    other = moves(frame(50.0), frame(50.0, wrist=(7, 0)), 1, 11)
    assert [(one.video, one.position) for one in moved_most([*frames, other], 2)] == [(0, 11), (1, 11)]
    assert moved_most([], 6) == []


def test_frames_with_other_persons_are_chosen_by_their_number():
    frames = [moves(frame(*[50.0] * (i == 3), *[250.0] * (i in (3, 7))), frame(), 0, i) for i in range(10)]
    assert [one.position for one in persons_differ(frames, 4)] == [3, 7]
    assert [persons_words(one) for one in persons_differ(frames, 4)] == [
        "2 lost; 0 found by both",
        "1 lost; 0 found by both",
    ]


def test_words_name_the_joint_that_moves_most():
    found = moves(frame(50.0, 250.0), frame(50.0, 250.0, wrist=(0, 17)))
    assert move_words(found) == "the joints of one person move 1 % of its height on average, left_wrist 17 %"


def test_frames_must_be_the_same():
    with pytest.raises(ValueError, match="frames 0 and 7 are not the same"):
        moves(frame(), frame(index=7))


def test_comparison_counts_persons_and_time():
    comparison = compared([frame(50.0, 250.0), frame()], [frame(50.0, wrist=(5, 0)), frame(100.0)])
    assert (comparison.kept, comparison.lost, comparison.added) == (1, 1, 1)
    assert comparison.time_ratio == 2
    lines = comparison_lines(comparison)
    assert lines[:3] == [
        f"old old: pose {FORMER}, detector ssdlite_mobilenet_v2_320",
        f"new new: pose {PRESENT}, detector ssdlite_mobilenet_v2_320",
        "2 frames of 1 video",
    ]
    assert lines[-3].startswith("joints that move most, by the median: left_wrist (5.0 % of the height)")
    assert lines[-2] == "2 persons by the old: 1 kept, 1 lost; 1 added by the new"
    assert lines[-1] == (
        "old 1.0 frames/s, new 0.5 frames/s in the networks: the new take 2.00 times as long, in this one run"
    )


def test_comparison_without_a_common_person_has_no_joints():
    comparison = compared([frame(50.0)], [frame(250.0)])
    assert joints_sentence(comparison) == "no person was found by both, so no joint can be compared"
    assert "nose" in "\n".join(comparison_lines(comparison))
    assert "Where" not in report_page(comparison, [], [])
    assert joints_sentence(compared([frame(50.0)], [frame(50.0)])) == "no joint moves"


def test_comparison_without_any_person_is_refused():
    with pytest.raises(InputError, match="neither old nor new found a person in 1 frame of 1 video"):
        compared([frame()], [frame()])


# --- the sides ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "given", "networks"),
    [
        pytest.param(FORMER, PRESENT, {}, [(SSDLITE, FORMER), (SSDLITE, PRESENT)], id="poses"),
        pytest.param(
            FORMER,
            "balanced",
            {},
            [(FASTER, FORMER), (FASTER, "mmpose_resnet50_256x192")],
            id="a pose network takes the detector of the preset",
        ),
        pytest.param(
            "embedded",
            "balanced",
            {},
            [(SSDLITE, PRESENT), (FASTER, "mmpose_resnet50_256x192")],
            id="presets differ",
        ),
        pytest.param(
            "embedded",
            "balanced",
            {"detector": SSDLITE},
            [(SSDLITE, PRESENT), (SSDLITE, "mmpose_resnet50_256x192")],
            id="one detector for both",
        ),
    ],
)
def test_sides_have_the_same_detector_unless_presets_differ(old, new, given, networks):
    sides = [side.estimator for side in model_settings(old, new, given)]
    assert [(side.detector_name, side.pose_name) for side in sides] == networks


def test_presets_with_the_same_networks_may_differ_in_settings():
    assert [side.estimator.tiles for side in model_settings("embedded", "far", {})] == ["1x1", "2x4"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("embeded", PRESENT, "'embeded' is neither a preset nor a pose network; did you mean 'embedded'?"),
        (FORMER, "mmpose_resnet50_256x193", "did you mean 'mmpose_resnet50_256x192'?"),
        ("embedded", PRESENT, f"embedded and {PRESENT} are the same networks"),
        ("fast", FORMER, f"fast and {FORMER} are the same networks"),
        (FORMER, FORMER, "are the same networks"),
        ("simplebaseline_mobilenet_v2_256x192", "fast", "take simplebaseline_mobilenet_v2_256x192_relabelled"),
    ],
)
def test_sides_refuse_unknown_and_equal_names(old, new, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        model_settings(old, new, {})


# --- the page ----------------------------------------------------------------------------------------------------


def test_page_escapes_names_and_asks_for_nothing():
    evil = "<script>alert(1)</script>.safetensors"
    comparison = compared([frame(50.0, 250.0)], [frame(50.0, wrist=(5, 0))], names=(evil, "new\x1b[2J"))
    pair = FramePair(f"/in/{evil}", 3, 0.1, "1 lost; 1 found by both", "data:image/jpeg;base64,", "data:,", (4, 3))
    page = report_page(comparison, [], [pair])
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "http" not in page.replace('http-equiv="', "")
    assert all(address.startswith("data:") for address in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "1 lost; 1 found by both." in page


# --- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command_compares_the_networks_in_the_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    video = tmp_path / "a.mp4"
    write_sample(video)
    report = tmp_path / "new" / "report"
    chosen = ["--frames", "5", "--stride", "20", "--engine", "torch", "--precision", "fp32", "--report", str(report)]
    assert main(["models", "compare", FORMER, "embedded", str(tmp_path), *chosen]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "5 frames of 1 video" in lines
    assert {line.split()[0] for line in lines if line.startswith(KEYPOINT_NAMES)} == set(KEYPOINT_NAMES)
    (everywhere,) = (line.split() for line in lines if line.startswith("all joints"))
    assert int(everywhere[2]) > 10
    assert 0 < float(everywhere[3]) < 20, "median, pixels: joints move, and not far"
    assert lines[-1] == f"report {report / 'report.html'}"
    assert [path.name for path in report.iterdir()] == ["report.html"]
    page = (report / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") >= 2
    assert f"old: {FORMER}" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody.mp4"], "nobody.mp4: no such file"),
        (["."], "no video in ."),
        (["a.mp4", "--frames", "0"], "must be at least 1"),
        (["a.mp4", "--detector", "ssdlite"], "no detector is called 'ssdlite'"),
        (["a.mp4", "--report", "a.mp4"], "--report a.mp4: cannot be written"),
    ],
)
def test_command_refuses_wrong_arguments(tmp_path: Path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    if arguments != ["."]:
        Path("a.mp4").touch()
    assert main(["models", "compare", FORMER, "embedded", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_comparison_needs_no_library_of_an_extra():
    script = (
        "import sys, json, posebatch.evaluation.model_report\n"
        "print(json.dumps([name for name in ('pycocotools', 'matplotlib') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
