"""A folder and a bucket behave alike; a put is whole or not at all; a source is one version, read by ranges."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.exceptions
import botocore.parsers
import numpy as np
import pytest
import urllib3
from faults import s3_proxy
from faults.s3_proxy import Fault, FaultPlan, Kind, Proxy, Request, running_proxy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import frame_number, numbered_image, video_bytes
from support.s3_server import S3Server

from posebatch.core.errors import (
    AccessDeniedError,
    InputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
)
from posebatch.core.settings import SamplingSettings
from posebatch.storage import local, retry, s3, s3_errors, s3_reader
from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.local import LocalStore
from posebatch.storage.open import check_unchanged, open_source, open_store
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[str]:
    """A bucket, and an environment that leads to it."""
    name = f"storage-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for variable, value in s3_server.environment().items():
            patch.setenv(variable, value)
        s3.s3_client.cache_clear()
        yield name
    s3.s3_client.cache_clear()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(str(tmp_path / "root"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/{uuid4().hex[:8]}/root")


@pytest.fixture
def folder(bucket: str) -> S3Store:
    """An empty prefix in the bucket."""
    return S3Store(f"s3://{bucket}/{uuid4().hex[:8]}")


def keys_of(store: Store, prefix: str = "") -> list[str]:
    return [found.key for found in store.list(prefix) if not found.key.startswith(local.SCRATCH_FOLDER)]


# --- what holds for both stores --------------------------------------------------------------------------------------


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert keys_of(store) == keys_of(store, "any/") == keys_of(store, "a") == []
    store.delete("nothing")
    store.delete("nothing/below/it")
    for ask in (store.read, store.head):
        with pytest.raises(ObjectNotFoundError, match=re.escape(store.uri("nothing"))):
            ask("nothing")


CONTENTS = {"empty": b"", "a byte": b"x", "binary": bytes(range(256)) * 10}
KEYS = ["k", "a b.txt", "ünï/日本", "100%41.x", "dt=1/x=y", "_state/_x", "a+b&c?d#e", "dots/..x", "new\nline", "q'\"<>"]


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
@pytest.mark.parametrize("wrap", [bytes, io.BytesIO], ids=["bytes", "file"])
def test_what_is_put_is_read(store: Store, content: bytes, wrap: Callable[[bytes], Any]) -> None:
    given_content = wrap(content)
    if isinstance(given_content, io.BytesIO):
        given_content.seek(0, io.SEEK_END)  # where a writer leaves it
    put = store.put("a/b", given_content)
    assert (put.key, put.etag, put.size_bytes) == ("a/b", store.head("a/b").etag, len(content))
    assert store.read("a/b") == content
    assert store.head("a/b").size_bytes == len(content)


def test_any_key_can_be_used(store: Store) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    assert sorted(keys_of(store)) == sorted(KEYS)
    for key in KEYS:
        assert store.read(key) == key.encode()
        assert store.head(key).key == key
        store.delete(key)
        store.delete(key)
    assert keys_of(store) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.tuples(st.sampled_from(["a", "b/c", "b/d e"]), st.none() | st.binary(max_size=9)), max_size=6)
)
def test_a_local_store_is_a_dictionary(tmp_path: Path, actions: list[tuple[str, bytes | None]]) -> None:
    store, expected = LocalStore(tmp_path / uuid4().hex), dict[str, bytes]()
    for key, content in actions:
        if content is None:
            store.delete(key)
            expected.pop(key, None)
        else:
            store.put(key, content)
            expected[key] = content
        assert {key: store.read(key) for key in keys_of(store)} == expected


def test_a_prefix_is_the_beginning_of_a_key_not_a_folder(store: Store) -> None:
    for key in ("a", "a/1", "a/2", "ab/3", "b/4") if isinstance(store, S3Store) else ("a/1", "a/2", "ab/3", "b/4"):
        store.put(key, b"")
    assert [key for key in keys_of(store, "a") if key != "a"] == ["a/1", "a/2", "ab/3"]
    assert keys_of(store, "a/") == ["a/1", "a/2"]
    assert keys_of(store, "ab") == keys_of(store, "ab/") == ["ab/3"]
    assert keys_of(store, "b/4") == ["b/4"]
    assert keys_of(store, "c") == keys_of(store, "a/3") == []


def test_a_listing_says_what_head_says(store: Store) -> None:
    for key in ("x", "y/z"):
        store.put(key, b"12345")
    for found in store.list():
        head = store.head(found.key)
        assert (head.key, head.etag, head.size_bytes) == (found.key, found.etag, found.size_bytes)
        assert abs(head.last_modified - found.last_modified) <= 1  # the header has whole seconds
        assert '"' not in found.etag


def test_another_content_is_another_version(store: Store) -> None:
    store.put("k", b"one")
    first = store.head("k").etag
    store.put("k", b"another")
    assert store.head("k").etag != first
    assert store.read("k") == b"another"
    assert keys_of(store) == ["k"]


def test_addresses(store: Store) -> None:
    assert store.uri("") == store.root
    assert store.uri("a/b c") == f"{store.root}/a/b c"
    assert not store.root.endswith("/")
    store.put("p/q", b"1")
    assert open_store(f"{store.root}/").read("p/q") == open_store(store.uri("p")).read("q") == b"1"


class Breaks(io.BytesIO):
    """A file that can be read once."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ValueError("broken")
        return super().read(1 << 20)


