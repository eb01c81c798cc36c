"""Hidden heads and hidden pictures, before anything is encoded."""

import numpy as np
import pytest

from posebatch.core.frames import FramePoses, FrameRecord
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.report.head_regions import HEAD, Gap, GapFinder, HeadsOfClip, head_region
from posebatch.report.privacy import BACKGROUND, blank, blurred
from posebatch.report.track_drawing import ClipPainter

BOX = (100, 50, 160, 250)
FACE = {"nose": (130, 70), "left_eye": (133, 67), "right_eye": (127, 67), "left_ear": (137, 69), "right_ear": (123, 69)}


def stripes(height=300, width=400):
    """A picture in which every pixel differs from its neighbours."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def joints(score=0.9, shift=0.0, **places):
    keypoints = np.zeros((17, 3), np.float32)
    for name, (x, y) in (places or FACE).items():
        keypoints[KEYPOINT_NAMES.index(name)] = x + shift, y, score
    return keypoints


def frame(pts, *shifts, ids=None):
    """A frame whose persons stand ``shifts`` pixels to the right."""
    n = len(shifts)
    boxes = np.array([BOX] * n, np.float32).reshape(n, 4) + np.array([[s, 0, s, 0] for s in shifts]).reshape(n, 4)
    return FramePoses(
        FrameRecord(pts, pts, False, "ok"),
        boxes.astype(np.float32),
        np.ones(n, np.float32),
        np.ones(n, np.float32),
        np.array([joints(shift=s) for s in shifts], np.float32).reshape(n, 17, 3),
        track_ids=np.arange(n, dtype=np.int32) if ids is None else np.array(ids, np.int32),
    )


def clip_regions(frames):
    finder = GapFinder()
    for each in frames:
        finder.add(each)
    heads = HeadsOfClip(finder.gaps)
    return [heads.regions(each) for each in frames]


def covers(regions, x, y):
    return any(x1 <= x <= x2 and y1 <= y <= y2 for x1, y1, x2, y2 in regions)


# --- the region ----------------------------------------------------------------------------------------------------


def test_head_region_covers_the_head_with_a_margin():
    x1, y1, x2, y2 = head_region(np.array(BOX, np.float32), joints())
    assert x1 < 123 - 3
    assert x2 > 137 + 3
    assert y1 < 58, "the hair: a head is as much higher than its eyes as its ears are apart"
    assert y2 > 80, "the chin"
    assert (x2 - x1) < 60 > (y2 - y1), "not the whole person"


@pytest.mark.parametrize(
    "seen", [("left_eye", "left_ear"), ("nose", "left_ear"), ("nose", "left_eye"), ("left_ear", "right_ear")]
)
def test_head_region_covers_the_head_from_two_joints(seen):
    region = head_region(np.array(BOX, np.float32), joints(**{name: FACE[name] for name in seen}))
    assert all(covers([region], *place) for place in FACE.values())


@pytest.mark.parametrize(
    "keypoints",
    [joints(score=0.2), joints(nose=(130, 70)), np.zeros((17, 3), np.float32)],
    ids=["unsure", "one", "none"],
)
def test_head_region_is_the_upper_part_of_the_box_where_joints_are_unsure(keypoints):
    x1, y1, x2, y2 = head_region(np.array(BOX, np.float32), keypoints)
    assert (x1 <= BOX[0], y1 <= BOX[1], x2 >= BOX[2]) == (True, True, True)
    assert 100 <= y2 < 160


def test_head_region_of_a_person_who_lies_is_the_whole_box_where_joints_are_unsure():
    box = np.array([50, 100, 250, 160], np.float32)
    np.testing.assert_array_equal(head_region(box, np.zeros((17, 3), np.float32)), box)


def test_head_region_covers_unsure_joints_at_the_lower_end_of_the_box():
    """A person who stands on the hands."""
    upside_down = joints(score=0.3, **{name: (x, 300 - y) for name, (x, y) in FACE.items()})
    assert covers([head_region(np.array(BOX, np.float32), upside_down)], 130, 230)


# --- gaps ----------------------------------------------------------------------------------------------------------


def test_clip_without_frames_has_no_regions():
    assert clip_regions([]) == []


def test_heads_are_covered_where_persons_are_found_and_in_gaps():
    frames = [frame(0, 0), frame(1, 10), frame(2), frame(3), frame(4, 40), frame(5)]
    regions = clip_regions(frames)
    assert [len(found) for found in regions] == [1, 1, 1, 1, 1, 0]
    for shift, found in zip((0, 10, 20, 30, 40), regions, strict=False):
        assert all(covers(found, x + shift, y) for x, y in FACE.values()), f"at {shift}"


def test_gap_of_one_track_beside_another():
    frames = [frame(0, 0, 100), frame(1, 100, ids=[1]), frame(2, 0, 100)]
    assert [len(found) for found in clip_regions(frames)] == [2, 2, 2]


def test_gaps_use_times_and_allow_frames_that_are_left_out():
    gap = Gap((0, 100), np.array([[0, 0, 10, 10], [100, 0, 110, 10]], np.float32))
    heads = HeadsOfClip([gap])
    assert len(heads.regions(frame(0))) == 0
    (region,) = heads.regions(frame(90))
    assert region[0] < 90 < 100 < region[2]
    assert len(heads.regions(frame(100))) == 0


def test_persons_without_a_track_have_no_gaps():
    assert [len(found) for found in clip_regions([frame(0, 0, ids=[-1]), frame(1), frame(2, 0, ids=[-1])])] == [1, 0, 1]


# --- pixels --------------------------------------------------------------------------------------------------------


def test_blurred_without_regions_changes_nothing():
    np.testing.assert_array_equal(blurred(stripes(), np.zeros((0, 4), np.float32)), stripes())


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.35])
@pytest.mark.parametrize(
    "region", [(100, 50, 160, 110), (-20, -30, 40, 60), (380, 280, 500, 400)], ids=["inside", "corner", "other corner"]
)
def test_blurred_hides_the_region_and_nothing_else(region, scale):
    image = stripes(round(300 * scale), round(400 * scale))
    hidden = blurred(image, np.array([region], np.float32), scale)
    ys, xs = np.indices(image.shape[:2])
    x1, y1, x2, y2 = ((value + 0.5) * scale for value in region)
    inside = (xs + 1 > x1) & (xs < x2) & (ys + 1 > y1) & (ys < y2)
    np.testing.assert_array_equal(hidden[~inside], image[~inside])
    steps = np.abs(np.diff(hidden.astype(int), axis=1)).max(axis=2)[inside[:, 1:] & inside[:, :-1]]
    assert inside.any()
    assert steps.max() <= 100, "no detail is left"
    assert np.abs(np.diff(image.astype(int), axis=1)).max() > 200


def test_blurred_region_depends_on_a_few_means_alone():
    """Two pictures whose large parts have the same means look the same afterwards."""
    region = np.array([[-0.5, -0.5, 39.5, 39.5]], np.float32)
    one = np.zeros((40, 40, 3), np.uint8)
    one[::2] = 200
    other = one[::-1].copy()
    assert (one != other).any()
    np.testing.assert_array_equal(blurred(one, region), blurred(other, region))


@pytest.mark.parametrize("region", [(500, 10, 600, 50), (30, 30, 30, 30), (60, 40, 20, 10)])
def test_blurred_ignores_regions_outside_and_empty_ones(region):
    hidden = blurred(stripes(), np.array([region], np.float32))
    assert (hidden != stripes()).any(axis=2).sum() <= 1


def test_skeleton_only_is_independent_of_the_picture():
    painter, poses = ClipPainter(by_track=True, show=("boxes", "ids", "angles")), frame(0, 0, 100)
    painter.remember(poses, 0.0)
    angles = [{KEYPOINT_NAMES.index("left_knee"): 30.0}] * 2
    one, other = (painter.draw(poses, blank(image), angles) for image in (stripes(), np.zeros((300, 400, 3), np.uint8)))
    np.testing.assert_array_equal(one, other)
    assert (one != BACKGROUND).any()
    assert (one[-1, -1] == BACKGROUND).all()


def test_head_joints_are_those_of_the_head():
    assert {KEYPOINT_NAMES[joint] for joint in HEAD} == set(FACE)
