import numpy as np
import pytest

from posebatch.video.orientation import UPRIGHT, Orientation

PICTURE = np.arange(6).reshape(2, 3)


def matrix(a, b, c, d):
    return np.array([a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30]).astype(np.int32).tobytes()


def moved(a, b, c, d):
    """Each pixel of PICTURE where the matrix puts it."""
    places = {(a * x + c * y, b * x + d * y): PICTURE[y, x] for y in range(2) for x in range(3)}
    columns, rows = (sorted({place[axis] for place in places}) for axis in (0, 1))
    return [[int(places[x, y]) for x in columns] for y in rows]


EIGHT = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("entries", EIGHT)
def test_orientation_displays_a_picture_as_the_matrix_says(entries):
    orientation = Orientation.of_matrix(matrix(*entries))
    assert orientation.displayed(PICTURE).tolist() == moved(*entries)


@pytest.mark.parametrize("entries", EIGHT)
def test_quarter_turns_are_those_of_numpy(entries):
    orientation = Orientation.of_matrix(matrix(*entries))
    turns = orientation.quarter_turns
    assert (turns is None) == (entries[0] * entries[3] - entries[1] * entries[2] < 0)
    if turns is not None:
        assert np.rot90(PICTURE, turns).tolist() == orientation.displayed(PICTURE).tolist()


@pytest.mark.parametrize("entries", EIGHT)
def test_orientation_follows_from_rotation_and_mirroring(entries):
    orientation = Orientation.of_matrix(matrix(*entries))
    assert Orientation.of_rotation(orientation.rotation, orientation.is_mirrored) == orientation
    assert Orientation.nearest(matrix(*entries)) == orientation


@pytest.mark.parametrize("entries", [(2, 0, 0, 2), (0.7, 0.7, -0.7, 0.7), (1, 0.2, 0, 1), (0, 0, 0, 0)])
def test_orientation_of_other_matrices_is_none(entries):
    assert Orientation.of_matrix(matrix(*entries)) is None


def test_orientation_tolerates_rounding():
    assert Orientation.of_matrix(matrix(0.9999, 0.0001, 0, 1)) == UPRIGHT
