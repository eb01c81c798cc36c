"""Networks on labelled images, and the job, on the sample's drawn persons."""

import importlib.util
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.evaluation_factories import write_coco

from posebatch.core.settings import EstimatorSettings
from posebatch.demo.sample import render_sample
from posebatch.evaluation.contact_sheets import choose_persons
from posebatch.evaluation.detector_accuracy import detect_persons, evaluate_detector, inclusive_settings
from posebatch.evaluation.labels import true_boxes
from posebatch.evaluation.pose_accuracy import evaluate_keypoints, keypoints_for_boxes
from posebatch.evaluation.readers import read_dataset
from posebatch.models.networks.engines import Placement
from posebatch.models.networks.person_detector import load_detector
from posebatch.models.networks.pose_network import load_pose_network

JOB = Path(__file__).parents[2] / "jobs/evaluate_pose.py"
SETTINGS = EstimatorSettings(oks_nms_thr=1.0)


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("evaluate_pose", JOB)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Four frames of the sample, one of them narrower and one whose persons have no label."""
    folder = tmp_path_factory.mktemp("coco")
    images = []
    for number, (frame, persons) in enumerate(islice(render_sample(), 120, 211, 30)):
        counted = [person for person in persons if person.counts] if number != 2 else []
        boxes = [[*person.box_xyxy[:2] + 0.5, *person.box_xyxy[2:] - person.box_xyxy[:2]] for person in counted]
        joints = [
            np.nan_to_num(np.concatenate([person.joints, 2.0 * person.visible[:, None]], axis=1)) for person in counted
        ]
        images.append((frame[:460] if number == 2 else frame, boxes, joints))
    return write_coco(folder, images)


@pytest.fixture(scope="module")
def dataset(labels):
    return read_dataset(labels, labels.parent)


@pytest.fixture(scope="module")
def network():
    return load_pose_network(SETTINGS.pose_name)


def test_labelled_boxes_give_good_poses_of_drawn_persons(network, dataset):
    accuracy = evaluate_keypoints(network, dataset, SETTINGS)
    assert accuracy.images == 4
    assert accuracy.persons == accuracy.found == dataset.num_posed > 4
    assert accuracy.average_precision.ap50 > 0.5
    assert accuracy.joints[-1].median_px < 8


def test_nobody_found_is_nobody_right(network, dataset):
    nothing = [type(found)(found.bbox_xyxy[:0], found.scores[:0]) for found in true_boxes(dataset)]
    accuracy = evaluate_keypoints(network, dataset, SETTINGS, nothing)
    assert (accuracy.found, accuracy.average_precision.ap, accuracy.joints[-1].found) == (0, 0.0, 0)


def test_poses_do_not_depend_on_the_batch_size(network, dataset):
    runs = [
        list(keypoints_for_boxes(of_batch_size, dataset, true_boxes(dataset), SETTINGS))
        for of_batch_size in (
            *(load_pose_network(SETTINGS.pose_name, Placement(batch_size=size)) for size in (1, 3, 16)),
            network,
        )
    ]
    for run in runs[1:]:
        for image, same in zip(runs[0], run, strict=True):
            np.testing.assert_allclose(image.keypoints, same.keypoints, atol=1e-2)
            np.testing.assert_allclose(image.pose_scores, same.pose_scores, atol=1e-4)


def test_boxes_do_not_depend_on_the_batch_size(dataset):
    name = SETTINGS.detector_name
    placements = [Placement(batch_size=size) for size in (1, 4)]
    runs = [detect_persons(load_detector(name, inclusive_settings(placement=one)), dataset) for one in placements]
    for image, same in zip(*runs, strict=True):
        np.testing.assert_allclose(image.bbox_xyxy[:5], same.bbox_xyxy[:5], atol=1e-2)
        np.testing.assert_allclose(image.scores[:5], same.scores[:5], atol=1e-4)


def test_a_detector_is_measured_over_all_thresholds(dataset):
    accuracy = evaluate_detector(load_detector(SETTINGS.detector_name, inclusive_settings()), dataset)
    assert (accuracy.images, accuracy.persons) == (4, dataset.num_persons)
    assert accuracy.thresholds[0].recall >= accuracy.thresholds[-1].recall
    assert accuracy.ranked.scores.min() < 0.1


@pytest.mark.parametrize(
    ("oks", "count", "worst", "others"),
    [([], 3, [], 0), ([0.5], 3, [0], 0), ([0.5, 0.1, 0.9, 0.3], 2, [1, 3], 2), ([0.5, 0.1, 0.9, 0.3], 1, [1], 1)],
)
def test_the_worst_persons_and_some_others(oks, count, worst, others):
    chosen = choose_persons(np.array(oks), count)
    assert list(chosen[: len(worst)]) == worst
    assert len(chosen) == len(worst) + others == len(set(chosen))


def test_the_job(job, labels, tmp_path, capsys):
    """Labelled boxes, the detector's, and those of a file that holds the labelled ones."""
    body = json.loads(labels.read_text())
    found = tmp_path / "found.json"
    found.write_text(
        json.dumps(
            [
                {"image_id": entry["image_id"], "category_id": 1, "bbox": entry["bbox"], "score": 0.9}
                for entry in body["annotations"]
            ]
        )
    )
    output = tmp_path / "a" / "b"
    arguments = ["--data", labels, "--images", labels.parent, "--boxes", "gt", "detector", found, "--device", "cpu"]
    assert job.main([*map(str, arguments), "--output", str(output), "--pictures", "2"]) == 0
    report = json.loads((output / "accuracy.json").read_text())
    given, detected, filed = (entry["accuracy"] for entry in report["poses"])
    assert given["persons"] == detected["persons"] == len(body["annotations"])
    # the same boxes; only the scores differ, by one factor for all
    assert filed["average_precision"]["ap"] == pytest.approx(given["average_precision"]["ap"], abs=0.02)
    assert filed["joints"] == given["joints"]
    assert report["detectors"][1]["accuracy"]["recall_at_wanted_precision"] == 1.0
    assert {"accuracy.png", "persons_1.png", "persons_2.png", "persons_3.png"} <= {p.name for p in output.iterdir()}
    with Image.open(output / "accuracy.png") as plot:
        assert min(plot.size) > 300

    printed = capsys.readouterr()
    assert f"{given['average_precision']['ap']:.3f}" in printed.out
    assert "left_ankle" in printed.out
    assert "recall 1.000 at precision 0.80" in printed.out
    assert "poses by simplebaseline" in printed.err


