"""RGB frames: slices of a batch, and joined parts of several batches, give the pixels of the whole batch."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from posebatch.pose.pixels import JoinedPixels
from posebatch.pose.uploads import to_device

HEIGHT, WIDTH = 45, 70
REGIONS = np.array([[30.0, 20.0, 24.0, 32.0], [60.0, 40.0, 30.0, 40.0], [10.5, 12.25, 12.0, 16.0]])


def noise(frames, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, HEIGHT, WIDTH, 3), np.uint8)


@pytest.mark.parametrize("cuts", [(0, 6), (0, 3, 6), (0, 1, 2, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_joined_pixels_equal_one_batch(cuts):
    """Bit for bit: resizing and cropping a frame do not depend on other frames."""
    whole = to_device(noise(6), "cpu")
    joined = JoinedPixels([whole[a:b] for a, b in pairwise(cuts)])
    assert (len(joined), joined.size_wh) == (6, (WIDTH, HEIGHT))
    assert torch.equal(joined.resized((32, 24)), whole.resized((32, 24)))
    assert torch.equal(joined.rgb(), whole.rgb())
    for numbers in ([0, 0, 5], [5, 1, 2], [3, 3, 3]):
        request = numbers, REGIONS, (12, 16), "edges"
        assert torch.equal(joined.crops(*request), whole.crops(*request))


@pytest.mark.parametrize(("frames", "shown"), [(slice(0, 0), []), (slice(1, 2), [1]), (slice(2, 9), [2, 3, 4])])
def test_pixels_slice_frames(frames, shown):
    images = noise(5)
    whole = to_device(images, "cpu")
    for pixels in (whole, JoinedPixels([whole[:2], whole[2:]])):
        few = pixels[frames]
        assert (len(few), few.size_wh) == (len(shown), (WIDTH, HEIGHT))
        assert np.array_equal(few.rgb().permute(0, 2, 3, 1).numpy(), images[shown])


@pytest.mark.parametrize("region", [[-50.0, 20.0, 24.0, 32.0], [200.0, 20.0, 24.0, 32.0], [30.0, 99.0, 24.0, 32.0]])
def test_crops_beside_the_frame_are_black(region):
    crops = to_device(noise(1), "cpu").crops([0], np.array([region]), (12, 16), "edges")
    assert not crops.any()
