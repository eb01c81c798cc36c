"""Libraries of optional extras: scripts name the missing ones before they begin, instead of failing in the middle."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Final

from posebatch.core.errors import UsageError

EXTRAS: Final[Mapping[str, str]] = {
    "matplotlib": "plot",
    "pycocotools": "train",
    "openvino": "openvino",
    "nncf": "quantize",
    "cv2": "flow",
    "duckdb": "query",
    "deltalake": "compact",
    "sleap_io": "export",
    "ezc3d": "export",
    "tables": "export",
    "xlsxwriter": "export",
    "dtaidistance": "compare",
    "trackers": "trackers",
}
"""The extra of ``pyproject.toml`` that installs each library."""


def need(*libraries: str) -> None:
    """Check that libraries of `EXTRAS` are installed. Raises `UsageError`, which says how to install them."""
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if not missing:
        return
    extras = ",".join(sorted({EXTRAS[name] for name in missing}))
    raise UsageError(
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: pip install "
        f"'posebatch[{extras}]', or in a checkout pip install -e '.[{extras}]'"
    )
