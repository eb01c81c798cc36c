"""Crop regions and the affine maps between crops and frames."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.core.images import GridAlignment
from posebatch.pose.crops import BOX_PADDING, BoxFit, apply_affine, crop_regions, grid_to_frame, invert_affine

coordinate = st.floats(-2000, 2000)
length = st.floats(0.5, 3000)
boxes = st.lists(st.tuples(coordinate, coordinate, length, length), max_size=4).map(
    lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float64).reshape(-1, 4)
)
aspects = st.sampled_from([192 / 256, 288 / 384, 1.0, 2.0])
grids = st.sampled_from([(192, 256), (48, 64), (64, 64), (1, 1), (7, 3)])


@pytest.mark.parametrize(
    ("box", "aspect", "padding", "region"),
    [
        pytest.param((0, 0, 0, 0), 0.75, 1.25, (0, 0, 0, 0), id="a point"),
        pytest.param((0, 0, 75, 100), 0.75, 1.0, (37.5, 50, 75, 100), id="fits already"),
        pytest.param((0, 0, 75, 100), 0.75, 1.25, (37.5, 50, 93.75, 125), id="padded"),
        pytest.param((0, 0, 10, 100), 0.75, 1.0, (5, 50, 75, 100), id="too narrow"),
        pytest.param((0, 0, 150, 100), 0.75, 1.0, (75, 50, 150, 200), id="too wide"),
        pytest.param((-20, -40, 55, 60), 0.75, 1.0, (17.5, 10, 75, 100), id="beyond the frame"),
    ],
)
def test_crop_regions(box, aspect, padding, region):
    regions = crop_regions(np.array([box], np.float32), aspect, padding)
    np.testing.assert_allclose(regions, [region], atol=1e-6)


@pytest.mark.parametrize(
    ("box", "region"),
    [
        pytest.param((0, 0, 0, 0), (0, 0, 0, 0), id="a point"),
        pytest.param((0, 0, 10, 100), (5, 50, 75, 100), id="tall: as with whole"),
        pytest.param((0, 0, 75, 100), (37.5, 50, 75, 100), id="fits already"),
        pytest.param((0, 0, 90, 100), (45, 50, 75, 100), id="between: its sides are cut"),
        pytest.param((0, 0, 100, 100), (50, 50, 100, 400 / 3), id="a square counts as wide"),
        pytest.param((0, 0, 150, 100), (75, 50, 150, 200), id="wide: as with whole"),
    ],
)
def test_crop_regions_can_fit_the_longer_side(box, region):
    np.testing.assert_allclose(crop_regions(np.array([box], np.float32), 0.75, 1.0, "longer_side"), [region])


@pytest.mark.parametrize("fit", get_args(BoxFit))
def test_crop_regions_accept_no_boxes(fit):
    regions = crop_regions(np.zeros((0, 4), np.float32), 0.75, fit=fit)
    assert regions.shape == (0, 4)
    assert grid_to_frame(regions, (48, 64)).shape == (0, 2, 3)
    assert invert_affine(grid_to_frame(regions, (48, 64))).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("alignment", "centre_crop", "centre_heatmap", "column_of_0"),
    [
        # position of the region's centre in a crop of 192 x 256 and a heatmap of 48 x 64, crop column of heatmap column
        # 0
        pytest.param("edges", (95.5, 127.5), (23.5, 31.5), 1.5, id="edges"),
        pytest.param("origin", (96, 128), (24, 32), 0, id="origin"),
        pytest.param("one_based", (95, 127), (23, 31), 3, id="one_based"),
    ],
)
def test_grid_to_frame_follows_each_alignment(alignment, centre_crop, centre_heatmap, column_of_0):
    regions = crop_regions(np.array([[100, 50, 175, 350]], np.float64), 192 / 256)
    crop, heatmap = (grid_to_frame(regions, size, alignment) for size in ((192, 256), (48, 64)))
    for affine, centre in ((crop, centre_crop), (heatmap, centre_heatmap)):
        np.testing.assert_allclose(apply_affine(affine, np.array([[centre]])), [[(137.5, 200)]], atol=1e-9)
    cells = np.array([[(0, 0), (1, 1), (47, 63)]], np.float64)
    in_crop = apply_affine(invert_affine(crop), apply_affine(heatmap, cells))
    np.testing.assert_allclose(in_crop, 4 * cells + column_of_0, atol=1e-9)


def test_grid_to_frame_alignments_differ_only_in_their_shift():
    regions = np.array([[10, 20, 48, 64]], np.float64)
    edges, origin = grid_to_frame(regions, (48, 64), "edges"), grid_to_frame(regions, (48, 64), "origin")
    np.testing.assert_allclose(edges[:, :, :2], origin[:, :, :2])
    np.testing.assert_allclose(edges[:, :, 2] - origin[:, :, 2], [(0.5, 0.5)])


def test_grid_to_frame_origin_is_the_published_formula():
    """``get_affine_transform`` maps the centre to half the size; a grid pixel has width / size pixels on both axes."""
    centre_x, centre_y, width = 212.0, 131.0, 240.0
    region = np.array([[centre_x, centre_y, width, width / 0.75]])
    (mapped,) = apply_affine(grid_to_frame(region, (48, 64), "origin"), np.array([[(0, 0), (10, 20), (24, 32)]]))
    expected = [
        ((c - 24) * width / 48 + centre_x, (r - 32) * width / 48 + centre_y) for c, r in ((0, 0), (10, 20), (24, 32))
    ]
    np.testing.assert_allclose(mapped, expected)


def test_box_padding_is_that_of_simplebaseline():
    assert BOX_PADDING == 1.25


@given(boxes, aspects, st.floats(1, 2))
def test_crop_regions_keep_centre_and_aspect_and_contain_the_padded_box(box, aspect, padding):
    regions = crop_regions(box, aspect, padding)
    centre, size = (box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]
    np.testing.assert_allclose(regions[:, :2], centre, atol=1e-9)
    np.testing.assert_allclose(regions[:, 2], regions[:, 3] * aspect, rtol=1e-12)
    assert (regions[:, 2:] >= size * padding - 1e-6).all(), "the padded box is cut"
    tight = np.isclose(regions[:, 2:], size * padding, rtol=1e-9, atol=1e-6).any(axis=1)
    assert tight.all(), "no side is tight"


def test_grid_to_frame_of_the_whole_frame_is_the_identity():
    region = np.array([[(64 - 1) / 2, (48 - 1) / 2, 64, 48]])
    np.testing.assert_allclose(grid_to_frame(region, (64, 48)), [[[1, 0, 0], [0, 1, 0]]], atol=1e-12)


@given(boxes, aspects, grids)
def test_grid_to_frame_maps_edges_to_edges_and_centre_to_centre(box, aspect, grid):
    regions = crop_regions(box, aspect)
    width, height = grid
    points = [(-0.5, -0.5), (width - 0.5, height - 0.5), ((width - 1) / 2, (height - 1) / 2)]
    mapped = apply_affine(grid_to_frame(regions, grid), np.tile(points, (len(regions), 1, 1)))
    half = regions[:, 2:] / 2
    expected = np.stack([regions[:, :2] - half, regions[:, :2] + half, regions[:, :2]], axis=1)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


@given(
    boxes,
    aspects,
    grids,
    st.sampled_from(get_args(GridAlignment)),
    st.lists(st.tuples(coordinate, coordinate), min_size=1, max_size=3),
)
def test_invert_affine_inverts(box, aspect, grid, alignment, points):
    affine = grid_to_frame(crop_regions(box, aspect), grid, alignment)
    tiled_points = np.tile(points, (len(affine), 1, 1))
    restored = apply_affine(invert_affine(affine), apply_affine(affine, tiled_points))
    np.testing.assert_allclose(restored, tiled_points, atol=1e-6)


@given(boxes, aspects, grids, st.integers(1, 4000))
def test_crop_regions_of_a_mirrored_box_are_mirrored(box, aspect, grid, frame_width):
    """Column c of the mirrored crop shows the mirror image of column width - 1 - c of the crop."""
    mirrored_box = box.copy()
    mirrored_box[:, [0, 2]] = frame_width - 1 - box[:, [2, 0]]
    width, height = grid
    columns = np.array([(0.0, 0.0), (width - 1.0, height - 1.0), (1.25, 0.5)])
    mirrored_columns = columns * (-1, 1) + (width - 1, 0)
    count = len(box)
    in_frame = apply_affine(grid_to_frame(crop_regions(box, aspect), grid), np.tile(columns, (count, 1, 1)))
    in_mirrored_frame = apply_affine(
        grid_to_frame(crop_regions(mirrored_box, aspect), grid), np.tile(mirrored_columns, (count, 1, 1))
    )
    np.testing.assert_allclose(in_frame[..., 0], frame_width - 1 - in_mirrored_frame[..., 0], atol=1e-6)
    np.testing.assert_allclose(in_frame[..., 1], in_mirrored_frame[..., 1], atol=1e-6)


def test_grid_to_frame_keeps_boxes_apart():
    regions = np.array([[10, 10, 48, 64], [100, 50, 96, 128]], np.float64)
    points = np.zeros((2, 1, 2))
    mapped = apply_affine(grid_to_frame(regions, (48, 64)), points)
    np.testing.assert_allclose(mapped[:, 0], [(10 - 23.5, 10 - 31.5), (100 - 47, 50 - 63)])
