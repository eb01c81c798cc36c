"""Files on web servers, most often objects behind presigned addresses: read in ranges, never shown with their query.

A presigned address allows one kind of request, so everything is learned from ranged GETs, never from a HEAD.
"""

from __future__ import annotations

import datetime
import email.utils
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from typing_extensions import override

from posebatch.core.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)
from posebatch.core.version import USER_AGENT
from posebatch.storage.ranged_file import RangedFile
from posebatch.storage.retry import RetryPolicy, retried
from posebatch.storage.store import StoredObject, changed_error

if TYPE_CHECKING:
    import requests

TIMEOUT_S: Final = 30.0
"""Longest silence of a server within one answer, seconds."""


SLOWEST_BYTES_PER_S: Final = 16 << 10
"""An answer that takes `TIMEOUT_S` longer than at this rate is given up: another connection may be faster."""


BLOCK_BYTES: Final = 64 << 10
"""Bytes of an answer between two checks of the time."""


MAX_ERROR_BYTES: Final = 8 << 10
"""First bytes of the answer to a refused request, in which its reason is looked for."""


_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


_TRANSIENT: Final = frozenset({408, 425, 429, *range(500, 600)})


EXPIRED: Final = "the signed address has expired; make a new list of addresses, and the same command goes on"


@lru_cache(maxsize=1)
def _session() -> requests.Session:
    """One session for the process; sessions are used by several threads, for they keep no cookies."""
    import requests  # noqa: PLC0415 - work on S3 and on local disks needs no time for it
    import requests.adapters  # noqa: PLC0415
    from requests.cookies import RequestsCookieJar  # noqa: PLC0415

    class NoCookies(RequestsCookieJar):
        """Keeps no cookie."""

        @override
        def set_cookie(self, cookie: object, *_: object, **__: object) -> None:
            return None

    session = requests.Session()
    session.headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    session.auth = lambda request: request  # else requests adds a password of ~/.netrc, which voids a signature
    session.cookies = NoCookies()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=64))
    return session


class _Answer:
    """One range of a file, with the version that it belongs to."""

    def __init__(self, content: bytes, size: int, headers: Mapping[str, str]) -> None:
        self.content, self.size = content, size
        modified = email.utils.parsedate_to_datetime(headers["Last-Modified"]) if "Last-Modified" in headers else None
        self.last_modified = modified.timestamp() if modified else 0.0
        strong = headers.get("ETag", "")
        self.etag = "" if strong.startswith("W/") else strong.strip('"')
        if not self.etag and modified:
            self.etag = f"{size}-{int(self.last_modified)}"


