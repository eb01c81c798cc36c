"""The contract of `Store`: a folder, a bucket and the fake in memory behave alike, and a put is whole or nothing."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.memory_store import MemoryStore
from support.stores import keys_of

from posebatch.core.errors import ObjectNotFoundError, PutRefusedError, StorageError, StorageUnavailableError
from posebatch.storage import s3
from posebatch.storage.local import LocalStore
from posebatch.storage.open import open_store
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import FETCH_ATTEMPTS, Store

PATIENCE_S = 30.0
KEYS = ["k", "a b.txt", "ünï/日本", "100%41.x", "dt=1/x=y", "_state/_x", "a+b&c?d#e", "dots/..x", "new\nline", "q'\"<>"]


def test_store_without_objects_lists_and_finds_nothing(any_store: Store) -> None:
    assert keys_of(any_store) == keys_of(any_store, "any/") == keys_of(any_store, "a") == []
    any_store.delete("nothing")
    any_store.delete("nothing/below/it")
    for request in (any_store.read, any_store.head, any_store.fetch, any_store.age_s):
        with pytest.raises(ObjectNotFoundError, match=re.escape(any_store.uri("nothing"))):
            request("nothing")


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO], ids=["bytes", "file"])
def test_store_reads_what_was_put(any_store: Store, wrap: Callable[[bytes], Any]) -> None:
    for content in (b"", b"x", bytes(range(256)) * 10):
        given_content = wrap(content)
        if isinstance(given_content, io.BytesIO):
            given_content.seek(0, io.SEEK_END)  # where a writer leaves it
        put = any_store.put("a/b", given_content)
        assert (put.key, put.etag, put.size_bytes) == ("a/b", any_store.head("a/b").etag, len(content))
        assert any_store.fetch("a/b") == (content, put.etag)
        assert any_store.head("a/b").size_bytes == len(content)


def test_store_accepts_any_key(any_store: Store) -> None:
    for key in KEYS:
        any_store.put(key, key.encode())
    assert sorted(keys_of(any_store)) == sorted(KEYS)
    for key in KEYS:
        assert any_store.read(key) == key.encode()
        assert any_store.head(key).key == key
        any_store.delete(key)
        any_store.delete(key)
    assert keys_of(any_store) == []


def test_store_list_takes_the_prefix_of_a_key_not_a_folder(any_store: Store) -> None:
    keys = ["a/1", "a/2", "ab/3", "b/4"]
    for key in keys if isinstance(any_store, LocalStore) else ["a", *keys]:
        any_store.put(key, b"")
    assert [key for key in keys_of(any_store, "a") if key != "a"] == ["a/1", "a/2", "ab/3"]
    assert keys_of(any_store, "a/") == ["a/1", "a/2"]
    assert keys_of(any_store, "ab") == keys_of(any_store, "ab/") == ["ab/3"]
    assert keys_of(any_store, "b/4") == ["b/4"]
    assert keys_of(any_store, "c") == keys_of(any_store, "a/3") == []


def test_store_list_agrees_with_head(any_store: Store) -> None:
    for key in ("x", "y/z"):
        any_store.put(key, b"12345")
    for stored in any_store.list():
        head = any_store.head(stored.key)
        assert (head.key, head.etag, head.size_bytes) == (stored.key, stored.etag, stored.size_bytes)
        assert abs(head.last_modified - stored.last_modified) <= 1  # the header of S3 has whole seconds
        assert '"' not in stored.etag


def test_store_put_replaces_the_object_and_its_etag(any_store: Store) -> None:
    any_store.put("k", b"one")
    first = any_store.head("k").etag
    any_store.put("k", b"another")
    assert any_store.head("k").etag != first
    assert any_store.read("k") == b"another"
    assert keys_of(any_store) == ["k"]


@pytest.mark.parametrize("wrap", [bytes, io.BytesIO], ids=["bytes", "file"])
def test_store_put_if_absent_refuses_an_existing_object(any_store: Store, wrap: Callable[[bytes], Any]) -> None:
    first = any_store.put_if("a/k", wrap(b"first"), None)
    assert any_store.head("a/k").etag == first.etag
    with pytest.raises(PutRefusedError, match="something else"):
        any_store.put_if("a/k", wrap(b"second"), None)
    assert any_store.read("a/k") == b"first"
    assert keys_of(any_store) == ["a/k"]
    any_store.delete("a/k")
    any_store.put_if("a/k", wrap(b"third"), None)


def memory_or_local(kind: str, tmp_path: Path) -> Store:
    return MemoryStore() if kind == "memory" else LocalStore(tmp_path)


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_store_put_if_and_delete_refuse_another_version(kind: str, tmp_path: Path) -> None:
    """On S3 see `test_s3_faults`: the server of these tests needs the proxy for conditions on writes."""
    store = memory_or_local(kind, tmp_path)
    with pytest.raises(PutRefusedError):
        store.put_if("k", b"first", "5-1")
    store.delete("k", "5-1")
    first = store.put("k", b"first")
    second = store.put_if("k", b"the second", first.etag)
    assert store.head("k").etag == second.etag
    with pytest.raises(PutRefusedError):
        store.put_if("k", b"third", first.etag)
    with pytest.raises(PutRefusedError, match="something else"):
        store.delete("k", first.etag)
    assert (store.read("k"), keys_of(store)) == (b"the second", ["k"])
    store.delete("k", second.etag)
    assert keys_of(store) == []


@pytest.mark.parametrize("kind", ["memory", "local"])
@pytest.mark.parametrize("changes", [FETCH_ATTEMPTS - 1, FETCH_ATTEMPTS])
def test_store_fetch_gives_up_on_an_object_that_changes_all_the_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    store = memory_or_local(kind, tmp_path)
    put, read, contents = store.put, store.read, [b"x" * size for size in range(1, changes + 1)]
    put("k", b"")

    def read_and_change(key: str) -> bytes:
        content = read(key)
        if contents:
            put(key, contents.pop())
        return content

    monkeypatch.setattr(store, "read", read_and_change)
    if changes < FETCH_ATTEMPTS:
        assert Store.fetch(store, "k") == (b"x", store.head("k").etag)
    else:
        with pytest.raises(StorageUnavailableError, match=re.escape(f"{store.uri('k')}: it changed")):
            Store.fetch(store, "k")


def test_store_uri_is_an_address_to_open_it_by(store: Store) -> None:
    assert store.uri("") == store.root
    assert store.uri("a/b c") == f"{store.root}/a/b c"
    assert not store.root.endswith("/")
    store.put("p/q", b"1")
    assert open_store(f"{store.root}/").read("p/q") == open_store(store.uri("p")).read("q") == b"1"


class BreakingFile(io.BytesIO):
    """A file whose second read fails."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ValueError("broken")
        return super().read(1 << 20)


