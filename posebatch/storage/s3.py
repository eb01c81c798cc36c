"""A store on S3: listings, ranged reads, conditional and multipart uploads."""

from __future__ import annotations

import contextlib
import email.utils
import io
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any

from posebatch.core.errors import (
    InputError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, ListObjectsV2OutputTypeDef
from posebatch.storage.addresses import split_s3
from posebatch.storage.retry import retried
from posebatch.storage.s3_errors import code_and_status, translated_s3_errors
from posebatch.storage.store import Store, StoredObject

TIMEOUT_S = 30.0
"""How long a store may say nothing."""


SLOWEST_BYTES_PER_S = 16 << 10
"""An answer that takes `TIMEOUT_S` longer than this comes over a bad connection; another one may be better."""


BLOCK_BYTES = 16 << 10
"""Bytes of an answer between two looks at the clock."""


PAGE_KEYS = 1000
"""Keys of one answer to a listing."""


PART_BYTES = 16 << 20
"""Larger objects go up in parts of this size."""


PUT_MARK = "posebatch-put"
"""Names each put in its object's metadata: one whose answer was lost is known again by it."""


class S3Store(Store):
    """A bucket, or a prefix in one."""

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.bucket, key = split_s3(root)
        self.prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        self.root = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.client = s3_client(endpoint_url)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Pages of a thousand keys, strictly rising: a page that is given twice is asked for again; see `Store.list`.

        That a store left a page out cannot be seen in a listing. So nothing may be done to an object because a listing
        lacks another one without a look at that one.
        """
        last = token = ""
        while True:
            page = self._page(prefix, last, token)
            for entry in page.get("Contents", ()):
                last = entry["Key"]
                if not last.endswith("/"):  # the folders that consoles make
                    yield StoredObject(
                        last[len(self.prefix) :],
                        entry["ETag"].strip('"'),
                        entry["Size"],
                        entry["LastModified"].timestamp(),
                    )
            if not page["IsTruncated"]:
                return
            token = page["NextContinuationToken"]

    @retried
    def _page(self, prefix: str, last: str, token: str) -> ListObjectsV2OutputTypeDef:
        """The page of a listing that follows the key ``last``."""
        follows: Any = {"ContinuationToken": token} if token else {}
        with translated_s3_errors(self.uri(prefix)):
            page = self.client.list_objects_v2(
                Bucket=self.bucket, Prefix=self.prefix + prefix, MaxKeys=PAGE_KEYS, **follows
            )
        keys = [last, *(entry["Key"] for entry in page.get("Contents", ()))]
        if any(key <= before for before, key in pairwise(keys)):
            raise StorageUnavailableError(f"{self.uri(prefix)}: the store listed a key twice, or not in order")
        if page["IsTruncated"] and page.get("NextContinuationToken") in (None, token):
            raise StorageUnavailableError(f"{self.uri(prefix)}: the listing does not get on")
        return page

    def read(self, key: str) -> bytes:
        """A whole object; see `Store.read`."""
        return self.fetch(key)[0]

    @retried
    def fetch(self, key: str) -> tuple[bytes, str]:
        """In one GET; see `Store.fetch`."""
        with translated_s3_errors(self.uri(key)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            return read_body(answer, self.uri(key)), answer["ETag"].strip('"')

    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        return _stored_as(key, head_object(self.client, self.bucket, self.prefix + key))

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """One PUT, or a multipart upload that appears when it is complete; see `Store.put`."""
        return self._put(key, content, {})

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """The same with If-Match or If-None-Match; see `Store.put_if`."""
        return self._put(key, content, {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'})

    def _put(self, key: str, content: bytes | IO[bytes], condition: Mapping[str, str]) -> StoredObject:
        body, size = _seekable(content)
        mark = {PUT_MARK: uuid.uuid4().hex}
        write = self._put_whole if size <= PART_BYTES else self._put_parts
        try:
            return write(key, body, size, condition, mark)
        except (PutRefusedError, ObjectNotFoundError):
            # What refuses a second try may be our first one, whose answer was lost.
            found = None
            with contextlib.suppress(ObjectNotFoundError):
                found = head_object(self.client, self.bucket, self.prefix + key)
            if found is None or found["Metadata"] != mark:
                raise
        return _stored_as(key, found)

    @retried
    def _put_whole(
        self, key: str, body: IO[bytes], size: int, condition: Mapping[str, str], mark: Mapping[str, str]
    ) -> StoredObject:
        put: Any = self.client.put_object  # the condition's names are known only when it runs
        body.seek(0)
        with translated_s3_errors(self.uri(key), conditional=bool(condition)):
            answer = put(Bucket=self.bucket, Key=self.prefix + key, Body=body.read(), Metadata=mark, **condition)
        return StoredObject(key, answer["ETag"].strip('"'), size, _date_of(answer))

    def _put_parts(
        self, key: str, body: IO[bytes], size: int, condition: Mapping[str, str], mark: Mapping[str, str]
    ) -> StoredObject:
        upload = self._ask("create_multipart_upload", key, {"Metadata": mark})["UploadId"]
        parts: list[dict[str, Any]] = []
        try:
            while block := body.read(PART_BYTES):
                number = len(parts) + 1
                sent = self._ask("upload_part", key, {"UploadId": upload, "PartNumber": number, "Body": block})
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            done = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, **condition}
            answer = self._ask("complete_multipart_upload", key, done, conditional=bool(condition))
        except BaseException:
            with contextlib.suppress(StorageError):
                self._ask("abort_multipart_upload", key, {"UploadId": upload})
            raise
        return StoredObject(key, answer["ETag"].strip('"'), size, _date_of(answer))

    @retried
    def _ask(self, action: str, key: str, more: Mapping[str, Any], conditional: bool = False) -> Any:
        """One request about a key, by the name of the client's method."""
        with translated_s3_errors(self.uri(key), conditional):
            return getattr(self.client, action)(Bucket=self.bucket, Key=self.prefix + key, **more)

    def age_s(self, key: str) -> float:
        """By the times in the store's answer; see `Store.age_s`."""
        found = head_object(self.client, self.bucket, self.prefix + key)
        return _date_of(found) - found["LastModified"].timestamp()

    def delete(self, key: str, etag: str | None = None) -> None:
        """With an ``etag`` by If-Match; see `Store.delete`."""
        condition = {} if etag is None else {"IfMatch": f'"{etag}"'}
        try:
            self._ask("delete_object", key, condition, conditional=bool(condition))
        except PutRefusedError:
            with contextlib.suppress(ObjectNotFoundError):  # our first try may have removed it
                self.head(key)
                raise


@lru_cache(maxsize=8)
def s3_client(endpoint_url: str | None = None) -> S3Client:
    """A client with boto3's own credentials, region and profile, which tries once. Thread-safe, so shared.

    Raises `InputError` for an address that holds a password.
    """
    if endpoint_url and "@" in endpoint_url:  # S3 signs its requests: such a password would only be written about
        raise InputError("--endpoint-url: an address without user and password; the credentials are boto3's own")
    # imported where S3 is spoken: local work needs neither the time nor, on a bare machine, the package
    import boto3  # noqa: PLC0415
    import botocore.config  # noqa: PLC0415

    config = botocore.config.Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # see `retried`
        connect_timeout=min(10.0, TIMEOUT_S),
        read_timeout=TIMEOUT_S,
        max_pool_connections=64,
        # stores other than AWS often refuse the checksum trailers that boto3 adds by default
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with translated_s3_errors("S3"):
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


@retried
def head_object(client: S3Client, bucket: str, key: str) -> HeadObjectOutputTypeDef:
    """Size and ETag of an object. Raises `ObjectNotFoundError` or another `StorageError`."""
    from botocore.exceptions import ClientError  # noqa: PLC0415 - see `s3_client`

    uri = f"s3://{bucket}/{key}"
    with translated_s3_errors(uri):
        try:
            return client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if code_and_status(error)[1] not in {"400", "403"}:
                raise
        client.get_object(Bucket=bucket, Key=key)["Body"].close()  # says why; the answer to a HEAD has no room for it
    raise StorageUnavailableError(f"{uri}: refused, and a moment later not")


def _stored_as(key: str, found: HeadObjectOutputTypeDef) -> StoredObject:
    return StoredObject(key, found["ETag"].strip('"'), found["ContentLength"], found["LastModified"].timestamp())


def read_body(answer: Any, uri: str, size: int | None = None) -> bytes:
    """An answer's body, which must have its whole ``size`` and not come at a crawl."""
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


def _date_of(answer: Any) -> float:
    """When the store gave an answer, by its own clock."""
    return email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _seekable(content: bytes | IO[bytes]) -> tuple[IO[bytes], int]:
    """What is to be put from its beginning, and its size."""
    body = io.BytesIO(content) if isinstance(content, bytes) else content
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    return body, size
