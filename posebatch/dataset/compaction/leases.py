"""The lease of a compaction. It is not that of the output: a run and a compaction do not disturb each other."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from posebatch.dataset.compaction.names import FOLDER
from posebatch.dataset.lease import hold_lease
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


def hold_compaction(
    store: Store, run_id: str, wait: bool, say: Callable[[str], None], on_lost: Callable[[str], None]
) -> AbstractContextManager[None]:
    """Hold the compacted tables of an output while the block runs; arguments and errors as for `hold_lease`."""
    return hold_lease(open_store(store.uri(FOLDER), store.endpoint_url), run_id, wait, say, on_lost)
