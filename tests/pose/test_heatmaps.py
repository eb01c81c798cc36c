"""Encoding keypoints as heatmaps and decoding them."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.pose.crops import apply_affine, crop_regions, grid_to_frame, invert_affine
from posebatch.pose.heatmaps import SIGMA, Refinement, decode_heatmaps, encode_heatmaps

WIDTH, HEIGHT = 48, 64


REFINEMENTS = get_args(Refinement)


def decode_map(heatmap, refinement="quarter"):
    return decode_heatmaps(np.asarray(heatmap, np.float32)[None, None], refinement)[0, 0].tolist()


def roundtrip(points, refinement="quarter"):
    return decode_heatmaps(encode_heatmaps(np.asarray(points, np.float64), (WIDTH, HEIGHT)), refinement)


def framed(heatmap, fill=0.0):
    """A 7 x 7 map with a 3 x 3 one in the middle, whose centre at (3, 3) is away from every edge."""
    return np.pad(np.asarray(heatmap, np.float32), 2, constant_values=fill)


@pytest.mark.parametrize("refinement", REFINEMENTS)
@pytest.mark.parametrize(("persons", "joints"), [(0, 17), (0, 0), (2, 0), (1, 17)])
def test_encode_and_decode_keep_shapes_and_dtype(persons, joints, refinement):
    points = np.full((persons, joints, 2), 10.0)
    assert encode_heatmaps(points, (WIDTH, HEIGHT)).shape == (persons, joints, HEIGHT, WIDTH)
    assert roundtrip(points, refinement).shape == (persons, joints, 3)
    assert roundtrip(points, refinement).dtype == np.float32


@pytest.mark.parametrize(
    ("heatmap", "expected"),
    [
        pytest.param(np.zeros((3, 3)), (0, 0, 0), id="all equal: the first"),
        pytest.param(framed([[0, 0, 0], [0, 1, 0], [0, 0, 0]]), (3, 3, 1), id="neighbours equal: no step"),
        pytest.param(framed([[0, 0, 0], [0.1, 1, 0.2], [0, 0, 0]]), (3.25, 3, 1), id="right is higher"),
        pytest.param(framed([[0, 0, 0], [0.3, 1, 0.2], [0, 0, 0]]), (2.75, 3, 1), id="left is higher"),
        pytest.param(framed([[0, 0.1, 0], [0, 1, 0], [0, 0.2, 0]]), (3, 3.25, 1), id="below is higher"),
        pytest.param(framed([[0, 0.2, 0], [0, 1, 0], [0, 0.1, 0]]), (3, 2.75, 1), id="above is higher"),
        pytest.param(framed([[0, 0.2, 0], [0, 1, 0.3], [0, 0.1, 0]]), (3.25, 2.75, 1), id="steps on both axes"),
        pytest.param(framed([[0, 0, 0], [0, 1, 1], [0, 0, 0]]), (3.25, 3, 1), id="a tie: a step to the other"),
        pytest.param([[0, 2, 0.5], [0, 1, 0], [0, 0, 0]], (1, 0, 2), id="top edge: no step on both axes"),
        pytest.param([[0, 0, 0], [2, 1, 0], [1, 0, 0]], (0, 1, 2), id="left edge: no step on both axes"),
        pytest.param([[0, 0, 0], [0, 1, 1], [0, 1, 2]], (2, 2, 2), id="corner: no step"),
        pytest.param(framed([[2, 1, 0], [1, 0, 0], [0, 0, 0]])[:, 1:], (1, 2, 2), id="second column: no step"),
        pytest.param(framed([[2, 1, 0], [1, 0, 0], [0, 0, 0]])[1:], (2, 1, 2), id="second row: no step"),
        pytest.param(framed([[2, 1, 0], [1, 0, 0], [0, 0, 0]]), (2.25, 2.25, 2), id="third column and row: a step"),
        pytest.param(framed([[0] * 3, [0] * 3, [0, 1, 2]])[:-1, :-1], (3.75, 4, 2), id="last but one: a step"),
        pytest.param(framed([[0] * 3, [0] * 3, [0, 1, 2]])[:-2], (4, 4, 2), id="last row: no step"),
        pytest.param([[0, 0], [0, 3], [3, 0]], (1, 1, 3), id="a tie: the first row"),
        pytest.param([[7]], (0, 0, 7), id="one pixel"),
        pytest.param([[-3, -2, -3]], (0, 0, -2), id="below zero: no peak"),
        pytest.param(framed([[-3, -1, -3], [-3, -2, -3], [-3] * 3], -9), (0, 0, -1), id="below zero, away from edges"),
        pytest.param(np.full((7, 7), 0.5), (0, 0, 0.5), id="flat: the first"),
    ],
)
def test_decode_heatmaps_with_quarter_steps(heatmap, expected):
    assert decode_map(heatmap) == pytest.approx(list(expected))


@pytest.mark.parametrize("refinement", REFINEMENTS)
@pytest.mark.parametrize(
    ("heatmap", "expected"),
    [
        pytest.param(np.zeros((7, 7)), (0, 0, 0), id="zeros"),
        pytest.param(np.full((7, 7), 0.5), (0, 0, 0.5), id="flat"),
        pytest.param(np.full((7, 7), -0.5), (0, 0, -0.5), id="flat, below zero"),
        pytest.param([[7]], (0, 0, 7), id="one pixel"),
        pytest.param(framed(np.eye(3)[[1, 0, 2]], -1)[:2], (0, 0, -1), id="a strip of two rows"),
        pytest.param(framed([[0, 0, 0], [0, 1, 0], [0, 0, 0]]), (3, 3, 1), id="a spike"),
        pytest.param(framed([[0, 0, 0], [0, 1e-30, 0], [0, 0, 0]]), (3, 3, 1e-30), id="a tiny spike"),
        pytest.param(framed([[-1e30] * 3, [-1e30, 1, -1e30], [-1e30] * 3], -1e30), (3, 3, 1), id="in a deep valley"),
    ],
)
def test_decode_heatmaps_of_degenerate_maps(heatmap, expected, refinement):
    assert decode_map(heatmap, refinement) == pytest.approx(list(expected))


def test_decode_heatmaps_argmax_takes_no_step():
    assert decode_map(framed([[0, 0.2, 0], [0, 1, 0.3], [0, 0.1, 0]]), "argmax") == [3, 3, 1]


@pytest.mark.parametrize(("at", "whole"), [((10.3, 20.4), False), ((1.3, 20.4), True), ((10.3, 62.4), True)])
def test_dark_takes_no_step_within_two_pixels_of_the_edge(at, whole):
    x, y, _ = roundtrip([[at]], "dark")[0, 0]
    assert (x == round(x) and y == round(y)) == whole


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_refinement_steps_are_bounded(seed, offset):
    """At most a quarter pixel, or two pixels with ``dark``, and never beyond the map."""
    heatmaps = (np.random.default_rng(seed).normal(size=(1, 3, 9, 8)) + offset).astype(np.float32)
    coarse = decode_heatmaps(heatmaps, "argmax")
    for refinement, most in (("quarter", 0.25), ("dark", 2)):
        fine = decode_heatmaps(heatmaps, refinement)
        assert (np.abs(fine - coarse)[..., :2] <= most).all()
        assert (fine[..., :2] >= 0).all()
        assert (fine[..., :2] <= (7, 8)).all()
        np.testing.assert_array_equal(fine[..., 2], heatmaps.max(axis=(2, 3)))


def test_decode_heatmaps_keeps_maps_apart():
    heatmaps = np.zeros((2, 3, 8, 6), np.float32)
    heatmaps[0, 1, 2, 3], heatmaps[1, 2, 7, 5] = 1, 2
    decoded = decode_heatmaps(heatmaps)
    assert decoded[0, 1].tolist() == [3, 2, 1]
    assert decoded[1, 2].tolist() == [5, 7, 2]
    assert not decoded[0, 0].any()


def test_encode_heatmaps_draws_a_gaussian_with_peak_one():
    (heatmap,) = encode_heatmaps(np.array([[[10, 20]]]), (WIDTH, HEIGHT))[0]
    assert heatmap[20, 10] == 1
    assert heatmap[20, 12] == pytest.approx(np.exp(-(2**2) / (2 * SIGMA**2)))
    assert heatmap[23, 14] == pytest.approx(np.exp(-(3**2 + 4**2) / (2 * SIGMA**2)))


@given(st.floats(1.501, WIDTH - 1.501), st.floats(1.501, HEIGHT - 1.501))
def test_quarter_decoding_recovers_inner_points_within_a_quarter_pixel(x, y):
    """For a Gaussian around p = m + d, with nearest pixel m and |d| <= 1/2, the peak is m.

    The higher neighbour is on the side of d, so the error is | |d| - 1/4 | <= 1/4 on each axis. The error is |d| if d
    is too small for the neighbours to differ. It is slightly more if p is halfway between two pixels, equal in float32.
    """
    decoded_x, decoded_y, score = roundtrip([[[x, y]]])[0, 0]
    assert abs(decoded_x - x) <= 0.25 + 1e-3
    assert abs(decoded_y - y) <= 0.25 + 1e-3
    assert np.exp(-2 * 0.5**2 / (2 * SIGMA**2)) - 1e-6 <= score <= 1


@given(st.floats(5, WIDTH - 6), st.floats(5, HEIGHT - 6))
def test_dark_recovers_the_centre_of_a_gaussian(x, y):
    """A smoothed Gaussian is a Gaussian, and its logarithm a parabola, whose finite differences are exact.

    The remaining error comes from the smoothing, which ends after five pixels. Closer to the edge the smoothing also
    misses the pixels beyond the map; there the error can exceed a quarter pixel.
    """
    decoded_x, decoded_y, _ = roundtrip([[[x, y]]], "dark")[0, 0]
    assert abs(decoded_x - x) <= 1e-3
    assert abs(decoded_y - y) <= 1e-3


def test_dark_does_not_depend_on_the_height_of_the_peak():
    heatmaps = encode_heatmaps(np.array([[[10.3, 20.4], [30.7, 40.1]]]), (WIDTH, HEIGHT))
    np.testing.assert_allclose(
        decode_heatmaps(heatmaps * 0.01, "dark")[..., :2], decode_heatmaps(heatmaps, "dark")[..., :2], atol=1e-4
    )


@pytest.mark.parametrize("refinement", REFINEMENTS)
@given(st.floats(-0.5, WIDTH - 0.5), st.floats(-0.5, HEIGHT - 0.5))
def test_decoding_recovers_points_within_half_a_pixel(refinement, x, y):
    """The outermost pixels take no step, so the error there is up to half a pixel."""
    decoded_x, decoded_y, _ = roundtrip([[[x, y]]], refinement)[0, 0]
    assert abs(decoded_x - x) <= 0.5 + 1e-3
    assert abs(decoded_y - y) <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("point", "nearest"),
    [((-3, 10), (0, 10)), ((10, -3), (10, 0)), ((50, 10), (47, 10)), ((10, 66), (10, 63)), ((-2, -2), (0, 0))],
)
def test_decoding_finds_a_point_outside_at_the_nearest_edge(point, nearest):
    x, y, score = roundtrip([[point]])[0, 0]
    assert (x, y) == nearest
    assert score < 1


@given(st.floats(-100, 300), st.floats(-100, 300), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_keypoints_survive_crop_and_heatmap_within_one_input_pixel(left, top, at_x, at_y):
    """The input of the network is four times as large, so a quarter heatmap pixel is one input pixel."""
    box = np.array([[left, top, left + 90, top + 160]])
    regions = crop_regions(box, WIDTH / HEIGHT)
    truth = np.array([[[left + 90 * at_x, top + 160 * at_y]]])
    to_frame = grid_to_frame(regions, (WIDTH, HEIGHT))
    decoded = roundtrip(apply_affine(invert_affine(to_frame), truth))
    to_input = invert_affine(grid_to_frame(regions, (4 * WIDTH, 4 * HEIGHT)))
    joints = apply_affine(to_frame, decoded[:, :, :2])
    error = apply_affine(to_input, joints) - apply_affine(to_input, truth)
    assert (np.abs(error) <= 1 + 4e-3).all()
