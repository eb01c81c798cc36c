"""Fingerprints identify what determines a result: settings and weights. Digests stand for long names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from posebatch.core.settings import EstimatorSettings, SamplingSettings, Settings

PIPELINE_VERSION: Final = 1
"""Raise it whenever a change of the code changes published rows, so that older results are recomputed."""


DRAWING_VERSION: Final = 2
"""Raise it whenever a change of the code changes previews, so that they are drawn again. Tables are not affected."""


FORMAT_VERSIONS: Final[Mapping[str, int]] = {"gif": 0, "mp4": 1, "webp": 1, "sheet": 1}
"""Raise one whenever a change of the code changes previews of this format alone."""


TRACKING_VERSION: Final = 1
"""Raise it whenever a change of the code changes who is who, so that tracks, motion and pictures of them are made again
from stored poses."""


MOTION_VERSION: Final = 2
"""Raise it whenever another change of the code changes tracks or motion, so that they are derived again from stored
poses."""


def data_fingerprint(settings: Settings, detector_identity: str, pose_identity: str) -> str:
    """Fingerprint of everything but the source that determines ``poses/`` and ``frames/``: 16 hexadecimal digits.

    Networks are identified by their weights (name and SHA-256), not by the option that selected them.
    """
    estimator = dataclasses.asdict(settings.estimator)
    for key in ("preset", "detector", "pose"):
        del estimator[key]
    estimator["oks_nms_thr"] = settings.estimator.same_person_oks
    for key in (
        "detect_size",
        "tiles",
        "recover_flow",
    ):  # omitted at their defaults, so that older datasets keep their fingerprint
        if estimator[key] == getattr(EstimatorSettings, key):
            del estimator[key]
    identity = {
        "pipeline": PIPELINE_VERSION,
        "detector": detector_identity,
        "pose": pose_identity,
        "estimator": estimator,
        "sampling": sampling_identity(settings.sampling),
    }
    return _digest(identity)


def sampling_identity(sampling: SamplingSettings) -> dict[str, Any]:
    """The sampling settings as fingerprints and tables state them: without the track, where that is the default one."""
    values = dataclasses.asdict(sampling)
    if sampling.video_track == SamplingSettings.video_track:
        del values["video_track"]
    return values


def motion_fingerprint(settings: Settings) -> str:
    """Fingerprint of everything but poses and frames that determines tracks and motion: 16 hexadecimal digits."""
    followed = {
        "motion_version": [TRACKING_VERSION, MOTION_VERSION],
        "motion": dataclasses.asdict(settings.motion),
        "kpt_thr": settings.estimator.kpt_thr,
    }
    return _digest(followed)


def preview_fingerprint(settings: Settings, form: str = "gif") -> str:
    """Fingerprint of everything but the tables that determines a preview of a format: 16 hexadecimal digits.

    It states what is not the default only, so that GIFs keep the fingerprint that they had before there were tracks,
    other formats, and other things to show.
    """
    preview, motion = settings.preview, settings.motion
    drawn: dict[str, Any] = {"pipeline": PIPELINE_VERSION, "drawing": DRAWING_VERSION, "scale": preview.preview_scale}
    if FORMAT_VERSIONS[form]:
        drawn["format"] = [form, FORMAT_VERSIONS[form]]
    if preview.show:
        drawn["show"] = sorted(set(preview.show))
    if "angles" in preview.show:
        drawn["motion"] = motion_fingerprint(settings)
    if preview.privacy is not None:
        drawn["privacy"] = preview.privacy
    if settings.colors_by_track or preview.needs_tracks:
        drawn["by_track"], drawn["trail"] = settings.colors_by_track, sorted(set(preview.trail))
        drawn["tracks"] = [TRACKING_VERSION, motion.linker, motion.max_gap_seconds]  # what decides who is who
    return _digest(drawn)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


DIGEST_BYTES: Final = 16
"""128 bits, so that two names of an archive practically never share a digest."""


def digest(name: str) -> bytes:
    """BLAKE2b digest of a URI, a path or an ETag, `DIGEST_BYTES` long. The name need not be valid UTF-8."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
