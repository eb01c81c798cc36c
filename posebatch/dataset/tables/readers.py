"""The public readers: the tables of an output as pandas data frames, from small files and from compacted tables."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

from posebatch.core.errors import InputError, NewerOutputError
from posebatch.core.options import nearest
from posebatch.dataset.compaction.columns import plain_schema
from posebatch.dataset.compaction.current import find_current_rows, path_of, read_compacted, usable_snapshot
from posebatch.dataset.compaction.names import PATH
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.schemas import FRAMES_SCHEMA, MOTION_SCHEMA, POSES_SCHEMA, TRACKS_SCHEMA, VIDEOS_SCHEMA
from posebatch.storage.open import open_store
from posebatch.storage.store import Store, StoredObject

if TYPE_CHECKING:
    import pandas as pd

READ_THREADS: Final = 16


FEW_FILES: Final = 32
"""So many small files are read with fewer requests than a compaction."""


def read_poses(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """Read the poses of an output: one row per person per processed frame.

    ``root`` is a local folder or ``s3://bucket/prefix``. ``match`` is a glob over the videos' paths in the archive.
    ``columns`` are the columns to read, all when None. Columns that an earlier version did not write are null.
    Raises `InputError` if no table matches or no column has such a name, and `NewerOutputError` if a later version of
    posebatch wrote a table.

    Example::

        poses = posebatch.read_poses("s3://bucket/out", match="ski/*", columns=["video", "time_s", "nose_x"])
    """
    return _read_tables(root, "poses", POSES_SCHEMA, match, columns, endpoint_url)


def read_frames(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """Read the frames of an output: one row per processed frame, with or without persons, decodable or not.

    Arguments and errors as for `read_poses`.
    """
    return _read_tables(root, "frames", FRAMES_SCHEMA, match, columns, endpoint_url)


def read_tracks(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """Read the tracks of an output: one row per person whom a video shows over time, with their quality.

    Arguments and errors as for `read_poses`.

    Example::

        main = posebatch.read_tracks("out").query("is_main and grade <= 'B'")
    """
    return _read_tables(root, "tracks", TRACKS_SCHEMA, match, columns, endpoint_url)


def read_motion(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """Read the movement of an output: one row per track and processed frame, with smoothed joints and angles.

    Arguments and errors as for `read_poses`.

    Example::

        motion = posebatch.read_motion("out", columns=["video", "track_id", "time_s", "left_knee_deg"])
    """
    return _read_tables(root, "motion", MOTION_SCHEMA, match, columns, endpoint_url)


def read_videos(
    root: str, match: str = "*", columns: Sequence[str] | None = None, endpoint_url: str | None = None
) -> pd.DataFrame:
    """Read the commit records of an output: one row per video, with its properties, status and published objects.

    Arguments and errors as for `read_poses`.
    """
    return _read_tables(root, "videos", VIDEOS_SCHEMA, match, columns, endpoint_url)


def _read_tables(
    root: str, folder: str, schema: pa.Schema, match: str, columns: Sequence[str] | None, endpoint_url: str | None
) -> pd.DataFrame:
    for name in columns or ():
        if name not in schema.names:
            raise InputError(f"no column is called {name!r}{nearest(name, schema.names)}")
    store = open_store(root, endpoint_url)
    listed = [stored for stored in store.list(f"{folder}/{_fixed_part(match)}") if _matches(stored.key, folder, match)]
    if not listed:
        raise InputError(
            f"{store.uri(folder)}: no table of a video that matches {match!r}; give paths below the folder of the "
            f"input, as in the names of the tables: 'ski/run.mp4' or 'ski/*'"
        )
    # the empty table comes first and has all columns; tables of earlier versions may lack some
    template = schema.empty_table().select(schema.names if columns is None else columns)
    if len(listed) <= FEW_FILES:
        return _joined(template, _read_files(store, listed, columns)).to_pandas()
    now = find_current_rows(usable_snapshot(store), folder, listed)
    small = _read_files(store, now.small_files, columns)
    if now.snapshot is None:
        return _joined(template, small).to_pandas()
    large = read_compacted(now, folder, template.schema.names)
    return _as_listed(folder, template, listed, large, list(zip(now.small_files, small, strict=True))).to_pandas()


def _read_files(store: Store, listed: Sequence[StoredObject], columns: Sequence[str] | None) -> list[pa.Table]:
    def read_one(key: str) -> pa.Table:
        try:
            return open_parquet(store.read(key)).read(columns=columns)
        except NewerOutputError as error:
            raise NewerOutputError(f"{store.uri(key)}: {error}") from error

    with ThreadPoolExecutor(READ_THREADS) as threads:
        return list(threads.map(read_one, (stored.key for stored in listed)))


def _joined(template: pa.Table, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables([template, *tables], promote_options="permissive").unify_dictionaries()


def _as_listed(
    folder: str,
    template: pa.Table,
    listed: Sequence[StoredObject],
    large: pa.Table,
    small: Sequence[tuple[StoredObject, pa.Table]],
) -> pa.Table:
    """Rows of the compaction and of small files, in the order and with the types that the small files alone have."""
    paths = [large[PATH].combine_chunks()]
    paths += [pa.repeat(path_of(folder, stored), table.num_rows) for stored, table in small]
    rows = large.drop_columns([PATH]).cast(plain_schema(template.schema))
    plain = [table.cast(plain_schema(table.schema)) for _, table in small]
    joined = pa.concat_tables([rows, *plain], promote_options="permissive")
    place = pc.index_in(pa.concat_arrays(paths), value_set=pa.array([path_of(folder, stored) for stored in listed]))
    ordered = joined.take(pc.sort_indices(place))  # stable: the rows of a video keep their order
    return ordered.cast(template.schema)


def _fixed_part(match: str) -> str:
    """The text before the first wildcard of a glob."""
    return re.split(r"[*?\[]", match, maxsplit=1)[0]


def _matches(key: str, folder: str, match: str) -> bool:
    return key.endswith(".parquet") and fnmatch.fnmatchcase(key[len(folder) + 1 : -len(".parquet")], match)
