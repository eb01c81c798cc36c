"""Object storage behind one small interface: S3 (or anything that speaks its protocol) and local folders.

A `Store` is a root with keys below it: list, read, put whole objects, delete. Puts are atomic: a reader sees the old
object, the new one or none, never a part. `open_source` reads one version of one object by byte ranges.

Whatever a store does not answer is asked again, with pauses that grow and differ, up to `TRIES` times and within
`PATIENCE_S`; then it is a `StorageUnavailableError`. That is the only place with retries: botocore's own are off,
because they know nothing of answers that break off, are wrong, or take for ever.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import functools
import io
import os
import random
import re
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from posebatch.errors import (
    AccessDeniedError,
    InputError,
    ObjectChangedError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageError,
    StorageUnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef, ListObjectsV2OutputTypeDef

P = ParamSpec("P")
T = TypeVar("T")

READ_AHEAD_BYTES = 1 << 20
"""Bytes of one ranged read: large enough to hide a request's latency, small enough not to read far past a segment."""

TRIES = 8
"""How often a store is asked for one thing."""

FIRST_PAUSE_S = 0.2
"""The longest pause before the second try; doubles with each try. Pauses are random: many do not return at once."""

LONGEST_PAUSE_S = 20.0

PATIENCE_S = 120.0
"""After so many seconds no further try is begun."""

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

SPOOL_BYTES = 16 << 20
"""What is put and larger than this should wait on the disk, not in memory, while it is made."""

SCRATCH_FOLDER = "_state/tmp"
"""Where a local store writes before it renames: below the root, so on the same file system, and hidden from readers."""

MAX_LOCAL_PATH_BYTES = 4096
"""What Linux takes as a path, with the zero at its end."""

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)


@dataclass(frozen=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    """Below the root that was listed."""
    etag: str
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""


class Store(ABC):
    """A root in object storage or on a disk; keys are paths below it with forward slashes."""

    root: str

    def uri(self, key: str) -> str:
        """The full address of a key."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, sorted within each folder; none when there is no such root."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A whole object. Raises `ObjectNotFoundError`."""

    def fetch(self, key: str) -> tuple[bytes, str]:
        """A whole object and its etag, both of one version. Raises `ObjectNotFoundError`."""
        while True:
            etag, content = self.head(key).etag, self.read(key)
            if self.head(key).etag == etag:
                return content, etag

    @abstractmethod
    def head(self, key: str) -> StoredObject:
        """What a listing would show of one key. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write a whole object in one step, replacing what was there."""

    @abstractmethod
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Write a whole object only if what is there now has this ``etag``; None: only if nothing is there.

        Raises `PutRefusedError` when something else is there, `UnsupportedError` where the store has no such puts.
        """

    @abstractmethod
    def age_s(self, key: str) -> float:
        """Seconds since an object was written, by the store's own clock. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def delete(self, key: str, etag: str | None = None) -> None:
        """Remove an object, with an ``etag`` only if it has this one; no error when it is not there.

        Raises `PutRefusedError` when something else is there, `UnsupportedError` where the store cannot look.
        """


def _patient(act: Callable[P, T]) -> Callable[P, T]:
    """Do something again while the store does not answer: the one policy of retries, see `TRIES`."""

    @functools.wraps(act)
    def patiently(*args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.monotonic()
        for tried in range(TRIES - 1):
            try:
                return act(*args, **kwargs)
            except StorageUnavailableError:
                pause = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tried))
                if time.monotonic() - begun + pause > PATIENCE_S:
                    raise
                time.sleep(pause)
        return act(*args, **kwargs)

    return patiently