def test_a_put_that_fails_leaves_the_old_object_and_nothing_else(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"old")
    monkeypatch.setattr(s3, "PART_BYTES", 1)  # so that S3 meets the failure amid an upload
    with pytest.raises((ValueError, StorageError)):
        store.put("k", Breaks(bytes(20 << 20)))
    with pytest.raises((ValueError, StorageError)):
        store.put("new", Breaks(bytes(20 << 20)))
    assert store.read("k") == b"old"
    assert [found.key for found in store.list()] == ["k"]


def test_a_reader_sees_the_old_or_the_new_object_never_a_part(store: Store) -> None:
    rounds, size = (60, 200_000) if isinstance(store, LocalStore) else (10, 200_000)
    store.put("k", b"\x00" * size)
    done, seen = threading.Event(), list[bytes]()

    def read() -> None:
        while not done.is_set():
            seen.append(store.read("k"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(rounds):
        store.put("k", bytes([number % 256]) * size)
    done.set()
    reader.join(PATIENCE_S)
    assert seen
    assert all(len(content) == size and len(set(content)) == 1 for content in seen)


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO], ids=["bytes", "file"])
def test_a_put_if_nothing_is_there(store: Store, wrap: Callable[[bytes], Any]) -> None:
    first = store.put_if("a/k", wrap(b"first"), None)
    assert store.head("a/k").etag == first.etag
    with pytest.raises(PutRefusedError, match="something else"):
        store.put_if("a/k", wrap(b"second"), None)
    assert store.read("a/k") == b"first"
    assert keys_of(store) == ["a/k"]
    store.delete("a/k")
    store.put_if("a/k", wrap(b"third"), None)


def test_a_put_if_the_same_is_there(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(PutRefusedError):
        store.put_if("k", b"first", "5-1")
    first = store.put("k", b"first")
    second = store.put_if("k", b"second", first.etag)
    assert store.head("k").etag == second.etag
    with pytest.raises(PutRefusedError):
        store.put_if("k", b"third", first.etag)
    assert store.read("k") == b"second"
    assert keys_of(store) == ["k"]


def test_of_many_who_put_if_nothing_is_there_one_does(tmp_path: Path) -> None:
    """On a disk; the server of these tests looks first and writes then, which S3 itself does in one step."""
    store = LocalStore(tmp_path)

    def put(number: int) -> bool:
        try:
            store.put_if("k", str(number).encode(), None)
        except PutRefusedError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        done = list(threads.map(put, range(8)))
    assert sum(done) == 1
    assert store.read("k") == str(done.index(True)).encode()


def test_the_age_of_an_object(store: Store) -> None:
    with pytest.raises(ObjectNotFoundError):
        store.age_s("k")
    store.put("k", b"x")
    assert -1 <= store.age_s("k") < PATIENCE_S
    if isinstance(store, LocalStore):
        os.utime(Path(store.root, "k"), ns=(0, time.time_ns() - 90 * 10**9))
        assert 89 < store.age_s("k") < 90 + PATIENCE_S


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b", ("b", "")),
        ("s3://b/", ("b", "")),
        ("s3://b/k", ("b", "k")),
        ("s3://b/a//b/", ("b", "a//b/")),
        ("s3://b/new\nline", ("b", "new\nline")),
    ],
)
def test_s3_addresses(uri: str, expected: tuple[str, str]) -> None:
    assert is_s3(uri)
    assert split_s3(uri) == expected