def test_the_job_on_boxes_alone(job, labels, tmp_path, capsys):
    def without_keypoints(body):
        for annotation in body["annotations"]:
            del annotation["keypoints"]
        return body

    path = tmp_path / "instances.json"
    path.write_text(json.dumps(without_keypoints(json.loads(labels.read_text()))))
    common = ["--data", str(path), "--images", str(labels.parent), "--output", str(tmp_path)]
    assert job.main(common) == 2
    assert "hold no keypoints" in capsys.readouterr().err
    assert job.main([*common, "--detector-only", "--boxes", "detector"]) == 0
    assert json.loads((tmp_path / "accuracy.json").read_text())["poses"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.json", "--images", "."], "nowhere.json: no such file"),
        (["--data", "nowhere.parquet"], "nowhere.parquet: no such file"),
        (["--data", "{labels}"], "--images FOLDER"),
        (["--data", "{labels}", "--images", "nowhere"], "4 of 4 images"),
        (["--data", "{labels}", "--images", "{folder}", "--boxes", "nowhere.json"], "nowhere.json: no such file"),
        (["--data", "{labels}", "--images", "{folder}", "--pose", "nobody"], "no pose"),
        (["--data", "{labels}", "--images", "{folder}", "--decoding", "quater"], "quarter"),
        (["--data", "{labels}", "--images", "{folder}", "--detector-only"], "--boxes detector"),
        (["--data", "{labels}", "--images", "{folder}", "--output", "{labels}/x"], "cannot be made"),
    ],
)
def test_the_job_says_what_is_wrong(job, labels, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    filled = [text.format(labels=labels, folder=labels.parent) for text in arguments]
    assert job.main(filled) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--flip-test", "twice"], ["--data", "x", "--nonsense"]])
def test_the_job_knows_its_flags(job, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        job.main(arguments)
    assert end.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_job_knows_the_commands_of_the_documentation(job):
    page = (JOB.parents[1] / "docs/accuracy.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line.split()[2:] for line in page.splitlines() if line.startswith("python jobs/evaluate_pose.py")]
    assert len(commands) == 2
    measured, papers = (job.build_parser().parse_args(command) for command in commands)
    assert (measured.boxes, measured.flip_test) == (["gt", "detector"], "both")
    assert (papers.flip_test, papers.precision, len(papers.boxes)) == ("on", "fp32", 1)
