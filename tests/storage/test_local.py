"""A local store on a disk that refuses, fails, or is used by several processes."""

from __future__ import annotations

import errno
import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.stores import QUICK_RETRIES, keys_of

from posebatch.core.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
)
from posebatch.storage.local import LocalStore


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actions=st.lists(st.tuples(st.sampled_from(["a", "b/c", "b/d e"]), st.none() | st.binary(max_size=9)), max_size=6)
)
def test_local_store_behaves_as_a_dictionary(tmp_path: Path, actions: list[tuple[str, bytes | None]]) -> None:
    store, expected = LocalStore(tmp_path / uuid4().hex), dict[str, bytes]()
    for key, content in actions:
        if content is None:
            store.delete(key)
            expected.pop(key, None)
        else:
            store.put(key, content)
            expected[key] = content
        assert {key: store.read(key) for key in keys_of(store)} == expected


def test_local_store_concurrent_put_if_absent_succeeds_once(tmp_path: Path) -> None:
    """On a disk. The server of these tests looks first and writes then; S3 itself does both in one step."""
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


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may do everything")
def test_local_store_reports_a_folder_without_permission(tmp_path: Path) -> None:
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
    ("error", "expected", "advice"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), AccessDeniedError, "check the owner"),
        (OSError(errno.EROFS, "Read-only file system"), AccessDeniedError, "read-only; mount it writable"),
        (OSError(errno.ENOSPC, "No space left on device"), StorageUnavailableError, "disk is full; make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), StorageUnavailableError, "disk is full; make room"),
        (OSError(errno.EIO, "Input/output error"), StorageUnavailableError, "Input/output error"),
    ],
    ids=lambda value: value.strerror if isinstance(value, OSError) else "",
)
def test_local_store_translates_errors_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, expected: type[StorageError], advice: str
) -> None:
    store = LocalStore(tmp_path, QUICK_RETRIES)
    store.put("k", b"old")

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected, match=re.escape(store.uri("k"))) as raised:
        store.put("k", b"new")
    assert advice in str(raised.value)
    assert store.read("k") == b"old"
    assert [stored.key for stored in store.list()] == ["k"]


@pytest.mark.parametrize("number", [errno.EINTR, errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_local_store_retries_what_a_disk_refuses_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync, errors = os.fsync, [OSError(number, os.strerror(number))]

    def fail_once(file: int) -> None:
        if errors:
            raise errors.pop()
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail_once)
    store = LocalStore(tmp_path, QUICK_RETRIES)
    store.put_if("k", io.BytesIO(b"content"), None)
    assert (store.read("k"), keys_of(store), errors) == (b"content", ["k"], [])


def test_local_store_folder_is_no_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(ObjectNotFoundError):
            store.read(key)


def test_local_store_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ObjectNotFoundError, match="a part of this path is a file, not a folder"):
        LocalStore(tmp_path / "file").put("a", b"1")
