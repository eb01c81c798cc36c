"""One version of one S3 object as a file, read in ranges."""

from __future__ import annotations

from typing_extensions import override

from posebatch.storage.addresses import split_s3
from posebatch.storage.cold_classes import cold_class_of_head
from posebatch.storage.ranged_file import RangedFile
from posebatch.storage.retry import RetryPolicy, retried
from posebatch.storage.s3 import read_body, s3_client
from posebatch.storage.s3_errors import translated_s3_errors
from posebatch.storage.s3_requests import etag_of, head_object, payer
from posebatch.storage.store import changed_error, cold_error


class S3Reader(RangedFile):
    """A read-only file; each read is a ranged GET with If-Match.

    Raises `ObjectChangedError` when the object is no longer the version with ``etag``, and `ColdObjectError`.
    """

    def __init__(
        self, uri: str, etag: str, endpoint_url: str | None, retry_policy: RetryPolicy, access: str = ""
    ) -> None:
        """``access``: as in `SourceVideo`."""
        self.retry_policy = retry_policy
        self._uri, self._etag = uri, etag
        self._bucket, self._key = split_s3(uri)
        self._client, self._payer = s3_client(endpoint_url), payer(access)
        head = retry_policy.call(head_object, self._client, self._bucket, self._key, self._payer)
        if etag_of(head, self._uri) != etag:
            raise changed_error(uri)
        if cold := cold_class_of_head(head):
            raise cold_error(uri, cold)
        super().__init__(head["ContentLength"])

    @override
    @retried
    def read_range(self, first: int, last: int) -> bytes:
        with translated_s3_errors(self._uri):
            answer = self._client.get_object(
                Bucket=self._bucket,
                Key=self._key,
                IfMatch=f'"{self._etag}"',
                Range=f"bytes={first}-{last}",
                **self._payer,
            )
            return read_body(answer, self._uri, last - first + 1)
