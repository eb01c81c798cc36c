"""Input sizes that detectors support."""

import pytest

from posebatch.core.errors import SettingsError
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.weights.published import TORCHVISION_DETECTORS
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES


@pytest.mark.parametrize("size", ["320", "480", "640", "auto"])
def test_check_detect_size_accepts_any_size_for_ssdlite(size):
    for architecture in SSDLITE_ARCHITECTURES:
        check_detect_size(size, "ours", architecture)


@pytest.mark.parametrize("architecture", TORCHVISION_DETECTORS)
def test_check_detect_size_refuses_other_sizes_for_torchvision(architecture):
    check_detect_size("320", "theirs", architecture)
    with pytest.raises(SettingsError, match="--detect-size 480: theirs chooses its own input size"):
        check_detect_size("480", "theirs", architecture)
