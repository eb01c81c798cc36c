"""An S3 store whose server fails, repeats itself, crawls or falls silent."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from faults import s3_proxy
from faults.s3_proxy import Fault, FaultPlan, Kind, Proxy, Request
from support.s3_server import S3Server
from support.stores import QUICK_RETRIES, keys_of, open_key

from posebatch.core.errors import AccessDeniedError, PutRefusedError, StorageUnavailableError
from posebatch.storage import s3
from posebatch.storage.open import open_source
from posebatch.storage.s3 import S3Store

pytestmark = pytest.mark.s3

PATIENCE_S = 30.0
PARTS = bytes((5 << 20) + 1)
"""Content that goes up in two parts."""

REQUESTS: dict[str, Callable[[S3Store], Any]] = {
    "list": lambda store: keys_of(store, "p/"),
    "read": lambda store: store.read("p/k"),
    "head": lambda store: store.head("p/k").size_bytes,
    "age": lambda store: store.age_s("p/k") < PATIENCE_S,
    "ranges": lambda store: open_key(store, "p/k").read(),
    "put": lambda store: store.put("p/k", b"new").etag == store.head("p/k").etag,
    "put parts": lambda store: store.put("p/k", PARTS).etag == store.head("p/k").etag,
    "put if absent": lambda store: store.put_if("p/n", b"new", None).etag == store.head("p/n").etag,
    "put parts if absent": lambda store: store.put_if("p/n", PARTS, None).etag == store.head("p/n").etag,
    "put if unchanged": lambda store: store.put_if("p/k", b"x", store.head("p/k").etag).etag,
    "delete": lambda store: store.delete("p/k"),
    "delete if unchanged": lambda store: store.delete("p/k", store.head("p/k").etag),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)


def store_at(root: str) -> S3Store:
    """A store that goes through the proxy, if there is one."""
    return S3Store(root, retry_policy=QUICK_RETRIES)


TRANSIENT: dict[str, list[Kind]] = {
    "list": ["error_500", "truncated"],
    "read": ["slow_down", "truncated"],
    "head": ["skewed", "slow_down"],
    "age": ["error_500"],
    "ranges": ["truncated", "reset_answer"],
    "put": ["slow_down", "reset_request", "lost_answer"],
    "put parts": ["skewed", "reset_request", "lost_answer"],
    "put if absent": ["error_500", "reset_request", "lost_answer"],
    "put parts if absent": ["slow_down", "lost_answer"],
    "put if unchanged": ["skewed", "lost_answer"],
    "delete": ["error_500", "lost_answer"],
    "delete if unchanged": ["slow_down", "lost_answer"],
}
"""Each request meets faults of its own: only an answer with a body can break off, only a write can be lost."""


@pytest.mark.parametrize(("request_name", "kind"), [(name, kind) for name in TRANSIENT for kind in TRANSIENT[name]])
def test_s3_store_retries_transient_errors(proxy: Proxy, bucket: str, request_name: str, kind: Kind) -> None:
    outcomes = []
    faults = [
        Fault(kind, what="LIST|GET|HEAD|PUT|DELETE", most=2),
        Fault(kind, what="POST", skip=1, most=1),  # the request that completes an upload in parts
    ]
    for injected in ([], faults):
        store = store_at(f"s3://{bucket}/{uuid4().hex[:8]}")
        for key in ("p/k", "p/l"):
            store.put(key, b"0123456789")
        proxy.plan = FaultPlan(injected)
        answer = REQUESTS[request_name](store)
        proxy.plan = FaultPlan()
        outcomes.append((answer, [(stored.key, stored.size_bytes, stored.etag) for stored in store.list()]))
    assert outcomes[0] == outcomes[1]
    assert proxy.injected[kind] >= 2


def request_of_a_film(store: S3Store, request_name: str) -> None:
    """A request while every answer is a fault. A source is opened by its known etag."""
    if request_name == "ranges":
        open_source(store.uri("p/k"), "etag", retry_policy=QUICK_RETRIES)
    else:
        REQUESTS[request_name](store)


UNCONDITIONAL = [name for name in REQUESTS if "unchanged" not in name]
"""Requests that begin with themselves, and not with a HEAD for the etag."""

LASTING: list[Kind] = ["error_500", "slow_down", "skewed"]


@pytest.mark.parametrize(
    ("request_name", "kind"), [(name, LASTING[i % len(LASTING)]) for i, name in enumerate(UNCONDITIONAL)]
)
def test_s3_store_gives_up_after_its_attempts(proxy: Proxy, s3_store: S3Store, request_name: str, kind: Kind) -> None:
    store = store_at(s3_store.root)
    store.put("p/k", b"0123456789")
    proxy.plan = FaultPlan([Fault(kind)])
    with pytest.raises(StorageUnavailableError, match="clock" if kind == "skewed" else re.escape(store.root)) as raised:
        request_of_a_film(store, request_name)
    assert raised.value.retryable
    attempts = Counter(request.what for request in proxy.log if request.fault)
    assert max(attempts.values()) == QUICK_RETRIES.attempts


DENIALS: dict[Kind, str] = {"expired": "expired; renew them, and", "denied": "access denied"}


@pytest.mark.parametrize(
    ("request_name", "kind"), [(name, list(DENIALS)[i % len(DENIALS)]) for i, name in enumerate(UNCONDITIONAL)]
)
def test_s3_store_does_not_retry_denied_requests(
    proxy: Proxy, s3_store: S3Store, request_name: str, kind: Kind
) -> None:
    store = store_at(s3_store.root)
    store.put("p/k", b"0123456789")
    proxy.plan = FaultPlan([Fault(kind)])
    with pytest.raises(AccessDeniedError, match=DENIALS[kind]):
        request_of_a_film(store, request_name)
    assert len(proxy.requests("HEAD", key="/p/")) <= 1  # botocore asks the bucket for its region too


@pytest.mark.parametrize("content", [b"mine", PARTS], ids=["whole", "parts"])
def test_s3_store_recognises_its_put_when_the_answer_was_lost(proxy: Proxy, s3_store: S3Store, content: bytes) -> None:
    store, method = store_at(s3_store.root), "PUT" if len(content) < 100 else "POST"
    proxy.plan = FaultPlan([Fault("lost_answer", what=method, skip=0 if method == "PUT" else 1, most=1)])
    put = store.put_if("k", content, None)
    assert (proxy.injected["lost_answer"], store.head("k").etag) == (1, put.etag)
    for etag in (None, "0" * 32):
        with pytest.raises(PutRefusedError):
            store.put_if("k", content, etag)  # equal content, but another put
    assert store.read("k") == content


def test_s3_store_refuses_a_conditional_put_that_another_client_overtook(
    proxy: Proxy, s3_store: S3Store, s3_server: S3Server
) -> None:
    def overtake(request: Request) -> None:
        if request.what == "PUT":
            s3_server.client().put_object(Bucket=s3_store.bucket, Key=f"{s3_store.prefix}k", Body=b"theirs")

    proxy.before = overtake
    proxy.plan = FaultPlan([Fault("error_500", what="PUT", most=1)])
    with pytest.raises(PutRefusedError):
        s3_store.put_if("k", b"mine", None)
    assert s3_store.read("k") == b"theirs"


def test_s3_store_deletes_only_the_named_version(proxy: Proxy, s3_store: S3Store) -> None:
    store = store_at(s3_store.root)
    old = store.put("k", b"old")
    new = store.put("k", b"new")
    with pytest.raises(PutRefusedError):
        store.delete("k", old.etag)
    proxy.plan = FaultPlan([Fault("lost_answer", what="DELETE", most=1)])
    store.delete("k", new.etag)
    assert keys_of(store) == []
    store.delete("k", new.etag)


@pytest.mark.parametrize("most", [1, 3, None])
def test_s3_store_requests_a_repeated_page_again(
    proxy: Proxy, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    keys = [f"k{number}" for number in range(7)]
    for key in keys:
        s3_store.put(key, b"")
    proxy.plan = FaultPlan([Fault("repeated_page", most=most)])
    listing = store_at(s3_store.root).list()
    if most is None:
        with pytest.raises(StorageUnavailableError, match="listed a key twice"):
            list(listing)
        return
    assert [stored.key for stored in listing] == keys
    assert proxy.injected["repeated_page"] == most


def test_s3_store_list_cannot_see_a_missing_page(
    proxy: Proxy, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docstring of `S3Store.list` names the consequence."""
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    for number in range(5):
        s3_store.put(f"k{number}", b"")
    proxy.plan = FaultPlan([Fault("missed_page", skip=1, most=1)])
    store = store_at(s3_store.root)
    assert keys_of(store) == ["k0", "k1", "k4"]
    assert keys_of(store) == [f"k{number}" for number in range(5)]


