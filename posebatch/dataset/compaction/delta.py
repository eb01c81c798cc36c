"""Delta tables through the library ``deltalake``: their files, and one transaction that adds and removes files.

Only this module imports the library. It reads and writes the log of a table; the files are written by `Store`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from posebatch.core.errors import PutRefusedError, StorageError
from posebatch.dataset.compaction.names import PATH
from posebatch.dataset.tables.schemas import Schema
from posebatch.storage.delta_access import DeltaAccess

if TYPE_CHECKING:
    from deltalake import DeltaTable

CHECKPOINT_VERSIONS: Final = 10
"""Versions between two checkpoints of a log: a reader reads the last checkpoint and at most so many transactions."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a table, as the log describes it."""

    path: str
    """Below the folder of the table."""
    size_bytes: int
    rows: int
    partition: tuple[tuple[str, str | None], ...]
    """Partition columns with their values."""
    paths: tuple[str, str]
    """The first and the last output path in it, in the order of texts."""
    videos: tuple[str, str]
    """The first and the last value of the column ``video``, in the order of texts."""
    written_ms: int
    """Unix time, milliseconds."""


@dataclass(frozen=True)
class Commit:
    """One transaction."""

    added: Sequence[DataFile]
    removed: Sequence[DataFile]
    transactions: Mapping[str, int]
    """Delta's transaction ids with their versions."""
    notes: Mapping[str, Any]
    """For the history of the table."""


class Table:
    """One version of a Delta table."""

    def __init__(self, table: DeltaTable, address: str) -> None:
        self._table, self._address = table, address
        self.version = int(table.version())

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """The names of the partition columns."""
        return tuple(self._table.metadata().partition_columns)

    def transaction(self, name: str) -> int | None:
        """The version of a transaction id; None if no transaction has stated it."""
        with _translated(self._address):
            return self._table.transaction_version(name)

    def files(self) -> tuple[DataFile, ...]:
        """The files of this version."""
        with _translated(self._address):
            rows = pa.table(self._table.get_add_actions()).to_pylist()
        return tuple(sorted((_file_from_row(row) for row in rows), key=lambda file: file.path))

    def add_missing_columns(self, schema: Schema) -> None:
        """Add the columns that an earlier version of posebatch did not have. Older rows have null there."""
        from deltalake import Schema as DeltaSchema  # noqa: PLC0415 - an optional extra

        known = {column.name for column in self._table.schema().fields}
        missing = [column for column in DeltaSchema.from_arrow(schema).fields if column.name not in known]
        if missing:
            with _translated(self._address):
                self._table.alter.add_columns(missing, post_commithook_properties=_no_hooks())
            self.version += 1

    def commit(self, commit: Commit, schema: Schema) -> int:
        """Add and remove files in one transaction; returns its version.

        Raises `PutRefusedError` if another process has committed to the table since this version was opened.
        """
        from deltalake import CommitProperties, Transaction  # noqa: PLC0415 - an optional extra
        from deltalake.transaction import RemoveAction  # noqa: PLC0415

        now_ms = int(time.time() * 1000)
        actions: list[Any] = [
            RemoveAction(file.path, True, now_ms, file.size_bytes, dict(file.partition)) for file in commit.removed
        ]
        actions += [_add_action(file) for file in commit.added]
        properties = CommitProperties(
            custom_metadata=dict(commit.notes),
            max_commit_retries=0,  # a later transaction of another process is a conflict, whatever it holds
            app_transactions=[Transaction(name, version) for name, version in commit.transactions.items()],
        )
        with _translated(self._address):
            self._table.create_write_transaction(
                actions,
                "append",
                schema,
                list(self.partition_columns),
                commit_properties=properties,
                post_commithook_properties=_no_hooks(),
            )
        return self.version + 1

    def expired(self, retention_hours: int, keep_versions: list[int]) -> list[str]:
        """Files that no version in ``keep_versions`` and not the newest version has, for longer than the retention."""
        with _translated(self._address):
            return self._table.vacuum(
                retention_hours=retention_hours,
                dry_run=True,
                enforce_retention_duration=False,
                full=True,
                keep_versions=keep_versions,
            )


def open_table(access: DeltaAccess, folder: str, version: int | None = None) -> Table | None:
    """A version of the table in a folder, the newest by default; None if there is none."""
    from deltalake import DeltaTable  # noqa: PLC0415 - an optional extra
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415

    address = access.below(folder)
    with _translated(address):
        try:
            return Table(DeltaTable(address, version=version, storage_options=dict(access.options)), address)
        except TableNotFoundError:
            return None


def create_table(access: DeltaAccess, folder: str, schema: Schema, partition_by: Sequence[str]) -> Table:
    """Create an empty table. Raises `PutRefusedError` if another process has created it meanwhile."""
    from deltalake import DeltaTable  # noqa: PLC0415 - an optional extra

    address = access.below(folder)
    with _translated(address):
        table = DeltaTable.create(
            address,
            schema,
            mode="error",
            partition_by=list(partition_by),
            storage_options=dict(access.options),
        )
    return Table(table, address)


def write_checkpoint(access: DeltaAccess, folder: str, version: int) -> None:
    """Write a checkpoint of the log, if it is time for one. A log without checkpoints is correct, only longer."""
    if version % CHECKPOINT_VERSIONS:
        return
    from deltalake import DeltaTable  # noqa: PLC0415 - an optional extra

    address = access.below(folder)
    with _translated(address):
        DeltaTable(address, storage_options=dict(access.options)).create_checkpoint()


def _no_hooks() -> Any:
    """Nothing after a commit: checkpoints have their own step, and no version is ever forgotten."""
    from deltalake import PostCommitHookProperties  # noqa: PLC0415 - an optional extra

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def _add_action(file: DataFile) -> Any:
    from deltalake.transaction import AddAction  # noqa: PLC0415 - an optional extra

    statistics = {
        "numRecords": file.rows,
        "minValues": {PATH: file.paths[0], "video": file.videos[0]},
        "maxValues": {PATH: file.paths[1], "video": file.videos[1]},
        "nullCount": {PATH: 0, "video": 0},
    }
    return AddAction(file.path, file.size_bytes, dict(file.partition), file.written_ms, True, json.dumps(statistics))


def _file_from_row(row: Mapping[str, Any]) -> DataFile:
    least, most = row["min"], row["max"]
    return DataFile(
        row["path"],
        row["size_bytes"],
        row["num_records"],
        tuple((row.get("partition") or {}).items()),
        (least[PATH], most[PATH]),
        (least["video"], most["video"]),
        row["modification_time"],
    )


@contextlib.contextmanager
def _translated(address: str) -> Iterator[None]:
    from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError  # noqa: PLC0415

    try:
        yield
    except TableNotFoundError:
        raise
    except CommitFailedError as error:
        raise PutRefusedError(
            f"{address}: another process has changed this table meanwhile ({error}); its changes stay, and the next "
            "`posebatch compact` continues from there"
        ) from error
    except (DeltaError, OSError, ValueError) as error:
        raise StorageError(f"{address}: the log of the Delta table cannot be used: {error}") from error
