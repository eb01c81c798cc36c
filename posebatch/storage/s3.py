"""A store on S3: listings, ranged reads, conditional and multipart uploads."""

from __future__ import annotations

import contextlib
import email.utils
import io
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any

from typing_extensions import override

from posebatch.core.errors import (
    InputError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
)
from posebatch.storage import retry
from posebatch.storage.addresses import split_s3
from posebatch.storage.cold_classes import cold_class, cold_class_in_listing, cold_class_of_head
from posebatch.storage.retry import RetryPolicy, retried
from posebatch.storage.s3_errors import translated_s3_errors
from posebatch.storage.s3_requests import check_answer, etag_of, head_object, payer
from posebatch.storage.store import Store, StoredObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, ListObjectsV2OutputTypeDef

TIMEOUT_S = 30.0
"""Longest silence of the store within one answer, seconds."""


SLOWEST_BYTES_PER_S = 16 << 10
"""An answer that takes `TIMEOUT_S` longer than at this rate is given up: another connection may be faster."""


BLOCK_BYTES = 16 << 10
"""Bytes of an answer between two checks of the time."""


PAGE_KEYS = 1000
"""Keys in one page of a listing."""


PART_BYTES = 16 << 20
"""Larger objects are uploaded in parts of this size."""


PUT_MARK = "posebatch-put"
"""Metadata key under which each put stores an id of its own. A put whose answer was lost is recognised by that id."""


