"""Names in the compacted tables: folders, columns, transactions.

Keys below the output root::

    compact/TABLE/_delta_log/...                the transactions of one Delta table
    compact/TABLE/PARTITION/BATCH-ID.parquet    its files; ``videos`` has no partitions
    compact/_state/leases/...                   which compaction is at work
"""

from __future__ import annotations

from typing import Final

from posebatch.dataset.tables.schemas import COLUMNS

FOLDER: Final = "compact"


DATA_TABLES: Final = ("poses", "frames", "tracks", "motion")


VIDEOS: Final = "videos"


ALL_TABLES: Final = (*DATA_TABLES, VIDEOS)
"""In the order of their transactions. That of `VIDEOS` is the last one and completes a batch."""


PATH: Final = "_path"
"""Column of all tables: the output path of the video, which identifies it."""


RECORD: Final = "_record"
"""Column of ``videos``: the ETag of the commit record."""


PUBLISHED_DAY: Final = "published_day"
"""Column of ``videos``, and the partition of the other tables where the archive has none: ``YYYY-MM-DD``."""


SCHEMA_TRANSACTION: Final = "posebatch.schema"
"""The Delta transaction of ``videos`` that states `SCHEMA_VERSION`."""


RESERVED: Final = COLUMNS | {PUBLISHED_DAY}
"""Names that no folder of an archive can give to a partition column, in lower case. No such name begins with ``_``."""


def table_folder(name: str) -> str:
    """The folder of a table below the output root."""
    return f"{FOLDER}/{name}"


def etag_column(name: str) -> str:
    """The column of ``videos`` with the ETag of the file that a video's rows of a table come from."""
    return RECORD if name == VIDEOS else f"_{name}"


def version_transaction(name: str) -> str:
    """The Delta transaction of ``videos`` that states the version of another table which belongs to it."""
    return f"posebatch.{name}"
