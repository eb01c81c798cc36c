"""Which detectors can be told the size of their input. Imports no torch, so that a run can say it before it begins."""

from __future__ import annotations

from posebatch.core.errors import SettingsError
from posebatch.core.settings import DETECT_SIZE
from posebatch.models.weights.records import SSDLITE_ARCHITECTURES


def check_detect_size(detect_size: str, detector: str, architecture: str) -> None:
    """Raises `SettingsError` for a size that is not the default, and a detector that chooses its own."""
    if detect_size == DETECT_SIZE or architecture in SSDLITE_ARCHITECTURES:
        return
    known = ", ".join(SSDLITE_ARCHITECTURES)
    raise SettingsError(
        f"--detect-size {detect_size}: {detector} chooses its own input size; only detectors of the kinds {known} take "
        "another. --tiles works with every detector"
    )
