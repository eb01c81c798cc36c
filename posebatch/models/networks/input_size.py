"""Which detectors support another input size. Does not import torch, so that a run can check before it starts."""

from __future__ import annotations

from posebatch.core.errors import SettingsError
from posebatch.core.settings import DETECT_SIZE
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES


def check_detect_size(detect_size: str, detector: str, architecture: str) -> None:
    """Raise `SettingsError` if the size is not the default and the detector chooses its own input size."""
    if detect_size == DETECT_SIZE or architecture in SSDLITE_ARCHITECTURES:
        return
    supported = ", ".join(SSDLITE_ARCHITECTURES)
    raise SettingsError(
        f"--detect-size {detect_size}: {detector} chooses its own input size; only detectors of the kinds {supported} "
        "take another. --tiles works with every detector"
    )