def test_store_put_that_fails_keeps_the_old_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("k", b"old")
    monkeypatch.setattr(s3, "PART_BYTES", 1)  # S3 meets the failure during an upload in parts
    for key in ("k", "new"):
        with pytest.raises((ValueError, StorageError)):
            store.put(key, BreakingFile(bytes(20 << 20)))
    assert store.read("k") == b"old"
    assert [stored.key for stored in store.list()] == ["k"]


def test_store_read_sees_whole_objects_while_they_are_replaced(store: Store) -> None:
    rounds, size = (40, 200_000) if isinstance(store, LocalStore) else (5, 200_000)
    store.put("k", b"\x00" * size)
    done, contents = threading.Event(), list[bytes]()

    def read() -> None:
        while not done.is_set():
            contents.append(store.read("k"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(rounds):
        store.put("k", bytes([number % 256]) * size)
    done.set()
    reader.join(PATIENCE_S)
    assert contents
    assert all(len(content) == size and len(set(content)) == 1 for content in contents)


def test_store_age_is_measured_by_its_own_clock(store: Store) -> None:
    store.put("k", b"x")
    assert -1 <= store.age_s("k") < PATIENCE_S
    if isinstance(store, LocalStore):
        os.utime(Path(store.root, "k"), ns=(0, time.time_ns() - 90 * 10**9))
        assert 89 < store.age_s("k") < 90 + PATIENCE_S


@pytest.mark.s3
def test_s3_store_list_omits_the_folders_that_consoles_make(s3_store: S3Store, s3_server: Any) -> None:
    s3_server.client().put_object(Bucket=s3_store.bucket, Key=f"{s3_store.prefix}a/", Body=b"")
    s3_store.put("a/b", b"")
    assert keys_of(s3_store) == ["a/b"]
