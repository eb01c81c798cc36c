"""Settings in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posebatch.core.errors import SettingsError


def read_config(path: str) -> dict[str, Any]:
    """Read the flat values of a YAML settings file. Raises `SettingsError` if it cannot be read or is no mapping."""
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path}: cannot be read as YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"--config {path}: must hold 'name: value' lines, holds a {type(loaded).__name__}")
    return loaded