@pytest.mark.parametrize("uri", ["s3://", "s3:///k"])
def test_an_s3_address_needs_a_bucket(uri: str) -> None:
    with pytest.raises(InputError, match="no S3 address"):
        split_s3(uri)


def test_local_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert not is_s3("a/b")
    assert local_path("a/../b/") == str(tmp_path / "b")
    assert local_path("~/x") == "/home/somebody/x"
    with pytest.raises(InputError, match="gs:// is not supported"):
        local_path("gs://bucket/x")


# --- local only ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")
def test_a_folder_without_permission_is_denied(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("shut/k", b"x")
    (tmp_path / "shut").chmod(0)
    try:
        for act in (lambda: store.read("shut/k"), lambda: store.put("shut/k", b""), lambda: list(store.list())):
            with pytest.raises(AccessDeniedError):
                act()
    finally:
        (tmp_path / "shut").chmod(0o700)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermissionError(13, "Permission denied"), AccessDeniedError),
        (OSError(errno.EROFS, "Read-only file system"), AccessDeniedError),
        (OSError(errno.ENOSPC, "No space left on device"), StorageUnavailableError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StorageUnavailableError),
        (OSError(5, "Input/output error"), StorageUnavailableError),
    ],
)
def test_errors_of_the_disk_are_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[StorageError]
) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected, match=re.escape(store.uri("k"))) as raised:
        store.put("k", b"new")
    advice = {errno.EROFS: "read-only; mount it writable", errno.ENOSPC: "disk is full; make room"}
    assert advice.get(error.errno or 0, "") in str(raised.value)
    assert store.read("k") == b"old"
    assert [found.key for found in store.list()] == ["k"]


