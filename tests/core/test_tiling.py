from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.core.frames import Detections
from posebatch.core.tiling import ALIGNMENT, OVERLAP, Grid, Tile, TileBoxes, in_frame, merge, tiles_of

FRAME = (400, 300)


def detections(*boxes_and_scores):
    boxes = np.array([box for box, _ in boxes_and_scores], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([score for _, score in boxes_and_scores], np.float32))


def boxes(*rows):
    """Rows of (box, score, cut)."""
    return TileBoxes(
        np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float32),
        np.array([cut for _, _, cut in rows], bool),
    )


@pytest.mark.parametrize("text", ["1x1", "2x4", "8x8"])
def test_grid_is_parsed_and_printed_alike(text):
    assert str(Grid.parse(text)) == text


@pytest.mark.parametrize("text", ["", "2", "x", "0x1", "2x9", "2X4", " 2x4", "02x4", "2x4x1", "2*4", "auto", "²x2"])
def test_grid_refuses_anything_else(text):
    with pytest.raises(ValueError, match="rows x columns"):
        Grid.parse(text)


@pytest.mark.parametrize(
    ("frame", "grid", "expected"),
    [
        ((400, 300), Grid(1, 1), [Tile(0, 0, 400, 300)]),
        ((1, 1), Grid(8, 8), [Tile(0, 0, 1, 1)]),
        ((400, 300), Grid(1, 2), [Tile(0, 0, 232, 300), Tile(168, 0, 232, 300)]),
        ((8, 6), Grid(1, 2), [Tile(0, 0, 8, 6)]),  # no two tiles that differ begin at a multiple of 4
    ],
)
def test_tiles_of_known_frames(frame, grid, expected):
    assert list(tiles_of(frame, grid)) == expected


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 8), st.integers(1, 8))
def test_tiles_cover_the_frame_and_overlap(width, height, rows, columns):
    tiles = tiles_of((width, height), Grid(rows, columns))
    assert len(set(tiles)) == len(tiles) <= rows * columns
    assert len({tile.size_wh for tile in tiles}) == 1
    for length, spans in (
        (width, sorted({(tile.left, tile.width) for tile in tiles})),
        (height, sorted({(tile.top, tile.height) for tile in tiles})),
    ):
        assert spans[0][0] == 0
        assert spans[-1][0] + spans[-1][1] == length
        for (start, size), (following, _) in pairwise(spans):
            assert following % ALIGNMENT == 0
            assert start + size - following >= OVERLAP * size - ALIGNMENT


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((-0.5, -0.5, 60, 60), (False, True, True)),  # at the tile's left and top border
        ((100, 20, 199.4, 60), (True, False, True)),
        ((100, 20, 150, 149.4), (True, True, False)),
        ((100, 20, 150, 90), (False, False, False)),
    ],
)
def test_in_frame_moves_boxes_and_marks_cut_ones(box, cut):
    """Tiles at the frame's left top, right top and left bottom corner, of 200 x 150 pixels."""
    corners = [Tile(0, 0, 200, 150), Tile(200, 0, 200, 150), Tile(0, 150, 200, 150)]
    for tile, expected in zip(corners, cut, strict=True):
        result = in_frame(detections((box, 0.9)), tile, FRAME)
        assert result.cut.tolist() == [expected]
        np.testing.assert_allclose(result.bbox_xyxy[0], np.array(box) + [tile.left, tile.top] * 2, rtol=1e-6)


def test_in_frame_accepts_no_boxes():
    assert len(in_frame(detections(), Tile(0, 0, 200, 150), FRAME).scores) == 0


WHOLE, HALF, ELSEWHERE = (100, 100, 140, 200), (100, 100, 120, 200), (300, 100, 340, 200)


LARGE, PART = (50, 50, 150, 250), (60, 60, 100, 140)
NOBODY = detections()


@pytest.mark.parametrize(
    ("parts", "overview", "expected"),
    [
        ([], NOBODY, []),
        ([boxes()], NOBODY, []),
        ([], detections((WHOLE, 0.5)), [WHOLE]),
        ([boxes(), boxes((WHOLE, 0.5, False))], NOBODY, [WHOLE]),
        ([boxes((WHOLE, 0.5, False)), boxes((WHOLE, 0.6, False))], NOBODY, [WHOLE]),
        ([boxes((WHOLE, 0.5, False)), boxes((ELSEWHERE, 0.6, False))], NOBODY, [ELSEWHERE, WHOLE]),
        # a piece goes, however sure the network is of it
        ([boxes((HALF, 0.9, True)), boxes((WHOLE, 0.5, False))], NOBODY, [WHOLE]),
        # a small person before a larger one stays
        ([boxes((HALF, 0.4, False)), boxes((WHOLE, 0.5, False))], NOBODY, [WHOLE, HALF]),
        # a piece of somebody whom no tile sees whole stays
        ([boxes((HALF, 0.4, True)), boxes((ELSEWHERE, 0.5, False))], NOBODY, [ELSEWHERE, HALF]),
        # two tiles that cut the same person: the surer piece
        ([boxes((HALF, 0.4, True)), boxes((HALF, 0.5, True))], NOBODY, [HALF]),
        # large persons are those of the overview
        ([boxes((LARGE, 0.9, False))], NOBODY, []),
        ([boxes((LARGE, 0.9, False), (PART, 0.9, False))], detections((LARGE, 0.4)), [LARGE]),
        # two in the overview, one before the other
        ([], detections((LARGE, 0.8), (PART, 0.5)), [LARGE, PART]),
    ],
)
def test_merge_of_tiles(parts, overview, expected):
    result = merge(parts, overview, (800, 600), 0.5, 10)
    np.testing.assert_array_equal(result.bbox_xyxy, np.array(expected, np.float32).reshape(-1, 4))
    assert (np.diff(result.scores) <= 0).all()
    assert result.left_out == 0


def test_merge_keeps_the_best_and_counts_the_others():
    part = boxes(((0, 0, 9, 9), 0.4, False), ((50, 0, 59, 9), 0.9, True), ((90, 0, 99, 9), 0.6, False))
    result = merge([part], NOBODY, FRAME, 0.5, 2)
    assert result.scores.tolist() == pytest.approx([0.9, 0.6])
    assert result.left_out == 1


@given(st.permutations(range(6)))
def test_merge_does_not_depend_on_the_order_of_tiles(order):
    rows = [(WHOLE, 0.5, False), (HALF, 0.9, True), (ELSEWHERE, 0.7, False)]
    rows += [((95, 95, 138, 205), 0.6, False), ((300, 100, 320, 200), 0.8, True), ((10, 10, 20, 40), 0.3, True)]
    parts = [boxes(row) for row in rows]
    expected = merge(parts, NOBODY, (800, 600), 0.5, 10)
    result = merge([parts[number] for number in order], NOBODY, (800, 600), 0.5, 10)
    np.testing.assert_array_equal(result.bbox_xyxy, expected.bbox_xyxy)
