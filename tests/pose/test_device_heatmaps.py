"""Joints found on the device are those that NumPy finds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posebatch.pose.device_heatmaps import find_peaks, peaks_by_torch
from posebatch.pose.heatmaps import decode_heatmaps

LEVELS = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])
"""Few, so that ties and maps without a peak come up."""


@given(maps=arrays(np.float32, (1, 3, 6, 5), elements=LEVELS), refinement=st.sampled_from(["argmax", "quarter"]))
@settings(max_examples=300, deadline=None)
def test_any_maps(maps, refinement):
    found = peaks_by_torch(torch.from_numpy(maps), refinement).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, decode_heatmaps(maps, refinement))


@pytest.mark.parametrize("refinement", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_maps_of_a_networks_size(count, refinement):
    maps = torch.rand(count, 17, 64, 48, generator=torch.Generator().manual_seed(count))
    np.testing.assert_array_equal(find_peaks(maps, refinement), decode_heatmaps(maps.numpy(), refinement))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("refinement", ["argmax", "quarter", "dark"])
def test_on_cuda(refinement):
    maps = torch.rand(4, 17, 64, 48, generator=torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(find_peaks(maps.cuda(), refinement), decode_heatmaps(maps.numpy(), refinement))