@pytest.mark.parametrize("token", ["same", None])
def test_s3_store_list_ends_when_the_store_does_not_continue_it(
    proxy: Proxy, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    store = store_at(s3_store.root)
    page = {"IsTruncated": True, "Contents": []} | ({"NextContinuationToken": token} if token else {})
    monkeypatch.setattr(store.client, "list_objects_v2", lambda **_: page)
    with pytest.raises(StorageUnavailableError, match="did not continue"):
        list(store.list())


def test_s3_store_requests_a_crawling_answer_again(
    proxy: Proxy, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(20_000)
    s3_store.put("k", content)
    monkeypatch.setattr(s3_proxy, "SLOW_MOST_S", PATIENCE_S)  # the answer would come to its end
    monkeypatch.setattr(s3, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(s3, "SLOWEST_BYTES_PER_S", 1 << 20)
    monkeypatch.setattr(s3, "BLOCK_BYTES", 1 << 10)
    store = store_at(s3_store.root)  # its client has been made with the longer timeout
    proxy.plan = FaultPlan([Fault("slow", most=1)])
    assert store.read("k") == content
    assert len(proxy.requests("GET")) == 2


def test_s3_store_retries_when_the_server_falls_silent(
    proxy: Proxy, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_store.put("k", b"content")
    monkeypatch.setattr(s3, "TIMEOUT_S", 1.0)
    s3.s3_client.cache_clear()
    proxy.plan = FaultPlan([Fault("stall", most=2)])
    assert store_at(s3_store.root).read("k") == b"content"
    assert proxy.injected["stall"] == 2