class LocalStore(Store):
    """A folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = os.path.abspath(root)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, depth first; see `Store.list`."""
        start = os.path.join(self.root, prefix)
        folder = start if prefix.endswith("/") or not prefix else os.path.dirname(start)
        for path in _walk(folder):
            key = os.path.relpath(path, self.root).replace(os.sep, "/")
            if key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted since the folder was read
                    yield _stat_object(key, path)

    @_patient
    def read(self, key: str) -> bytes:
        """A whole file; see `Store.read`."""
        with _local_errors(self.uri(key)):
            return Path(self.root, key).read_bytes()

    @_patient
    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        with _local_errors(self.uri(key)):
            return _stat_object(key, os.path.join(self.root, key))

    @_patient
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write beside, flush to the disk, rename; see `Store.put`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            scratch.replace(target)
        return written

    @_patient
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Nothing there: a hard link, which never replaces. Else a rename right after a look; see `Store.put_if`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            try:
                if etag is None:
                    target.hardlink_to(scratch)
                elif _stat_object(key, str(target)).etag != etag:
                    raise _refused(str(target))
                else:
                    scratch.replace(target)
            except (FileExistsError, FileNotFoundError) as error:
                raise _refused(str(target)) from error
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise UnsupportedError(f"{target}: this file system has no hard links") from error
                raise
        return written

    @_patient
    def age_s(self, key: str) -> float:
        """By the clock that stamps files, which need not be this machine's; see `Store.age_s`."""
        with self._written(key, b"") as (scratch, target):
            return scratch.stat().st_mtime - target.stat().st_mtime

    @contextlib.contextmanager
    def _written(self, key: str, content: bytes | IO[bytes]) -> Iterator[tuple[Path, Path]]:
        """A scratch file with the content, safe on the disk and gone afterwards; and where it belongs."""
        target = Path(self.root, key)
        scratch = Path(self.root, SCRATCH_FOLDER, uuid.uuid4().hex)
        with _local_errors(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.parent.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("wb") as file:
                    for block in _blocks(content):
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                yield scratch, target
            finally:
                scratch.unlink(missing_ok=True)

    @_patient
    def delete(self, key: str, etag: str | None = None) -> None:
        """With an ``etag`` right after a look; see `Store.delete`."""
        path = Path(self.root, key)
        with _local_errors(str(path)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if etag is not None and local_etag(path.stat()) != etag:
                raise _refused(str(path))
            path.unlink()


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

    @_patient
    def _page(self, prefix: str, last: str, token: str) -> ListObjectsV2OutputTypeDef:
        """The page of a listing that follows the key ``last``."""
        follows: Any = {"ContinuationToken": token} if token else {}
        with _s3_errors(self.uri(prefix)):
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

    @_patient
    def fetch(self, key: str) -> tuple[bytes, str]:
        """In one GET; see `Store.fetch`."""
        with _s3_errors(self.uri(key)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            return _body(answer, self.uri(key)), answer["ETag"].strip('"')

    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        return _stored_as(key, _head(self.client, self.bucket, self.prefix + key))

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
                found = _head(self.client, self.bucket, self.prefix + key)
            if found is None or found["Metadata"] != mark:
                raise
        return _stored_as(key, found)

    @_patient
    def _put_whole(
        self, key: str, body: IO[bytes], size: int, condition: Mapping[str, str], mark: Mapping[str, str]
    ) -> StoredObject:
        put: Any = self.client.put_object  # the condition's names are known only when it runs
        body.seek(0)
        with _s3_errors(self.uri(key), conditional=bool(condition)):
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

    @_patient
    def _ask(self, action: str, key: str, more: Mapping[str, Any], conditional: bool = False) -> Any:
        """One request about a key, by the name of the client's method."""
        with _s3_errors(self.uri(key), conditional):
            return getattr(self.client, action)(Bucket=self.bucket, Key=self.prefix + key, **more)

    def age_s(self, key: str) -> float:
        """By the times in the store's answer; see `Store.age_s`."""
        found = _head(self.client, self.bucket, self.prefix + key)
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


@contextlib.contextmanager
def spooled() -> Iterator[tempfile.SpooledTemporaryFile[bytes]]:
    """A temporary file to make in it what is to be put; in memory up to `SPOOL_BYTES`.

    Raises `StorageUnavailableError` when its disk is full: that is no fault of what is written.
    """
    with _local_errors(tempfile.gettempdir()), tempfile.SpooledTemporaryFile(SPOOL_BYTES) as file:
        yield file


def open_store(root: str, endpoint_url: str | None = None) -> Store:
    """The store behind ``s3://bucket/prefix`` or a local path."""
    return S3Store(root, endpoint_url) if is_s3(root) else LocalStore(local_path(root))


def open_source(uri: str, etag: str, endpoint_url: str | None = None) -> IO[bytes]:
    """One version of one object as a seekable binary file that reads byte ranges as they are asked for.

    Raises `ObjectNotFoundError`, `AccessDeniedError`, and `ObjectChangedError` when its etag is no longer ``etag``; an
    S3 object is checked at every read.
    """
    if is_s3(uri):
        return io.BufferedReader(_S3Reader(uri, etag, endpoint_url), READ_AHEAD_BYTES)
    with _local_errors(uri):
        file = open(uri, "rb")  # noqa: SIM115 - the caller closes it
    if local_etag(os.fstat(file.fileno())) != etag:
        file.close()
        raise _changed(uri)
    return file


def check_unchanged(uri: str, etag: str) -> None:
    """Raise `ObjectChangedError` when a local file is no longer what it was; reads of S3 check that themselves."""
    if not is_s3(uri):
        with _local_errors(uri):
            now = local_etag(os.stat(uri))
        if now != etag:
            raise _changed(uri)


def is_s3(uri: str) -> bool:
    """Whether the address names S3."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``. Raises `InputError` when there is no bucket."""
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is no S3 address: write s3://bucket/key")
    return match["bucket"], match["key"] or ""


def local_path(uri: str) -> str:
    """Absolute local path of a path. Raises `InputError` for a scheme that we do not speak."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    if scheme:
        raise InputError(f"{uri}: {scheme[1]}:// is not supported; give a local path or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))


def local_etag(stat: os.stat_result) -> str:
    """What stands for an etag of a local file: changes when its size or modification time does."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


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
        retries={"mode": "standard", "total_max_attempts": 1},  # see `_patient`
        connect_timeout=min(10.0, TIMEOUT_S),
        read_timeout=TIMEOUT_S,
        max_pool_connections=64,
        # stores other than AWS often refuse the checksum trailers that boto3 adds by default
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    with _s3_errors("S3"):
        return boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)


class _S3Reader(io.RawIOBase):
    """Ranged GETs with If-Match behind a file's interface."""

    def __init__(self, uri: str, etag: str, endpoint_url: str | None) -> None:
        self._uri, self._etag = uri, etag
        self._bucket, self._key = split_s3(uri)
        self._client = s3_client(endpoint_url)
        head = _head(self._client, self._bucket, self._key)
        if head["ETag"].strip('"') != etag:
            raise _changed(uri)
        self._size, self._position = head["ContentLength"], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        content = self._read_range(self._position, self._position + wanted - 1)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def readall(self) -> bytes:
        # what we inherit reads 8 KiB at a time, each of which would be a request
        content = bytearray(max(0, self._size - self._position))
        return bytes(memoryview(content)[: self.readinto(content)])

    @_patient
    def _read_range(self, first: int, last: int) -> bytes:
        with _s3_errors(self._uri):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._key, IfMatch=f'"{self._etag}"', Range=f"bytes={first}-{last}"
            )
            return _body(answer, self._uri, last - first + 1)


@_patient
def _head(client: S3Client, bucket: str, key: str) -> HeadObjectOutputTypeDef:
    from botocore.exceptions import ClientError  # noqa: PLC0415 - see `s3_client`

    uri = f"s3://{bucket}/{key}"
    with _s3_errors(uri):
        try:
            return client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if _code_and_status(error)[1] not in {"400", "403"}:
                raise
        client.get_object(Bucket=bucket, Key=key)["Body"].close()  # says why; the answer to a HEAD has no room for it
    raise StorageUnavailableError(f"{uri}: refused, and a moment later not")


def _stored_as(key: str, found: HeadObjectOutputTypeDef) -> StoredObject:
    return StoredObject(key, found["ETag"].strip('"'), found["ContentLength"], found["LastModified"].timestamp())


def _body(answer: Any, uri: str, size: int | None = None) -> bytes:
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


def _refused(uri: str) -> PutRefusedError:
    return PutRefusedError(f"{uri}: something else was written there meanwhile")


def _changed(uri: str) -> ObjectChangedError:
    return ObjectChangedError(f"{uri} changed while it was being processed; it will be planned anew")


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder, sorted; links to folders are followed unless they lead back to where we are.

    However deep: no more than a path can say, and what it cannot say nobody can open.
    """
    within: dict[tuple[int, int], Iterator[os.DirEntry[str]]] = {}  # the folders that we are in: what is left of each
    with _local_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        within[_identity(os.stat(folder))] = _entries(folder)
    while within:
        entry = next(next(reversed(within.values())), None)
        if entry is None:
            within.popitem()
            continue
        try:
            below = _identity(entry.stat()) if entry.is_dir() else None
            is_file = entry.is_file()
        except OSError:  # a link to itself
            continue
        if below is not None and below not in within:
            within[below] = _entries(entry.path)
        elif is_file:
            yield entry.path


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


@_patient
def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name."""
    entries: list[os.DirEntry[str]] = []
    with _local_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return iter([entry for entry in entries if len(os.fsencode(entry.path)) < MAX_LOCAL_PATH_BYTES])


def _stat_object(key: str, path: str) -> StoredObject:
    stat = os.stat(path)
    return StoredObject(key, local_etag(stat), stat.st_size, stat.st_mtime)


def _date_of(answer: Any) -> float:
    """When the store gave an answer, by its own clock."""
    return email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _seekable(content: bytes | IO[bytes]) -> tuple[IO[bytes], int]:
    """What is to be put from its beginning, and its size."""
    body = io.BytesIO(content) if isinstance(content, bytes) else content
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    return body, size


def _blocks(content: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    content.seek(0)
    while block := content.read(1 << 20):
        yield block


@contextlib.contextmanager
def _local_errors(path: str) -> Iterator[None]:
    """Translate what the operating system raises."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectNotFoundError(f"{path}: no such file") from error
    except PermissionError as error:
        raise AccessDeniedError(f"{path}: permission denied; check the owner and mode") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise AccessDeniedError(
                f"{path}: the file system is read-only; mount it writable or choose another folder, and run the same "
                "command again"
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageUnavailableError(
                f"{path}: the disk is full; make room, and run the same command again"
            ) from error
        raise StorageUnavailableError(f"{path}: {error.strerror or error}") from error


_NOT_FOUND = {"404", "NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NotFound"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_DENIED = {
    "401",
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AccountProblem",
    "AllAccessDisabled",
}
_TRANSIENT = {
    "408",
    "409",
    "429",
    "BadDigest",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentSHA256Mismatch",
}


@contextlib.contextmanager
def _s3_errors(uri: str, conditional: bool = False) -> Iterator[None]:
    """Translate what botocore raises, of a conditional put or anything else."""
    from botocore import exceptions, parsers  # noqa: PLC0415 - see `s3_client`
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - which botocore lets pass in bodies that it reads itself

    try:
        yield
    except exceptions.ClientError as error:
        raise _put_error(error, uri) if conditional else _translated(error, uri) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise AccessDeniedError(
            f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or give the machine a role"
        ) from error
    except (
        exceptions.ConnectionError,
        exceptions.HTTPClientError,
        exceptions.IncompleteReadError,
        parsers.ResponseParserError,
        HTTPError,
        OSError,
    ) as error:
        raise StorageUnavailableError(f"{uri}: the store did not answer: {error}") from error
    except exceptions.ParamValidationError as error:
        raise InputError(f"{uri}: no valid bucket or key: {error}") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise StorageError(f"{uri}: {error}") from error


def _put_error(error: ClientError, uri: str) -> StorageError:
    """What a conditional put or delete means by its errors."""
    code, status = _code_and_status(error)
    if status in {"409", "412"} or (status == "404" and code == "NoSuchKey"):
        return _refused(uri)
    if status == "501" or code == "NotImplemented":
        return UnsupportedError(f"{uri}: this store has no conditional puts")
    return _translated(error, uri)


def _code_and_status(error: ClientError) -> tuple[str, str]:
    code = error.response.get("Error", {}).get("Code", "")
    return code, str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))


def _translated(error: ClientError, uri: str) -> StorageError:  # noqa: PLR0911 - a table, a line for each class
    code, status = _code_and_status(error)
    if code in {"PreconditionFailed", "412"} or status == "412":
        return _changed(uri)
    if code in _NOT_FOUND or status == "404":
        return ObjectNotFoundError(f"{uri}: no such {'bucket' if code == 'NoSuchBucket' else 'bucket or key'}")
    if code in _EXPIRED:
        return AccessDeniedError(f"{uri}: the credentials have expired; renew them, and the same command goes on")
    if code == "RequestTimeTooSkewed":
        return StorageUnavailableError(f"{uri}: this machine's clock differs from the store's; set it right ({code})")
    if code in _TRANSIENT or status in _TRANSIENT or status.startswith("5"):
        return StorageUnavailableError(f"{uri}: the store is unavailable ({code or status})")
    if code in _DENIED or status in {"401", "403"}:
        return AccessDeniedError(f"{uri}: access denied ({code}); check the credentials and the bucket's policy")
    return StorageError(f"{uri}: {code}: {error.response.get('Error', {}).get('Message', error)}")
