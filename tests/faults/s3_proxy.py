"""A proxy in front of an S3 server that injects faults, logs requests, and calls hooks around each of them.

::

    with running_proxy(s3_server, FaultPlan([Fault("slow_down", chance=0.1)], seed=7)) as proxy:
        os.environ |= proxy.environment()      # or boto3.client(endpoint_url=proxy.endpoint_url)
        ...
        proxy.injected["slow_down"], proxy.requests(what="PUT", key=r"/poses/")

Requests are forwarded byte for byte with the client's own ``Host``, so that signatures stay valid. ``proxy.before`` is
called with each request before it is forwarded, ``proxy.after`` before the answer goes to the client. A test can kill a
process there, or raise `DroppedError` to close the client's connection. With ``conditional=True`` the proxy checks
``If-Match`` and ``If-None-Match`` and writes in one step, as S3 does. The server behind cannot; such a request is
signed again without its condition.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from support.s3_server import LOOPBACK, S3Server

Kind = Literal[
    "error_500",  # not done, InternalError
    "slow_down",  # not done, 503 SlowDown
    "skewed",  # not done, 403 RequestTimeTooSkewed
    "expired",  # not done, 400 ExpiredToken
    "denied",  # not done, 403 AccessDenied
    "stall",  # not done, no answer for STALL_S, then closed
    "reset_request",  # the connection is reset while the request's body is read
    "reset_answer",  # done; the connection is reset after part of the answer
    "truncated",  # done; the answer ends early, properly closed
    "slow",  # done; the answer comes a byte at a time
    "lost_answer",  # done; the connection is closed without an answer
    "late_put",  # closed without an answer; done after the next commit record is put, or at `deliver_late`
    "repeated_page",  # a listing gives the page it gave before
    "missed_page",  # a listing gives an empty page in the place of one
    "replaced",  # the object is another before the request is done, see `Proxy.disturb`
    "deleted",  # the object has gone before the request is done, see `Proxy.disturb`
]

STALL_S = 1.7
SLOW_BYTES, SLOW_PAUSE_S = 64, 0.01
SLOW_MOST_S = 1.0

_CONDITIONS = {"if-match", "if-none-match"}
_OF_SIGNATURE = {"authorization", "host", "x-amz-date", "x-amz-content-sha256"}

_ANSWERS: dict[str, tuple[int, str]] = {
    "error_500": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "skewed": (403, "RequestTimeTooSkewed"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
}


class DroppedError(Exception):
    """Raised by a hook to close the client's connection, as if the network failed."""


@dataclass
class Request:
    """One request, as the proxy received it."""

    what: str
    """LIST, or the method: GET, HEAD, PUT, POST or DELETE."""
    key: str
    """Bucket and key; for a listing, bucket and prefix."""
    headers: dict[str, str]
    path: str
    """As sent, with the query."""
    body: bytes = b""
    fault: str | None = None
    status: int | None = None
    """The status that the server answered; None before that, or if the request was not forwarded."""
    bytes_out: int = 0
    """Size of the server's answer."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault, the requests that it applies to, and how often it happens."""

    kind: Kind
    what: str = ".*"
    """Regular expression for the whole of `Request.what`."""
    key: str = ""
    """Regular expression, searched in `Request.key`."""
    chance: float = 1.0
    skip: int = 0
    """Matching requests that are served without a fault at first."""
    most: int | None = None
    """Most times in all."""


