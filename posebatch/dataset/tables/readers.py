"""The readers of a dataset: tables of an output as pandas data frames."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from posebatch.core.errors import InputError, NewerOutputError
from posebatch.core.options import nearest
from posebatch.storage.open import open_store

if TYPE_CHECKING:
    import pandas as pd
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.schemas import KNOWN_SCHEMAS

READ_THREADS: Final = 16


# --- readers -----------------------------------------------------------------------------------------------------


def read_poses(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per person per processed frame, from a local or ``s3://`` output, as a pandas DataFrame.

    ``match`` is a glob over the videos' paths in the archive (``"ski/*"``, ``"*.mov"``), ``columns`` the columns to
    read (all when None). Tables of earlier versions are read with them: what they do not have is null. Raises
    `InputError` when the output holds no such table, or the tables no such column, and `NewerOutputError` when a later
    version of posebatch wrote one of them.
    """
    return _read(root, "poses", match, columns, endpoint_url)


def read_frames(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per processed frame, persons or not, decodable or not; see `read_poses`."""
    return _read(root, "frames", match, columns, endpoint_url)


def read_videos(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """One row per video: what it is, how it went, and where its results are; see `read_poses`."""
    return _read(root, "videos", match, columns, endpoint_url)


def _read(root: str, folder: str, match: str, columns: Sequence[str] | None, endpoint_url: str | None) -> pd.DataFrame:
    schema = KNOWN_SCHEMAS[folder][0]
    for name in columns or ():
        if name not in schema.names:
            raise InputError(f"no column is called {name!r}{nearest(name, schema.names)}")
    store = open_store(root, endpoint_url)
    keys = [found.key for found in store.list(f"{folder}/") if _matches(found.key, folder, match)]
    if not keys:
        raise InputError(f"{store.uri(folder)}: no table of a video that matches {match!r}")

    def one(key: str) -> pa.Table:
        try:
            return open_parquet(store.read(key)).read(columns=columns)
        except NewerOutputError as error:
            raise NewerOutputError(f"{store.uri(key)}: {error}") from error

    chosen = schema.names if columns is None else columns
    wanted = schema.empty_table().select(chosen)  # tables of earlier versions may have less
    with ThreadPoolExecutor(READ_THREADS) as pool:
        joined = pa.concat_tables([wanted, *pool.map(one, keys)], promote_options="permissive")
    return joined.unify_dictionaries().to_pandas()


def _matches(key: str, folder: str, match: str) -> bool:
    return key.endswith(".parquet") and fnmatch.fnmatchcase(key[len(folder) + 1 : -len(".parquet")], match)