class S3Store(Store):
    """A bucket, or a prefix in one."""

    def __init__(
        self,
        root: str,
        endpoint_url: str | None = None,
        retry_policy: RetryPolicy | None = None,
        access: str = "",
    ) -> None:
        """``access``: as in `SourceVideo`."""
        self.bucket, key = split_s3(root)
        self.prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        self.root = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.endpoint_url = endpoint_url
        self.client = s3_client(endpoint_url)
        self.retry_policy = retry_policy or retry.DEFAULT_POLICY
        self._payer = payer(access)

    @override
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """In pages of `PAGE_KEYS` keys. A page that repeats keys is requested again.

        A page that the store leaves out cannot be detected. Never change an object because a listing lacks another one,
        unless a HEAD of the other one confirms that.
        """
        last_key = token = ""
        while True:  # ends: `_page` refuses a page that does not go on
            page = self._page(prefix, last_key, token)
            for entry in page.get("Contents", ()):
                last_key = entry["Key"]
                if not last_key.endswith("/"):  # an empty object by which consoles show a folder
                    yield StoredObject(
                        last_key[len(self.prefix) :],
                        entry["ETag"].strip('"'),
                        entry["Size"],
                        entry["LastModified"].timestamp(),
                        cold_class_in_listing(entry),
                    )
            if not page["IsTruncated"]:
                return
            token = page["NextContinuationToken"]

    @retried
    def _page(self, prefix: str, last_key: str, token: str) -> ListObjectsV2OutputTypeDef:
        """The page of a listing that follows ``last_key``; its keys must rise strictly."""
        request: Any = {"Bucket": self.bucket, "Prefix": self.prefix + prefix, "MaxKeys": PAGE_KEYS, **self._payer}
        request |= {"ContinuationToken": token} if token else {}
        with translated_s3_errors(self.uri(prefix)):
            page = self.client.list_objects_v2(**request)
            if any(cold_class(entry.get("StorageClass", "")) for entry in page.get("Contents", ())):
                # not for each page, because stores without cold classes may refuse the header
                page = self.client.list_objects_v2(**request, OptionalObjectAttributes=["RestoreStatus"])
        keys = [last_key, *(entry["Key"] for entry in page.get("Contents", ()))]
        if any(key <= before for before, key in pairwise(keys)):
            raise StorageUnavailableError(f"{self.uri(prefix)}: the store listed a key twice, or not in order")
        check_answer(page, ("IsTruncated",), self.uri(prefix))
        if page["IsTruncated"] and page.get("NextContinuationToken") in (None, token):
            raise StorageUnavailableError(f"{self.uri(prefix)}: the store did not continue its listing")
        return page

    @override
    def read(self, key: str) -> bytes:
        return self.fetch(key)[0]

    @override
    @retried
    def fetch(self, key: str) -> tuple[bytes, str]:
        with translated_s3_errors(self.uri(key)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key, **self._payer)
            return read_body(answer, self.uri(key)), etag_of(answer, self.uri(key))

    @override
    def head(self, key: str) -> StoredObject:
        return self._stored(key, self._head(key))

    @retried
    def _head(self, key: str) -> HeadObjectOutputTypeDef:
        return head_object(self.client, self.bucket, self.prefix + key, self._payer)

    @override
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        return self._put(key, content, {})

    @override
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        return self._put(key, content, {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'})

    def _put(self, key: str, content: bytes | IO[bytes], condition: Mapping[str, str]) -> StoredObject:
        """One PUT, or a multipart upload that becomes visible when it is complete."""
        body, size = _seekable(content)
        mark = {PUT_MARK: uuid.uuid4().hex}
        try:
            if size <= PART_BYTES:
                answer = self._call(
                    self.client.put_object,
                    key,
                    bool(condition),
                    Body=body.read(),
                    Metadata=mark,
                    **_media_type(key),
                    **condition,
                )
            else:
                answer = self._put_parts(key, body, condition, mark)
        except (PutRefusedError, ObjectNotFoundError):
            # The store may refuse a second attempt because the first one succeeded and its answer was lost.
            current = None
            with contextlib.suppress(ObjectNotFoundError):
                current = self._head(key)
            if current is None or current["Metadata"] != mark:
                raise
            return self._stored(key, current)
        check_answer(answer, ("ETag",), self.uri(key))
        return StoredObject(key, answer["ETag"].strip('"'), size, self._date_of(key, answer))

    def _put_parts(self, key: str, body: IO[bytes], condition: Mapping[str, str], mark: Mapping[str, str]) -> Any:
        """The answer that completes the upload; an upload that fails is aborted."""
        client = self.client
        begun = self._call(client.create_multipart_upload, key, Metadata=mark, **_media_type(key))
        check_answer(begun, ("UploadId",), self.uri(key))
        upload = begun["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            while block := body.read(PART_BYTES):
                number = len(parts) + 1
                sent = self._call(client.upload_part, key, UploadId=upload, PartNumber=number, Body=block)
                check_answer(sent, ("ETag",), self.uri(key))
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            complete, content = client.complete_multipart_upload, {"Parts": parts}
            return self._call(complete, key, bool(condition), UploadId=upload, MultipartUpload=content, **condition)
        except BaseException:
            with contextlib.suppress(StorageError):
                self._call(client.abort_multipart_upload, key, UploadId=upload)
            raise

    @retried
    def _call(self, operation: Callable[..., Any], key: str, conditional: bool = False, /, **arguments: Any) -> Any:
        """Request one operation of the client on one object."""
        with translated_s3_errors(self.uri(key), conditional):
            return operation(Bucket=self.bucket, Key=self.prefix + key, **arguments)

    @override
    def age_s(self, key: str) -> float:
        """By the times in the store's answer."""
        head = self._head(key)
        return self._date_of(key, head) - head["LastModified"].timestamp()

    def _stored(self, key: str, head: HeadObjectOutputTypeDef) -> StoredObject:
        etag, changed = etag_of(head, self.uri(key)), head["LastModified"].timestamp()
        return StoredObject(key, etag, head["ContentLength"], changed, cold_class_of_head(head))

    def _date_of(self, key: str, answer: Any) -> float:
        """When the store gave an answer, by its own clock; Unix time, seconds."""
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        check_answer(headers, ("date",), self.uri(key))
        try:
            return email.utils.parsedate_to_datetime(headers["date"]).timestamp()
        except ValueError as error:
            raise StorageUnavailableError(f"{self.uri(key)}: an answer with the date {headers['date']!r}") from error

    @override
    def delete(self, key: str, etag: str | None = None) -> None:
        condition = {} if etag is None else {"IfMatch": f'"{etag}"'}
        try:
            self._call(self.client.delete_object, key, bool(condition), **condition)
        except PutRefusedError:
            with contextlib.suppress(ObjectNotFoundError):  # the first attempt may have removed it
                self.head(key)
                raise


@lru_cache(maxsize=8)
def s3_client(endpoint_url: str | None = None) -> S3Client:
    """A client that makes one attempt, with boto3's own credentials, region and profile. Thread-safe, so shared.

    Raises `InputError` for an endpoint that contains a password.
    """
    if endpoint_url and "@" in endpoint_url:  # S3 signs its requests: a password would be of no use, and be logged
        raise InputError("--endpoint-url: an address without user and password; the credentials are boto3's own")
    # imported here: local work needs neither the time for it nor, on a bare machine, the package
    import boto3  # noqa: PLC0415
    import botocore.config  # noqa: PLC0415

    config = botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # `RetryPolicy` repeats requests
        connect_timeout=min(10.0, TIMEOUT_S),
        read_timeout=TIMEOUT_S,
        max_pool_connections=64,
        # stores other than AWS often refuse the checksum trailers that boto3 adds by default
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with translated_s3_errors("S3"):
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


def s3_keys() -> tuple[str, str, str | None] | None:
    """Access key, secret key and session token that boto3 finds for `s3_client`; None without credentials."""
    import boto3  # noqa: PLC0415

    found = boto3.session.Session().get_credentials()
    keys = found and found.get_frozen_credentials()
    if not keys or not keys.access_key or not keys.secret_key:
        return None
    return keys.access_key, keys.secret_key, keys.token


def _media_type(key: str) -> dict[str, str]:
    """The argument that has a browser show a page, as behind a presigned address, instead of saving it."""
    return {"ContentType": "text/html; charset=utf-8"} if key.endswith(".html") else {}


def read_body(answer: Any, uri: str, size: int | None = None) -> bytes:
    """The body of an answer; ``size`` bytes, by default as many as its header announces.

    Raises `StorageUnavailableError` when the body is shorter, or slower than `SLOWEST_BYTES_PER_S`.
    """
    size = answer.get("ContentLength") if size is None else size
    deadline = time.monotonic() + TIMEOUT_S + (size or 0) / SLOWEST_BYTES_PER_S
    blocks = []
    with contextlib.closing(answer["Body"]) as body:
        while block := body.read(BLOCK_BYTES):
            blocks.append(block)
            if time.monotonic() > deadline:
                raise StorageUnavailableError(f"{uri}: the store answers too slowly")
    content = b"".join(blocks)
    if size is not None and len(content) != size:
        raise StorageUnavailableError(f"{uri}: the store's answer broke off: {len(content)} bytes of {size}")
    return content


def _seekable(content: bytes | IO[bytes]) -> tuple[IO[bytes], int]:
    """The content as a file at its beginning, and its size in bytes."""
    body = io.BytesIO(content) if isinstance(content, bytes) else content
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    return body, size
