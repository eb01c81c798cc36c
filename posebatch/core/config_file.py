"""Settings in a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from posebatch.core.errors import SettingsError


class _Loader(yaml.SafeLoader):
    """Refuses a name that stands twice, of which YAML would take the last value without a word.

    A dash and an underscore are the same in a name, as for `posebatch.core.settings.settings_from`.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):  # `!!map x` makes another node, which the base class refuses
            _refuse_doubles(node)
        return super().construct_mapping(node, deep)


def _refuse_doubles(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value).replace("-", "_")
        if name in seen:
            problem = f"{key.value!r} stands twice"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
        seen.add(name)


def read_config(path: str) -> dict[str, Any]:
    """Read the flat values of a YAML settings file. Raises `SettingsError` if it cannot be read or is no mapping."""
    try:
        loaded = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--config {path}: cannot be read as YAML: {error}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"--config {path}: must hold 'name: value' lines, holds a {type(loaded).__name__}")
    return loaded
