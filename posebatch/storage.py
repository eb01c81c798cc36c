"""Object storage behind one small interface: S3 (or anything that speaks its protocol) and local folders.

A `Store` is a root with keys below it: list, read, put whole objects, delete. Puts are atomic: a reader sees the old
object, the new one or none, never a part. `open_source` reads one version of one object by byte ranges.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import io
import os
import random
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

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

READ_AHEAD_BYTES = 1 << 20
"""Bytes of one ranged read: large enough to hide a request's latency, small enough not to read far past a segment."""

BROKEN_READ_ATTEMPTS = 4
"""How often one byte range is asked for when the connection breaks while it is read."""

MULTIPART_BYTES = 32 << 20
"""From this size on an object goes up in parts."""

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
    def delete(self, key: str) -> None:
        """Remove an object; no error when it is not there."""


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

    def read(self, key: str) -> bytes:
        """A whole file; see `Store.read`."""
        with _local_errors(self.uri(key)):
            return Path(self.root, key).read_bytes()

    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        with _local_errors(self.uri(key)):
            return _stat_object(key, os.path.join(self.root, key))

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write beside, flush to the disk, rename; see `Store.put`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            scratch.replace(target)
        return written

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Nothing there: a hard link, which never replaces. Else a rename right after a look; see `Store.put_if`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            try:
                if etag is None:
                    target.hardlink_to(scratch)
                elif _stat_object(key, str(target)).etag != etag:
                    raise PutRefusedError(f"{target}: something else was written there meanwhile")
                else:
                    scratch.replace(target)
            except (FileExistsError, FileNotFoundError) as error:
                raise PutRefusedError(f"{target}: something else was written there meanwhile") from error
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise UnsupportedError(f"{target}: this file system has no hard links") from error
                raise
        return written

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

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with _local_errors(self.uri(key)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            Path(self.root, key).unlink()


class S3Store(Store):
    """A bucket, or a prefix in one."""

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.bucket, key = split_s3(root)
        self.prefix = f"{key.rstrip('/')}/" if key.rstrip("/") else ""
        self.root = f"s3://{self.bucket}/{self.prefix}".rstrip("/")
        self.client = s3_client(endpoint_url)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Pages of a thousand keys; see `Store.list`."""
        with _s3_errors(self.uri(prefix)):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):  # the folders that consoles make
                        yield StoredObject(
                            entry["Key"][len(self.prefix) :],
                            entry["ETag"].strip('"'),
                            entry["Size"],
                            entry["LastModified"].timestamp(),
                        )

    def read(self, key: str) -> bytes:
        """A whole object; see `Store.read`."""
        with _s3_errors(self.uri(key)):
            return bytes(self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read())

    def fetch(self, key: str) -> tuple[bytes, str]:
        """In one GET; see `Store.fetch`."""
        with _s3_errors(self.uri(key)):
            answer = self.client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            return bytes(answer["Body"].read()), answer["ETag"].strip('"')

    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        with _s3_errors(self.uri(key)):
            found = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        return StoredObject(key, found["ETag"].strip('"'), found["ContentLength"], found["LastModified"].timestamp())

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """One PUT, or a multipart upload that appears when it is complete; see `Store.put`."""
        body, size = _seekable(content)
        with _s3_errors(self.uri(key)):
            if size < MULTIPART_BYTES:
                return self._put_whole(key, body, size)
            self.client.upload_fileobj(body, self.bucket, self.prefix + key)
        return self.head(key)

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """One PUT with If-Match or If-None-Match; see `Store.put_if`."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": f'"{etag}"'}
        body, size = _seekable(content)
        with _s3_errors(self.uri(key), conditional=True):
            return self._put_whole(key, body, size, condition)

    def _put_whole(
        self, key: str, body: IO[bytes], size: int, condition: Mapping[str, str] = MappingProxyType({})
    ) -> StoredObject:
        put: Any = self.client.put_object  # the condition's names are known only when it runs
        answer = put(Bucket=self.bucket, Key=self.prefix + key, Body=body.read(), **condition)
        return StoredObject(key, answer["ETag"].strip('"'), size, _date_of(answer))

    def age_s(self, key: str) -> float:
        """By the times in the store's answer; see `Store.age_s`."""
        with _s3_errors(self.uri(key)):
            found = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        return _date_of(found) - found["LastModified"].timestamp()

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with _s3_errors(self.uri(key)):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)


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
    """A client with boto3's own credentials, region and profile; retries with back-off. Thread-safe, so shared.

    Raises `InputError` for an address that holds a password.
    """
    if endpoint_url and "@" in endpoint_url:  # S3 signs its requests: such a password would only be written about
        raise InputError("--endpoint-url: an address without user and password; the credentials are boto3's own")
    # imported where S3 is spoken: local work needs neither the time nor, on a bare machine, the package
    import boto3  # noqa: PLC0415
    import botocore.config  # noqa: PLC0415

    config = botocore.config.Config(
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=10,
        read_timeout=60,
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
        with _s3_errors(uri):
            head = self._client.head_object(Bucket=self._bucket, Key=self._key)
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

    def _read_range(self, first: int, last: int) -> bytes:
        # botocore retries a request that fails, but not an answer that breaks off while it is read
        for attempt in range(BROKEN_READ_ATTEMPTS):
            try:
                with _s3_errors(self._uri):
                    answer = self._client.get_object(
                        Bucket=self._bucket,
                        Key=self._key,
                        IfMatch=f'"{self._etag}"',
                        Range=f"bytes={first}-{last}",
                    )
                    return bytes(answer["Body"].read())
            except StorageUnavailableError:
                if attempt == BROKEN_READ_ATTEMPTS - 1:
                    raise
                time.sleep(2**attempt * random.uniform(0.2, 0.4))
        raise AssertionError("unreachable")


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
        if below is not None:
            within.setdefault(below, _entries(entry.path))
        elif is_file:
            yield entry.path


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name; read when the first is asked for."""
    entries: list[os.DirEntry[str]] = []
    with _local_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    yield from (entry for entry in entries if len(os.fsencode(entry.path)) < MAX_LOCAL_PATH_BYTES)


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
        raise StorageUnavailableError(f"{path}: {error.strerror or error}") from error


_NOT_FOUND = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_DENIED = {
    "401",
    "403",
    "AccessDenied",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AccountProblem",
    "AllAccessDisabled",
}
_TRANSIENT = {
    "500",
    "502",
    "503",
    "504",
    "InternalError",
    "ServiceUnavailable",
    "SlowDown",
    "RequestTimeout",
    "429",
    "TooManyRequests",
    "Throttling",
    "ThrottlingException",
    "RequestTimeTooSkewed",
    "OperationAborted",
    "409",
}


@contextlib.contextmanager
def _s3_errors(uri: str, conditional: bool = False) -> Iterator[None]:
    """Translate what botocore raises, of a conditional put or anything else."""
    from botocore import exceptions  # noqa: PLC0415 - see `s3_client`

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
    ) as error:
        raise StorageUnavailableError(f"{uri}: the store did not answer: {error}") from error
    except exceptions.ParamValidationError as error:
        raise InputError(f"{uri}: no valid bucket or key: {error}") from error
    except (exceptions.BotoCoreError, ValueError) as error:
        raise StorageError(f"{uri}: {error}") from error


def _put_error(error: ClientError, uri: str) -> StorageError:
    """What a conditional put means by its errors."""
    code = error.response.get("Error", {}).get("Code", "")
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if status in {"409", "412"} or (status == "404" and code == "NoSuchKey"):
        return PutRefusedError(f"{uri}: something else was written there meanwhile")
    if status == "501" or code == "NotImplemented":
        return UnsupportedError(f"{uri}: this store has no conditional puts")
    return _translated(error, uri)


def _translated(error: ClientError, uri: str) -> StorageError:
    code = error.response.get("Error", {}).get("Code", "")
    status = str(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    if code in {"PreconditionFailed", "412"} or status == "412":
        return _changed(uri)
    if code in _NOT_FOUND or status == "404":
        return ObjectNotFoundError(f"{uri}: no such {'bucket' if code == 'NoSuchBucket' else 'bucket or key'}")
    if code in _DENIED or status in {"401", "403"}:
        return AccessDeniedError(f"{uri}: access denied ({code}); check the credentials and the bucket's policy")
    if code in _TRANSIENT or status.startswith("5"):
        return StorageUnavailableError(f"{uri}: the store is unavailable ({code or status})")
    return StorageError(f"{uri}: {code}: {error.response.get('Error', {}).get('Message', error)}")
