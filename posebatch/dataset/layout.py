"""Names of folders and objects in an output."""

from __future__ import annotations

from posebatch.dataset.tables.schemas import SCHEMA_VERSION

DATA_FOLDERS = ("poses", "frames", "previews")
"""Folders of objects that a commit record vouches for."""


RECORDS = "videos/"


ATTEMPTS = "_state/attempts/"


LEDGER_KEY = f"_state/ledger/1-{SCHEMA_VERSION}"
"""Raise the first number when its bytes mean something else. No version goes by what a later one says of records."""


def record_key(output_path: str) -> str:
    """Where a video's commit record lies."""
    return f"{RECORDS}{output_path}.parquet"


def data_key(folder: str, output_path: str) -> str:
    """Where an object of a video lies in one of `DATA_FOLDERS`."""
    return f"{folder}/{output_path}.{'gif' if folder == 'previews' else 'parquet'}"
