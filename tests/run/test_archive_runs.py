"""A run over archives and presigned addresses gives the rows of a run over plain files; real Ray, S3, codecs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
import pytest
from support.archive_factories import tar_bytes, zip_bytes
from support.factories import video_bytes
from support.leaks import assert_no_secrets, everything_in
from support.ray_head import RayHead
from support.s3_server import S3Server
from support.web_server import Answer, WebServer, running_web_server, serve_range

from posebatch import read_videos
from posebatch.dataset.verify import verify
from posebatch.demo.sample import render_sample
from posebatch.storage.open import open_store

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.slow]

SIGNATURE = "5ignatureThatMustNotShowUpAnywhere"
FILLER = bytes(32 << 20)
"""A file between the videos of an archive. A run that unpacks the archive reads it."""


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    """Two videos by their paths."""
    people = [image for image, _ in islice(render_sample(), 70, 82)]
    height, width = people[0].shape[:2]
    walk = video_bytes(frames=len(people), gop=6, size=(width, height), draw=people.__getitem__)
    return {"cam1/walk.mp4": walk, "cam 2/numbers.mkv": video_bytes(frames=12, container="mkv")}


@pytest.fixture(scope="module")
def web(films: Mapping[str, bytes]) -> Iterator[WebServer]:
    """A web server with an archive, behind a signature."""
    archive = zip_bytes({**dict([next(iter(films.items()))]), "raw.bin": FILLER, **films})

    def answer(path: str, asked: Mapping[str, str]) -> Answer:
        name, _, query = path.partition("?")
        if query != f"X-Amz-Signature={SIGNATURE}":
            return 403, {}, b""
        return serve_range(archive, {"ETag": '"v1"'}, asked) if name == "/day.zip" else (404, {}, b"")

    with running_web_server(answer) as server:
        yield server


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server, films: Mapping[str, bytes]) -> str:
    """A bucket with the videos, plain and packed."""
    client, name = s3_server.client(), f"packed-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=name)
    packed = {
        "packed/day.zip": zip_bytes({"raw.bin": FILLER[:1000], **films}),
        "packed/deflated.zip": zip_bytes(films, 8),
        "packed/day.tar": tar_bytes({"notes.txt": b"n", **films}),
        "packed/bad.zip": zip_bytes(films)[:-60],
        "packed/day.tar.gz": tar_bytes(films, mode="w:gz"),
    }
    for key, content in {**{f"plain/{path}": film for path, film in films.items()}, **packed}.items():
        client.put_object(Bucket=name, Key=key, Body=content)
    return name


def command(head: RayHead, server: S3Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "posebatch", *arguments],
        env={**os.environ, **head.environment(), **server.environment()},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def rows(output: Path, prefix: str) -> dict[str, object]:
    """All tables and previews below a prefix, without the name of the video, by kind and path."""
    found: dict[str, object] = {}
    for kind in ("poses", "frames", "tracks", "motion"):
        for path in sorted((output / kind / prefix).rglob("*.parquet")):
            columns = pq.ParquetFile(path).read()
            found[f"{kind}/{path.relative_to(output / kind / prefix)}"] = columns.drop_columns(["video"]).to_pydict()
    for path in sorted((output / "previews" / prefix).rglob("*.gif")):
        found[f"previews/{path.relative_to(output / 'previews' / prefix)}"] = path.read_bytes()
    return {kind: str(content) for kind, content in found.items()}


def test_run_over_archives_and_addresses_gives_the_rows_of_the_plain_files(
    ray_head: RayHead, s3_server: S3Server, web: WebServer, bucket: str, films: Mapping[str, bytes], tmp_path: Path
) -> None:
    client = s3_server.client()
    common = ("--workers", "1", "--preview", "gif", "--segment-seconds", "0.2")
    plain, packed = str(tmp_path / "plain"), str(tmp_path / "packed")
    first = command(ray_head, s3_server, "run", f"s3://{bucket}/plain/", "--output", plain, *common)
    assert first.returncode == 0, first.stdout + first.stderr

    signed = [
        client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": f"plain/{path}"}, ExpiresIn=3600)
        for path in films
    ]
    listed = tmp_path / "addresses.txt"
    listed.write_text("\n".join([*signed, f"{web.url}/day.zip?X-Amz-Signature={SIGNATURE}"]))
    inputs = (f"s3://{bucket}/packed/", "--archives", "--inputs-from", str(listed), "--output", packed)
    second = command(ray_head, s3_server, "run", *inputs, *common)
    said = second.stdout + second.stderr
    assert second.returncode == 3, said

    expected = rows(tmp_path / "plain", f"{bucket}/plain")
    assert len([name for name in expected if name.startswith("poses/")]) == len(films)
    host, store = web.url.removeprefix("http://"), s3_server.endpoint_url.removeprefix("http://")
    archives = [f"{bucket}/packed/{name}!" for name in ("day.zip", "deflated.zip", "day.tar")]
    for prefix in (*archives, f"{host}/day.zip!", f"{store}/{bucket}/plain"):
        assert rows(tmp_path / "packed", prefix) == expected, prefix

    videos = read_videos(packed)
    failed = videos[videos["status"] == "failed"]
    assert dict(zip(failed["video"], failed["error_kind"], strict=True)) == {
        f"s3://{bucket}/packed/bad.zip": "archive",
        f"s3://{bucket}/packed/day.tar.gz": "archive",
    }
    assert all(f"packed/{name}" in said for name in ("bad.zip", "day.tar.gz"))
    assert verify(open_store(packed), deep=True).problems == ()

    again = command(ray_head, s3_server, "plan", *inputs, "--preview", "gif")
    assert "10 done, 2 quarantined" in again.stdout, again.stdout + again.stderr
    assert "nothing to compute" in again.stdout

    read = [headers["Range"].removeprefix("bytes=").split("-") for _, _, headers in web.requests]
    assert sum(int(last) - int(first) + 1 for first, last in read) < len(FILLER) / 2

    secrets = [SIGNATURE, *(address.rpartition("Signature=")[2] for address in signed)]
    assert_no_secrets({"messages": said + again.stdout + again.stderr, **everything_in(tmp_path / "packed")}, secrets)
    assert_no_secrets(everything_in(ray_head.folder), secrets)
