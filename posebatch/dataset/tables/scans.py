"""The files of one table of an output as an Arrow dataset, which is scanned without being read as a whole."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.dataset as ds

from posebatch.dataset.tables.schemas import (
    FRAMES_SCHEMA,
    MOTION_SCHEMA,
    POSES_SCHEMA,
    TRACKS_SCHEMA,
    VIDEOS_SCHEMA,
    Schema,
)
from posebatch.storage.arrow_files import arrow_files
from posebatch.storage.store import Store

TABLES: Final[dict[str, Schema]] = {
    "poses": POSES_SCHEMA,
    "frames": FRAMES_SCHEMA,
    "videos": VIDEOS_SCHEMA,
    "tracks": TRACKS_SCHEMA,
    "motion": MOTION_SCHEMA,
}
"""The tables that can be scanned, by the name of their folder."""


def scan(store: Store, name: str, endpoint_url: str | None) -> ds.Dataset | None:
    """The table ``name`` of an output; None if the output has no file of it.

    Texts are plain strings. Columns that an earlier version did not write are null. The list of published objects in
    ``videos`` is left out: its form differs between versions.
    """
    keys = sorted(listed.key for listed in store.list(f"{name}/") if listed.key.endswith(".parquet"))
    if not keys:
        return None
    files = arrow_files(store.root, endpoint_url)
    return ds.dataset(keys, schema=_plain(TABLES[name]), format="parquet", filesystem=files)


def _plain(schema: Schema) -> Schema:
    columns = [column for column in schema if not pa.types.is_list(column.type)]
    return pa.schema([column.with_type(pa.string()) if _is_text(column) else column for column in columns])


def _is_text(column: pa.Field) -> bool:
    return bool(pa.types.is_dictionary(column.type))
