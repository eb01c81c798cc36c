"""The cache of weight files: each file is downloaded once, complete and checked, or not at all."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import uuid4

import pytest
from support.s3_server import S3Server
from support.weight_files import (
    PAPER,
    PAPER_FILE,
    WeightServer,
    content,
    every_file,
    hang_up,
    in_turn,
    renamed_by_hash,
    running_weight_server,
    status,
    truncated,
)

from posebatch.core.errors import WeightsError
from posebatch.models.weights import download
from posebatch.models.weights.cache import cache_folder, cached_path, fetch_object, fetch_published
from posebatch.models.weights.published import (
    PUBLISHED_POSES,
    TORCHVISION_BACKBONES,
    TORCHVISION_DETECTORS,
    PublishedFile,
)
from posebatch.storage.open import open_store
from posebatch.storage.s3 import s3_client

UNPINNED = PUBLISHED_POSES[PAPER].file
BODY = bytes(range(256)) * 20_000
PINNED = renamed_by_hash(PUBLISHED_POSES["mmpose_resnet50_256x192"].file, BODY)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightServer]:
    """A mirror from the environment, an empty cache, and retries without pauses."""
    with running_weight_server() as running:
        monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("POSEBATCH_WEIGHTS", running.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(download, "RETRIES", download.RETRIES.new(total=2, backoff_factor=0, backoff_jitter=0))
        yield running


@pytest.fixture
def prefix(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix in a bucket, and its credentials in the environment."""
    for variable, value in s3_server.environment().items():
        monkeypatch.setenv(variable, value)
    s3_client.cache_clear()
    bucket = f"weights-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=bucket)
    return f"s3://{bucket}/nets"


@pytest.mark.parametrize("body", [b"", b"x", BODY])
def test_fetch_published_downloads_once(server: WeightServer, body: bytes):
    server.files[PAPER_FILE] = body
    path = fetch_published(UNPINNED)
    assert path.read_bytes() == body
    assert fetch_published(UNPINNED) == path == cached_path(UNPINNED)
    assert server.requests == [PAPER_FILE]
    assert every_file(cache_folder()) == [f"weights/{PAPER_FILE}"]


def test_fetch_published_accepts_the_pinned_hash(server: WeightServer):
    server.files[PINNED.file_name] = BODY
    assert fetch_published(PINNED).read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "attempts", "message"),
    [
        (status(404), 1, "said 404"),
        (status(403), 1, "said 403"),
        (content(BODY + b"x"), 1, "what came has"),
        (content(b""), 1, "what came has"),
        (status(503), 3, "3 attempts: the server said 503"),
        (truncated(BODY), 3, f"3 attempts: {len(BODY) // 2} of {len(BODY)} bytes came"),
        (hang_up, 3, "3 attempts: Remote end closed connection"),
    ],
)
def test_fetch_published_leaves_no_file_after_failures(server: WeightServer, answer, attempts: int, message: str):
    server.files[PINNED.file_name] = answer
    with pytest.raises(WeightsError, match=message) as caught:
        fetch_published(PINNED)
    assert f"{server.url}/{PINNED.file_name}" in str(caught.value)
    assert len(server.requests) == attempts
    assert every_file(cache_folder()) == []


@pytest.mark.parametrize("trouble", [status(503), status(429), truncated(BODY), hang_up])
def test_fetch_published_retries_transient_errors(server: WeightServer, trouble, capfd: pytest.CaptureFixture[str]):
    server.files[PINNED.file_name] = in_turn(trouble, trouble, content(BODY))
    assert fetch_published(PINNED).read_bytes() == BODY
    assert every_file(cache_folder()) == [f"weights/{PINNED.file_name}"]
    assert "trying again" in capfd.readouterr().err