def _get(uri: str, query: str, first: int, last: int) -> _Answer:
    """The bytes from ``first`` to ``last``, both included, in one attempt."""
    import requests  # noqa: PLC0415

    url = f"{uri}?{query}" if query else uri
    headers = {"Range": f"bytes={first}-{last}"}
    try:
        with _session().get(url, headers=headers, timeout=TIMEOUT_S, stream=True) as response:
            if response.status_code == requests.codes.partial_content:
                return _checked(response, uri, first, last)
            body = b"" if response.ok else next(response.iter_content(MAX_ERROR_BYTES), b"")
            raise _refusal(response.status_code, body, uri, query)
    except requests.RequestException as error:
        # neither the message nor the cause: both hold the whole address, with its signature
        kind = type(error).__name__
        if isinstance(error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
            raise StorageUnavailableError(f"{uri}: the server did not answer ({kind})") from None
        raise StorageError(f"{uri}: the address cannot be requested ({kind})") from None
    except ValueError as error:
        raise StorageError(f"{uri}: the server's answer cannot be read ({type(error).__name__})") from None


def _checked(response: requests.Response, uri: str, first: int, last: int) -> _Answer:
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None:
        raise UnsupportedError(f"{uri}: the server does not say which bytes of how many it sends")
    size = int(found[3])
    expected = min(last, size - 1) - first + 1
    content = _body(response, uri, expected)
    if int(found[1]) != first or len(content) != expected:
        raise StorageUnavailableError(f"{uri}: the server's answer broke off: {len(content)} bytes of {expected}")
    return _Answer(content, size, response.headers)


def _body(response: requests.Response, uri: str, expected: int) -> bytes:
    """The bytes of an answer; not many more than ``expected``, whatever the server sends."""
    deadline, content = time.monotonic() + TIMEOUT_S + expected / SLOWEST_BYTES_PER_S, bytearray()
    for block in response.iter_content(BLOCK_BYTES):
        content += block
        if len(content) > expected:
            break
        if time.monotonic() > deadline:
            raise StorageUnavailableError(f"{uri}: the server answers too slowly")
    return bytes(content)


def _refusal(status: int, body: bytes, uri: str, query: str) -> StorageError:
    """The error of an answer that is no range. The body is never shown: it may repeat the signature."""
    if status in (401, 403) or (status == 400 and b"xpired" in body):
        if b"xpired" in body or _is_expired(query):
            return AccessDeniedError(f"{uri}: {EXPIRED}")
        code = re.search(rb"<Code>(\w{1,60})</Code>", body)
        reason = code[1].decode() if code else str(status)
        return AccessDeniedError(f"{uri}: access denied ({reason}); is the address complete, and signed for GET?")
    if status in (404, 410):
        return ObjectNotFoundError(f"{uri}: there is no such file ({status})")
    if status in _TRANSIENT:
        return StorageUnavailableError(f"{uri}: the server is unavailable ({status})")
    if status in (200, 416):
        return UnsupportedError(
            f"{uri}: the server does not send ranges of a file, or the file is empty ({status}); copy the file to a "
            "disk or to a store that does"
        )
    return StorageError(f"{uri}: the server answered with status {status}")


def _is_expired(query: str) -> bool:
    """Whether a signature of AWS or of Google is over, by the times in the address and this machine's clock."""
    signed = re.search(r"X-(?:Amz|Goog)-Date=(\d{8}T\d{6})Z", query, re.IGNORECASE)
    valid = re.search(r"X-(?:Amz|Goog)-Expires=(\d{1,9})", query, re.IGNORECASE)
    if signed and valid:
        began = datetime.datetime.strptime(f"{signed[1]}+0000", "%Y%m%dT%H%M%S%z").timestamp()
        return time.time() > began + int(valid[1])
    until = re.search(r"(?:\A|&)Expires=(\d{1,12})(?:&|\Z)", query)
    return until is not None and time.time() > int(until[1])


def head_http(uri: str, query: str, retry_policy: RetryPolicy) -> StoredObject:
    """Size and version of a file, by a GET of its first byte; the key is its address.

    Raises `ObjectNotFoundError`, `AccessDeniedError`, and `UnsupportedError` for a server that sends no ranges, or
    neither an ETag nor a time of change: nothing would then show that the file is another one.
    """
    answer = retry_policy.call(_get, uri, query, 0, 0)
    if not answer.etag:
        raise UnsupportedError(f"{uri}: the server states neither an ETag nor Last-Modified, so changes would not show")
    return StoredObject(uri, answer.etag, answer.size, answer.last_modified)


class HttpReader(RangedFile):
    """One version of a file on a web server; each read is a ranged GET.

    Raises `ObjectChangedError` when the file is no longer the version with ``etag``.
    """

    def __init__(self, uri: str, query: str, etag: str, retry_policy: RetryPolicy) -> None:
        self.retry_policy = retry_policy
        self._uri, self._query, self._etag = uri, query, etag
        head = head_http(uri, query, retry_policy)
        if head.etag != etag:
            raise changed_error(uri)
        super().__init__(head.size_bytes)

    @override
    @retried
    def read_range(self, first: int, last: int) -> bytes:
        answer = _get(self._uri, self._query, first, last)
        if answer.etag != self._etag:
            raise changed_error(self._uri)
        return answer.content
