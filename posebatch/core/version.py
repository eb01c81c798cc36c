"""The version of posebatch, defined only here, and the commit that runs."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import subprocess
from pathlib import Path
from typing import Final

__version__ = "0.2.0"


USER_AGENT: Final = f"posebatch/{__version__}"
"""What requests to web servers say of themselves."""


COMMIT_FILE: Final = Path(__file__).with_name("commit.txt")
"""Written when the image is built, so that the commit is that of the code beside it, whatever else is on the path."""


@functools.cache
def commit() -> str | None:
    """The commit of this code, for the provenance of a run; None if it cannot be known.

    It is that of `COMMIT_FILE`, of the checkout, with ``-dirty`` if files have changed since, or of the repository that
    pip has installed from. It belongs to a run and never to a data file: equal rows have equal bytes.
    """
    built = COMMIT_FILE.read_text(encoding="utf-8").strip() if COMMIT_FILE.exists() else ""
    return built or _commit_of_checkout(Path(__file__).resolve().parents[2]) or _commit_of_installation()


def _commit_of_checkout(root: Path) -> str | None:
    if not (root / ".git").exists():  # an installed package may lie inside a repository of something else
        return None
    describe = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _commit_of_installation() -> str | None:
    try:
        origin = importlib.metadata.distribution("posebatch").read_text("direct_url.json")
        found: str | None = json.loads(origin or "{}").get("vcs_info", {}).get("commit_id")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None
    return found
