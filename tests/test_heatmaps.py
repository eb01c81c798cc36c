import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.geometry import apply_affine, crop_regions, grid_to_frame, invert_affine
from posebatch.heatmaps import SIGMA, decode_heatmaps, encode_heatmaps

WIDTH, HEIGHT = 48, 64


def decode_one(heatmap):
    return decode_heatmaps(np.asarray(heatmap, np.float32)[None, None])[0, 0].tolist()


def roundtrip(points):
    return decode_heatmaps(encode_heatmaps(np.asarray(points, np.float64), (WIDTH, HEIGHT)))


@pytest.mark.parametrize(("persons", "joints"), [(0, 17), (0, 0), (2, 0), (1, 17)])
def test_shapes(persons, joints):
    points = np.full((persons, joints, 2), 10.0)
    assert encode_heatmaps(points, (WIDTH, HEIGHT)).shape == (persons, joints, HEIGHT, WIDTH)
    assert roundtrip(points).shape == (persons, joints, 3)
    assert roundtrip(points).dtype == np.float32


@pytest.mark.parametrize(
    ("heatmap", "expected"),
    [
        pytest.param(np.zeros((3, 3)), (0, 0, 0), id="all equal: the first"),
        pytest.param([[0, 0, 0], [0, 1, 0], [0, 0, 0]], (1, 1, 1), id="neighbours equal: no step"),
        pytest.param([[0, 0, 0], [0.1, 1, 0.2], [0, 0, 0]], (1.25, 1, 1), id="right is higher"),
        pytest.param([[0, 0, 0], [0.3, 1, 0.2], [0, 0, 0]], (0.75, 1, 1), id="left is higher"),
        pytest.param([[0, 0.1, 0], [0, 1, 0], [0, 0.2, 0]], (1, 1.25, 1), id="below is higher"),
        pytest.param([[0, 0.2, 0], [0, 1, 0], [0, 0.1, 0]], (1, 0.75, 1), id="above is higher"),
        pytest.param([[0, 2, 0.5], [0, 1, 0], [0, 0, 0]], (1.25, 0, 2), id="top edge: a step on x alone"),
        pytest.param([[0, 0, 0], [2, 1, 0], [1, 0, 0]], (0, 1.25, 2), id="left edge: a step on y alone"),
        pytest.param([[0, 0, 0], [0, 1, 1], [0, 1, 2]], (2, 2, 2), id="corner: no step"),
        pytest.param([[0, 5, 5, 0]], (1.25, 0, 5), id="a tie: the first of the row, a step to its twin"),
        pytest.param([[0, 0], [0, 3], [3, 0]], (1, 1, 3), id="a tie: the first row"),
        pytest.param([[7]], (0, 0, 7), id="one pixel"),
        pytest.param([[-3, -2, -3]], (1, 0, -2), id="below zero"),
    ],
)
def test_decode(heatmap, expected):
    assert decode_one(heatmap) == pytest.approx(list(expected))


def test_each_map_is_decoded_alone():
    heatmaps = np.zeros((2, 3, 8, 6), np.float32)
    heatmaps[0, 1, 2, 3], heatmaps[1, 2, 7, 5] = 1, 2
    decoded = decode_heatmaps(heatmaps)
    assert decoded[0, 1].tolist() == [3, 2, 1]
    assert decoded[1, 2].tolist() == [5, 7, 2]
    assert not decoded[0, 0].any()


def test_encoding_peaks_at_one_and_falls_as_a_gaussian():
    (heatmap,) = encode_heatmaps(np.array([[[10, 20]]]), (WIDTH, HEIGHT))[0]
    assert heatmap[20, 10] == 1
    assert heatmap[20, 12] == pytest.approx(np.exp(-(2**2) / (2 * SIGMA**2)))
    assert heatmap[23, 14] == pytest.approx(np.exp(-(3**2 + 4**2) / (2 * SIGMA**2)))


@given(st.floats(0.501, WIDTH - 1.501), st.floats(0.501, HEIGHT - 1.501))
def test_inside_decoding_finds_the_point_again_within_a_quarter_pixel(x, y):
    """The law: for a Gaussian around p = m + d, m the nearest pixel and |d| <= 1/2, the peak is m and its higher
    neighbour lies on d's side, so the error is | |d| - 1/4 | <= 1/4 on each axis (and |d| where d is too small to
    make the neighbours differ). A little more where p lies between two pixels, which float32 cannot tell apart.
    """
    decoded_x, decoded_y, score = roundtrip([[[x, y]]])[0, 0]
    assert abs(decoded_x - x) <= 0.25 + 1e-3
    assert abs(decoded_y - y) <= 0.25 + 1e-3
    assert np.exp(-2 * 0.5**2 / (2 * SIGMA**2)) - 1e-6 <= score <= 1


@given(st.floats(-0.5, WIDTH - 0.5), st.floats(-0.5, HEIGHT - 0.5))
def test_anywhere_in_the_map_within_half_a_pixel(x, y):
    """In the outermost pixels there is no second neighbour and no step: half a pixel."""
    decoded_x, decoded_y, _ = roundtrip([[[x, y]]])[0, 0]
    assert abs(decoded_x - x) <= 0.5 + 1e-3
    assert abs(decoded_y - y) <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("point", "nearest"),
    [((-3, 10), (0, 10)), ((10, -3), (10, 0)), ((50, 10), (47, 10)), ((10, 66), (10, 63)), ((-2, -2), (0, 0))],
)
def test_a_point_outside_is_found_at_the_nearest_edge(point, nearest):
    x, y, score = roundtrip([[point]])[0, 0]
    assert (x, y) == nearest
    assert score < 1


@given(st.floats(-100, 300), st.floats(-100, 300), st.floats(0.3, 0.7), st.floats(0.3, 0.7))
def test_through_the_crop_and_back_within_one_pixel_of_the_network_input(left, top, at_x, at_y):
    """A quarter heatmap pixel is one pixel of the network's input, which is four times as large."""
    box = np.array([[left, top, left + 90, top + 160]])
    regions = crop_regions(box, WIDTH / HEIGHT)
    truth = np.array([[[left + 90 * at_x, top + 160 * at_y]]])
    to_frame = grid_to_frame(regions, (WIDTH, HEIGHT))
    decoded = roundtrip(apply_affine(invert_affine(to_frame), truth))
    to_input = invert_affine(grid_to_frame(regions, (4 * WIDTH, 4 * HEIGHT)))
    found = apply_affine(to_frame, decoded[:, :, :2])
    error = apply_affine(to_input, found) - apply_affine(to_input, truth)
    assert (np.abs(error) <= 1 + 4e-3).all()
