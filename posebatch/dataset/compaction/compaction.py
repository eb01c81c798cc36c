"""Bring the Delta tables of an output up to date with its commit records.

A batch writes its files, then commits to the data tables, and last to ``videos``, whose transaction states the versions
of the others. Until then readers use the versions that the last batch has stated. So a process may die anywhere: the
next one continues from the stated versions, and the files and versions after them are no part of any table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posebatch.core.errors import InputError, PutRefusedError, RunAbortedError
from posebatch.core.version import __version__
from posebatch.dataset.compaction.columns import file_schema, in_form, partition_columns, table_schema
from posebatch.dataset.compaction.delta import Commit, DataFile, create_table, open_table, write_checkpoint
from posebatch.dataset.compaction.files import Kept, TableFiles, VideoRows, order_of
from posebatch.dataset.compaction.names import (
    ALL_TABLES,
    DATA_TABLES,
    PATH,
    PUBLISHED_DAY,
    SCHEMA_TRANSACTION,
    VIDEOS,
    etag_column,
    table_folder,
    version_transaction,
)
from posebatch.dataset.compaction.partitions import Partitioning, Values, choose_partitioning, published_day
from posebatch.dataset.compaction.planning import BATCH_VIDEOS, Batch, files_to_replace, plan_batches
from posebatch.dataset.compaction.snapshot import Snapshot, open_snapshot
from posebatch.dataset.compaction.taking import LeftVideo, ListedVideo, TakenVideo, take_videos
from posebatch.dataset.layout import RECORDS, recorded_path
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.dataset.tables.schemas import SCHEMA_VERSION
from posebatch.storage.delta_access import delta_access
from posebatch.storage.store import Store


@dataclass(frozen=True)
class Progress:
    """The sums of a compaction so far."""

    videos: int = 0
    """Videos that the tables hold at the end."""
    to_take: int = 0
    """New and changed videos."""
    taken: int = 0
    dropped: int = 0
    """Videos whose rows have left the tables: removed, or published again."""
    batches: int = 0
    """Completed batches."""
    files: int = 0
    """Files written."""
    bytes_written: int = 0
    left: tuple[LeftVideo, ...] = field(default=(), repr=False)
    """Videos that were not taken."""


def compact(
    store: Store,
    on_progress: Callable[[Progress], None] | None = None,
    has_lost_lease: Callable[[], bool] = lambda: False,
    batch_videos: int = BATCH_VIDEOS,
) -> Progress:
    """Take all new and changed videos into the Delta tables, and drop those that were replaced or removed.

    Hold the lease of the compaction meanwhile, and let ``has_lost_lease`` say when it is lost. ``on_progress`` is
    called after each video and each batch. Raises `InputError` if there is no output, `UsageError` if the library
    ``deltalake`` cannot use its address, `PutRefusedError` or `RunAbortedError` if another process compacts the same
    output, `NewerOutputError` if a later version of posebatch has published or compacted here.
    """

    def report(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(progress)
        if has_lost_lease():
            raise RunAbortedError("stopped: another compaction has taken over; completed batches stay")

    listed = list(_listed_videos(store))
    snapshot = open_snapshot(store)
    if not listed and snapshot is None:
        raise InputError(f"{store.uri('videos')}: no commit records, so there is nothing to compact; is it an output?")
    partitioning = _partitioning(store, listed)
    held = snapshot.held_records() if snapshot else []
    batches = list(plan_batches(listed, held, partitioning, batch_videos))
    progress = Progress(to_take=sum(len(batch.new) for batch in batches), videos=len(held))
    del listed, held
    for batch in batches:
        progress = _BatchWriter(store, partitioning, open_snapshot(store), progress, report).run(batch)
    return progress


def _listed_videos(store: Store) -> Iterator[ListedVideo]:
    for stored in store.list(RECORDS):
        path = recorded_path(stored.key)
        if path is not None:
            yield ListedVideo(path, stored.etag, sys.intern(published_day(stored.last_modified)))


def _partitioning(store: Store, listed: Sequence[ListedVideo]) -> Partitioning:
    """That of the tables; chosen by the paths when there are none. It never changes while the tables exist."""
    access = delta_access(store.root, store.endpoint_url)
    existing = (open_table(access, table_folder(name)) for name in DATA_TABLES)
    columns = next((table.partition_columns for table in existing if table is not None), None)
    return choose_partitioning(video.path for video in listed) if columns is None else Partitioning(columns)


@dataclass
class _Changes:
    """The files that a batch adds to a table and removes from it."""

    before: tuple[DataFile, ...]
    """The files of the stated version."""
    added: list[DataFile] = field(default_factory=list)
    removed: list[DataFile] = field(default_factory=list)


class _BatchWriter:
    """Carries out one batch."""

    def __init__(
        self,
        store: Store,
        partitioning: Partitioning,
        snapshot: Snapshot | None,
        progress: Progress,
        report: Callable[[Progress], None],
    ) -> None:
        self._store, self._partitioning, self._snapshot = store, partitioning, snapshot
        self._progress, self._report = progress, report
        self._access = delta_access(store.root, store.endpoint_url)
        self._changes = {name: _Changes(snapshot.files(name) if snapshot else ()) for name in ALL_TABLES}
        self._schemas = {name: file_schema(name, partitioning) for name in ALL_TABLES}
        self._files: dict[str, TableFiles] = {}
        """The files that are being written of each data table, all of one partition."""

    def run(self, batch: Batch) -> Progress:
        """Write the files of a batch, then commit; returns the sums."""
        progress = self._progress
        dropped, videos = progress.dropped + len(batch.gone), progress.videos - len(batch.gone)
        self._progress = replace(progress, dropped=dropped, videos=videos)
        try:
            self._write(batch)
        finally:
            self._discard()
        self._commit_all(len(batch.gone))
        written = [file for changes in self._changes.values() for file in changes.added]
        progress = self._progress
        files, size_bytes = progress.files + len(written), sum(file.size_bytes for file in written)
        done = replace(progress, batches=progress.batches + 1, files=files)
        done = replace(done, bytes_written=progress.bytes_written + size_bytes)
        self._report(done)
        return done

    def _write(self, batch: Batch) -> None:
        """Write all files of a batch, partition by partition."""
        self._files[VIDEOS] = self._open(batch, VIDEOS, (), bool(batch.new))
        untouched = {*batch.gone.values()}
        current: Values | None = None
        for one in take_videos(self._store, batch.new):
            if isinstance(one, LeftVideo):
                self._progress = replace(self._progress, left=(*self._progress.left, one))
                continue
            values = self._partitioning.values(one.listed.path, one.listed.day)
            if values != current:
                self._begin_partition(batch, values, with_new=True)
                untouched.discard(values)
                current = values
            self._add(one, values)
            taken, videos = self._progress.taken + 1, self._progress.videos + 1
            self._progress = replace(self._progress, taken=taken, videos=videos)
            self._report(self._progress)
        for values in untouched:
            self._begin_partition(batch, values, with_new=False)
        self._finish(ALL_TABLES)

    def _begin_partition(self, batch: Batch, values: Values, with_new: bool) -> None:
        self._finish(DATA_TABLES)
        self._files.update((name, self._open(batch, name, values, with_new)) for name in DATA_TABLES)

    def _open(self, batch: Batch, name: str, values: Values, with_new: bool) -> TableFiles:
        """The files to write of a partition of a table, with the rows of those that they replace."""
        files, gone = list(self._changes[name].before), list(batch.gone)
        if name != VIDEOS:
            files = [file for file in files if self._is_in(file, values)]
            gone = [path for path, place in batch.gone.items() if place == values]
        replaced = files_to_replace(files, gone, with_new)
        self._changes[name].removed.extend(replaced)
        kept = Kept(name, self._open_file, replaced, frozenset(batch.gone), self._partitioning)
        return TableFiles(self._store, name, self._partitioning, values, kept)

    def _open_file(self, name: str, file: DataFile) -> Any:
        assert self._snapshot is not None  # without a snapshot no table has a file
        return self._snapshot.open_file(name, file)

    def _is_in(self, file: DataFile, values: Values) -> bool:
        found = dict(file.partition)
        return tuple(found.get(column) for column in self._partitioning.columns) == values

    def _finish(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._files:
                self._changes[name].added.extend(self._files.pop(name).finish())

    def _discard(self) -> None:
        for files in self._files.values():
            files.discard()

    def _add(self, video: TakenVideo, values: Values) -> None:
        """Add the rows of a video to all tables."""
        path = video.listed.path
        order = order_of(values, path)
        for name, table in video.tables.items():
            opened = open_parquet(table.content)
            for group in range(opened.num_row_groups):
                rows = in_form(opened.read_row_group(group, use_threads=False), self._schemas[name], {PATH: path})
                self._files[name].add(VideoRows(order, rows))
        constants: dict[str, str | None] = dict.fromkeys(map(etag_column, DATA_TABLES))
        constants |= {etag_column(name): table.etag for name, table in video.tables.items()}
        constants |= {PATH: path, etag_column(VIDEOS): video.listed.etag}
        constants |= {**dict(self._partitioning.pairs(values)), PUBLISHED_DAY: video.listed.day}
        row = open_parquet(video.record).read(use_threads=False)
        self._files[VIDEOS].add(VideoRows(order, in_form(row, self._schemas[VIDEOS], constants)))

    def _commit_all(self, dropped: int) -> None:
        """The transactions of a batch. That of ``videos`` is the last one, and states the versions of the others."""
        notes = {"posebatch.version": __version__, "posebatch.dropped": dropped}
        versions = {name: self._commit(name, {}, notes) for name in DATA_TABLES}
        states = {version_transaction(name): version for name, version in versions.items()}
        versions[VIDEOS] = self._commit(VIDEOS, {**states, SCHEMA_TRANSACTION: SCHEMA_VERSION}, notes)
        for name, version in versions.items():
            write_checkpoint(self._access, table_folder(name), version)

    def _commit(self, name: str, states: Mapping[str, int], notes: Mapping[str, object]) -> int:
        """Bring one table from the stated version to that of the batch; returns its new version.

        Whatever a killed compaction has committed since the stated version leaves the table in the same transaction.
        """
        schema, folder, changes = table_schema(name, self._partitioning), table_folder(name), self._changes[name]
        table = open_table(self._access, folder)
        if table is None:
            table = create_table(self._access, folder, schema, partition_columns(name, self._partitioning))
        if name == VIDEOS and table.version != (self._snapshot.version if self._snapshot else 0):
            raise PutRefusedError(
                f"{self._store.uri(folder)}: another compaction has completed a batch meanwhile; run compact again"
            )
        table.add_missing_columns(schema)
        removed = {file.path for file in changes.removed}
        wanted = {file.path: file for file in (*changes.before, *changes.added) if file.path not in removed}
        found = {file.path: file for file in table.files()}
        added = [file for path, file in wanted.items() if path not in found]
        surplus = [file for path, file in found.items() if path not in wanted]
        if not added and not surplus and not states:
            return table.version
        return table.commit(Commit(added, surplus, states, notes), schema)
