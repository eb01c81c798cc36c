"""The commands evaluate_pose, evaluate_boxes and compare_settings."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from evaluate_flow import main as evaluate_flow
from PIL import Image
from support.scripts import module_of

from posebatch.demo.sample import write_sample
from posebatch.evaluation.commands import (
    boxes_parser,
    compare_settings,
    comparison_parser,
    evaluate_boxes,
    evaluate_pose,
    pose_parser,
)
from posebatch.evaluation.progress_bar import progress_bar
from posebatch.evaluation.setting_comparison import variants

ROOT = Path(__file__).parents[2]


def documented(script):
    """The arguments of every call of a script in docs/accuracy.md."""
    page = (ROOT / "docs/accuracy.md").read_text(encoding="utf-8").replace("\\\n", " ")
    return [shlex.split(line)[2:] for line in page.splitlines() if line.startswith(f"python jobs/{script}.py")]


@pytest.mark.parametrize("script", ["evaluate_pose", "evaluate_boxes", "evaluate_flow", "compare_settings"])
def test_script_shows_its_examples(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        module_of(script).main(["--help"])
    assert f"python jobs/{script}.py" in capsys.readouterr().out


def test_progress_bar_writes_lines_to_a_log(capsys):
    with progress_bar("images", 3, "images", log_seconds=0) as bar:
        for _ in range(3):
            bar.update()
    with progress_bar("boxes", 2, "images") as bar:
        bar.update(2)
    text = capsys.readouterr().err
    counts = [line.split(",")[0] for line in text.splitlines()]
    assert counts == ["images: 1/3", "images: 2/3", "images: 3/3", "boxes: 2/2"]
    assert "\r" not in text


# evaluate_pose


@pytest.mark.slow
def test_evaluate_pose_measures_every_source_of_boxes(labels, tmp_path, capsys):
    """Labelled boxes, the detector's, and those of a file that holds the labelled ones."""
    body = json.loads(labels.read_text())
    results = tmp_path / "found.json"
    results.write_text(
        json.dumps(
            [
                {"image_id": entry["image_id"], "category_id": 1, "bbox": entry["bbox"], "score": 0.9}
                for entry in body["annotations"]
            ]
        )
    )
    output = tmp_path / "a" / "b"
    arguments = ["--data", labels, "--images", labels.parent, "--boxes", "gt", "detector", results, "--device", "cpu"]
    assert evaluate_pose([*map(str, arguments), "--output", str(output), "--pictures", "2"], None) == 0
    report = json.loads((output / "accuracy.json").read_text())
    labelled, detected, filed = (entry["accuracy"] for entry in report["poses"])
    assert labelled["persons"] == detected["persons"] == len(body["annotations"])
    # the same boxes; only the scores differ, by the same factor for all
    assert filed["average_precision"]["ap"] == pytest.approx(labelled["average_precision"]["ap"], abs=0.02)
    assert filed["joints"] == labelled["joints"]
    assert report["detectors"][1]["accuracy"]["recall_at_wanted_precision"] == 1.0
    assert {"accuracy.png", "persons_1.png", "persons_2.png", "persons_3.png"} <= {p.name for p in output.iterdir()}
    with Image.open(output / "accuracy.png") as plot:
        assert min(plot.size) > 300

    printed = capsys.readouterr()
    assert f"{labelled['average_precision']['ap']:.3f}" in printed.out
    assert "left_ankle" in printed.out
    assert "recall 1.000 at precision 0.80" in printed.out
    assert "poses by simplebaseline" in printed.err


