"""How far two tables agree, and the job that says so of settings."""

import importlib.util
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.evaluation_factories import box_of, found, standing

from posebatch.demo.sample import write_sample
from posebatch.evaluation.agreement import compare

JOB = Path(__file__).parents[2] / "jobs/compare_settings.py"
KPT_THR = 0.2


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("compare_settings", JOB)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its data classes look themselves up there
    spec.loader.exec_module(module)
    return module


def frame(*places, moved=(0, 0), score=0.8):
    """Persons 100 pixels high, at x."""
    joints = np.array([standing(x) for x in places]).reshape(-1, 17, 3) * [1, 1, 0] + [*moved, score]
    return found([box_of(x) for x in places], [0.9] * len(places), joints)


def test_no_frames():
    nothing = compare([], [], KPT_THR)
    assert (nothing.frames, nothing.reference_persons, nothing.kept, nothing.added, nothing.joints) == (0,) * 5
    assert all(map(math.isnan, (nothing.pixels.median, nothing.heights.p95, nothing.noticeable, nothing.ap)))


def test_the_same_agrees_with_itself():
    poses = [frame(50.0, 250.0), frame(), frame(100.0)]
    same = compare(poses, poses, KPT_THR)
    assert (same.kept, same.added, same.joints) == (3, 0, 51)
    assert (same.pixels.most, same.noticeable, same.ap, same.ar) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("reference", "poses", "kept", "added"),
    [
        pytest.param(frame(), frame(50.0), 0, 1, id="nobody before"),
        pytest.param(frame(50.0), frame(), 0, 0, id="nobody after"),
        pytest.param(frame(50.0, 250.0), frame(250.0), 1, 0, id="one is gone"),
        pytest.param(frame(50.0), frame(250.0), 0, 1, id="elsewhere"),
        pytest.param(frame(50.0), frame(50.0, 51.0), 1, 1, id="twice"),
        pytest.param(frame(50.0, 51.0), frame(50.0), 1, 0, id="no longer twice"),
    ],
)
def test_each_pose_is_one_persons(reference, poses, kept, added):
    agreement = compare([reference], [poses], KPT_THR)
    assert (agreement.reference_persons, agreement.kept, agreement.added) == (len(reference), kept, added)


def test_distances_are_those_of_joints_that_the_reference_sees():
    reference = frame(50.0)
    unseen = reference.keypoints.copy()
    unseen[0, 1:, 2] = 0.1
    moved = frame(50.0, moved=(0.6, 0.8))
    assert compare([reference], [moved], KPT_THR).joints == 17
    few = compare([replace(reference, keypoints=unseen)], [moved], KPT_THR)
    assert few.joints == 1
    assert few.pixels.median == few.pixels.p99 == pytest.approx(1, abs=1e-4)
    assert few.heights.median == pytest.approx(0.01, abs=1e-5)
    assert few.noticeable == 1


def test_other_frames_cannot_be_compared():
    other = replace(frame(), record=replace(frame().record, frame_index=7))
    with pytest.raises(ValueError, match="not the same"):
        compare([frame()], [other], KPT_THR)


def test_one_change_at_a_time(job):
    settings = job.variants({"detect_every": [1, 5, 9], "precision": ["fp32", "bf16"], "kpt_thr": [0.3]})
    chosen = {
        label: (one.estimator.detect_every, one.estimator.precision, one.estimator.kpt_thr)
        for label, one in settings.items()
    }
    assert chosen == {
        "detect_every=1 precision=fp32": (1, "fp32", 0.3),
        "detect_every=5": (5, "fp32", 0.3),
        "detect_every=9": (9, "fp32", 0.3),
        "precision=bf16": (1, "bf16", 0.3),
    }


def test_the_job(job, tmp_path, capsys):
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for video in videos:
        write_sample(video)
    output = tmp_path / "new" / "figures.json"
    arguments = [*videos, "--frames", 6, "--detect-every", 1, 4, "--precision", "fp32", "--json", output]
    assert job.main([*map(str, arguments), "--stride", "5", "--engine", "torch", "--planes"]) == 0
    body = json.loads(output.read_text())
    assert body["reference"]["detect_every"] == 1
    reference, fewer, planes = body["all"]
    assert (reference["agreement"]["frames"], reference["detected"], reference["speed"]) == (12, 1, 1)
    assert reference["agreement"]["kept"] == reference["agreement"]["reference_persons"] > 0
    assert fewer["detected"] == 1  # stride 5: every frame is the first of its group
    assert fewer["agreement"]["pixels"]["most"] == 0
    assert planes["agreement"]["kept"] == reference["agreement"]["kept"]
    assert 0 < planes["agreement"]["heights"]["median"] < 0.02
    assert [len(body[str(video)]) for video in videos] == [3, 3]
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "12 frames"
    assert [line.split()[0] for line in table[1:]] == ["setting", "detect_every=1", "detect_every=4", "planes"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give an option two values"),
        (["--detect-every", "5"], 2, "give an option two values"),
        (["--detect-every", "1", "0"], 2, "detect_every must be at least 1"),
        (["--bbox-thr", "0.3", "0.5"], 2, "missing.mp4: no such file"),
    ],
)
def test_the_job_says_what_is_wrong(job, tmp_path, capsys, arguments, code, message):
    assert job.main([str(tmp_path / "missing.mp4"), *arguments]) == code
    assert message in capsys.readouterr().err


def test_the_job_knows_the_commands_of_the_documentation(job):
    page = (JOB.parents[1] / "docs/accuracy.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line.split()[2:] for line in page.splitlines() if line.startswith("python jobs/compare_settings.py")]
    assert commands
    for arguments in commands:
        job.build_parser().parse_args(arguments)
