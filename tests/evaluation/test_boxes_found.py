"""Counts of found persons and false boxes, and truth files."""

import numpy as np
import pytest

from posebatch.core.errors import InputError
from posebatch.evaluation.boxes_found import HEIGHTS, BoxCounts, TrueBoxes, count_boxes, read_truth

A, B, REGION = (0, 0, 20, 40), (100, 0, 130, 100), (200, 0, 300, 300)


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
        (truth(A), [A, A], (1, 1, 1)),  # a person matches one box
        (truth(A), [(0, 0, 20, 19)], (1, 0, 1)),  # IoU below a half
        (truth(A, ignored=[REGION]), [(210, 10, 230, 60), (190, 0, 212, 40)], (1, 0, 0)),
        (truth(A, ignored=[REGION]), [(190, 0, 205, 40)], (1, 0, 1)),  # mostly outside the region
    ],
)
def test_count_boxes_counts_persons_and_false_boxes(true, boxes, expected):
    counts = count_boxes(true, np.array(boxes, np.float32).reshape(-1, 4))
    assert (counts.persons.sum(), counts.found.sum(), counts.false.sum()) == expected


def test_count_boxes_separates_heights():
    counts = count_boxes(truth(A, B), np.array([B, (0, 300, 50, 700)], np.float32))
    assert dict(zip(HEIGHTS, counts.persons.tolist(), strict=True)) == {0: 0, 32: 1, 64: 1, 128: 0, 256: 0}
    assert counts.found.tolist() == [0, 0, 1, 0, 0]
    assert counts.false.tolist() == [0, 0, 0, 0, 1]
    assert (counts + counts + BoxCounts.zero()).frames == 2


def test_read_truth_reads_boxes_and_regions_to_ignore(tmp_path):
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
