import pytest

from posebatch.core.errors import SettingsError
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.weights.published import TORCHVISION_DETECTORS
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES


@pytest.mark.parametrize("size", ["320", "480", "640", "auto"])
def test_our_own_detectors_take_any_size(size):
    for architecture in SSDLITE_ARCHITECTURES:
        check_detect_size(size, "ours", architecture)


@pytest.mark.parametrize("architecture", TORCHVISION_DETECTORS)
def test_others_take_the_default_alone(architecture):
    check_detect_size("320", "theirs", architecture)
    with pytest.raises(SettingsError, match="--detect-size 480: theirs chooses its own input size"):
        check_detect_size("480", "theirs", architecture)
