"""Addresses of web servers as inputs, most often presigned ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from posebatch.core.errors import InputError, PosebatchError
from posebatch.run.planning.ahead import mapped_ahead
from posebatch.run.planning.listed_files import ListedFile
from posebatch.storage import retry
from posebatch.storage.addresses import is_http, split_signed
from posebatch.storage.http import head_http


def unsigned(named: str) -> str:
    """An input to show: an ``https://`` address without its query, everything else as it is."""
    return split_signed(named)[0] if is_http(named) else named


def parse_addresses(addresses: Sequence[str]) -> dict[str, str]:
    """The query of each address, by the address without it.

    Raises `InputError` for two addresses that differ in their query alone: the query is secret, so it names no video.
    """
    queries: dict[str, str] = {}
    for address in addresses:
        uri, query = split_signed(address)
        if queries.setdefault(uri, query) != query:
            raise InputError(
                f"{uri} is listed twice with different parameters after '?'; parameters do not name a video: keep one "
                "of the two, or copy the files to addresses of their own"
            )
    return queries


def listed_on_the_web(queries: dict[str, str]) -> Iterator[ListedFile]:
    """The files at these addresses, in order: one request each.

    A file that cannot be read now gets an empty etag: the error is met again when it is opened, and kept in a record.
    """
    yield from mapped_ahead(_listed, queries.items())


def _listed(address: tuple[str, str]) -> ListedFile:
    uri, query = address
    parts = urlsplit(uri)
    key = unquote(parts.path.lstrip("/"), errors="surrogateescape")
    path = f"{parts.netloc}/{key}"
    try:
        stored = head_http(uri, query, retry.DEFAULT_POLICY)
    except PosebatchError:
        return ListedFile(key, uri, path, "", 0, 0.0, access=query)
    return ListedFile(key, uri, path, stored.etag, stored.size_bytes, stored.last_modified, access=query)
