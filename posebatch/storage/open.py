"""Open a store, or a source video, by its address."""

from __future__ import annotations

import io
import os
from typing import IO, Final

from posebatch.storage import retry
from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.disk_errors import translated_disk_errors
from posebatch.storage.local import LocalStore, local_etag
from posebatch.storage.retry import RetryPolicy
from posebatch.storage.s3 import S3Store
from posebatch.storage.s3_reader import S3Reader
from posebatch.storage.store import Store, changed_error

READ_AHEAD_BYTES: Final = 1 << 20
"""Bytes of one ranged read: large enough to hide a request's latency, small enough not to read far past a segment."""


def open_store(root: str, endpoint_url: str | None = None) -> Store:
    """The store at ``s3://bucket/prefix`` or at a local path. Raises `InputError` for any other address."""
    return S3Store(root, endpoint_url) if is_s3(root) else LocalStore(local_path(root))


def open_source(
    uri: str,
    etag: str,
    endpoint_url: str | None = None,
    retry_policy: RetryPolicy | None = None,
    read_ahead_bytes: int | None = None,
) -> IO[bytes]:
    """One version of one object as a seekable binary file, which reads byte ranges on demand.

    ``read_ahead_bytes``: size of a ranged read; default `READ_AHEAD_BYTES`. Raises `ObjectNotFoundError`,
    `AccessDeniedError`, and `ObjectChangedError` when its etag is not ``etag``. The etag of an S3 object is checked at
    every read, that of a local file only here; see `check_unchanged`.
    """
    if is_s3(uri):
        reader = S3Reader(uri, etag, endpoint_url, retry_policy or retry.DEFAULT_POLICY)
        return io.BufferedReader(reader, read_ahead_bytes or READ_AHEAD_BYTES)
    with translated_disk_errors(uri):
        file = open(uri, "rb")  # noqa: SIM115 - the caller closes it
    if local_etag(os.fstat(file.fileno())) != etag:
        file.close()
        raise changed_error(uri)
    return file


def open_newest(address: str, endpoint_url: str | None = None) -> IO[bytes]:
    """The current version of a file or an S3 object, as `open_source` opens it.

    Raises `InputError` for any other address.
    """
    if is_s3(address):
        bucket, key = split_s3(address)
        return open_source(address, open_store(f"s3://{bucket}", endpoint_url).head(key).etag, endpoint_url)
    path = local_path(address)
    with translated_disk_errors(path):
        etag = local_etag(os.stat(path))
    return open_source(path, etag)


def check_unchanged(uri: str, etag: str) -> None:
    """Raise `ObjectChangedError` when a local file has another etag now. Reads from S3 check that themselves."""
    if not is_s3(uri):
        with translated_disk_errors(uri):
            current_etag = local_etag(os.stat(uri))
        if current_etag != etag:
            raise changed_error(uri)
