"""Check the compacted tables of an output against its commit records and, if deep, against the small files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from posebatch.core.errors import PosebatchError, StorageError
from posebatch.core.records import VideoRecord
from posebatch.dataset.compaction.columns import PLAIN_SCHEMAS, in_form
from posebatch.dataset.compaction.delta import DataFile
from posebatch.dataset.compaction.files import consecutive
from posebatch.dataset.compaction.names import ALL_TABLES, DATA_TABLES, PATH, RECORD, VIDEOS, table_folder
from posebatch.dataset.compaction.snapshot import Snapshot
from posebatch.dataset.tables.parquet import open_parquet
from posebatch.storage.store import Store

COMPARE_THREADS: Final = 8


VIDEOS_AHEAD: Final = 32
"""Videos that are compared at once."""


@dataclass(frozen=True)
class RecordFacts:
    """What `check_compaction` needs of a commit record."""

    etag: str
    """The ETag of its object."""
    rows: tuple[int, ...]
    """Rows of each of `DATA_TABLES`."""


@dataclass(frozen=True)
class CompactionVerdict:
    """The result for the compacted tables."""

    videos: int
    """Videos that they hold."""
    behind: int
    """Videos that were published, replaced or removed since: readers read their small files."""
    problems: tuple[str, ...]


def facts_of(etag: str, record: VideoRecord) -> RecordFacts:
    """The facts of a commit record."""
    rows = {published.kind: published.rows for published in record.objects}
    return RecordFacts(etag, tuple(rows.get(name, 0) for name in DATA_TABLES))


def check_compaction(
    store: Store, snapshot: Snapshot, records: Mapping[str, RecordFacts], deep: bool
) -> CompactionVerdict:
    """Check that no video is twice or missing, that each has the rows of its record, and that no other rows are there.

    ``records`` are the facts of all readable commit records by output path. With ``deep`` all values must be those of
    the small files, of the videos that have not changed since.
    """
    try:
        held, problems = _read_held(snapshot)
        current = {path for path, facts in held.items() if path in records and records[path].etag == facts.etag}
        behind = len(held.keys() - current) + len(records.keys() - current)
        for number, name in enumerate(DATA_TABLES):
            expected = {
                path: (records[path] if path in current else facts).rows[number] for path, facts in held.items()
            }
            problems += _check_counts(snapshot, name, expected)
        if deep and not problems:
            for name in ALL_TABLES:
                problems += _check_values(store, snapshot, name, current)
    except PosebatchError as error:
        return CompactionVerdict(0, 0, (str(error),))
    return CompactionVerdict(len(held), behind, tuple(problems))


def _read_held(snapshot: Snapshot) -> tuple[dict[str, RecordFacts], list[str]]:
    """The videos of the table ``videos``, with the facts of their rows; and the paths that are there twice."""
    objects = PLAIN_SCHEMAS[VIDEOS].field("objects")
    schema = pa.schema([pa.field(PATH, pa.string()), pa.field(RECORD, pa.string()), objects])
    held: dict[str, RecordFacts] = {}
    problems = []
    for batch in snapshot.dataset(VIDEOS, schema, snapshot.files(VIDEOS)).to_batches():
        for row in batch.to_pylist():
            if row[PATH] in held:
                problems.append(f"{table_folder(VIDEOS)}: {row[PATH]} is there twice")
            rows = {published["kind"]: published["rows"] for published in row["objects"]}
            held[row[PATH]] = RecordFacts(row[RECORD], tuple(rows.get(name, 0) for name in DATA_TABLES))
    return held, problems


def _check_counts(snapshot: Snapshot, name: str, expected: Mapping[str, int]) -> Iterator[str]:
    """Problems of the number of rows of each video, and of the statistics by which readers pass over files."""
    counted = Counter[str]()
    folder = table_folder(name)
    for file in snapshot.files(name):
        try:
            yield from _count(snapshot, name, file, counted)
        except (pa.ArrowException, OSError) as error:
            yield f"{folder}/{file.path}: not a readable file: {' '.join(str(error).split())}"
            return
    for path, rows in expected.items():
        if counted[path] != rows:
            yield f"{folder}: {counted[path]} rows of {path}, its record says {rows}"
    for path in counted.keys() - expected.keys():
        yield f"{folder}: {counted[path]} rows of {path}, which {table_folder(VIDEOS)} does not have"


def _count(snapshot: Snapshot, name: str, file: DataFile, counted: Counter[str]) -> Iterator[str]:
    opened, rows = snapshot.open_file(name, file), 0
    seen: set[str] = set()
    last = ""
    for group in range(opened.num_row_groups):
        table = opened.read_row_group(group, columns=[PATH, "video"])
        rows += table.num_rows
        for count in pc.value_counts(table[PATH]).to_pylist():
            counted[count["values"]] += count["counts"]
        for path, _ in consecutive(table):
            if path in seen and path != last:
                yield f"{table_folder(name)}/{file.path}: the rows of {path} are not side by side"
            seen.add(path)
            last = path
        for column, bounds in ((PATH, file.paths), ("video", file.videos)):
            least, most = pc.min_max(table[column]).as_py().values()
            if least < bounds[0] or most > bounds[1]:
                yield f"{table_folder(name)}/{file.path}: holds rows outside of its statistics of {column}"
    if rows != file.rows:
        yield f"{table_folder(name)}/{file.path}: {rows} rows, its transaction says {file.rows}"


def _check_values(store: Store, snapshot: Snapshot, name: str, current: set[str]) -> Iterator[str]:
    """Problems of the values of all columns of the published table."""
    with ThreadPoolExecutor(COMPARE_THREADS) as threads:
        for file in snapshot.files(name):
            videos = (video for video in _whole_videos(snapshot, name, file) if video[0] in current)
            while chunk := list(islice(videos, VIDEOS_AHEAD)):
                differing = threads.map(lambda video: _differing(store, name, *video), chunk)
                for (path, _), columns in zip(chunk, differing, strict=True):
                    if columns:
                        yield f"{table_folder(name)}: {path} differs from {name}/ in {', '.join(columns)}"


def _whole_videos(snapshot: Snapshot, name: str, file: DataFile) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each video of a file."""
    opened = snapshot.open_file(name, file)
    path, pieces = "", list[pa.Table]()
    for group in range(opened.num_row_groups):
        for following, rows in consecutive(opened.read_row_group(group)):
            if following != path and pieces:
                yield path, pa.concat_tables(pieces)
                pieces = []
            path = following
            pieces.append(rows)
    if pieces:
        yield path, pa.concat_tables(pieces)


def _differing(store: Store, name: str, path: str, rows: pa.Table) -> Sequence[str]:
    """The columns in which the rows of a video differ from its small file."""
    try:
        small = open_parquet(store.read(f"{name}/{path}.parquet")).read(use_threads=False)
    except (pa.ArrowException, OSError, StorageError) as error:
        return [f"everything: {error}"]
    schema = PLAIN_SCHEMAS[name]
    expected, found = in_form(small, schema, {}), in_form(rows, schema, {})
    if expected.num_rows != found.num_rows:
        return ["the number of rows"]
    return [column for column in schema.names if not _bits(expected[column]).equals(_bits(found[column]))]


def _bits(values: pa.ChunkedArray) -> pa.Array:
    """Values whose equality is that of their bits: NaN equals itself."""
    joined = values.combine_chunks()
    bits = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}.get(joined.type)
    return joined if bits is None else joined.view(bits)
