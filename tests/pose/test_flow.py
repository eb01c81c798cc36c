"""Optical flow: pictures that are moved by known steps."""

import numpy as np
import pytest
import torch

from posebatch.pose.flow import LONG_SIDE, carry_points, grey_pictures
from posebatch.pose.pixels import RgbPixels


def textured(width, height, right=0.0, down=0.0):
    """A smooth texture (height, width, 3) uint8, moved by pixels; it varies over about a tenth of the height."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = (x - right) / height, (y - down) / height
    waves = np.sin(23 * x + 9 * y) + np.sin(31 * y - 5 * x) + np.sin(17 * x * y + 40 * x)
    return np.repeat((127 + 40 * waves).clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def pictures(*images):
    return grey_pictures(RgbPixels(torch.from_numpy(np.stack(images))))


@pytest.mark.parametrize(
    ("size_wh", "grey_wh"),
    [((240, 160), (240, 160)), ((1024, 512), (512, 256)), ((700, 1400), (256, 512)), ((4000, 2), (512, 1))],
)
def test_grey_pictures_have_at_most_a_long_side(size_wh, grey_wh):
    frame = np.full((*size_wh[::-1], 3), 80, np.uint8)
    grey = pictures(frame, frame)
    assert grey.shape == (2, *grey_wh[::-1])
    assert max(grey.shape) <= LONG_SIDE
    assert (grey == 80).all()


def test_grey_pictures_accept_no_frames():
    assert grey_pictures(RgbPixels(torch.zeros((0, 32, 48, 3), dtype=torch.uint8))).shape == (0, 32, 48)


def test_grey_pictures_weigh_colours_as_luma():
    frame = np.zeros((20, 30, 3), np.uint8)
    frame[:, :10, 0] = frame[:, 10:20, 1] = frame[:, 20:, 2] = 200
    assert pictures(frame)[0, 10, [5, 15, 25]].tolist() == [60, 117, 23]


@pytest.mark.parametrize("size_wh", [(240, 160), (1280, 800)])
@pytest.mark.parametrize("step", [(0, 0), (0.02, 0), (0.03, -0.02), (-0.05, 0.04)])
def test_carry_points_moves_them_with_the_picture(size_wh, step):
    """By shares of the height; in pixels of the frame, also where the pictures are smaller."""
    right, down = np.array(step) * size_wh[1]
    before, after = pictures(textured(*size_wh), textured(*size_wh, right, down))
    points = np.array([[0.3, 0.4], [0.6, 0.6]]) * size_wh
    moved = carry_points(points, before, after, size_wh)
    np.testing.assert_allclose(moved - points, np.broadcast_to([right, down], (2, 2)), atol=0.006 * size_wh[1])


def test_carry_points_keeps_shape_and_accepts_no_points():
    before, after = pictures(textured(64, 48), textured(64, 48))
    assert carry_points(np.zeros((0, 17, 2), np.float32), before, after, (64, 48)).shape == (0, 17, 2)


def test_carry_points_moves_points_outside_like_the_nearest_inside():
    before, after = pictures(textured(240, 160), textured(240, 160, 4, 0))
    outside, edge = carry_points(np.array([[120.0, -50.0], [120.0, 0.0]]), before, after, (240, 160))
    assert outside[0] == edge[0]
    assert outside[1] == edge[1] - 50


def test_carry_points_stay_in_a_picture_too_thin_for_flow():
    thin = np.zeros((2, 8, 100), np.uint8)
    points = np.array([[3.0, 4.0]], np.float32)
    assert carry_points(points, *thin, (100, 8)).tolist() == points.tolist()
