"""The variants of --decoding."""

import numpy as np
import pytest

from posebatch.core.settings import EstimatorSettings
from posebatch.pose.crops import apply_affine, crop_regions, grid_to_frame
from posebatch.pose.decoding import DECODINGS
from posebatch.pose.heatmaps import decode_heatmaps


def test_default_decoding_follows_the_network_record():
    decoding = DECODINGS[EstimatorSettings().decoding]
    assert (decoding.refinement, decoding.box_fit) == ("quarter", "whole")
    assert (decoding.box_padding, decoding.alignment) == (None, None)


def test_dark_decoding_differs_only_in_the_refinement():
    assert DECODINGS["dark"].refinement == "dark"
    assert DECODINGS["dark"].box_padding is DECODINGS["dark"].alignment is None


def test_default_threshold_is_that_of_the_matlab_demo():
    """So `matlab-demo` does not set it."""
    assert EstimatorSettings().kpt_thr == 0.2


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((50, 60, 50, 60), id="a point"),
        pytest.param((100.5, 40.5, 160.5, 200.5), id="tall"),
        pytest.param((100.5, 40.5, 240.5, 200.5), id="taller than wide, wider than the crop"),
        pytest.param((100.5, 40.5, 260.5, 200.5), id="square"),
        pytest.param((-20, 40, 380, 200), id="wide, over the edge"),
    ],
)
def test_matlab_demo_decoding_follows_its_own_formulas(box):
    """The demo's code, in MATLAB's coordinates, which count pixels from 1. A box is x, y, width, height::

    scale = targetSize(heightMajor + 1) / maxEdge * 0.9                    targetSize = [192, 256]
    cropped = [x - (192/scale - w)/2, y - (256/scale - h)/2, 192/scale, 256/scale]
    keypoint = [column, row] * 4                                            at the highest heatmap pixel
    joint = keypoint .* cropped(3:4) ./ targetSize + cropped(1:2)
    """
    (x1, y1, x2, y2), (column, row) = box, (17, 42)  # of the heatmap, counted from 0
    x, y, w, h = x1 + 1, y1 + 1, x2 - x1, y2 - y1
    per_pixel = max(w, h) / 0.9 / (256 if h > w else 192)  # 1 / scale
    left, top = x - (192 * per_pixel - w) / 2, y - (256 * per_pixel - h) / 2
    joint = np.array([4 * (column + 1) * per_pixel + left, 4 * (row + 1) * per_pixel + top]) - 1

    demo = DECODINGS["matlab-demo"]
    heatmap = np.zeros((1, 1, 64, 48), np.float32)
    heatmap[0, 0, row, column], heatmap[0, 0, row, column + 1] = 1, 0.9
    regions = crop_regions(np.array([box]), 192 / 256, demo.box_padding, demo.box_fit)
    np.testing.assert_allclose(regions[0, 2:], (192 * per_pixel, 256 * per_pixel))
    peaks = decode_heatmaps(heatmap, demo.refinement)
    decoded = apply_affine(grid_to_frame(regions, (48, 64), demo.alignment), peaks[..., :2])
    np.testing.assert_allclose(decoded[0, 0], joint, atol=1e-4)
    # imwarp maps position left + k / scale of the frame to pixel k of the crop, counted from 1
    first = apply_affine(grid_to_frame(regions, (192, 256), demo.alignment), np.zeros((1, 1, 2)))
    np.testing.assert_allclose(first[0, 0], np.array([left + per_pixel, top + per_pixel]) - 1, atol=1e-4)
