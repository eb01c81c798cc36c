"""The folder of a run in the output: its settings, a summary, and the commit records that it wrote."""

from __future__ import annotations

import io
import json
import secrets
from datetime import UTC, datetime
from typing import Any

import yaml

from posebatch.core.errors import ObjectNotFoundError, OutputError, StorageError
from posebatch.core.night_settings import FROM_ENVIRONMENT, masked_address
from posebatch.core.records import VideoRecord
from posebatch.core.redaction import redacted
from posebatch.core.settings import Settings
from posebatch.core.version import __version__, commit
from posebatch.dataset.tables.records import RecordLog
from posebatch.run.context import RunContext
from posebatch.storage.store import Store


def new_run_id() -> str:
    """A new name for a run: its start in UTC and a random suffix, so that names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def settings_yaml(settings: Settings) -> str:
    """Settings as the content of a ``--config`` file. The address of ``notify`` is a comment: it may be a secret."""
    flat = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.flat().items()}
    if (notify := settings.night.notify) is None or notify.startswith(FROM_ENVIRONMENT):
        return yaml.safe_dump(flat, sort_keys=False)
    return f"# notify: {masked_address(notify)}\n{yaml.safe_dump({**flat, 'notify': None}, sort_keys=False)}"


class RunFolder:
    """``runs/<run id>/`` in an output."""

    def __init__(self, store: Store, context: RunContext) -> None:
        self._store, self._context = store, context
        self._records = RecordLog()
        self.key = f"runs/{context.run_id}"

    def open(self, inputs: list[str]) -> None:
        """Write ``settings.yaml``. Raises `OutputError` if the output cannot be written."""
        made_by = f"posebatch {__version__}, commit {commit() or 'unknown'}"
        heading = f"# {made_by}, run {self._context.run_id}, inputs: {json.dumps(inputs)}\n"
        try:
            content = redacted(heading + settings_yaml(self._context.settings))
            self._store.put(f"{self.key}/settings.yaml", content.encode())
        except StorageError as error:
            raise OutputError(f"--output {self._store.root} cannot be written: {error}") from error

    def add(self, record: VideoRecord) -> None:
        """Add a commit record that this run has written."""
        self._records.add(record)

    def close(self, summary: dict[str, Any]) -> None:
        """Write ``videos.parquet`` and ``summary.json``."""
        sink = io.BytesIO()
        self._records.write(sink)
        self._store.put(f"{self.key}/videos.parquet", sink)
        self._store.put(f"{self.key}/summary.json", redacted(json.dumps(summary, indent=2)).encode())


def last_summary(store: Store, data_fingerprint: str) -> dict[str, Any] | None:
    """The newest summary of a run with the same settings and weights that measured its speed; None if there is none."""
    keys = sorted((stored.key for stored in store.list("runs/") if stored.key.endswith("/summary.json")), reverse=True)
    for key in keys:
        try:
            summary: dict[str, Any] = json.loads(store.read(key))
        except (ValueError, ObjectNotFoundError):
            continue
        if summary.get("settings_fingerprint") == data_fingerprint and summary.get("frames_per_second"):
            return summary
    return None
