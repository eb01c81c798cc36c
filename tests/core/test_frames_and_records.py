import dataclasses
import re

import numpy as np
import pytest

from posebatch.core.frames import Detections, FramePoses, FrameRecord, check_array
from posebatch.core.images import FrameBatch
from posebatch.core.records import StageSeconds
from posebatch.core.videos import Segment

OK = FrameRecord(0, 0, True, "ok")
MISSING = FrameRecord(1, 10, False, "missing")


def f32(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("array", "dtype", "shape"),
    [
        (np.zeros((0,), np.float32), np.float32, (0,)),
        (np.zeros((0, 4), np.float32), np.float32, (None, 4)),
        (np.zeros((3, 4), np.float32), np.float32, (None, 4)),
        (np.zeros((), np.int64), np.int64, ()),
        (np.zeros((2, 3), np.uint8), np.uint8, (2, 3)),
    ],
)
def test_check_array_accepts(array, dtype, shape):
    check_array("a", array, dtype, shape)


@pytest.mark.parametrize(
    ("array", "dtype", "shape", "message"),
    [
        (f32(0), np.float32, (None, 4), "a must be float32 (n, 4), got float32 (0,)"),
        (f32(3, 5), np.float32, (None, 4), "a must be float32 (n, 4), got float32 (3, 5)"),
        (f32(3, 4, 1), np.float32, (None, 4), "a must be float32 (n, 4), got float32 (3, 4, 1)"),
        (np.zeros((3, 4)), np.float32, (3, 4), "a must be float32 (3, 4), got float64 (3, 4)"),
    ],
)
def test_check_array_names_expected_and_actual_shape(array, dtype, shape, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_array("a", array, dtype, shape)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_frame_types_accept_matching_shapes(count):
    assert len(Detections(f32(count, 4), f32(count))) == count
    assert len(FramePoses(OK, f32(count, 4), f32(count), f32(count), f32(count, 17, 3))) == count
    records = tuple(dataclasses.replace(OK, frame_index=i) for i in range(count))
    assert FrameBatch(records, np.zeros((count, 4, 6, 3), np.uint8)).images.shape[0] == count


def test_frame_poses_empty_has_no_persons():
    frame = FramePoses.empty(MISSING)
    assert frame.record is MISSING
    assert len(frame) == 0
    assert frame.keypoints.shape == (0, 17, 3)


@pytest.mark.parametrize(
    ("make", "field", "wanted", "got"),
    [
        (lambda: Detections(f32(2, 5), f32(2)), "bbox_xyxy", "(n, 4)", "(2, 5)"),
        (lambda: Detections(f32(2, 4), f32(3)), "scores", "(2)", "(3,)"),
        (lambda: FramePoses(OK, f32(4), f32(4), f32(4), f32(4, 17, 3)), "bbox_xyxy", "(4, 4)", "(4,)"),
        (lambda: FramePoses(OK, f32(2, 4), f32(1), f32(2), f32(2, 17, 3)), "bbox_scores", "(2)", "(1,)"),
        (lambda: FramePoses(OK, f32(2, 4), f32(2), f32(0), f32(2, 17, 3)), "pose_scores", "(2)", "(0,)"),
        (lambda: FramePoses(OK, f32(2, 4), f32(2), f32(2), f32(2, 16, 3)), "keypoints", "(2, 17, 3)", "(2, 16, 3)"),
        (lambda: FrameBatch((), np.zeros((0, 2, 2, 4), np.uint8)), "images", "(n, n, n, 3)", "(0, 2, 2, 4)"),
    ],
)
def test_frame_types_refuse_other_shapes(make, field, wanted, got):
    with pytest.raises(ValueError, match=rf"^{field} must be \w+ {re.escape(wanted)}, got \w+ {re.escape(got)}$"):
        make()


@pytest.mark.parametrize(
    ("records", "images", "message"),
    [
        ((), 1, "0 records say ok, but there are 1 images"),
        ((MISSING,), 1, "0 records say ok, but there are 1 images"),
        ((OK, MISSING), 0, "1 records say ok, but there are 0 images"),
    ],
)
def test_frame_batch_needs_an_image_for_each_ok_frame(records, images, message):
    with pytest.raises(ValueError, match=message):
        FrameBatch(records, np.zeros((images, 2, 2, 3), np.uint8))


@pytest.mark.parametrize(("start", "end"), [(None, None), (None, -5), (0, None), (0, 1), (-10, -5)])
def test_segment_accepts_open_and_rising_bounds(start, end):
    assert Segment(start_dts=start, end_dts=end).end_dts == end


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 4)])
def test_segment_refuses_an_empty_range(start, end):
    with pytest.raises(ValueError, match=f"empty segment: start_dts {start}, end_dts {end}"):
        Segment(start_dts=start, end_dts=end)


def test_stage_seconds_add_up():
    assert StageSeconds() + StageSeconds() == StageSeconds()
    assert StageSeconds(1, 2, 3, 4, 5) + StageSeconds(10, 20, 30, 40, 50) == StageSeconds(11, 22, 33, 44, 55)


@pytest.mark.parametrize("cls", [Detections, FramePoses, FrameBatch, FrameRecord, Segment])
def test_frame_types_are_frozen(cls):
    assert cls.__dataclass_params__.frozen