class FaultPlan:
    """Decides which request gets which fault.

    Chance depends on the seed, the request and its repetitions, not on the order of threads.
    """

    def __init__(self, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        self.faults, self.seed = list(faults), seed
        self._lock = threading.Lock()
        self._fitting: Counter[int] = Counter()
        self._injected: Counter[int] = Counter()
        self._made: Counter[tuple[int, str, str]] = Counter()

    def choose(self, request: Request) -> Kind | None:
        """The first fault that applies to a request; None for no fault."""
        with self._lock:
            return next((fault.kind for i, fault in enumerate(self.faults) if self._meets(i, fault, request)), None)

    def _meets(self, i: int, fault: Fault, request: Request) -> bool:
        if not re.fullmatch(fault.what, request.what) or not re.search(fault.key, request.key):
            return False
        if not _possible(fault.kind, request):
            return False
        self._fitting[i] += 1
        self._made[i, request.what, request.key] += 1
        made = self._made[i, request.what, request.key]
        seed = f"{self.seed} {i} {fault.kind} {request.what} {request.key} {made}"
        if self._fitting[i] <= fault.skip or random.Random(seed).random() >= fault.chance:
            return False
        if fault.most is not None and self._injected[i] >= fault.most:
            return False
        self._injected[i] += 1
        return True


def _possible(kind: Kind, request: Request) -> bool:
    match kind:
        case "lost_answer":
            return request.what in {"PUT", "POST", "DELETE"}
        case "late_put":
            return request.what == "PUT"
        case "reset_request":
            return bool(request.body)
        case "reset_answer" | "truncated" | "slow":
            return request.what in {"GET", "LIST"}
        case "repeated_page":
            return request.what == "LIST" and "continuation-token" in request.path
        case "missed_page":
            return request.what == "LIST"
        case "replaced" | "deleted":
            return request.what == "GET"
    return True


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass
class Proxy:
    """A running proxy."""

    server: S3Server
    plan: FaultPlan
    conditional: bool
    endpoint_url: str = ""
    before: Callable[[Request], None] = lambda _: None
    after: Callable[[Request], None] = lambda _: None
    disturb: Callable[[str, Request], None] = lambda *_: None
    """Called with the kind and the request to replace or delete an object before the request is forwarded."""
    injected: Counter[str] = field(default_factory=Counter)
    log: list[Request] = field(default_factory=list)
    _client: Any = None
    _late: list[Request] = field(default_factory=list)
    _last_page: dict[str, _Answer] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _writing: threading.RLock = field(default_factory=threading.RLock)

    def environment(self) -> dict[str, str]:
        """The environment variables that make a program use the proxy."""
        variables = self.server.environment()
        return {**variables, "AWS_ENDPOINT_URL": self.endpoint_url, "AWS_ENDPOINT_URL_S3": self.endpoint_url}

    def requests(self, what: str = ".*", key: str = "") -> list[Request]:
        """Logged requests that match, oldest first."""
        with self._lock:
            return [request for request in self.log if re.fullmatch(what, request.what) and re.search(key, request.key)]

    def deliver_late(self) -> list[Request]:
        """Forward the puts that were held back; returns them with their status."""
        with self._lock:
            late, self._late = self._late, []
        for request in late:
            request.status = self._forward(request).status
        return late

    # --- one request --------------------------------------------------------------------------------------------------

    def serve(self, request: Request, client: _Client) -> None:
        """Answer one request, with its fault if it gets one."""
        with self._lock:
            kind = request.fault = self.plan.choose(request)
            self.log.append(request)
            self.injected.update([kind] if kind else [])
        match kind:
            case "error_500" | "slow_down" | "skewed" | "expired" | "denied":
                client.send(_refusal(request, *_ANSWERS[kind]))
            case "stall":
                time.sleep(STALL_S)
                client.close()
            case "reset_request":
                client.reset()
            case "late_put":
                with self._lock:
                    self._late.append(request)
                client.close()
            case _:
                self._serve_done(kind, request, client)

    def _serve_done(self, kind: str | None, request: Request, client: _Client) -> None:
        if kind in {"replaced", "deleted"}:
            self.disturb(kind, request)
        self.before(request)
        answer = self._forward(request)
        request.status, request.bytes_out = answer.status, len(answer.body)
        self.after(request)
        if request.what == "PUT" and re.search(r"/videos/.*\.parquet$", request.key) and answer.status == 200:
            self.deliver_late()
        if request.what == "LIST":
            answer = self._listed(kind, request, answer)
        match kind:
            case "lost_answer":
                client.close()
            case "reset_answer":
                client.send(answer, until=len(answer.body) // 2)
                client.reset()
            case "truncated":
                client.send(answer, until=len(answer.body) // 2)
                client.close()
            case "slow":
                client.dribble(answer)
            case _:
                client.send(answer)

    def _listed(self, kind: str | None, request: Request, answer: _Answer) -> _Answer:
        with self._lock:
            if kind == "repeated_page":
                return self._last_page[request.key]
            self._last_page[request.key] = answer
        if kind != "missed_page":
            return answer
        return _Answer(answer.status, answer.headers, re.sub(rb"<Contents>.*</Contents>", b"", answer.body, flags=re.S))

    def _forward(self, request: Request) -> _Answer:
        if request.what not in {"PUT", "POST", "DELETE"}:
            return self._pass_on(request)
        with self._writing:
            if not self.conditional or not _CONDITIONS & set(request.headers):
                return self._pass_on(request)
            return self._condition_fails(request) or self._pass_on(self._signed_again(request))

    def _signed_again(self, request: Request) -> Request:
        """The same request, signed again without its condition."""
        url = self.server.endpoint_url + request.path
        kept = {name: value for name, value in request.headers.items() if name not in _CONDITIONS | _OF_SIGNATURE}
        signed = AWSRequest(request.what, url, kept, request.body)
        credentials = Credentials(self.server.access_key, self.server.secret_key)
        S3SigV4Auth(credentials, "s3", self.server.region).add_auth(signed)
        headers = {name.lower(): value for name, value in signed.headers.items()}
        return replace(request, headers={"host": urlsplit(url).netloc, **headers})

    def _condition_fails(self, request: Request) -> _Answer | None:
        match, none_match = request.headers.get("if-match"), request.headers.get("if-none-match")
        bucket, _, key = request.key.partition("/")
        try:
            etag = self._client.head_object(Bucket=bucket, Key=key)["ETag"]
        except ClientError:
            etag = None
        if match is not None and etag is None:
            return _refusal(request, 404, "NoSuchKey")
        if (match is not None and etag != match) or (none_match == "*" and etag is not None):
            return _refusal(request, 412, "PreconditionFailed")
        return None

    def _pass_on(self, request: Request) -> _Answer:
        address = urlsplit(self.server.endpoint_url)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        try:
            method = "GET" if request.what == "LIST" else request.what
            connection.putrequest(method, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            return _Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()


class _Client(BaseHTTPRequestHandler):
    """The connection of one client."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, DroppedError):
            super().handle_one_request()
            return
        self.close_connection = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        is_listing = self.command == "GET" and not key
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.proxy.serve(
            Request(
                "LIST" if is_listing else self.command,
                f"{bucket}/{query.get('prefix', [''])[0] if is_listing else key}",
                headers,
                self.path,
                body,
            ),
            self,
        )

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - so they are called

    def send(self, answer: _Answer, until: int | None = None) -> None:
        """Send the answer, or only its beginning, with the headers of the whole."""
        self._send_head(answer)
        self.wfile.write(answer.body[:until])
        self.wfile.flush()

    def dribble(self, answer: _Answer) -> None:
        """Send the answer in small pieces for at most `SLOW_MOST_S`, then close the connection."""
        self._send_head(answer)
        deadline = time.monotonic() + SLOW_MOST_S
        for first in range(0, len(answer.body), SLOW_BYTES):
            if time.monotonic() > deadline:
                self.close()
                return
            self.wfile.write(answer.body[first : first + SLOW_BYTES])
            time.sleep(SLOW_PAUSE_S)

    def _send_head(self, answer: _Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        given = next((value for name, value in answer.headers if name.lower() == "content-length"), "0")
        self.send_header("Content-Length", given if self.command == "HEAD" else str(len(answer.body)))
        self.end_headers()

    def close(self) -> None:
        """Close the connection properly."""
        self.close_connection = True
        self.wfile.flush()
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _refusal(request: Request, status: int, code: str) -> _Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>injected</Message></Error>'
    headers = [("Content-Type", "application/xml"), ("Date", time.strftime("%a, %d %b %Y %T GMT", time.gmtime()))]
    return _Answer(status, headers, b"" if request.what == "HEAD" else body.encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that close their connection."""


@contextmanager
def running_proxy(
    server: S3Server,
    plan: FaultPlan | None = None,
    conditional: bool = False,
    address: tuple[str, int] = (LOOPBACK, 0),
) -> Iterator[Proxy]:
    """Serve at an address while the block runs; port 0 is any free one."""
    proxy = Proxy(server, plan or FaultPlan(), conditional, _client=server.client())
    http_server = _Server(address, type("Client", (_Client,), {"proxy": proxy}))
    proxy.endpoint_url = f"http://{address[0]}:{http_server.server_address[1]}"
    thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        http_server.shutdown()
        http_server.server_close()
        thread.join()
