"""Fingerprints: digests of the settings and weights that determine a result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from posebatch.core.settings import EstimatorSettings, Settings

PIPELINE_VERSION: Final = 1
"""Raised whenever a change of the code changes published rows, so that old results are recomputed."""


def data_fingerprint(settings: Settings, detector_identity: str, pose_identity: str) -> str:
    """Identifies everything besides the source that shapes ``poses/`` and ``frames/``: 16 hexadecimal digits.

    Networks count by the identity of their weights, not by the name or path that led to them.
    """
    estimator = dataclasses.asdict(settings.estimator)
    for key in ("preset", "detector", "pose"):
        del estimator[key]
    for key in ("detect_size", "tiles"):  # newer than many datasets, whose rows are those of the defaults
        if estimator[key] == getattr(EstimatorSettings, key):
            del estimator[key]
    shaping = {
        "pipeline": PIPELINE_VERSION,
        "detector": detector_identity,
        "pose": pose_identity,
        "estimator": estimator,
        "sampling": dataclasses.asdict(settings.sampling),
    }
    return _digest(shaping)


def preview_fingerprint(settings: Settings) -> str:
    """Identifies everything besides the tables that shapes a preview: 16 hexadecimal digits."""
    return _digest({"pipeline": PIPELINE_VERSION, "scale": settings.preview.preview_scale})


def _digest(shaping: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()[:16]


DIGEST_BYTES: Final = 16
"""128 bits, so that no two names of an archive share a digest."""


def digest(name: str) -> bytes:
    """`DIGEST_BYTES` bytes that stand for an address, a path or an etag; names that are no UTF-8 have one too."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
