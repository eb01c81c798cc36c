"""An S3 store: uploads in parts, credentials, endpoints. Faults are in `test_s3_faults`."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support.s3_server import S3Server
from support.stores import QUICK_RETRIES, keys_of, open_key

from posebatch.core.errors import AccessDeniedError, ObjectNotFoundError, StorageError, StorageUnavailableError
from posebatch.storage import s3
from posebatch.storage.open import open_source
from posebatch.storage.s3 import S3Store

pytestmark = pytest.mark.s3

REQUESTS: dict[str, Callable[[S3Store], Any]] = {
    "list": lambda store: list(store.list("p/")),
    "read": lambda store: store.read("p/k"),
    "head": lambda store: store.head("p/k"),
    "put": lambda store: store.put("p/k", b"x"),
    "put parts": lambda store: store.put("p/k", io.BytesIO(bytes(s3.PART_BYTES + 1))),
    "delete": lambda store: store.delete("p/k"),
    "open": lambda store: open_source(store.uri("p/k"), "etag", retry_policy=QUICK_RETRIES),
}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 100)


@pytest.mark.parametrize("size", [0, 1, 9 << 20])
def test_s3_store_puts_large_objects_in_parts(
    s3_store: S3Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 8 << 20)
    content = os.urandom(1024) * (size // 1024) + bytes(size % 1024)
    assert s3_store.put("big", io.BytesIO(content)).size_bytes == size
    head = s3_server.client().head_object(Bucket=s3_store.bucket, Key=s3_store.prefix + "big")
    assert ("-" in head["ETag"]) == (size > 8 << 20)
    assert s3_store.read("big") == content
    with open_key(s3_store, "big") as file:  # an etag of parts is one too
        assert file.read() == content
    assert keys_of(s3_store) == ["big"]


@pytest.mark.parametrize("request_name", ["read", "head", "put parts"])
def test_s3_store_reports_wrong_credentials(
    changed_environment: pytest.MonkeyPatch, bucket: str, request_name: str
) -> None:
    """A HEAD is a case of its own: its answer has no body that could name the reason."""
    changed_environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(AccessDeniedError, match=bucket) as raised:
        REQUESTS[request_name](S3Store(f"s3://{bucket}", retry_policy=QUICK_RETRIES))
    assert not raised.value.retryable


@pytest.mark.parametrize("request_name", ["list", "put", "open"])
def test_s3_store_reports_missing_credentials(
    changed_environment: pytest.MonkeyPatch, bucket: str, request_name: str
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        changed_environment.delenv(name)
    with pytest.raises(AccessDeniedError, match="no S3 credentials"):
        REQUESTS[request_name](S3Store(f"s3://{bucket}", retry_policy=QUICK_RETRIES))


@pytest.mark.parametrize("request_name", REQUESTS)
def test_s3_store_reports_a_server_that_does_not_answer(
    changed_environment: pytest.MonkeyPatch, request_name: str
) -> None:
    with socket.socket() as closed:  # bound, so that the port stays ours, but not listening
        closed.bind(("127.0.0.1", 0))
        changed_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        changed_environment.delenv("AWS_ENDPOINT_URL_S3")
        with pytest.raises(StorageUnavailableError, match="s3://bucket") as raised:
            REQUESTS[request_name](S3Store("s3://bucket", retry_policy=QUICK_RETRIES))
    assert raised.value.retryable


UPLOAD_BEGUN = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
DATE, CHANGED, ETAG = "Tue, 01 Dec 2026 00:00:00 GMT", {"Last-Modified": "Mon, 30 Nov 2026 00:00:00 GMT"}, {"ETag": "e"}


@contextmanager
def server_answering(headers: Mapping[str, str], body: bytes = b"") -> Iterator[str]:
    """The address of a server that answers every request with success and this, as a proxy may.

    Only the answer to a POST has the body.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            content = body if self.command == "POST" else b""
            self.send_response_only(200)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names that the class looks for

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


NO_STORE = "the answer is not that of an S3 store"


@pytest.mark.parametrize(
    ("request_name", "headers", "message"),
    [
        *(pytest.param(name, {}, NO_STORE, id=name) for name in REQUESTS if name != "delete"),
        pytest.param("put parts", {"Date": DATE}, NO_STORE, id="a part without an ETag"),
        pytest.param("put", ETAG, NO_STORE, id="a put without a date"),
        pytest.param("put", {**ETAG, "Date": "today"}, "an answer with the date 'today'", id="a put with another date"),
        pytest.param("age", {**ETAG, **CHANGED}, NO_STORE, id="an age without a date"),
    ],
)
def test_s3_store_reports_a_server_that_is_no_store(
    changed_environment: pytest.MonkeyPatch, request_name: str, headers: dict[str, str], message: str
) -> None:
    """A delete is not a case: the answer of a store holds nothing either."""
    upload = UPLOAD_BEGUN if "Date" in headers else b""
    with server_answering(headers, upload) as address:
        changed_environment.setenv("AWS_ENDPOINT_URL", address)
        changed_environment.delenv("AWS_ENDPOINT_URL_S3")
        with pytest.raises(StorageUnavailableError, match=rf"s3://bucket.*{message}"):
            {**REQUESTS, "age": lambda store: store.age_s("p/k")}[request_name](
                S3Store("s3://bucket", retry_policy=QUICK_RETRIES)
            )


@pytest.mark.parametrize("request_name", ["list", "head", "put", "put parts"])
def test_s3_store_reports_a_missing_bucket(bucket: str, request_name: str) -> None:
    with pytest.raises(ObjectNotFoundError, match=f"{bucket}-none"):
        REQUESTS[request_name](S3Store(f"s3://{bucket}-none"))


def test_s3_store_reports_a_missing_profile(changed_environment: pytest.MonkeyPatch) -> None:
    changed_environment.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="nobody"):
        S3Store("s3://bucket")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", None])
def test_s3_client_addresses_buckets_of_other_endpoints_by_path(
    changed_environment: pytest.MonkeyPatch, variable: str | None
) -> None:
    endpoint = "http://minio.test:9000"
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        changed_environment.delenv(name)
    if variable:
        changed_environment.setenv(variable, endpoint)
    client = s3.s3_client(None if variable else endpoint)
    urls: list[str] = []

    def catch(request: Any, **_: Any) -> None:
        urls.append(request.url)
        raise InterruptedError

    client.meta.events.register("before-send.s3", catch)
    with pytest.raises(InterruptedError):
        client.get_object(Bucket="archive", Key="k")
    assert urls == [f"{endpoint}/archive/k"]


@pytest.mark.parametrize("size", [10, 6 << 20])
def test_s3_store_says_that_a_page_is_a_page(
    s3_store: S3Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Behind a presigned address a browser shows it, instead of saving it."""
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    s3_store.put("reports/a.mp4.html", bytes(size))
    head = s3_server.client().head_object(Bucket=s3_store.bucket, Key=s3_store.prefix + "reports/a.mp4.html")
    assert head["ContentType"] == "text/html; charset=utf-8"
