"""SQL over an output: a DuckDB connection with one view for each table."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from posebatch.core.errors import InputError
from posebatch.core.extras import need
from posebatch.dataset.compaction.current import usable_snapshot
from posebatch.dataset.compaction.table_now import TableNow
from posebatch.dataset.layout import RECORDS
from posebatch.dataset.tables.schemas import TABLES
from posebatch.storage.open import open_store

if TYPE_CHECKING:
    import duckdb


def connect(output: str, endpoint_url: str | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with a view for each table of an output: poses, frames, videos and so on.

    A query reads only the tables and columns that it names, and only files whose statistics fit its conditions. A view
    shows the files that the output has when the view is first queried, from ``compact/`` where ``posebatch compact``
    has taken them. Raises `InputError` if there is no output, and `UsageError` if DuckDB is not installed.

    >>> db = posebatch.connect("out")
    >>> db.sql("SELECT count(DISTINCT video) AS videos FROM poses").fetchall()
    [(1,)]
    """
    need("duckdb")
    import duckdb  # noqa: PLC0415 - an optional extra

    store = open_store(output, endpoint_url)
    if next((stored for stored in store.list(RECORDS) if stored.key.endswith(".parquet")), None) is None:
        raise InputError(f"{store.uri('videos')}: no commit records, so there is nothing to query; is it an output?")
    connection, snapshot = duckdb.connect(), functools.cache(lambda: usable_snapshot(store))
    for name in TABLES:
        connection.register(name, TableNow(store, name, snapshot))
    return connection
