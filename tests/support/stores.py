"""Helpers for tests of stores."""

from __future__ import annotations

from typing import IO

from posebatch.storage.local import SCRATCH_FOLDER
from posebatch.storage.open import open_source
from posebatch.storage.retry import RetryPolicy
from posebatch.storage.store import Store

QUICK_RETRIES = RetryPolicy(first_pause_s=0.001, longest_pause_s=0.01)
"""As many attempts as usual, with short pauses."""


def keys_of(store: Store, prefix: str = "") -> list[str]:
    """Keys of a listing, without the files that a local store is writing."""
    return [stored.key for stored in store.list(prefix) if not stored.key.startswith(SCRATCH_FOLDER)]


def open_key(store: Store, key: str = "film") -> IO[bytes]:
    """The current version of an object as a source."""
    return open_source(store.uri(key), store.head(key).etag, retry_policy=QUICK_RETRIES)
