"""Runs over archives and web addresses in this process: the rows are those of plain files; nothing is done twice."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support.archive_factories import tar_bytes, with_flag, zip_bytes
from support.fake_pool import Archive, facts
from support.web_server import Answer, running_web_server, serve_range

from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.verify import verify
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.planning.names import PassedOver


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    archive.add("a.mp4", "b.mp4")
    return archive


def videos(*named: str | Path) -> list[SourceVideo]:
    return list(list_videos(parse_inputs([str(name) for name in named]), SelectionSettings(archives=True)))


def rows(archive: Archive, prefix: str = "") -> dict[str, object]:
    """All rows below a prefix, without the name of the video."""
    found = {}
    for kind in ("poses", "frames"):
        for name in ("a.mp4", "b.mp4"):
            table = pq.ParquetFile(Path(archive.store.root, kind, prefix, f"{name}.parquet")).read()
            found[f"{kind}/{name}"] = table.drop_columns(["video"]).to_pylist()
    return found


def answer(content: bytes, asked: Mapping[str, str]) -> Answer:
    return serve_range(content, {"ETag": '"v1"'}, asked)


def test_rows_of_members_are_those_of_plain_files(archive: Archive) -> None:
    films = {name: (archive.root / name).read_bytes() for name in ("a.mp4", "b.mp4")}
    packed = {
        "stored.zip": zip_bytes(films),
        "deflated.zip": zip_bytes(films, 8),
        "gnu.tar": tar_bytes(films, tarfile.GNU_FORMAT),
    }
    for name, content in packed.items():
        (archive.root / name).write_bytes(content)
    with running_web_server(lambda _, asked: answer(packed["stored.zip"], asked)) as server:
        found = videos(archive.root, f"{server.url}/web.zip?X-Amz-Signature=5ecretSignature")
        assert facts(archive.run(videos=found)) == (10, 0, 0, 0)
        assert facts(archive.run(videos=found)) == (0, 10, 0, 0)
        expected = rows(archive)
        host = server.url.removeprefix("http://")
    assert len(expected["frames/a.mp4"]) > 5
    for prefix in ("stored.zip!", "deflated.zip!", "gnu.tar!", f"{host}/web.zip!"):
        assert rows(archive, prefix) == expected, prefix
    assert verify(archive.store, deep=True).problems == ()
    assert {video for video in archive.left_behind() if "5ecret" in video} == set()


def test_bad_archive_and_bad_member_fail_once_and_the_others_go_on(archive: Archive) -> None:
    film = (archive.root / "a.mp4").read_bytes()
    (archive.root / "bad.zip").write_bytes(zip_bytes({"a.mp4": film})[:-50])
    (archive.root / "locked.zip").write_bytes(with_flag(zip_bytes({"a.mp4": film}), 1))
    found = videos(archive.root)
    assert facts(archive.run(videos=found)) == (2, 0, 2, 0)
    assert facts(archive.run(videos=found)) == (0, 2, 0, 2)
    for path in ("bad.zip", "locked.zip!/a.mp4"):
        assert (archive.record(path).status, archive.record(path).error_kind) == ("failed", "archive")
    assert archive.tally.passed_over.by_reason() == list[tuple[PassedOver, int]]()
    (archive.root / "bad.zip").write_bytes(zip_bytes({"a.mp4": film}))
    assert facts(archive.run(videos=videos(archive.root))) == (1, 2, 0, 1)


def test_archive_that_changes_while_a_run_works_is_planned_again(archive: Archive) -> None:
    film = (archive.root / "a.mp4").read_bytes()
    packed = archive.root / "x.zip"
    packed.write_bytes(zip_bytes({"a.mp4": film}))
    found = videos(packed)
    packed.write_bytes(zip_bytes({"new.txt": b"n" * 1000, "a.mp4": film}))
    assert facts(archive.run(videos=found)) == (1, 0, 0, 0)
    assert facts(archive.run(videos=videos(packed))) == (0, 1, 0, 0)
    packed.write_bytes(zip_bytes({"new.txt": b"n"}))
    assert facts(archive.run(videos=found, on_existing="overwrite")) == (0, 0, 1, 0)
    assert archive.record("x.zip!/a.mp4").status == "ok", "a member that is gone is reported, and its record stays"


def test_address_that_cannot_be_read_fails_and_is_tried_with_the_next_list(archive: Archive) -> None:
    film, valid = (archive.root / "a.mp4").read_bytes(), ["old"]

    def serve(path: str, asked: Mapping[str, str]) -> Answer:
        return answer(film, asked) if path.endswith(valid[0]) else (403, {}, b"Request has expired")

    with running_web_server(serve) as server:
        outcome = archive.run(videos=videos(f"{server.url}/a.mp4?new"), max_attempts=1)
        assert facts(outcome) == (0, 0, 1, 0)
        assert "make a new list" in outcome.problems[0].reason
        valid[0] = "new"
        assert facts(archive.run(videos=videos(f"{server.url}/a.mp4?new"))) == (1, 0, 0, 0)


def test_cold_videos_are_counted_and_not_opened(archive: Archive) -> None:
    cold = [SourceVideo("s3://nowhere/a.mp4", "nowhere/a.mp4", "e", 1 << 30, 1.0, "GLACIER")]
    outcome = archive.run(videos=[*archive.videos(), *cold])
    assert (facts(outcome), outcome.exit_code, outcome.tally.cold.videos) == ((2, 0, 0, 0), 0, 1)
    assert "nowhere" not in "".join(stored.key for stored in archive.store.list())
