"""The command `posebatch export`: what it writes, refuses and says."""

import importlib.util
import json
import re
import shlex
import uuid
from pathlib import Path

import numpy as np
import pytest
from support.motion_factories import publish_motion
from support.s3_server import S3Server
from support.upkeep_factories import source

import posebatch
from posebatch.cli.entry import build_parser, main
from posebatch.core.records import VideoRecord
from posebatch.dataset.export.formats import FORMATS
from posebatch.dataset.publication import publish_failure
from posebatch.storage.open import open_store


def export(tmp_path: Path, *arguments: str, to: str = "to", format_name: str = "ndjson") -> int:
    common = ["--output", str(tmp_path / "out"), "--to", str(tmp_path / to), "--format", format_name]
    return main(["export", *common, *arguments])


def written(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file())


def publish_failed(root: Path, path: str) -> None:
    video = source(path)
    record = VideoRecord(path, video.etag, 10, 1.5, "failed", "f", "run-1", "0.1", error_kind="video", error="broken")
    publish_failure(open_store(str(root)), path, record)


def test_export_refuses_what_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert export(tmp_path) == 2
    assert "no video matches '*'; is it an output?" in capsys.readouterr().err
    assert written(tmp_path) == []


def test_export_of_a_video_without_tracks_writes_nothing_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    publish_motion(tmp_path / "out", "empty.mp4", tracks=0)
    assert export(tmp_path) == 0
    assert capsys.readouterr().out == (
        "note: empty.mp4: no tracks, so there is nothing to export\n0 files of 1 video\n"
    )


def test_export_names_a_damaged_record_and_writes_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish_motion(tmp_path / "out", "a.mp4")
    publish_motion(tmp_path / "out", "b.mp4")
    (tmp_path / "out/videos/a.mp4.parquet").write_bytes(b"half")
    assert export(tmp_path) == 3
    printed = capsys.readouterr().out
    assert f"note: a.mp4: {tmp_path}/out/videos/a.mp4.parquet: a commit record cannot be read" in printed
    assert printed.endswith("2 files of 2 videos; incomplete: 1 video, see the notes\n")
    assert written(tmp_path) == ["b.mp4.motion.ndjson", "b.mp4.tracks.ndjson"]


def test_export_without_motion_says_derive(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish_motion(tmp_path / "out", with_motion=False)
    assert export(tmp_path) == 2
    error = capsys.readouterr().err
    assert f"1 video without tracks and motion; compute them first: posebatch derive --output {tmp_path}" in error


def test_export_goes_on_past_videos_that_lack_motion_or_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish_motion(tmp_path / "out", "a.mp4")
    publish_motion(tmp_path / "out", "b.mp4", with_motion=False)
    publish_failed(tmp_path / "out", "c.mp4")
    assert export(tmp_path) == 3
    said = capsys.readouterr().out
    assert "note: b.mp4: no motion: `posebatch derive` computes it" in said
    assert "note: c.mp4: the video failed" in said
    assert said.endswith("2 files of 3 videos; incomplete: 1 video, see the notes\n")
    assert written(tmp_path) == ["a.mp4.motion.ndjson", "a.mp4.tracks.ndjson"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--track", "7"], "a.mp4: track 7 is not there; it has 2 tracks: 0, 1"),
        (["--track", "left"], "--track left: give the id of a track, as in --track 0, or main, or all"),
        (["--track", "-1"], "--track -1: give the id of a track"),
        (["--height-cm", "1.78"], "--height-cm 1.78: give the height of the person in centimetres, 30 to 280"),
        (["--height-cm", "tall"], "--height-cm tall: give the height"),
        (["--format", "trcc"], "--format trcc: not one of coco, dlc, sleap, trc, mot, c3d, csv, xlsx, ndjson"),
        (["--format", "trcc"], "; did you mean 'trc'?"),
        (["--match", "b*"], "no video matches 'b*'"),
        (["--raw", "--smoothed"], "not allowed with argument"),
    ],
)
def test_export_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments, message):
    publish_motion(tmp_path / "out")
    assert export(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err
    assert written(tmp_path) == []


def test_export_of_a_main_track_that_no_video_has_names_the_tracks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("posebatch.dataset.export.whole_output.chosen_tracks", lambda tracks, choice: tracks.iloc[:0])
    publish_motion(tmp_path / "out", "a.mp4")
    publish_motion(tmp_path / "out", "b.mp4")
    assert export(tmp_path, "--track", "main") == 2
    error = capsys.readouterr().err
    assert "a.mp4: a main track is not there; it has 2 tracks: 0, 1 (1 more video has none either)" in error


def test_export_in_metres_passes_over_a_track_without_a_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish_motion(tmp_path / "out", gap=slice(0, 20), time_s=np.array([0.0]))
    assert export(tmp_path, "--height-cm", "180", format_name="trc") == 0
    assert "note: a.mp4: track0.trc: no frame shows head, trunk and a leg" in capsys.readouterr().out
    assert written(tmp_path) == ["a.mp4.track1.trc"]


def test_export_names_the_libraries_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert export(tmp_path, format_name="sleap") == 2
    assert "sleap_io is not installed: pip install 'posebatch[export]'" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["out", "out/motion", "out/x/.."])
