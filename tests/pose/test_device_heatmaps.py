"""Decoding heatmaps on their device gives the joints of NumPy's decoding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from posebatch.pose.device_heatmaps import find_peaks, peaks_by_torch
from posebatch.pose.heatmaps import decode_heatmaps

LEVELS = st.sampled_from([-0.5, 0.0, 0.25, 0.5, 1.0])
"""Few levels, so that ties and maps without a peak occur."""


@given(maps=arrays(np.float32, (1, 3, 6, 5), elements=LEVELS), refinement=st.sampled_from(["argmax", "quarter"]))
@settings(max_examples=300, deadline=None)
def test_peaks_by_torch_equal_those_of_numpy(maps, refinement):
    found = peaks_by_torch(torch.from_numpy(maps), refinement).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, decode_heatmaps(maps, refinement))


@pytest.mark.parametrize("refinement", ["argmax", "quarter", "dark"])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_find_peaks_equals_numpy_on_network_sized_maps(count, refinement):
    maps = torch.rand(count, 17, 64, 48, generator=torch.Generator().manual_seed(count))
    np.testing.assert_array_equal(find_peaks(maps, refinement), decode_heatmaps(maps.numpy(), refinement))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("refinement", ["argmax", "quarter", "dark"])
def test_find_peaks_on_cuda_equals_numpy(refinement):
    maps = torch.rand(4, 17, 64, 48, generator=torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(find_peaks(maps.cuda(), refinement), decode_heatmaps(maps.numpy(), refinement))
