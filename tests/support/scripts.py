"""Scripts of the folder ``jobs`` as modules."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def module_of(job: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(job, ROOT / "jobs" / f"{job}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
