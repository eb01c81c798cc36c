"""IDF1, switches and fragmentations on made-up identities."""

import numpy as np
import pytest

from posebatch.core.errors import InputError
from posebatch.evaluation.identity_score import (
    Identities,
    TrackedBoxes,
    read_identities,
    score_tracks,
    true_tracks,
)
from posebatch.evaluation.true_boxes import noisy_boxes

FRAMES = 100


def identities(rows):
    """From (frame, person, span, x, visible): boxes of 40 x 90 pixels."""
    table = np.array(rows, np.float64).reshape(-1, 5)
    boxes = np.stack([table[:, 3], table[:, 3] * 0 + 50, table[:, 3] + 40, table[:, 3] * 0 + 140], axis=1)
    whole = table[:, :3].astype(np.int64)
    return Identities(whole[:, 0], whole[:, 1], whole[:, 2], boxes, table[:, 4])


def three_people():
    """Persons 1 and 2 stay, and person 3 is away in frames 40 to 59."""
    rows = []
    for frame in range(FRAMES):
        for person in (1, 2, 3):
            if person == 3 and 40 <= frame < 60:
                continue
            rows.append((frame, person, 1 + (person == 3 and frame >= 60), 100 * person + frame, 1.0))
    return identities(rows)


TRUTH = three_people()
NOBODY = identities([])


def boxes_of(truth, track):
    return TrackedBoxes(truth.frame_index, truth.bbox_xyxy, np.asarray(track, np.int64))


SWAPPED = np.where((TRUTH.frame_index >= 50) & (TRUTH.person < 3), 3 - TRUTH.person, TRUTH.person)
HOLE = np.where((TRUTH.person == 1) & (TRUTH.frame_index // 10 == 3), -1, TRUTH.person)


@pytest.mark.parametrize(
    ("truth", "boxes", "idf1", "switches", "fragmentations", "found"),
    [
        (NOBODY, boxes_of(NOBODY, []), 0, 0, 0, 0),
        (NOBODY, boxes_of(TRUTH, TRUTH.person), 0, 0, 0, 0),
        (TRUTH, boxes_of(NOBODY, []), 0, 0, 0, 0),
        (TRUTH, boxes_of(TRUTH, TRUTH.person), 1, 0, 0, 1),
        (TRUTH, boxes_of(TRUTH, TRUTH.person * 0 - 1), 0, 0, 0, 0),
        (TRUTH, boxes_of(TRUTH, SWAPPED), 180 / 280, 2, 0, 1),
        (TRUTH, boxes_of(TRUTH, TRUTH.person + 10 * (TRUTH.span == 2)), 240 / 280, 1, 0, 1),
        (TRUTH, boxes_of(TRUTH, HOLE), 2 * 270 / (280 + 270), 0, 1, 270 / 280),
    ],
    ids=["no truth", "no labelled frame", "no boxes", "perfect", "no tracks", "swapped", "comes back", "hole"],
)
def test_score_of_tracks(truth, boxes, idf1, switches, fragmentations, found):
    score = score_tracks(truth, boxes)
    assert score.idf1 == pytest.approx(idf1)
    assert (score.switches, score.fragmentations) == (switches, fragmentations)
    assert score.found == pytest.approx(found)


@pytest.mark.parametrize(("x", "idf1"), [(600, 1.0), (900, 2 * 280 / 660)], ids=["ignored", "elsewhere"])
def test_false_boxes_count_outside_of_regions_to_ignore(x, idf1):
    region = identities([(frame, 0, 0, 600, 1.0) for frame in range(FRAMES)])
    truth = joined(TRUTH, region)
    false = identities([(frame, 9, 1, x, 1.0) for frame in range(FRAMES)])
    boxes = joined(TRUTH, false)
    assert score_tracks(truth, boxes_of(boxes, boxes.person)).idf1 == pytest.approx(idf1)


def test_hardly_visible_people_need_not_be_found():
    faint = Identities(
        TRUTH.frame_index, TRUTH.person, TRUTH.span, TRUTH.bbox_xyxy, np.where(TRUTH.person == 2, 0.1, 1.0)
    )
    for track in (TRUTH.person, np.where(TRUTH.person == 2, -1, TRUTH.person)):
        assert score_tracks(faint, boxes_of(TRUTH, track)).idf1 == 1


def test_frames_before_the_truth_do_not_count():
    late = TRUTH.frame_index >= 50
    truth = Identities(*(values[late] for values in vars(TRUTH).values()))
    assert score_tracks(truth, boxes_of(TRUTH, TRUTH.person)).idf1 == 1


def test_true_tracks_name_the_person_of_each_box():
    false = identities([(frame, 9, 1, 900, 1.0) for frame in range(FRAMES)])
    boxes = joined(TRUTH, false)
    best = true_tracks(TRUTH, boxes_of(boxes, boxes.person * 0 - 1))
    assert best.track.tolist() == np.where(boxes.person == 9, 4, boxes.person).tolist()


def test_truth_is_read_in_order_of_frames(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("frame_index,id,span,x1,y1,x2,y2,visible\n7,2,1,0,0,10,20,1\n3,1,1,5,5,15,25,.5\n")
    truth = read_identities(path)
    assert truth.frame_index.tolist() == [3, 7]
    assert truth.person.tolist() == [1, 2]
    assert truth.frames == range(3, 8)


@pytest.mark.parametrize(
    "text", ["frame_index,id\n1,1\n", "frame_index,id,span,x1,y1,x2,y2,visible\na,1,1,0,0,1,1,1\n"]
)
def test_truth_that_is_no_table_of_identities_is_refused(tmp_path, text):
    path = tmp_path / "truth.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="no table of true identities"):
        read_identities(path)


def test_noisy_boxes_lose_a_tenth_and_see_no_joint():
    frames = np.arange(FRAMES)
    block = noisy_boxes(TRUTH, frames, frames, frames / 25, seed=0)
    again = noisy_boxes(TRUTH, frames, frames, frames / 25, seed=0)
    assert 0.85 < len(block.frame) / len(TRUTH.person) < 0.95
    assert (block.keypoints == 0).all()
    assert block.person.max() == 2
    assert (block.bbox_xyxy == again.bbox_xyxy).all()


def joined(a, b):
    order = np.argsort(np.concatenate([a.frame_index, b.frame_index]), kind="stable")
    return Identities(*(np.concatenate([values, vars(b)[name]])[order] for name, values in vars(a).items()))