def test_fetch_published_reports_a_refused_connection(server: WeightServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSEBATCH_WEIGHTS", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"3 attempts: .*refused.*POSEBATCH_WEIGHTS"):
        fetch_published(UNPINNED)


def test_fetch_published_does_not_retry_an_invalid_address(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.setenv("POSEBATCH_WEIGHTS", "http://[mirror")
    with pytest.raises(WeightsError, match="is the address right"):
        fetch_published(UNPINNED)
    assert "trying again" not in capfd.readouterr().err


def test_fetch_published_refuses_a_damaged_cached_file(server: WeightServer):
    cached_path(PINNED).parent.mkdir(parents=True)
    cached_path(PINNED).write_bytes(BODY[:-1])
    with pytest.raises(WeightsError, match="delete it and fetch it again"):
        fetch_published(PINNED)
    assert server.requests == []


def test_fetch_published_removes_leftovers_of_killed_processes(server: WeightServer):
    cached_path(UNPINNED).parent.mkdir(parents=True)
    (cached_path(UNPINNED).parent / f".{PAPER_FILE}.abc.part").write_bytes(b"half")
    server.files[PAPER_FILE] = BODY
    fetch_published(UNPINNED)
    assert every_file(cache_folder()) == [f"weights/{PAPER_FILE}"]


def test_fetch_published_reports_an_unwritable_cache(
    server: WeightServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="POSEBATCH_CACHE can name another"):
        fetch_published(UNPINNED)


def test_fetch_published_downloads_once_for_racing_processes(server: WeightServer):
    second = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if len(server.requests) > 1:
            second.set()
        second.wait(timeout=3)  # long enough for the other processes to request the file too
        content(BODY)(handler)

    server.files[PAPER_FILE] = answer
    script = (
        "from posebatch.models.weights.cache import fetch_published\n"
        "from posebatch.models.weights.published import PUBLISHED_POSES\n"
        "print('ready', flush=True)\n"
        "input()\n"
        f"print(fetch_published(PUBLISHED_POSES[{PAPER!r}].file))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racing = [subprocess.Popen([sys.executable, "-c", script], text=True, **pipes) for _ in range(3)]
    assert [process.stdout.readline() for process in racing] == ["ready\n"] * 3
    for process in racing:
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in racing]
    assert [out.strip() for out, _ in outputs] == [str(cached_path(UNPINNED))] * 3, outputs
    assert server.requests == [PAPER_FILE]
    assert cached_path(UNPINNED).read_bytes() == BODY
    assert sum("waiting for another process" in err for _, err in outputs) == 2


def test_fetch_published_names_the_page_of_a_file_without_address(
    server: WeightServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("POSEBATCH_WEIGHTS")
    with pytest.raises(WeightsError, match=r"pose_resnet_50_256x192\.pth\.tar.*by hand.*drive\.google\.com"):
        fetch_published(UNPINNED)


def test_fetch_published_reads_a_folder_as_mirror(
    server: WeightServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    monkeypatch.setenv("POSEBATCH_WEIGHTS", f"{mirror}/")
    with pytest.raises(WeightsError, match="no such file"):
        fetch_published(PINNED)
    (mirror / PINNED.file_name).write_bytes(BODY)
    assert fetch_published(PINNED).read_bytes() == BODY


@pytest.mark.s3
def test_fetch_published_reads_a_bucket_as_mirror(server: WeightServer, prefix: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSEBATCH_WEIGHTS", prefix)
    with pytest.raises(WeightsError, match=f"{prefix}/{PINNED.file_name}: no such"):
        fetch_published(PINNED)
    open_store(prefix).put(PINNED.file_name, BODY)
    assert fetch_published(PINNED).read_bytes() == BODY


@pytest.mark.s3
def test_fetch_object_keeps_each_version_in_its_own_file(server: WeightServer, prefix: str):
    uri = f"{prefix}/mine.safetensors"
    with pytest.raises(WeightsError, match="no such"):
        fetch_object(uri)
    paths = []
    for body in (b"one", b"two"):
        open_store(prefix).put("mine.safetensors", body)
        paths += [fetch_object(uri), fetch_object(uri)]
        assert paths[-1].read_bytes() == body
        assert paths[-1].name == "mine.safetensors"
    assert len(set(paths)) == 2


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({}, "home/.cache/posebatch"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/posebatch"),
        ({"XDG_CACHE_HOME": "xdg", "POSEBATCH_CACHE": "~/mine"}, "home/mine"),
    ],
)
def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, variables, folder: str):
    monkeypatch.delenv("POSEBATCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in {"HOME": "home", **variables}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_published_files_have_unique_names_with_hashes():
    files = {item.file.file_name: item.file for item in (*PUBLISHED_POSES.values(), *TORCHVISION_DETECTORS.values())}
    files |= {file.file_name: file for file in TORCHVISION_BACKBONES.values()}
    assert len(files) == len(PUBLISHED_POSES) + len(TORCHVISION_DETECTORS) + len(TORCHVISION_BACKBONES)
    for name, file in files.items():
        if name.startswith("pose_resnet_"):
            assert (file.sha256_prefix, file.url) == ("", "")
        else:
            assert len(file.sha256_prefix) == 8
            assert file.url.endswith(f"/{name}")


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("", ""),
        ("td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth", "04af38ce"),
        ("res50_coco_256x192-ec54d7f3_20200709.pth", "ec54d7f3"),
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("pose_resnet_50_256x192.pth.tar", ""),
        ("my-training.pth", ""),
    ],
)
def test_sha256_prefix_is_read_from_the_file_name(name: str, prefix: str):
    assert PublishedFile(name, "", "").sha256_prefix == prefix
