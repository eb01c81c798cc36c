"""Turn an archive of videos into tables of human poses.

The job is the command ``posebatch run``, or `run`. `estimate` gives the poses of one video. `read_poses`,
`read_frames`, `read_tracks`, `read_motion` and `read_videos` read a dataset. Each name is loaded when it is first used,
so that importing the package is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posebatch.api import decode as decode
    from posebatch.api import draw as draw
    from posebatch.api import estimate as estimate
    from posebatch.api import export as export
    from posebatch.api import plot as plot
    from posebatch.api import run as run
    from posebatch.api import verify as verify
    from posebatch.core.errors import DamagedVideoError as DamagedVideoError
    from posebatch.core.errors import InputError as InputError
    from posebatch.core.errors import OutputError as OutputError
    from posebatch.core.errors import OutputHeldError as OutputHeldError
    from posebatch.core.errors import PosebatchError as PosebatchError
    from posebatch.core.errors import RunAbortedError as RunAbortedError
    from posebatch.core.errors import SettingsError as SettingsError
    from posebatch.core.errors import StorageError as StorageError
    from posebatch.core.errors import UsageError as UsageError
    from posebatch.core.errors import VideoError as VideoError
    from posebatch.core.errors import WeightsError as WeightsError
    from posebatch.core.frames import Detections as Detections
    from posebatch.core.frames import FramePoses as FramePoses
    from posebatch.core.images import FrameBatch as FrameBatch
    from posebatch.core.settings import EstimatorSettings as EstimatorSettings
    from posebatch.core.settings import Settings as Settings
    from posebatch.core.settings import settings_from as settings_from
    from posebatch.core.skeleton import KEYPOINT_NAMES as KEYPOINT_NAMES
    from posebatch.core.skeleton import SKELETON_EDGES as SKELETON_EDGES
    from posebatch.core.version import __version__ as __version__
    from posebatch.dataset.sql import connect as connect
    from posebatch.dataset.tables.readers import read_frames as read_frames
    from posebatch.dataset.tables.readers import read_motion as read_motion
    from posebatch.dataset.tables.readers import read_poses as read_poses
    from posebatch.dataset.tables.readers import read_tracks as read_tracks
    from posebatch.dataset.tables.readers import read_videos as read_videos
    from posebatch.pose.estimator import PoseEstimator as PoseEstimator

_MODULES = {
    "api": ("decode", "draw", "estimate", "export", "plot", "run", "verify"),
    "core.errors": (
        "DamagedVideoError",
        "InputError",
        "OutputError",
        "OutputHeldError",
        "PosebatchError",
        "RunAbortedError",
        "SettingsError",
        "StorageError",
        "UsageError",
        "VideoError",
        "WeightsError",
    ),
    "core.frames": ("Detections", "FramePoses"),
    "core.images": ("FrameBatch",),
    "core.settings": ("EstimatorSettings", "Settings", "settings_from"),
    "core.skeleton": ("KEYPOINT_NAMES", "SKELETON_EDGES"),
    "core.version": ("__version__",),
    "dataset.sql": ("connect",),
    "dataset.tables.readers": ("read_frames", "read_motion", "read_poses", "read_tracks", "read_videos"),
    "pose.estimator": ("PoseEstimator",),
}

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [*sorted(_MODULE_OF)]  # noqa: PLE0604 - a test pins the names


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'posebatch' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"posebatch.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
