"""SQL over an output: views of its tables, on a disk and on S3."""

import shutil
import uuid
from pathlib import Path

import pandas as pd
import pytest
from support.s3_server import S3Server
from support.upkeep_factories import EARLIER_VIDEOS, publish, publish_earlier

import posebatch
from posebatch.cli import main
from posebatch.core.errors import InputError
from posebatch.run.workers.heartbeat import resident_bytes

COUNT = "SELECT count(*) FROM poses"


def test_connect_refuses_what_is_no_output(tmp_path: Path):
    with pytest.raises(InputError, match="is it an output"):
        posebatch.connect(str(tmp_path))


def test_connect_offers_each_table_with_the_rows_of_its_reader(tmp_path: Path):
    publish(tmp_path, "a.mp4"), publish(tmp_path, "dt=2026-01-01/b.mp4")
    database = posebatch.connect(str(tmp_path))
    poses = database.sql("SELECT * FROM poses ORDER BY video, frame_index, person").df()
    expected = posebatch.read_poses(str(tmp_path)).astype({"video": object})
    expected = expected.sort_values(["video", "frame_index", "person"], ignore_index=True)
    pd.testing.assert_frame_equal(poses.astype({"video": object}), expected, check_dtype=False)
    assert database.sql("SELECT DISTINCT status FROM frames").fetchall() == [("ok",)]
    assert database.sql("SELECT count(*) FROM videos").fetchall() == [(2,)]


def test_connect_reads_records_of_all_versions(tmp_path: Path):
    publish(tmp_path, "new.mp4")
    for number, columns in enumerate(EARLIER_VIDEOS.values()):
        publish_earlier(tmp_path, f"{number}.mp4", columns)
    rows = posebatch.connect(str(tmp_path)).sql("SELECT status, coded_width FROM videos").fetchall()
    assert len(rows) == 1 + len(EARLIER_VIDEOS)
    assert {status for status, _ in rows} == {"ok"}


@pytest.mark.s3
def test_connect_reads_an_output_on_s3(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    s3_server.client().create_bucket(Bucket=bucket)
    root = f"s3://{bucket}/out"
    publish(root, "a.mp4", endpoint_url=s3_server.endpoint_url)
    publish(tmp_path, "a.mp4")
    on_s3, on_disk = posebatch.connect(root, s3_server.endpoint_url), posebatch.connect(str(tmp_path))
    assert on_s3.sql(COUNT).fetchall() == on_disk.sql(COUNT).fetchall() != [(0,)]


def test_connect_keeps_no_footers_of_small_files(tmp_path: Path):
    """Arrow would keep the footer of each file that it has read: 300 kB for a file of poses."""
    publish(tmp_path, "0.mp4")
    (file,) = (tmp_path / "poses").iterdir()
    for number in range(1, 400):
        shutil.copy(file, file.with_name(f"{number}.mp4.parquet"))
    database = posebatch.connect(str(tmp_path))
    before = resident_bytes()
    assert database.sql("SELECT min(left_knee_score) FROM poses").fetchall() != [(None,)]
    assert resident_bytes() - before < 60e6


def test_query_prints_or_writes_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish(tmp_path / "out", "a.mp4")
    query = ["query", "SELECT video, status FROM videos", "--output", str(tmp_path / "out")]
    assert main(query) == 0
    assert "a.mp4" in capsys.readouterr().out
    for name, read in (("rows.csv", pd.read_csv), ("rows.parquet", pd.read_parquet)):
        assert main([*query, "--to", str(tmp_path / name)]) == 0
        assert read(tmp_path / name).status.tolist() == ["ok"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT nope FROM videos"], "nope"),
        (["SELEC 1"], "syntax error"),
        (["SELECT 1", "--to", "rows.doc"], r"must end in \.csv or \.parquet"),
    ],
)
def test_query_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments, message):
    publish(tmp_path, "a.mp4")
    assert main(["query", *arguments, "--output", str(tmp_path)]) == 2
    assert message.replace("\\", "") in capsys.readouterr().err