def test_export_refuses_to_write_into_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str):
    publish_motion(tmp_path / "out")
    assert export(tmp_path, to=to) == 2
    assert "it lies in the output" in capsys.readouterr().err


def test_export_takes_one_track_and_marks_an_assumed_height(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    publish_motion(tmp_path / "out", "ski/a.mp4")
    assert export(tmp_path, "--track", "1", format_name="trc") == 0
    assert written(tmp_path) == ["ski/a.mp4.track1.assumed-170cm.trc"]
    assert "height of 170 cm assumed, state it with --height-cm" in capsys.readouterr().out
    assert "assumed-170cm" in (tmp_path / "to/ski/a.mp4.track1.assumed-170cm.trc").read_text().split("\n")[0]
    assert export(tmp_path, "--track", "main", "--height-cm", "180", format_name="trc") == 0
    assert written(tmp_path)[1:] == ["ski/a.mp4.track1.assumed-170cm.trc"]
    assert written(tmp_path)[0] == "ski/a.mp4.track0.trc"


def test_export_of_python_writes_what_the_command_writes(tmp_path: Path):
    publish_motion(tmp_path / "out")
    assert export(tmp_path, "--track", "main", "--height-cm", "180", format_name="trc") == 0
    (path,) = posebatch.export(str(tmp_path / "out"), "trc", str(tmp_path / "too"), track="main", height_cm=180)
    assert Path(path).name == "a.mp4.track0.trc"
    assert Path(path).read_bytes() == (tmp_path / "to/a.mp4.track0.trc").read_bytes()


def test_export_replaces_its_own_files_only(tmp_path: Path):
    publish_motion(tmp_path / "out")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/notes.txt").write_text("mine")
    (tmp_path / "to/a.mp4.motion.ndjson").write_text("old")
    assert export(tmp_path) == 0
    assert written(tmp_path) == ["a.mp4.motion.ndjson", "a.mp4.tracks.ndjson", "notes.txt"]
    assert (tmp_path / "to/notes.txt").read_text() == "mine"
    first = json.loads((tmp_path / "to/a.mp4.motion.ndjson").read_text().splitlines()[0])
    assert (first["video"], first["left_ear_x"]) == ("a.mp4", None)
    assert first["nose_x"] == np.float32(60)


def test_export_writes_the_longest_names(tmp_path: Path):
    publish_motion(tmp_path / "out", f"{'x' * 196}.mp4", time_s=np.cumsum(np.tile([0.02, 0.05], 10)))
    assert export(tmp_path, format_name="trc") == 0
    assert len(written(tmp_path)) == 2


@pytest.mark.s3
def test_export_reads_and_writes_s3(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"b{uuid.uuid4().hex}"
    s3_server.client().create_bucket(Bucket=bucket)
    publish_motion(f"s3://{bucket}/out", "ski/a.mp4", endpoint_url=s3_server.endpoint_url)
    to, endpoint = f"s3://{bucket}/output2", ["--endpoint-url", s3_server.endpoint_url]
    assert main(["export", "--output", f"s3://{bucket}/out", "--format", "csv", "--to", to, *endpoint]) == 0
    keys = [listed.key for listed in open_store(to, s3_server.endpoint_url).list()]
    assert keys == ["ski/a.mp4.motion.csv", "ski/a.mp4.tracks.csv"]


def test_page_of_export_names_each_format_and_its_commands_parse():
    page = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(FORMATS)
    commands = re.findall(r"^posebatch (export .*)$", page, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert build_parser().parse_args(shlex.split(command)).format in FORMATS
