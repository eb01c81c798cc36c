"""One version of one S3 object as a file, read in ranges."""

from __future__ import annotations

import io
from typing import Any

from typing_extensions import override

from posebatch.storage.addresses import split_s3
from posebatch.storage.retry import RetryPolicy, retried
from posebatch.storage.s3 import head_object, read_body, s3_client
from posebatch.storage.s3_errors import translated_s3_errors
from posebatch.storage.store import changed_error


class S3Reader(io.RawIOBase):
    """A read-only file; each read is a ranged GET with If-Match.

    Raises `ObjectChangedError` when the object is no longer the version with ``etag``.
    """

    def __init__(self, uri: str, etag: str, endpoint_url: str | None, retry_policy: RetryPolicy) -> None:
        self.retry_policy = retry_policy
        self._uri, self._etag = uri, etag
        self._bucket, self._key = split_s3(uri)
        self._client = s3_client(endpoint_url)
        head = retry_policy.call(head_object, self._client, self._bucket, self._key)
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
        # the inherited method reads 8 KiB at a time, and each would be a request
        content = bytearray(max(0, self._size - self._position))
        return bytes(memoryview(content)[: self.readinto(content)])

    @retried
    def _read_range(self, first: int, last: int) -> bytes:
        with translated_s3_errors(self._uri):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, IfMatch=f'"{self._etag}"', Range=f"bytes={first}-{last}"
            )
            return read_body(answer, self._uri, last - first + 1)
