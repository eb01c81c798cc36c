"""Write the files of one table of a compaction: large, sorted, and merged with the rows of files that they replace."""

from __future__ import annotations

import heapq
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posebatch.dataset.compaction.columns import file_schema, in_form
from posebatch.dataset.compaction.delta import DataFile
from posebatch.dataset.compaction.names import PATH, VIDEOS, table_folder
from posebatch.dataset.compaction.partitions import Partitioning, Values
from posebatch.dataset.tables.parquet import TableWriter
from posebatch.storage.store import Store

TARGET_BYTES: Final = 128 << 20
"""A file is closed at the first video after so many bytes."""


PIECES: Final = 256
"""Rows of so many videos are copied into one table: a table of one row takes ten times the memory of its values."""


Order = tuple[tuple[str, ...], str]
"""What the rows of a table are sorted by, before their order within a video: partition, then output path."""


@dataclass(frozen=True)
class VideoRows:
    """Consecutive rows of one video."""

    order: Order
    rows: pa.Table


def order_of(values: Values, path: str) -> Order:
    """The place of a video in the order of a table."""
    return tuple(value or "" for value in values), path


@dataclass(frozen=True)
class Kept:
    """The rows of files that are replaced, without the rows of some videos."""

    name: str
    open_file: Callable[[str, DataFile], pq.ParquetFile]
    files: Sequence[DataFile]
    dropped: frozenset[str]
    """Output paths of the videos that leave the table."""
    partitioning: Partitioning

    def videos(self) -> Iterator[VideoRows]:
        """The rows that stay, in order. Of files whose videos overlap, a row group of each is in memory."""
        waiting = sorted(self.files, key=self._begin, reverse=True)
        current: list[tuple[Order, int, VideoRows, Iterator[VideoRows]]] = []  # a heap; the number settles ties

        def push(number: int, rest: Iterator[VideoRows]) -> None:
            video = next(rest, None)
            if video is not None:
                heapq.heappush(current, (video.order, number, video, rest))

        while waiting or current:
            while waiting and (not current or self._begin(waiting[-1]) <= current[0][0]):
                push(len(waiting), self._videos_of(waiting.pop()))
            if current:
                _, number, video, rest = heapq.heappop(current)
                yield video
                push(number, rest)

    def _begin(self, file: DataFile) -> Order:
        """No video of the file comes before this."""
        if self.name == VIDEOS:
            return (), ""
        return order_of(_values_of(file), file.paths[0])

    def _videos_of(self, file: DataFile) -> Iterator[VideoRows]:
        opened, schema = self.open_file(self.name, file), file_schema(self.name, self.partitioning)
        for group in range(opened.num_row_groups):
            for path, rows in consecutive(in_form(opened.read_row_group(group), schema, {})):
                if path not in self.dropped:
                    values = self._values(rows) if self.name == VIDEOS else _values_of(file)
                    yield VideoRows(order_of(values, path), rows)

    def _values(self, rows: pa.Table) -> Values:
        return tuple(rows[column][0].as_py() for column in self.partitioning.columns)


def _values_of(file: DataFile) -> Values:
    return tuple(value for _, value in file.partition)


def consecutive(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each video of a table that is sorted by video, with its output path."""
    runs = pc.run_end_encode(table[PATH].combine_chunks())
    ends = runs.run_ends.to_pylist()
    for path, begin, end in zip(runs.values.to_pylist(), [0, *ends], ends, strict=False):
        yield path, table.slice(begin, end - begin)


class TableFiles:
    """Writes rows of one table that come in order, as files of about `TARGET_BYTES`.

    Rows of ``kept`` are merged in. Call `finish` when there are no more rows.
    """

    def __init__(self, store: Store, name: str, partitioning: Partitioning, values: Values, kept: Kept) -> None:
        self.written: list[DataFile] = []
        """The files so far."""
        self._store, self._name, self._values, self._partitioning = store, name, values, partitioning
        self._schema = file_schema(name, partitioning)
        self._kept = kept.videos()
        self._next_kept = next(self._kept, None)
        self._open: _OpenFile | None = None

    def add(self, video: VideoRows) -> None:
        """Append the rows of a video, after the kept rows that come before it."""
        self._flush_kept(video.order)
        self._write(video)

    def finish(self) -> list[DataFile]:
        """Write the rest; returns all files."""
        self._flush_kept(None)
        self._close()
        return self.written

    def discard(self) -> None:
        """Give up a file that is being written."""
        if self._open is not None:
            self._open.discard()

    def _flush_kept(self, before: Order | None) -> None:
        while self._next_kept is not None and (before is None or self._next_kept.order < before):
            self._write(self._next_kept)
            self._next_kept = next(self._kept, None)

    def _write(self, video: VideoRows) -> None:
        if not video.rows.num_rows:
            return
        if self._open is not None and self._open.is_full(video.order):
            self._close()
        if self._open is None:
            self._open = _OpenFile(self._schema)
        self._open.add(video)

    def _close(self) -> None:
        if self._open is None:
            return
        file, self._open = self._open, None
        partition = [] if self._name == VIDEOS else self._partitioning.pairs(self._values)
        folder = "" if self._name == VIDEOS else f"{self._partitioning.folder(self._values)}/"
        # a name of its own for each file: a process that was taken for dead never overwrites one that is in use
        path = f"{folder}{uuid.uuid4().hex}.parquet"
        self.written.append(file.put(self._store, f"{table_folder(self._name)}/{path}", path, partition))


class _OpenFile:
    """A file that is being written, on the local disk."""

    def __init__(self, schema: pa.Schema) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `put` or `discard`
        self._writer = TableWriter(self._file, schema, {})
        self._pieces: list[pa.Table] = []
        self._last: Order | None = None
        self._paths = _Bounds()
        self._videos = _Bounds()

    def is_full(self, upcoming: Order) -> bool:
        """Whether the file has its size, and the rows to come are of another video."""
        return self._file.tell() >= TARGET_BYTES and self._last != upcoming

    def add(self, video: VideoRows) -> None:
        """Append rows."""
        if self._last != video.order:
            self._last = video.order
            self._paths.add(video.order[1])
            self._videos.add(video.rows["video"][0].as_py())
        self._pieces.append(video.rows)
        if len(self._pieces) == PIECES:
            self._pack()

    def _pack(self) -> None:
        if self._pieces:
            self._writer.add(pa.concat_tables(self._pieces).combine_chunks())
            self._pieces = []

    def put(self, store: Store, key: str, path: str, partition: list[tuple[str, str | None]]) -> DataFile:
        """Complete the file and write it to the store."""
        with self._file:
            self._pack()
            self._writer.__exit__(None)
            rows, stored = self._writer.rows, store.put(key, self._file)
        return DataFile(
            path,
            stored.size_bytes,
            rows,
            tuple(partition),
            self._paths.least_and_most,
            self._videos.least_and_most,
            int(time.time() * 1000),
        )

    def discard(self) -> None:
        """Give the file up."""
        with self._file:
            self._writer.__exit__(KeyboardInterrupt)


class _Bounds:
    """The first and the last of some texts, in their order."""

    def __init__(self) -> None:
        self.least_and_most = ("", "")
        self._any = False

    def add(self, text: str) -> None:
        """One more text."""
        least, most = self.least_and_most if self._any else (text, text)
        self.least_and_most, self._any = (min(least, text), max(most, text)), True
