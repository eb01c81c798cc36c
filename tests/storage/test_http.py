"""Files on web servers are read by ranged GETs, in one version, and their signatures are never shown."""

from __future__ import annotations

import io
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from uuid import uuid4

import pytest
import requests
from support.archive_factories import zip_bytes
from support.s3_server import S3Server
from support.stores import QUICK_RETRIES
from support.web_server import Answer, WebServer, running_web_server, serve_range

from posebatch.core.errors import (
    AccessDeniedError,
    InputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PosebatchError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.storage import retry
from posebatch.storage.addresses import split_signed
from posebatch.storage.http import HttpReader, _get, head_http
from posebatch.storage.open import find_source, list_members, open_newest, open_source

CONTENT = bytes(range(256)) * 10_000
SECRET = "5ecretSignature"
QUERY = f"X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature={SECRET}&who=me"
ETAG = {"ETag": '"v1"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}

Serve = Callable[..., WebServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers a GET as the test says."""
    running = []

    def start(answer: Callable[[str, Mapping[str, str]], Answer]) -> WebServer:
        running.append(running_web_server(answer))
        return running[-1].__enter__()

    yield start
    for server in running:
        server.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "DEFAULT_POLICY", QUICK_RETRIES)


def sound(path: str, asked: Mapping[str, str]) -> Answer:
    return serve_range(CONTENT, ETAG, asked)


def test_file_on_a_web_server_reads_as_a_file(serve: Serve) -> None:
    server = serve(sound)
    uri = f"{server.url}/a%20b.mp4"
    stored = head_http(uri, QUERY, QUICK_RETRIES)
    assert (stored.etag, stored.size_bytes, stored.last_modified) == ("v1", len(CONTENT), 1767225600.0)
    with open_source(uri, "v1", access=QUERY) as file:
        assert file.seek(0, io.SEEK_END) == len(CONTENT)
        file.seek(1_234_567)
        assert file.read(3) == CONTENT[1_234_567:1_234_570]
        file.seek(-5, io.SEEK_END)
        assert file.read() == CONTENT[-5:]
    assert {(method, path) for method, path, _ in server.requests} == {("GET", f"/a%20b.mp4?{QUERY}")}
    assert all(headers["Accept-Encoding"] == "identity" for _, _, headers in server.requests)
    with open_newest(f"{uri}?{QUERY}") as file:
        assert file.read(3) == CONTENT[:3]


def test_member_of_an_archive_on_a_web_server(serve: Serve) -> None:
    content = zip_bytes({"a.mp4": CONTENT})
    uri = serve(lambda _, asked: serve_range(content, ETAG, asked)).url + "/x.zip"
    [member] = list_members(uri, "v1", access=QUERY).members.values()
    assert find_source(f"{uri}!/a.mp4", access=QUERY).size_bytes == len(CONTENT)
    with open_source(f"{uri}!/a.mp4", member.location.etag("v1"), access=QUERY) as file:
        assert file.read() == CONTENT


def test_file_that_changes_is_not_mixed_with_its_new_version(serve: Serve) -> None:
    version = ["v1"]
    server = serve(lambda _, asked: serve_range(CONTENT, {"ETag": f'"{version[0]}"'}, asked))
    with pytest.raises(ObjectChangedError):
        open_source(f"{server.url}/a", "v0", access=QUERY)
    with open_source(f"{server.url}/a", "v1") as file:
        assert file.read(4) == CONTENT[:4]
        version[0] = "v2"
        file.seek(2_000_000)
        with pytest.raises(ObjectChangedError):
            file.read(1)


def test_version_of_a_file_without_a_strong_etag_is_its_time_and_size(serve: Serve) -> None:
    server = serve(lambda _, asked: serve_range(CONTENT, {**ETAG, "ETag": 'W/"v1"'}, asked))
    assert head_http(f"{server.url}/a", "", QUICK_RETRIES).etag == f"{len(CONTENT)}-1767225600"


EXPIRED_BODY = f"<Error><Code>AccessDenied</Code><Message>Request has expired</Message><S>{SECRET}</S></Error>".encode()
DENIED_BODY = (
    f"<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>{SECRET}</SignatureProvided></Error>".encode()
)
LATER = f"X-Amz-Date={time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}&X-Amz-Expires=604800&X-Amz-Signature={SECRET}"

REFUSED: dict[str, tuple[Answer, str, type[StorageError], str]] = {
    "expired, says S3": ((403, {}, EXPIRED_BODY), LATER, AccessDeniedError, "expired; make a new list"),
    "expired, says Google": (
        (400, {}, b"<Error><Code>ExpiredToken</Code></Error>"),
        LATER,
        AccessDeniedError,
        "expired; make a new list",
    ),
    "expired, by its times": ((403, {}, b""), QUERY, AccessDeniedError, "expired; make a new list"),
    "expired, by its old times": ((403, {}, b""), f"Expires=1&Signature={SECRET}", AccessDeniedError, "expired"),
    "denied": ((403, {}, DENIED_BODY), LATER, AccessDeniedError, r"access denied \(SignatureDoesNotMatch\)"),
    "denied without a reason": ((401, {}, b""), LATER, AccessDeniedError, r"access denied \(401\)"),
    "gone": ((404, {}, b""), LATER, ObjectNotFoundError, "no such file"),
    "no ranges": ((200, ETAG, b"a whole file"), LATER, UnsupportedError, "does not send ranges"),
    "an empty file": ((416, {}, b""), LATER, UnsupportedError, "the file is empty"),
    "no version": (
        (206, {"Content-Range": "bytes 0-0/9"}, b"x"),
        LATER,
        UnsupportedError,
        "neither an ETag nor Last-Modified",
    ),
    "no place": ((206, ETAG, b"x"), LATER, UnsupportedError, "does not say which bytes"),
    "unavailable": ((503, {}, b""), LATER, StorageUnavailableError, "unavailable"),
    "asks to slow down": ((429, {}, b""), LATER, StorageUnavailableError, "unavailable"),
    "broken off": ((206, {**ETAG, "Content-Range": "bytes 0-0/9"}, b""), LATER, StorageUnavailableError, "broke off"),
    "longer than asked": (
        (206, {**ETAG, "Content-Range": "bytes 0-0/9"}, b"xxx"),
        LATER,
        StorageUnavailableError,
        "broke",
    ),
    "a wrong request": ((400, {}, b""), LATER, StorageError, "status 400"),
    "a wrong time": (
        (206, {"Content-Range": "bytes 0-0/9", "Last-Modified": "yesterday"}, b"x"),
        LATER,
        StorageError,
        "cannot be read",
    ),
    "a redirection without an end": ((302, {"Location": f"/a?{QUERY}"}, b""), LATER, StorageError, "TooManyRedirects"),
}


@pytest.mark.parametrize(("answer", "query", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_refused_request_says_why_and_shows_no_signature(
    serve: Serve, answer: Answer, query: str, error: type[StorageError], says: str
) -> None:
    server = serve(lambda *_: answer)
    with pytest.raises(error, match=f"{server.url}/a: .*{says}") as raised:
        head_http(f"{server.url}/a", query, QUICK_RETRIES)
    shows_no_signature(raised.value)


def shows_no_signature(error: PosebatchError) -> None:
    shown = "".join(traceback.format_exception(error, chain=True)) + repr(pickle.loads(pickle.dumps(error)))
    assert SECRET not in shown
    assert error.__suppress_context__ or not isinstance(error.__context__, requests.RequestException)


def test_server_that_does_not_answer_is_retried_and_shows_no_signature() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}/a"
        with pytest.raises(StorageUnavailableError, match=f"{uri}: the server did not answer") as raised:
            head_http(uri, QUERY, QUICK_RETRIES)
    shows_no_signature(raised.value)


def test_answer_that_breaks_off_is_requested_again(serve: Serve) -> None:
    left = [None] * 2

    def answer(path: str, asked: Mapping[str, str]) -> Answer:
        status, headers, body = sound(path, asked)
        if left and body:
            left.pop()
            return status, headers, body[:-1]
        return status, headers, body

    server = serve(answer)
    with HttpReader(f"{server.url}/a", QUERY, "v1", QUICK_RETRIES) as file:
        assert file.read(1000) == CONTENT[:1000]


def test_password_of_netrc_is_not_sent(serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server = serve(sound)
    _get(f"{server.url}/a", QUERY, 0, 0)
    assert "Authorization" not in server.requests[0][2]


ADDRESSES: dict[str, tuple[str, tuple[str, str] | None]] = {
    "plain": ("https://Host/a.mp4", ("https://host/a.mp4", "")),
    "signed": (f"HTTPS://host:8/a%20b.mp4?{QUERY}#x", ("https://host:8/a%20b.mp4", QUERY)),
    "no path": ("https://host", None),
    "no host": ("https:///a.mp4", None),
    "a password": ("https://user:pass@host/a.mp4", None),
    "no address": ("https://[1/a", None),
}


@pytest.mark.parametrize(("address", "expected"), ADDRESSES.values(), ids=ADDRESSES)
def test_address_is_split_from_its_query(address: str, expected: tuple[str, str] | None) -> None:
    if expected:
        assert split_signed(address) == expected
    else:
        with pytest.raises(InputError) as raised:
            split_signed(address)
        assert "pass" not in str(raised.value).replace("password", "")


@pytest.mark.s3
def test_presigned_address_of_an_s3_server_is_read(s3_server: S3Server) -> None:
    client, bucket = s3_server.client(), f"signed-{uuid4().hex[:8]}"
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="a b.mp4", Body=CONTENT)
    signed = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b.mp4"}, ExpiresIn=600)
    with open_newest(signed) as file:
        assert file.read() == CONTENT
    over = client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "a b.mp4"}, ExpiresIn=1)
    time.sleep(2)
    with pytest.raises(AccessDeniedError, match="make a new list"):
        open_newest(over)
