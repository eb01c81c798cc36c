"""One version of one S3 object as a file, read in ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
from typing_extensions import override

from posebatch.storage.addresses import split_s3
from posebatch.storage.retry import retried
from posebatch.storage.s3 import head_object, read_body, s3_client
from posebatch.storage.s3_errors import translated_s3_errors
from posebatch.storage.store import changed_error

READ_AHEAD_BYTES = 1 << 20
"""Bytes of one ranged read: large enough to hide a request's latency, small enough not to read far past a segment."""


class S3Reader(io.RawIOBase):
    """Ranged GETs with If-Match behind a file's interface."""

    def __init__(self, uri: str, etag: str, endpoint_url: str | None) -> None:
        self._uri, self._etag = uri, etag
        self._bucket, self._key = split_s3(uri)
        self._client = s3_client(endpoint_url)
        head = head_object(self._client, self._bucket, self._key)
        if head["ETag"].strip('"') != etag:
            raise changed_error(uri)
        self._size, self._position = head["ContentLength"], 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    @override
    def tell(self) -> int:
        return self._position

    @override
    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        content = self._read_range(self._position, self._position + wanted - 1)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    @override
    def readall(self) -> bytes:
        # what we inherit reads 8 KiB at a time, each of which would be a request
        content = bytearray(max(0, self._size - self._position))
        return bytes(memoryview(content)[: self.readinto(content)])

    @retried
    def _read_range(self, first: int, last: int) -> bytes:
        with translated_s3_errors(self._uri):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, IfMatch=f'"{self._etag}"', Range=f"bytes={first}-{last}"
            )
            return read_body(answer, self._uri, last - first + 1)
