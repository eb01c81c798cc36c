import importlib.util
from pathlib import Path

import numpy as np
import pytest

from posebatch.core.errors import InputError
from posebatch.evaluation.boxes_found import HEIGHTS, Finding, TrueBoxes, finding, read_truth

JOB = Path(__file__).parents[2] / "jobs/evaluate_boxes.py"
A, B, PLACE = (0, 0, 20, 40), (100, 0, 130, 100), (200, 0, 300, 300)


def truth(*boxes, ignored=()):
    rows = np.array([*boxes, *ignored], np.float64).reshape(-1, 4)
    return TrueBoxes(rows, np.arange(len(rows)) >= len(boxes))


@pytest.mark.parametrize(
    ("true", "boxes", "expected"),
    [
        (truth(), [], (0, 0, 0)),
        (truth(), [A], (0, 0, 1)),
        (truth(A), [], (1, 0, 0)),
        (truth(A, B), [B, A], (2, 2, 0)),
        (truth(A), [A, A], (1, 1, 1)),  # a person is found once
        (truth(A), [(0, 0, 20, 19)], (1, 0, 1)),  # IoU below a half
        (truth(A, ignored=[PLACE]), [(210, 10, 230, 60), (190, 0, 212, 40)], (1, 0, 0)),
        (truth(A, ignored=[PLACE]), [(190, 0, 205, 40)], (1, 0, 1)),  # mostly beside the place
    ],
)
def test_finding_counts(true, boxes, expected):
    found = finding(true, np.array(boxes, np.float32).reshape(-1, 4))
    assert (found.persons.sum(), found.found.sum(), found.false.sum()) == expected


def test_finding_tells_sizes_apart():
    found = finding(truth(A, B), np.array([B, (0, 300, 50, 700)], np.float32))
    assert dict(zip(HEIGHTS, found.persons.tolist(), strict=True)) == {0: 0, 32: 1, 64: 1, 128: 0, 256: 0}
    assert found.found.tolist() == [0, 0, 1, 0, 0]
    assert found.false.tolist() == [0, 0, 0, 0, 1]
    assert (found + found + Finding.nothing()).frames == 2


def test_read_truth(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("frame_index,id,span,x1,y1,x2,y2,visible\n3,1,1,0,0,20,40,1\n3,2,1,9,9,19,29,.2\n5,0,0,1,2,3,4,1\n")
    rows = read_truth(path)
    assert {number: boxes.ignored.tolist() for number, boxes in rows.items()} == {3: [False, True], 5: [True]}
    assert rows[5].bbox_xyxy.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    "content", [None, "frame_index,id\n1,1\n", "frame_index,id,x1,y1,x2,y2,visible\na,1,0,0,1,1,1\n"]
)
def test_read_truth_refuses_other_tables(content, tmp_path):
    path = tmp_path / "truth.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="no table of true boxes"):
        read_truth(path)


@pytest.mark.parametrize("arguments", [[], ["--video", "a.mp4"], ["--data", "a", "--video", "b", "--truth", "c"]])
def test_the_job_wants_images_or_a_video_with_its_truth(arguments, capsys):
    spec = importlib.util.spec_from_file_location("evaluate_boxes", JOB)
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    assert job.main(arguments) == 2
    assert "give --data, or --video and --truth" in capsys.readouterr().err