@pytest.mark.parametrize("number", [errno.EINTR, errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_what_a_disk_refuses_once_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    fsync, left = os.fsync, [OSError(number, os.strerror(number))]

    def once(file: int) -> None:
        if left:
            raise left.pop()
        fsync(file)

    monkeypatch.setattr(os, "fsync", once)
    store = LocalStore(tmp_path)
    store.put_if("k", io.BytesIO(b"content"), None)
    assert (store.read("k"), keys_of(store), left) == (b"content", ["k"], [])


def test_a_delete_if_the_same_is_there(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.delete("k", "any")
    first = store.put("k", b"first")
    second = store.put("k", b"another")
    with pytest.raises(PutRefusedError, match="something else"):
        store.delete("k", first.etag)
    assert store.read("k") == b"another"
    store.delete("k", second.etag)
    assert keys_of(store) == []


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    with pytest.raises(ObjectNotFoundError):
        store.read("a")
    with pytest.raises(ObjectNotFoundError):
        store.read("a/b/c")


# --- sources ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(store: Store) -> tuple[Store, bytes]:
    content = bytes(range(256)) * 20_000  # five reads ahead
    store.put("film", content)
    return store, content


def opened(store: Store, key: str = "film") -> Any:
    return open_source(store.uri(key), store.head(key).etag)


def test_a_source_reads_like_a_file(source: tuple[Store, bytes]) -> None:
    store, content = source
    with opened(store) as file:
        assert file.read(10) == content[:10]
        assert file.tell() == 10
        assert file.seek(0, io.SEEK_END) == len(content)
        assert file.read(1) == b""
        for first, length in ((0, 1), (1 << 20, 3), (len(content) - 5, 50), (4_000_000, 300_000), (7, 0)):
            assert file.seek(first) == first
            assert file.read(length) == content[first : first + length]
        file.seek(100)
        assert file.seek(-50, io.SEEK_CUR) == 50
        assert file.read(2) == content[50:52]
        assert file.seek(-3, io.SEEK_END) == len(content) - 3
        assert file.read() == content[-3:]
        file.seek(len(content) + 1000)
        assert file.read(5) == b""
        file.seek(0)
        assert file.read() == content


def test_an_empty_source_is_empty(store: Store) -> None:
    store.put("film", b"")
    with opened(store) as file:
        assert (file.seek(0, io.SEEK_END), file.read()) == (0, b"")


def test_a_source_of_another_version_is_not_opened(source: tuple[Store, bytes]) -> None:
    store, _ = source
    etag = store.head("film").etag
    store.put("film", b"other")
    with pytest.raises(ObjectChangedError, match=re.escape(store.uri("film"))):
        open_source(store.uri("film"), etag)
    store.delete("film")
    with pytest.raises(ObjectNotFoundError, match=re.escape(store.uri("film"))):
        open_source(store.uri("film"), etag)


def test_a_source_that_changes_while_it_is_read_is_noticed(source: tuple[Store, bytes]) -> None:
    store, content = source
    etag = store.head("film").etag
    with open_source(store.uri("film"), etag) as file:
        assert file.read(4) == content[:4]
        check_unchanged(store.uri("film"), etag)
        store.put("film", content[::-1])

        def read_on() -> None:
            file.seek(3_000_000)
            read = file.read(100)
            assert read == content[3_000_000:3_000_100], "bytes of another version"
            check_unchanged(store.uri("film"), etag)

        with pytest.raises(ObjectChangedError, match=re.escape(store.uri("film"))):
            read_on()


def test_a_touched_file_counts_as_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("film", b"x")
    uri, etag = store.uri("film"), store.head("film").etag
    check_unchanged(uri, etag)
    os.utime(uri, ns=(1, 1))
    with pytest.raises(ObjectChangedError):
        check_unchanged(uri, etag)
    os.remove(uri)
    with pytest.raises(ObjectNotFoundError):
        check_unchanged(uri, etag)


# --- S3 only ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, bucket: str) -> list[tuple[int, int]]:
    """The byte ranges that are asked for, as they are asked for."""
    client, ranges = s3.s3_client(None), list[tuple[int, int]]()
    get_object = client.get_object

    def noting(**request: Any) -> Any:
        first, last = request["Range"].removeprefix("bytes=").split("-")
        ranges.append((int(first), int(last) + 1))
        return get_object(**request)

    monkeypatch.setattr(client, "get_object", noting)
    return ranges


@pytest.mark.s3
def test_a_segment_reads_the_header_and_its_own_bytes(
    folder: S3Store, fetched: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 32 << 10
    monkeypatch.setattr(s3_reader, "READ_AHEAD_BYTES", ahead)
    video = video_bytes(frames=120, gop=10, faststart=True, size=(160, 128), options=(("crf", "5"),), draw=noisy)
    assert len(video) > 20 * ahead
    folder.put("film.mp4", video)
    uri, etag = folder.uri("film.mp4"), folder.head("film.mp4").etag
    with open_source(uri, etag) as file:
        plan = probe(file, uri, 0.1)
    assert len(plan.segments) == 12
    assert bytes_of(fetched) <= 5 * ahead

    for segment in (plan.segments[0], plan.segments[6], plan.segments[-1]):
        fetched.clear()
        with open_source(uri, etag) as file:
            batches = list(
                SegmentDecoder(
                    file, uri, segment, plan.info, DecodeOptions(sampling=SamplingSettings(), batch_frames=4)
                )
            )
        first = segment.first_packet
        assert [frame_number(image) for batch in batches for image in batch.images] == list(range(first, first + 10))
        assert bytes_of(fetched) <= len(video) / 12 + 5 * ahead


def noisy(number: int) -> Any:
    """A frame's number below noise, which costs bytes, as a real picture does."""
    image = numbered_image(number, (160, 128)).astype(int)
    return (image + np.random.default_rng(number).integers(-20, 20, image.shape)).astype(np.uint8)


def bytes_of(ranges: list[tuple[int, int]]) -> int:
    return sum(end - first for first, end in ranges)


@pytest.mark.s3
def test_reading_all_of_a_source_is_one_request(folder: S3Store, fetched: list[tuple[int, int]]) -> None:
    folder.put("film", bytes(3 << 20))
    with opened(folder) as file:
        assert file.read(1) == b"\0"
        assert len(file.read()) == (3 << 20) - 1
        assert file.read() == b""
    assert len(fetched) == 2


@pytest.mark.s3
@pytest.mark.parametrize("size", [0, 1, 9 << 20])
def test_large_objects_go_up_in_parts(
    folder: S3Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 8 << 20)
    content = os.urandom(1024) * (size // 1024) + bytes(size % 1024)
    assert folder.put("big", io.BytesIO(content)).size_bytes == size
    head = s3_server.client().head_object(Bucket=folder.bucket, Key=folder.prefix + "big")
    assert ("-" in head["ETag"]) == (size > 8 << 20)
    assert folder.read("big") == content
    with opened(folder, "big") as file:  # the etag of parts is one too
        assert file.read() == content
    assert keys_of(folder) == ["big"]


@pytest.mark.s3
def test_the_folders_that_consoles_make_are_no_objects(folder: S3Store, s3_server: S3Server) -> None:
    s3_server.client().put_object(Bucket=folder.bucket, Key=f"{folder.prefix}a/", Body=b"")
    folder.put("a/b", b"")
    assert keys_of(folder) == ["a/b"]


@pytest.mark.s3
def test_an_object_that_vanishes_while_it_is_read_is_told(folder: S3Store) -> None:
    folder.put("film", bytes(3 << 20))
    with opened(folder) as file:
        file.read(1)
        folder.delete("film")
        file.seek(2 << 20)
        with pytest.raises(ObjectNotFoundError, match=re.escape(folder.uri("film"))):
            file.read(1)


class BrokenBody:
    def read(self, size: int) -> bytes:
        raise botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2)

    def close(self) -> None:
        pass


@pytest.mark.s3
@pytest.mark.parametrize("breaks", [1, retry.TRIES - 1, retry.TRIES])
def test_an_answer_that_breaks_off_is_asked_for_again(
    folder: S3Store, monkeypatch: pytest.MonkeyPatch, breaks: int
) -> None:
    folder.put("film", b"0123456789")
    client = s3.s3_client(None)
    get_object, left = client.get_object, [None] * breaks

    def breaking(**request: Any) -> Any:
        answer = get_object(**request)
        if left:
            left.pop()
            answer["Body"] = BrokenBody()
        return answer

    monkeypatch.setattr(client, "get_object", breaking)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with opened(folder) as file:
        file.seek(3)
        if breaks < retry.TRIES:
            assert file.read(4) == b"3456"
        else:
            with pytest.raises(StorageUnavailableError, match=re.escape(folder.uri("film"))):
                file.read(4)
    assert not left


ACTS: dict[str, Callable[[S3Store], Any]] = {
    "list": lambda store: list(store.list("p/")),
    "read": lambda store: store.read("p/k"),
    "head": lambda store: store.head("p/k"),
    "put": lambda store: store.put("p/k", b"x"),
    "put parts": lambda store: store.put("p/k", io.BytesIO(bytes(s3.PART_BYTES + 1))),
    "delete": lambda store: store.delete("p/k"),
    "open": lambda store: open_source(store.uri("p/k"), "etag"),
}


@pytest.fixture
def elsewhere(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For tests that need a client with another environment."""
    s3.s3_client.cache_clear()
    monkeypatch.setattr("time.sleep", lambda _: None)  # retries wait seconds
    monkeypatch.setattr(s3, "PART_BYTES", 100)
    yield monkeypatch
    monkeypatch.undo()
    s3.s3_client.cache_clear()


@pytest.mark.s3
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_wrong_credentials_are_denied(
    elsewhere: pytest.MonkeyPatch, bucket: str, act: Callable[[S3Store], Any]
) -> None:
    elsewhere.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDeniedError, match=bucket) as raised:
        act(S3Store(f"s3://{bucket}"))
    assert not raised.value.retryable


@pytest.mark.s3
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_missing_credentials_are_told(
    elsewhere: pytest.MonkeyPatch, bucket: str, act: Callable[[S3Store], Any]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        elsewhere.delenv(name)
    with pytest.raises(AccessDeniedError, match="no S3 credentials"):
        act(S3Store(f"s3://{bucket}"))


@pytest.mark.s3
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_a_store_that_does_not_answer_is_unavailable(
    elsewhere: pytest.MonkeyPatch, act: Callable[[S3Store], Any]
) -> None:
    with socket.socket() as closed:  # bound, so that nobody else gets the port, but not listening
        closed.bind(("127.0.0.1", 0))
        store = S3Store("s3://bucket", f"http://127.0.0.1:{closed.getsockname()[1]}")
        elsewhere.setenv("AWS_ENDPOINT_URL", s3.s3_client(None).meta.endpoint_url)
        if act is ACTS["open"]:
            with pytest.raises(StorageUnavailableError):
                open_source(store.uri("p/k"), "etag", store.client.meta.endpoint_url)
            return
        with pytest.raises(StorageUnavailableError, match="s3://bucket") as raised:
            act(store)
    assert raised.value.retryable


@pytest.mark.s3
@pytest.mark.parametrize("act", [name for name in ACTS if name != "delete"])
def test_a_bucket_that_is_not_there_is_not_found(bucket: str, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 100)
    with pytest.raises(ObjectNotFoundError, match=f"{bucket}-none"):
        ACTS[act](S3Store(f"s3://{bucket}-none"))


@pytest.mark.s3
def test_a_profile_that_is_not_there_is_told(elsewhere: pytest.MonkeyPatch) -> None:
    elsewhere.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="nobody"):
        S3Store("s3://bucket")


ENDPOINTS = [{"AWS_ENDPOINT_URL": "http://minio.test:9000"}, {"AWS_ENDPOINT_URL_S3": "http://minio.test:9000"}]


@pytest.mark.s3
@pytest.mark.parametrize("variables", [*ENDPOINTS, {}], ids=["all services", "S3", "argument"])
def test_stores_other_than_aws_are_addressed_by_path(elsewhere: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        elsewhere.delenv(name)
    for name, value in variables.items():
        elsewhere.setenv(name, value)
    client = s3.s3_client(None if variables else "http://minio.test:9000")
    sent: list[str] = []

    def catch(request: Any, **_: Any) -> None:
        sent.append(request.url)
        raise InterruptedError

    client.meta.events.register("before-send.s3", catch)
    with pytest.raises(InterruptedError):
        client.get_object(Bucket="archive", Key="k")
    assert sent == ["http://minio.test:9000/archive/k"]


# --- what a store does wrong -----------------------------------------------------------------------------------------


@pytest.fixture
def proxy(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server behind a proxy that injects faults; waits are shorter."""
    with running_proxy(s3_server, conditional=True) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(retry, "LONGEST_PAUSE_S", 0.01)
        s3.s3_client.cache_clear()
        yield proxy
        monkeypatch.undo()
        s3.s3_client.cache_clear()


PARTS = bytes((5 << 20) + 1)

ASKED: dict[str, Callable[[S3Store], Any]] = {
    "list": lambda store: keys_of(store, "p/"),
    "read": lambda store: store.read("p/k"),
    "head": lambda store: store.head("p/k").size_bytes,
    "age": lambda store: store.age_s("p/k") < PATIENCE_S,
    "ranges": lambda store: opened(store, "p/k").read(),
    "put": lambda store: store.put("p/k", b"new").etag == store.head("p/k").etag,
    "put parts": lambda store: store.put("p/k", PARTS).etag == store.head("p/k").etag,
    "put if nothing is there": lambda store: store.put_if("p/n", b"new", None).etag == store.head("p/n").etag,
    "put parts if": lambda store: store.put_if("p/n", PARTS, None).etag == store.head("p/n").etag,
    "put if this is there": lambda store: store.put_if("p/k", b"x", store.head("p/k").etag).etag,
    "delete": lambda store: store.delete("p/k"),
    "delete if this is there": lambda store: store.delete("p/k", store.head("p/k").etag),
}
PASSING: list[Kind] = ["error_500", "slow_down", "skewed", "reset_request", "reset_answer", "truncated", "lost_answer"]


@pytest.mark.s3
@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("act", ASKED.values(), ids=ASKED)
def test_what_passes_is_not_noticed(
    proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch, act: Callable[[S3Store], Any], kind: Kind
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    outcomes = []
    for faults in ([], [Fault(kind, chance=0.6, most=4)]):
        store = S3Store(f"s3://{bucket}/{uuid4().hex[:8]}")
        for key in ("p/k", "p/l"):
            store.put(key, b"0123456789")
        proxy.plan = FaultPlan(faults, seed=2)
        answer = act(store)
        proxy.plan = FaultPlan()
        outcomes.append((answer, [(one.key, one.size_bytes, one.etag) for one in store.list()]))
    assert outcomes[0] == outcomes[1]


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["error_500", "slow_down", "skewed"])
@pytest.mark.parametrize("act", [name for name in ASKED if "if this" not in name])
def test_what_does_not_pass_is_told_after_so_many_tries(proxy: Proxy, folder: S3Store, act: str, kind: Kind) -> None:
    store = S3Store(folder.root)
    etag = store.put("p/k", b"0123456789").etag
    proxy.plan = FaultPlan([Fault(kind)])
    with pytest.raises(StorageUnavailableError, match="clock" if kind == "skewed" else re.escape(store.root)) as raised:
        open_source(store.uri("p/k"), etag) if act == "ranges" else ASKED[act](store)
    assert raised.value.retryable
    assert max(Counter(request.what for request in proxy.log if request.fault).values()) == retry.TRIES


@pytest.mark.s3
@pytest.mark.parametrize("kind", ["expired", "denied"])
@pytest.mark.parametrize("act", [name for name in ASKED if "if this" not in name])
def test_what_is_denied_is_told_at_once(proxy: Proxy, folder: S3Store, act: str, kind: Kind) -> None:
    store = S3Store(folder.root)
    etag = store.put("p/k", b"0123456789").etag
    proxy.plan = FaultPlan([Fault(kind)])
    with pytest.raises(AccessDeniedError, match="expired; renew them, and" if kind == "expired" else "access denied"):
        open_source(store.uri("p/k"), etag) if act == "ranges" else ASKED[act](store)
    assert len(proxy.requests("HEAD", key="/p/")) <= 1  # botocore asks the bucket for its region too


def test_pauses_grow_differ_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept, drawn = [0.0], list[float](), list[tuple[float, float]]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    def draw(least: float, most: float) -> float:
        drawn.append((least, most))
        return most

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(retry.random, "uniform", draw)
    tried = []

    @retry.retried
    def failed_attempts(seconds: float) -> None:
        tried.append(None)
        now[0] += seconds
        raise StorageUnavailableError("no")

    with pytest.raises(StorageUnavailableError):
        failed_attempts(0.0)
    assert slept == [min(retry.LONGEST_PAUSE_S, retry.FIRST_PAUSE_S * 2**i) for i in range(retry.TRIES - 1)]
    assert {least for least, _ in drawn} == {0}, "full jitter"
    assert len(tried) == retry.TRIES
    tried.clear()
    with pytest.raises(StorageUnavailableError):
        failed_attempts(retry.PATIENCE_S / 2)
    assert len(tried) == 2, "when the patience is used up, nothing new is begun"


@pytest.mark.s3
@pytest.mark.parametrize("content", [b"mine", PARTS], ids=["whole", "parts"])
def test_a_conditional_put_whose_answer_was_lost_is_known_again(
    proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    store, begun = S3Store(folder.root), "PUT" if len(content) < 100 else "POST"
    proxy.plan = FaultPlan([Fault("lost_answer", what=begun, skip=0 if begun == "PUT" else 1, most=1)])
    put = store.put_if("k", content, None)
    assert (proxy.injected["lost_answer"], store.head("k").etag) == (1, put.etag)
    for etag in (None, "0" * 32):
        with pytest.raises(PutRefusedError):
            store.put_if("k", content, etag)  # equal, but not ours
    assert store.read("k") == content


@pytest.mark.s3
def test_a_conditional_put_that_somebody_else_overtakes_is_refused(
    proxy: Proxy, folder: S3Store, s3_server: S3Server
) -> None:
    def overtake(request: Request) -> None:
        if request.what == "PUT":
            s3_server.client().put_object(Bucket=folder.bucket, Key=f"{folder.prefix}k", Body=b"theirs")

    proxy.before = overtake
    proxy.plan = FaultPlan([Fault("error_500", what="PUT", most=1)])
    with pytest.raises(PutRefusedError):
        folder.put_if("k", b"mine", None)
    assert folder.read("k") == b"theirs"


@pytest.mark.s3
def test_a_delete_of_what_somebody_else_replaced_is_refused(proxy: Proxy, folder: S3Store) -> None:
    store = S3Store(folder.root)
    old = store.put("k", b"old")
    new = store.put("k", b"new")
    with pytest.raises(PutRefusedError):
        store.delete("k", old.etag)
    proxy.plan = FaultPlan([Fault("lost_answer", what="DELETE", most=1)])
    store.delete("k", new.etag)
    assert keys_of(store) == []
    store.delete("k", new.etag)


@pytest.mark.s3
@pytest.mark.parametrize("most", [1, 3, None])
def test_a_page_that_is_listed_again_is_asked_for_again(
    proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    keys = [f"k{number}" for number in range(7)]
    for key in keys:
        folder.put(key, b"")
    proxy.plan = FaultPlan([Fault("repeated_page", most=most)])
    listing = S3Store(folder.root).list()
    if most is None:
        with pytest.raises(StorageUnavailableError, match="listed a key twice"):
            list(listing)
        return
    assert [found.key for found in listing] == keys
    assert proxy.injected["repeated_page"] == most


@pytest.mark.s3
def test_a_page_that_is_left_out_cannot_be_seen(proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from that is said with `S3Store.list`."""
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    for number in range(5):
        folder.put(f"k{number}", b"")
    proxy.plan = FaultPlan([Fault("missed_page", skip=1, most=1)])
    store = S3Store(folder.root)
    assert keys_of(store) == ["k0", "k1", "k4"]
    assert keys_of(store) == [f"k{number}" for number in range(5)]


@pytest.mark.s3
@pytest.mark.parametrize("token", ["same", None])
def test_a_listing_that_does_not_get_on_ends(
    proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    store = S3Store(folder.root)
    page = {"IsTruncated": True, "Contents": []} | ({"NextContinuationToken": token} if token else {})
    monkeypatch.setattr(store.client, "list_objects_v2", lambda **_: page)
    with pytest.raises(StorageUnavailableError, match="does not get on"):
        list(store.list())


@pytest.mark.s3
def test_an_answer_at_a_crawl_is_asked_for_again(
    proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(20_000)
    folder.put("k", content)
    monkeypatch.setattr(s3_proxy, "SLOW_MOST_S", PATIENCE_S)  # it would come to its end
    monkeypatch.setattr(s3, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(s3, "SLOWEST_BYTES_PER_S", 1 << 20)
    monkeypatch.setattr(s3, "BLOCK_BYTES", 1 << 10)
    store = S3Store(folder.root)  # whose client has been made with another patience
    proxy.plan = FaultPlan([Fault("slow", most=1)])
    assert store.read("k") == content
    assert len(proxy.requests("GET")) == 2


@pytest.mark.s3
def test_a_store_that_falls_silent_is_asked_again(
    proxy: Proxy, folder: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("k", b"content")
    monkeypatch.setattr(s3, "TIMEOUT_S", 1.0)
    s3.s3_client.cache_clear()
    proxy.plan = FaultPlan([Fault("stall", most=2)])
    assert S3Store(folder.root).read("k") == b"content"
    assert proxy.injected["stall"] == 2


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("SlowDown", 503, StorageUnavailableError),
        ("InternalError", 500, StorageUnavailableError),
        ("", 502, StorageUnavailableError),
        ("Throttling", 400, StorageUnavailableError),
        ("RequestTimeout", 400, StorageUnavailableError),
        ("IncompleteBody", 400, StorageUnavailableError),
        ("RequestTimeTooSkewed", 403, StorageUnavailableError),
        ("", 429, StorageUnavailableError),
        ("NoSuchKey", 404, ObjectNotFoundError),
        ("", 404, ObjectNotFoundError),
        ("AccessDenied", 403, AccessDeniedError),
        ("ExpiredToken", 400, AccessDeniedError),
        ("NoSuchUpload", 404, ObjectNotFoundError),
        ("PreconditionFailed", 412, ObjectChangedError),
        ("InvalidRequest", 400, StorageError),
    ],
)
def test_answers_of_s3_are_translated(code: str, status: int, expected: type[StorageError]) -> None:
    answer: Any = {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with pytest.raises(expected, match="s3://b/k") as raised, s3_errors.translated_s3_errors("s3://b/k"):
        raise botocore.exceptions.ClientError(answer, "GetObject")
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    "error",
    [
        urllib3.exceptions.ProtocolError("Connection broken"),
        botocore.parsers.ResponseParserError("no element found"),
        botocore.exceptions.ResponseStreamingError(error="broken"),
        botocore.exceptions.ReadTimeoutError(endpoint_url="x"),
        ConnectionResetError(104, "Connection reset by peer"),
        InterruptedError(4, "Interrupted system call"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_connections_that_break_are_translated(error: Exception) -> None:
    with pytest.raises(StorageUnavailableError, match="s3://b/k"), s3_errors.translated_s3_errors("s3://b/k"):
        raise error
