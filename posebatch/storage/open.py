"""Open a store, or a source video, by its address."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import replace
from typing import IO, Final

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.core.videos import SourceVideo
from posebatch.storage import retry
from posebatch.storage.addresses import is_http, is_s3, local_path, split_member, split_s3, split_signed
from posebatch.storage.archives.members import WHOLE, ArchiveListing, member_source
from posebatch.storage.archives.opening import LISTING_READ_AHEAD_BYTES, list_archive, open_member
from posebatch.storage.disk_errors import translated_disk_errors
from posebatch.storage.http import HttpReader, head_http
from posebatch.storage.local import LocalStore, local_etag
from posebatch.storage.retry import RetryPolicy
from posebatch.storage.s3 import S3Store
from posebatch.storage.s3_reader import S3Reader
from posebatch.storage.store import Store, StoredObject, changed_error

READ_AHEAD_BYTES: Final = 1 << 20
"""Bytes of one ranged read: large enough to hide a request's latency, small enough not to read far past a segment."""


def open_store(root: str, endpoint_url: str | None = None) -> Store:
    """The store at ``s3://bucket/prefix`` or at a local path. Raises `InputError` for any other address."""
    return S3Store(root, endpoint_url) if is_s3(root) else LocalStore(local_path(root))


def open_video(video: SourceVideo, endpoint_url: str | None = None, read_ahead_bytes: int | None = None) -> IO[bytes]:
    """The planned version of a video, as `open_source` opens it."""
    return open_source(video.uri, video.etag, endpoint_url, access=video.access, read_ahead_bytes=read_ahead_bytes)


def open_source(
    uri: str,
    etag: str,
    endpoint_url: str | None = None,
    retry_policy: RetryPolicy | None = None,
    access: str = "",
    read_ahead_bytes: int | None = None,
) -> IO[bytes]:
    """One version of one object as a seekable binary file, which reads byte ranges on demand.

    ``access``: as in `SourceVideo`; ``read_ahead_bytes``: size of a ranged read, default `READ_AHEAD_BYTES`.

    Raises `ObjectNotFoundError`, `AccessDeniedError`, `ColdObjectError`, `ObjectChangedError` when its etag is not
    ``etag``, and `ArchiveError` for a member of an archive that cannot be read. The etag of an object on S3 or on a web
    server is checked at every read, that of a local file only here; see `check_unchanged`.
    """
    policy, ahead = retry_policy or retry.DEFAULT_POLICY, read_ahead_bytes or READ_AHEAD_BYTES
    member = member_source(uri, etag)
    if member is None:
        return _open_whole(uri, etag, endpoint_url, policy, access, ahead)
    ahead = LISTING_READ_AHEAD_BYTES if member.location == WHOLE else ahead
    return open_member(
        _open_whole(member.archive, member.archive_etag, endpoint_url, policy, access, ahead), member, uri
    )


def _open_whole(
    uri: str, etag: str, endpoint_url: str | None, policy: RetryPolicy, access: str, read_ahead_bytes: int
) -> IO[bytes]:
    """An object that is no member of an archive."""
    if is_s3(uri):
        return io.BufferedReader(S3Reader(uri, etag, endpoint_url, policy, access), read_ahead_bytes)
    if is_http(uri):
        return io.BufferedReader(HttpReader(uri, access, etag, policy), read_ahead_bytes)
    with translated_disk_errors(uri):
        file = open(uri, "rb")  # noqa: SIM115 - the caller closes it
    if local_etag(os.fstat(file.fileno())) != etag:
        file.close()
        raise changed_error(uri)
    return file


def list_members(
    archive_uri: str, archive_etag: str, endpoint_url: str | None = None, access: str = ""
) -> ArchiveListing:
    """The files in one version of an archive. Raises `ArchiveError`, and the errors of `open_source`."""
    policy = retry.DEFAULT_POLICY
    with _open_whole(archive_uri, archive_etag, endpoint_url, policy, access, LISTING_READ_AHEAD_BYTES) as file:
        return list_archive(file, archive_uri)


def find_source(uri: str, endpoint_url: str | None = None, access: str = "") -> StoredObject:
    """The current version of a file, of an S3 object, of a file on a web server, or of a member of an archive.

    Its key is ``uri``. Raises `ObjectNotFoundError`, `ArchiveError`, and `InputError` for any other address.
    """
    parts = split_member(uri)
    if parts is not None and is_http(uri):  # the signature is that of the archive
        return _find_member(*parts, endpoint_url, access)
    try:
        return _find_whole(uri, endpoint_url, access)
    except ObjectNotFoundError:
        if parts is None:
            raise
    return _find_member(*parts, endpoint_url, access)


def _find_member(archive_uri: str, name: str, endpoint_url: str | None, access: str) -> StoredObject:
    archive = _find_whole(archive_uri, endpoint_url, access)
    member = list_members(archive_uri, archive.etag, endpoint_url, access).members.get(name)
    uri = f"{archive_uri}!/{name}"
    if member is None:
        raise ObjectNotFoundError(f"{uri}: the archive has no such member")
    return StoredObject(uri, member.location.etag(archive.etag), member.size_bytes, archive.last_modified)


def _find_whole(uri: str, endpoint_url: str | None, access: str) -> StoredObject:
    if is_http(uri):
        return head_http(uri, access, retry.DEFAULT_POLICY)
    if is_s3(uri):
        bucket, key = split_s3(uri)
        return replace(S3Store(f"s3://{bucket}", endpoint_url, access=access).head(key), key=uri)
    with translated_disk_errors(uri):
        status = os.stat(uri)
    if not stat.S_ISREG(status.st_mode):  # to open a FIFO would wait for ever
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise InputError(f"{uri}: {kind}; give a video file")
    return StoredObject(uri, local_etag(status), status.st_size, status.st_mtime)


def relist(video: SourceVideo, endpoint_url: str | None) -> SourceVideo:
    """The video as the store has it now. Raises `ObjectNotFoundError` if it is gone, and `ArchiveError`."""
    member = member_source(video.uri, video.etag)
    if member is None:
        now = find_source(video.uri, endpoint_url, video.access)
    elif member.location == WHOLE:
        now = _find_whole(video.uri, endpoint_url, video.access)
        now = replace(now, etag=WHOLE.etag(now.etag))
    else:
        now = _find_member(member.archive, member.name, endpoint_url, video.access)
    return replace(video, etag=now.etag, size_bytes=now.size_bytes, last_modified=now.last_modified)


def open_newest(address: str, endpoint_url: str | None = None, access: str = "") -> IO[bytes]:
    """The current version of a source, as `open_source` opens it; an ``https://`` address may be a signed one.

    Raises `InputError` for any other address.
    """
    if is_http(address):
        address, access = split_signed(address)
    elif not is_s3(address):
        address = local_path(address)
    etag = find_source(address, endpoint_url, access).etag
    return open_source(address, etag, endpoint_url, access=access)


def check_unchanged(uri: str, etag: str) -> None:
    """Raise `ObjectChangedError` when a local file has another etag now. Reads from a network check that themselves."""
    member = member_source(uri, etag)
    if member is not None:
        uri, etag = member.archive, member.archive_etag
    if is_s3(uri) or is_http(uri):
        return
    with translated_disk_errors(uri):
        current_etag = local_etag(os.stat(uri))
    if current_etag != etag:
        raise changed_error(uri)
