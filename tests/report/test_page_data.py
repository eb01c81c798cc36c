"""The numbers in a page: packed, thinned, and honest about what is not known."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from support.page_factories import SIZE, frame_line, movement, player_of, thinned

from posebatch.core.errors import StorageError
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.report.drawing import DRAWING_THRESHOLDS
from posebatch.report.pages import player_data as packed_player
from posebatch.report.pages.packing import UNKNOWN, carried, packed, quantised, script_json
from posebatch.report.pages.player_data import HIDDEN, INTERPOLATED, SEEN, UNSURE, joint_states, track_spans


def unpacked(content, rows, itemsize):
    """The inverse of `packed`, as player.js does it."""
    word = {2: np.uint16, 4: np.uint32}[itemsize]
    planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(itemsize, -1).astype(word)
    differences = sum(planes[plane] << (8 * plane) for plane in range(itemsize))
    words = np.cumsum(np.reshape(differences, (-1, rows)), axis=1, dtype=word)
    return words.view({2: np.int16, 4: np.int32}[itemsize]).T


@given(
    st.sampled_from([np.int16, np.int32]).flatmap(
        lambda kind: arrays(kind, array_shapes(min_dims=2, max_dims=2, max_side=20))
    )
)
def test_packed_columns_are_unpacked_to_the_same_numbers(columns):
    np.testing.assert_array_equal(unpacked(packed(columns), len(columns), columns.itemsize), columns)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [([], []), ([0.0, 1.26, -1.26], [0, 13, -13]), ([np.nan], [UNKNOWN]), ([1e9, -1e9], [32767, -32767])],
)
def test_quantised_values_are_multiples_of_the_unit(values, numbers):
    assert quantised(np.array(values, np.float64), 0.1).tolist() == numbers


def test_carried_places_repeat_the_last_known_value():
    values = np.array([[9.0], [1.0], [np.nan], [2.0], [7.0]])
    known = np.array([[False], [True], [False], [True], [False]])
    assert carried(values, known).ravel().tolist() == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("text", ["", "</script><script>alert(1)</script>", "<!--", "\u2028", "a & b", "\udcff"])
def test_json_in_a_script_element_cannot_end_it_and_is_read_back(text):
    written = script_json({"name": text})
    assert not set(written) & set("<>&\u2028")
    assert json.loads(written) == {"name": text}


def test_joints_are_drawn_only_above_the_threshold_of_the_previews():
    joints = np.zeros((1, 17, 3), np.float32)
    ankle, nose, knee = (KEYPOINT_NAMES.index(name) for name in ("left_ankle", "nose", "left_knee"))
    joints[0, :, 2] = DRAWING_THRESHOLDS + 0.01
    joints[0, ankle, 2] = DRAWING_THRESHOLDS[ankle]
    joints[0, nose, 2] = 0
    joints[0, knee] = np.nan
    states = joint_states(joints)[0]
    assert (states[ankle], states[nose], states[knee]) == (UNSURE, INTERPOLATED, HIDDEN)
    assert (np.delete(states, [ankle, nose, knee]) == SEEN).all()


def test_a_short_video_is_shown_whole():
    assert player_of(frame_line(20), movement(frame_line(20))).step == 1


def test_a_video_that_does_not_fit_is_thinned_until_it_does(monkeypatch):
    line = frame_line(2000)
    rows = movement(line, noise_px=3.0)
    whole = player_of(line, rows)
    monkeypatch.setattr(packed_player, "MAX_DATA_BYTES", len(whole.rows) // 3)
    data = player_of(line, rows)
    assert data.step in (4, 8)
    assert data.head["frames"] == data.head["rows"] == 2000 // data.step
    assert len(data.rows) + len(data.frames) <= len(whole.rows) // 3


def test_a_motion_table_of_millions_of_rows_is_never_read_whole(monkeypatch):
    monkeypatch.setattr(packed_player, "FIRST_ROWS", 100)
    line = frame_line(1000)
    asked = []

    def rows_of(frames):
        asked.append(len(frames))
        return thinned(movement(line))(frames)

    packed_player.player_data(line, rows_of, SIZE, 1000)
    assert max(asked) <= 100


def test_spans_say_where_the_rows_of_each_track_are():
    line = frame_line(5, stride=3)
    rows = movement(line, tracks=2)
    late = np.r_[0:5, 7:10]  # the second track begins at the third frame
    rows = type(rows)(*(column[late] for column in vars(rows).values()))
    spans = track_spans(rows, line.index)
    assert spans == [{"id": 0, "row": 0, "rows": 5, "start": 0}, {"id": 1, "row": 5, "rows": 3, "start": 2}]


def test_a_track_without_a_row_of_one_of_its_frames_is_refused():
    line = frame_line(5)
    rows = movement(line)
    holed = type(rows)(*(column[[0, 1, 3, 4]] for column in vars(rows).values()))
    with pytest.raises(StorageError, match="track 0"):
        track_spans(holed, line.index)


def test_positions_of_joints_that_are_not_shown_cost_no_bytes():
    line = frame_line(500)
    rows = movement(line, noise_px=5.0)
    unknown = replace(rows, joints=np.full_like(rows.joints, np.nan), angles=np.full_like(rows.angles, np.nan))
    assert len(player_of(line, unknown).rows) < len(player_of(line, rows).rows) / 10
