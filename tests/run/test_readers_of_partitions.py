"""What the page on tables says about readers and the folders of an archive holds for each of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset
import pyarrow.parquet
import pytest
from support.fake_pool import Archive

from posebatch.dataset.tables.schemas import FRAMES_SCHEMA, POSES_SCHEMA, VIDEOS_SCHEMA

PAGE = Path(__file__).resolve().parents[2] / "docs/tables.md"
SCHEMAS = {"poses": POSES_SCHEMA, "frames": FRAMES_SCHEMA, "videos": VIDEOS_SCHEMA}
FRAMES = 6

FAILS = "an error"

KINDS: dict[str, tuple[list[str], dict[str, list[str] | str]]] = {
    # paths; partition columns of pandas and pyarrow.parquet, of DuckDB, of polars on a folder
    "none": (["a.mp4", "x/b.mp4"], {"pandas": [], "duckdb": [], "polars": []}),
    "uniform": (["dt=1/a.mp4", "dt=2/x/b.mp4"], {"pandas": ["dt"], "duckdb": ["dt"], "polars": ["dt"]}),
    "deeper": (["dt=1/a.mp4", "dt=1/cam=2/b.mp4"], {"pandas": ["dt", "cam"], "duckdb": [], "polars": FAILS}),
    "with and without": (["a.mp4", "dt=1/b.mp4"], {"pandas": ["dt"], "duckdb": [], "polars": []}),
    "other keys": (["day=2/b.mp4", "dt=1/a.mp4"], {"pandas": ["day", "dt"], "duckdb": [], "polars": FAILS}),
    "case of keys": (["DT=2/b.mp4", "dt=1/a.mp4"], {"pandas": ["DT", "dt"], "duckdb": [], "polars": FAILS}),
    "twice": (["dt=1/dt=2/a.mp4", "dt=3/dt=4/b.mp4"], {"pandas": ["dt"], "duckdb": ["dt"], "polars": FAILS}),
    "case of values": (["cam=A/a.mp4", "cam=a/b.mp4"], {"pandas": ["cam"], "duckdb": ["cam"], "polars": ["cam"]}),
}


@pytest.fixture(params=KINDS)
def published(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kind of archive, whose dataset is the folder ``out`` of the working directory."""
    archive = Archive(tmp_path)
    archive.add(*KINDS[request.param][0])
    assert archive.run().exit_code == 0
    monkeypatch.chdir(tmp_path)
    return request.param


def example(containing: str) -> str:
    (found,) = [one for one in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if containing in one]
    return found


def columns(table: Any) -> list[str]:
    return list(table.column_names if isinstance(table, pyarrow.Table) else table.columns)


@pytest.mark.parametrize("name", SCHEMAS)
def test_documented_calls_read_every_archive(published: str, name: str) -> None:
    found: dict[str, Any] = {"pd": pd}
    exec(example("by_polars").replace("out/poses/", f"out/{name}/"), found)
    videos = set()
    for reader in ("by_pandas", "by_pyarrow", "by_duckdb", "by_polars"):
        table = found[reader]
        assert columns(table) == SCHEMAS[name].names, reader
        listed = [str(video) for video in (table.df() if reader == "by_duckdb" else table)["video"].__iter__()]
        assert len(listed) == (2 if name == "videos" else 2 * FRAMES), reader
        videos.add(frozenset(listed))
    assert len(videos) == 1
    assert {Path(video).name for video in videos.pop()} == {"a.mp4", "b.mp4"}


def test_value_of_a_partition_is_found_in_the_column_video(published: str) -> None:
    found: dict[str, Any] = {"by_pandas": pd.read_parquet("out/poses/", partitioning=None)}
    exec(example('str.extract(r"/dt='), found)
    values = {"uniform": {"1", "2"}, "deeper": {"1"}, "with and without": {None, "1"}, "other keys": {None, "1"}}
    if published in values:
        assert {None if pd.isna(value) else value for value in found["dt"]} == values[published]


def test_readers_without_options_do_as_documented(published: str) -> None:
    added = KINDS[published][1]
    for table in (pd.read_parquet("out/poses/"), pyarrow.parquet.read_table("out/poses/")):
        assert columns(table) == [*POSES_SCHEMA.names, *added["pandas"]]
        assert len(table) == 2 * FRAMES
    assert columns(pyarrow.dataset.dataset("out/poses/").to_table()) == POSES_SCHEMA.names
    assert columns(duckdb.sql("FROM 'out/poses/**/*.parquet'")) == [*POSES_SCHEMA.names, *added["duckdb"]]
    assert columns(pl.read_parquet("out/poses/**/*.parquet")) == POSES_SCHEMA.names
    if added["polars"] == FAILS:
        with pytest.raises((pl.exceptions.SchemaFieldNotFoundError, pl.exceptions.ShapeError)):
            pl.read_parquet("out/poses/")
    else:
        assert columns(pl.read_parquet("out/poses/")) == [*POSES_SCHEMA.names, *added["polars"]]
