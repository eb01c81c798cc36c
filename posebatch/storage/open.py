"""Open a store, or a source video, by its address."""

from __future__ import annotations

import io
import os
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    pass
from posebatch.storage.addresses import is_s3, local_path
from posebatch.storage.local import LocalStore, local_etag, translated_disk_errors
from posebatch.storage.s3 import S3Store
from posebatch.storage.s3_reader import READ_AHEAD_BYTES, S3Reader
from posebatch.storage.store import Store, changed_error


def open_store(root: str, endpoint_url: str | None = None) -> Store:
    """The store behind ``s3://bucket/prefix`` or a local path."""
    return S3Store(root, endpoint_url) if is_s3(root) else LocalStore(local_path(root))


def open_source(uri: str, etag: str, endpoint_url: str | None = None) -> IO[bytes]:
    """One version of one object as a seekable binary file that reads byte ranges as they are asked for.

    Raises `ObjectNotFoundError`, `AccessDeniedError`, and `ObjectChangedError` when its etag is no longer ``etag``; an
    S3 object is checked at every read.
    """
    if is_s3(uri):
        return io.BufferedReader(S3Reader(uri, etag, endpoint_url), READ_AHEAD_BYTES)
    with translated_disk_errors(uri):
        file = open(uri, "rb")  # noqa: SIM115 - the caller closes it
    if local_etag(os.fstat(file.fileno())) != etag:
        file.close()
        raise changed_error(uri)
    return file


def check_unchanged(uri: str, etag: str) -> None:
    """Raise `ObjectChangedError` when a local file is no longer what it was; reads of S3 check that themselves."""
    if not is_s3(uri):
        with translated_disk_errors(uri):
            now = local_etag(os.stat(uri))
        if now != etag:
            raise changed_error(uri)
