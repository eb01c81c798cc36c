"""Stores of each kind, and a proxy that injects faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from faults.s3_proxy import Proxy, running_proxy
from support.memory_store import MemoryStore
from support.s3_server import S3Server
from support.stores import QUICK_RETRIES

from posebatch.storage import s3
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import S3Store, s3_client
from posebatch.storage.store import Store

LOCAL, S3 = "local", pytest.param("s3", marks=pytest.mark.s3)


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Iterator[str]:
    """A bucket, and an environment that leads to it."""
    name = f"storage-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        for variable, value in s3_server.environment().items():
            patch.setenv(variable, value)
        s3_client.cache_clear()
        yield name
    s3_client.cache_clear()


def empty_store(kind: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    if kind == "memory":
        return MemoryStore()
    if kind == "local":
        return LocalStore(folder / "root")
    return S3Store(f"s3://{request.getfixturevalue('bucket')}/{uuid4().hex[:8]}/root")


@pytest.fixture(params=["memory", LOCAL, S3])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind, the fake in memory among them: it must behave like the others."""
    return empty_store(request.param, request, tmp_path)


@pytest.fixture(params=[LOCAL, S3])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind that can be opened by its address."""
    return empty_store(request.param, request, tmp_path)


@pytest.fixture
def s3_store(bucket: str) -> S3Store:
    """An empty prefix in the bucket."""
    return S3Store(f"s3://{bucket}/{uuid4().hex[:8]}", retry_policy=QUICK_RETRIES)


@pytest.fixture
def changed_environment(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """For tests that need a client with another environment."""
    s3_client.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    s3_client.cache_clear()


@pytest.fixture
def proxy(s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server behind a proxy that injects faults; stores that are made in the test go through it."""
    with running_proxy(s3_server, conditional=True) as proxy:
        for name, value in proxy.environment().items():
            monkeypatch.setenv(name, value)
        s3_client.cache_clear()
        yield proxy
        monkeypatch.undo()
        s3_client.cache_clear()


@pytest.fixture
def requested_ranges(monkeypatch: pytest.MonkeyPatch, bucket: str) -> list[tuple[int, int]]:
    """The byte ranges of all GET requests, in order."""
    client, ranges = s3.s3_client(None), list[tuple[int, int]]()
    get_object = client.get_object

    def note_range(**request: Any) -> Any:
        first, last = request["Range"].removeprefix("bytes=").split("-")
        ranges.append((int(first), int(last) + 1))
        return get_object(**request)

    monkeypatch.setattr(client, "get_object", note_range)
    return ranges
