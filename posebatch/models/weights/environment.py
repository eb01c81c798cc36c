"""Environment variables that say where weight files are."""

from __future__ import annotations

from typing import Final

CACHE_VARIABLE: Final = "POSEBATCH_CACHE"
"""Environment variable with the folder of the cache."""


MIRROR_VARIABLE: Final = "POSEBATCH_WEIGHTS"
"""Environment variable with a folder, an s3:// prefix or an http(s) address that holds published files by name."""
