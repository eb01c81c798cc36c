"""`verify` finds tracks and motion that do not count, or do not join to poses."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.upkeep_factories import publish

from posebatch.dataset.layout import record_key
from posebatch.dataset.publication import read_record
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.dataset.verify import verify
from posebatch.storage.local import LocalStore

NAME = "a.mp4"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A dataset of one video of four frames with two persons, who are one track each."""
    publish(tmp_path, NAME)
    store = LocalStore(tmp_path)
    assert verify(store, deep=True).problems == ()
    return store


def rewrite(store: LocalStore, kind: str, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a table, and make the record state its size, rows and checksum."""
    key = f"{kind}/{NAME}.parquet"
    table, sink = pq.read_table(io.BytesIO(store.read(key))), io.BytesIO()
    table = change(table)
    pq.write_table(table, sink, compression="zstd")
    store.put(key, sink.getvalue())
    record = read_record(store, NAME)
    assert record is not None
    sha256 = hashlib.sha256(sink.getvalue()).hexdigest()
    objects = tuple(
        replace(each, rows=table.num_rows, size_bytes=len(sink.getvalue()), sha256=sha256)
        if each.kind == kind
        else each
        for each in record.objects
    )
    tracks = table.num_rows if kind == "tracks" else record.tracks
    store.put(record_key(NAME), record_to_bytes(replace(record, objects=objects, tracks=tracks)))


def with_column(name: str, change: Callable[[pa.ChunkedArray], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = change(table[name])
        return table.set_column(place, table.schema.field(place), values.cast(table.schema.field(place).type))

    return changed


def plus(value: float) -> Callable[[pa.ChunkedArray], pa.Array]:
    return lambda column: pc.add(column, value)


def nulled(column: pa.ChunkedArray) -> pa.Array:
    return pa.nulls(len(column), column.type)


def infinite(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([float("inf")] * len(column), pa.float32())


WRONG = [
    pytest.param("poses", with_column("track_id", nulled), "motion", "not those of the poses table", id="no ids"),
    pytest.param("tracks", with_column("track_id", plus(1)), "tracks", "does not count 0, 1, 2", id="track ids"),
    pytest.param("tracks", lambda table: table.slice(0, 0), "motion", "one row in each", id="no tracks"),
    pytest.param("tracks", with_column("last_frame", plus(-1)), "motion", "one row in each", id="shorter tracks"),
    pytest.param("tracks", with_column("frames_seen", plus(1)), "motion", "not those that it counts", id="seen"),
    pytest.param("tracks", with_column("frames_gap", plus(1)), "motion", "not those that it counts", id="gaps"),
    pytest.param("tracks", with_column("first_frame", nulled), "tracks", "first_frame is null", id="null"),
    pytest.param("motion", lambda table: table.slice(1), "motion", "one row in each", id="a row less"),
    pytest.param("motion", lambda table: table.take([1, 0, *range(2, len(table))]), "motion", "ordered", id="order"),
    pytest.param(
        "motion", lambda table: table.take([0, 0, *range(2, len(table))]), "motion", "duplicated", id="a row twice"
    ),
    pytest.param("motion", with_column("person", nulled), "motion", "not those of the poses table", id="all gaps"),
    pytest.param("motion", lambda table: table.drop_columns("hip_x"), "motion", "its columns are not", id="columns"),
]


@pytest.mark.parametrize(("kind", "change", "named", "problem"), WRONG)
def test_verify_finds_tables_that_do_not_agree(
    store: LocalStore, kind: str, change: Callable[[pa.Table], pa.Table], named: str, problem: str
) -> None:
    rewrite(store, kind, change)
    (found,) = verify(store).problems
    assert found.startswith(f"{named}/{NAME}.parquet: ")
    assert problem in found


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        ("motion", with_column("hip_x", infinite), "hip_x is infinite"),
        (
            "motion",
            with_column("left_knee_deg", lambda column: pa.array([1e3] * len(column))),
            "left_knee_deg is outside",
        ),
        ("motion", with_column("time_s", plus(1)), "time_s is not pts"),
        ("tracks", with_column("nose_seen", plus(2)), "nose_seen is outside 0 to 1"),
        ("tracks", with_column("grade", lambda column: pa.array(["E"] * len(column))), "grade is none of"),
    ],
)
def test_verify_deep_finds_impossible_values(
    store: LocalStore, kind: str, change: Callable[[pa.Table], pa.Table], problem: str
) -> None:
    rewrite(store, kind, change)
    assert verify(store).problems == ()
    assert any(problem in found for found in verify(store, deep=True).problems)


def test_verify_finds_a_record_of_half_the_tables(store: LocalStore) -> None:
    record = read_record(store, NAME)
    assert record is not None
    objects = tuple(each for each in record.objects if each.kind != "motion")
    store.put(record_key(NAME), record_to_bytes(replace(record, objects=objects)))
    assert any("only some of tracks, motion" in found for found in verify(store).problems)
