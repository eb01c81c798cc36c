"""The presets: names for a pair of networks and the settings that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_EMBEDDED_PAIR: Final = ("ssdlite_mobilenet_v2_320", "simplebaseline_mobilenet_v2_w175_256x192")

PRESETS: Final[Mapping[str, tuple[str, str]]] = {
    "embedded": _EMBEDDED_PAIR,
    "fast": ("ssdlite_mobilenet_v2_320", "simplebaseline_mobilenet_v2_256x192_relabelled"),
    "balanced": ("fasterrcnn_mobilenet_v3_large_320_fpn", "mmpose_resnet50_256x192"),
    "accurate": ("fasterrcnn_resnet50_fpn_v2", "mmpose_resnet152_384x288"),
    "far": _EMBEDDED_PAIR,
}
"""Detector and pose network of each preset. ``embedded``, ``fast`` and ``far`` need no download; the others download
once."""

PRESET_VALUES: Final[Mapping[str, Mapping[str, Any]]] = {"far": {"tiles": "2x4", "max_persons": 100}}
"""Settings besides the networks that a preset changes, unless they are given explicitly."""