def test_evaluate_pose_measures_boxes_alone(labels, tmp_path, capsys):
    body = json.loads(labels.read_text())
    for annotation in body["annotations"]:
        del annotation["keypoints"]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(body))
    common = ["--data", str(path), "--images", str(labels.parent), "--output", str(tmp_path)]
    assert evaluate_pose(common, None) == 2
    assert "hold no keypoints" in capsys.readouterr().err
    assert evaluate_pose([*common, "--detector-only", "--boxes", "detector"], None) == 0
    assert json.loads((tmp_path / "accuracy.json").read_text())["poses"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.json", "--images", "."], "nowhere.json: no such file"),
        (["--data", "{labels}"], "--images FOLDER"),
        (["--data", "{labels}", "--images", "nowhere"], "4 of 4 images"),
        (["--data", "{labels}", "--images", "{folder}", "--boxes", "nowhere.json"], "nowhere.json: no such file"),
        (["--data", "{labels}", "--images", "{folder}", "--pose", "nobody"], "no pose"),
        (["--data", "{labels}", "--images", "{folder}", "--decoding", "quater"], "quarter"),
        (["--data", "{labels}", "--images", "{folder}", "--detector-only"], "--boxes detector"),
        (["--data", "{labels}", "--images", "{folder}", "--output", "{labels}/x"], "cannot be made"),
    ],
)
def test_evaluate_pose_reports_errors(labels, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    filled = [text.format(labels=labels, folder=labels.parent) for text in arguments]
    assert evaluate_pose(filled, None) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--flip-test", "twice"], ["--data", "x", "--nonsense"]])
def test_evaluate_pose_refuses_wrong_flags(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate_pose(arguments, None)
    assert "usage" in capsys.readouterr().err


def test_evaluate_pose_parses_the_documented_calls():
    measured, *_, papers = (pose_parser().parse_args(arguments) for arguments in documented("evaluate_pose"))
    assert (measured.boxes, measured.flip_test) == (["gt", "detector"], "both")
    assert (papers.flip_test, papers.precision, len(papers.boxes)) == ("on", "fp32", 1)


# evaluate_boxes


@pytest.mark.parametrize("arguments", [[], ["--video", "a.mp4"], ["--data", "a", "--video", "b", "--truth", "c"]])
def test_evaluate_boxes_needs_images_or_a_video_with_its_truth(arguments, capsys):
    assert evaluate_boxes(arguments, None) == 2
    assert "give --data, or --video and --truth" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_boxes_counts_persons_of_a_video(tmp_path, capsys):
    video, truth = tmp_path / "sample.mp4", tmp_path / "truth.csv"
    sample = write_sample(video)
    rows = [
        (number, 1, *np.round(person.box_xyxy, 1), 1.0)
        for number in range(110, 130, 5)
        for person in sample.frames[number]
        if person.counts
    ]
    lines = ["frame_index,id,x1,y1,x2,y2,visible", *(",".join(map(str, row)) for row in rows)]
    truth.write_text("\n".join(lines) + "\n")
    arguments = ["--video", video, "--truth", truth, "--stride", 5, "--device", "cpu", "--engine", "torch"]
    assert evaluate_boxes([*map(str, arguments)], None) == 0
    frames, _, *table, speed = capsys.readouterr().out.splitlines()
    assert frames == f"{len({row[0] for row in rows})} frames"
    name, persons, recall, _ = table[-1].split()
    assert (name, int(persons)) == ("all", len(rows))
    assert float(recall) > 0.5
    assert "frames/s of the detector" in speed


@pytest.mark.slow
def test_evaluate_flow_compares_recall_precision_and_speed(tmp_path, capsys):
    truth = tmp_path / "truth" / "sample.csv"
    truth.parent.mkdir()
    sample = write_sample(tmp_path / "sample.mp4")
    rows = [
        f"{number},1,{','.join(map(str, person.box_xyxy))},1"
        for number in range(110, 114)
        for person in sample.frames[number]
        if person.counts
    ]
    truth.write_text("\n".join(["frame_index,id,x1,y1,x2,y2,visible", *rows]))
    assert evaluate_flow(["--videos", str(tmp_path), "--truth", str(truth.parent)]) == 0
    _, *table = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in table] == [
        [clip, recover, str(len(rows))] for clip in ("sample", "all") for recover in ("off", "on")
    ]


def test_evaluate_boxes_parses_the_documented_calls():
    calls = documented("evaluate_boxes")
    assert len(calls) == 2
    for arguments in calls:
        plain = [word.replace("N", "1") for word in arguments if not word.startswith("[") and not word.endswith("]")]
        boxes_parser().parse_args(plain)


# compare_settings


def test_variants_change_one_value_at_a_time():
    settings = variants({"detect_every": [1, 5, 9], "precision": ["fp32", "bf16"], "kpt_thr": [0.3]})
    chosen = {
        label: (variant.estimator.detect_every, variant.estimator.precision, variant.estimator.kpt_thr)
        for label, variant in settings.items()
    }
    assert chosen == {
        "detect_every=1 precision=fp32": (1, "fp32", 0.3),
        "detect_every=5": (5, "fp32", 0.3),
        "detect_every=9": (9, "fp32", 0.3),
        "precision=bf16": (1, "bf16", 0.3),
    }


@pytest.mark.slow
def test_compare_settings_compares_with_the_first_values(tmp_path, capsys):
    videos = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for video in videos:
        write_sample(video)
    output = tmp_path / "new" / "figures.json"
    arguments = [*videos, "--frames", 6, "--detect-every", 1, 4, "--precision", "fp32", "--json", output]
    assert compare_settings([*map(str, arguments), "--stride", "5", "--engine", "torch", "--planes"], None) == 0
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
    ("arguments", "message"),
    [
        ([], "give an option two values"),
        (["--detect-every", "5"], "give an option two values"),
        (["--detect-every", "1", "0"], "detect_every must be at least 1"),
        (["--bbox-thr", "0.3", "0.5"], "missing.mp4: no such file"),
    ],
)
def test_compare_settings_reports_errors(tmp_path, capsys, arguments, message):
    assert compare_settings([str(tmp_path / "missing.mp4"), *arguments], None) == 2
    assert message in capsys.readouterr().err


def test_compare_settings_parses_the_documented_calls():
    calls = documented("compare_settings")
    assert calls
    for arguments in calls:
        comparison_parser().parse_args(arguments)
