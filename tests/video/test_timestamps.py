from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.video.timestamps import CLOCK_FRAMES, TimestampRepair

HOUR = 3_600_000
"""Milliseconds."""


def repaired(stamps, durations=None):
    durations = durations or [40] * len(stamps)
    repair = TimestampRepair()
    timed = [t for i, pts in enumerate(stamps) for t in repair.push(i, pts, durations[i])]
    timed += repair.flush()
    assert [t.item for t in timed] == list(range(len(stamps)))
    assert all(before.pts <= after.pts for before, after in pairwise(timed))
    return [(t.pts, t.status) for t in timed]


def regular(count, start=0, step=40):
    return [start + step * i for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 200])
def test_repair_keeps_regular_timestamps(count):
    assert repaired(regular(count)) == [(pts, "ok") for pts in regular(count)]


def test_repair_keeps_variable_intervals():
    stamps = [0, 5, 105, 106, 1106, 1107, 1108, 9000, 9005, 9010]
    assert repaired(stamps, [0] * 10) == [(pts, "ok") for pts in stamps]


def test_repair_keeps_a_long_still_that_the_duration_explains():
    stamps = [*regular(20), 760 + HOUR]
    assert repaired(stamps, [*[40] * 19, HOUR, 40]) == [(pts, "ok") for pts in stamps]


@pytest.mark.parametrize("length", [20, 60])
def test_repair_keeps_the_last_frame_of_a_recording_with_long_stills(length):
    """A screen recorder writes the last frame at the stop. Its stream states no durations."""
    stamps = [*regular(length), 60_000, *regular(5, start=61_000), 360_000]
    assert repaired(stamps, [0] * len(stamps)) == [(pts, "ok") for pts in stamps]


@pytest.mark.parametrize("place", [0, 1, 10, 31, 32, 48, 49])
@pytest.mark.parametrize("wrong", [HOUR, -HOUR, None, 100_000])
def test_repair_moves_one_wrong_timestamp_alone(place, wrong):
    stamps = regular(50)
    stamps[place] = wrong
    right = [(pts, "ok") for pts in regular(50)]
    right[place] = (40 * place, "made_up" if wrong is None else "repaired")
    assert repaired(stamps) == right


def test_repair_moves_a_repeated_timestamp_by_a_tick():
    stamps = [pts for i, pts in enumerate(regular(45)) for pts in [pts] * (2 if i % 10 == 9 else 1)]
    timed = repaired(stamps)
    assert timed[-1] == (44 * 40, "ok")
    assert [pts for pts, status in timed if status == "repaired"] == [9 * 40 + 1, 19 * 40 + 1, 29 * 40 + 1, 39 * 40 + 1]


def test_repair_keeps_the_length_where_ticks_are_too_coarse():
    """1,200 frames a second in ticks of a millisecond: some frames share a tick."""
    stamps = [i * 1000 // 1200 for i in range(1200)]
    timed = repaired(stamps, [1] * 1200)
    assert [pts for pts, _ in timed] == stamps
    assert timed[-1][0] == 999


def test_repair_goes_on_after_a_clock_that_was_set_anew():
    timed = repaired([*regular(50, start=100_000), *regular(50)])
    assert [pts for pts, _ in timed] == regular(100, start=100_000)
    assert [status for _, status in timed] == ["ok"] * 50 + ["repaired"] * 50


def test_repair_makes_up_times_where_there_are_none():
    assert repaired([None] * 3) == [(0, "made_up"), (40, "made_up"), (80, "made_up")]


def far(pts):
    return st.one_of(st.none(), st.integers(pts + 20_000, pts + HOUR), st.integers(pts - HOUR, pts - 20_000))


@st.composite
def corrupted_streams(draw):
    """A stream, and where its timestamps are wrong by far: at most 5 of any 16 frames, 1 of 4 at its ends."""
    steps = draw(st.one_of(st.just([40] * 79), st.lists(st.integers(20, 80), min_size=79, max_size=79)))
    right = [0]
    for step in steps:
        right.append(right[-1] + step)
    places = draw(st.sets(st.integers(0, 79), max_size=20))
    wrong = sorted(
        place
        for place in places
        if len([p for p in places if place - 16 < p <= place]) <= 5 and (3 < place < 76 or place in (0, 79))
    )
    stamps = list(right)
    for place in wrong:
        stamps[place] = draw(far(right[place]))
    return right, wrong, stamps


@given(corrupted_streams())
def test_repair_leaves_all_right_timestamps_as_they_were(stream):
    right, wrong, stamps = stream
    timed = repaired(stamps)
    for i, (pts, status) in enumerate(timed):
        if i in wrong:
            assert status != "ok"
        else:
            assert (pts, status) == (right[i], "ok")


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000)), max_size=100))
def test_repair_never_runs_backwards(stamps):
    repaired(stamps)


def test_clock_frames_are_fewer_than_half_a_window():
    assert CLOCK_FRAMES < 16
