"""A run is refused before work begins."""

import importlib.util

import pytest

from posebatch.core.errors import UsageError
from posebatch.core.settings import EstimatorSettings, settings_from
from posebatch.pose.estimator import PoseEstimator
from posebatch.run.preparation import prepare


def test_recovery_without_its_library_is_refused_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cv2" else object())
    with pytest.raises(UsageError, match=r"cv2 is not installed: pip install 'posebatch\[flow\]'"):
        prepare([str(tmp_path)], str(tmp_path / "out"), settings_from({"recover_flow": True}))
    with pytest.raises(UsageError, match=r"pip install 'posebatch\[flow\]'"):
        PoseEstimator.load(EstimatorSettings(recover_flow=True))
