"""Addresses of inputs and outputs, taken apart: ``s3://bucket/key``, ``https://host/path`` or a local path.

A member of an archive has the address ``ARCHIVE!/MEMBER``, such as ``s3://bucket/day1.zip!/cam1/a.mp4``.
"""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import urlsplit

from posebatch.core.errors import InputError

REQUESTER_PAYS: Final = "requester"
"""`SourceVideo.access` of objects whose reader pays for the requests."""


_ACCESS_POINT: Final = r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d*:(?:outpost[/:][^/:]+[/:])?accesspoint[/:][^/:]+"
"""The name of an access point, which stands in place of a bucket."""


_S3_URI: Final = re.compile(rf"s3://(?P<bucket>{_ACCESS_POINT}|[^/]+)(?:/(?P<key>.*))?", re.DOTALL)


_MEMBER: Final = re.compile(r"(?P<archive>.*?\.(?:zip|tar))!/(?P<member>.*)", re.DOTALL | re.IGNORECASE)


def is_s3(uri: str) -> bool:
    """Whether the address names S3."""
    return uri.startswith("s3://")


def split_s3(uri: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``. Raises `InputError` when there is no bucket."""
    match = _S3_URI.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is no S3 address: write s3://bucket/key")
    return match["bucket"], match["key"] or ""


def bucket_folder(bucket: str) -> str:
    """The folder of a bucket in the output. Colons and slashes of an access point become ``_``.

    Names of buckets have no ``_``, so the folders of a bucket and of an access point differ.
    """
    return re.sub(r"[:/]", "_", bucket) if bucket.startswith("arn:") else bucket


def is_http(uri: str) -> bool:
    """Whether the address names a file on a web server."""
    return uri.lower().startswith(("http://", "https://"))


def split_signed(address: str) -> tuple[str, str]:
    """An ``https://`` address as the address to show, and its secret query.

    Raises `InputError` for an address without a host or a path, or with a password.
    """
    shown, _, query = address.partition("#")[0].partition("?")
    try:
        parts = urlsplit(shown)
    except ValueError as error:
        raise InputError(f"{shown}: not a valid address") from error
    if "@" in parts.netloc:
        raise InputError(f"https://{parts.hostname}{parts.path}: give an address without user and password")
    if not parts.hostname or parts.path in ("", "/"):
        raise InputError(f"{shown}: write https://host/path")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}{parts.path}", query


def split_member(uri: str) -> tuple[str, str] | None:
    """The archive and the name in it of ``ARCHIVE!/MEMBER``; None if the address is none of a member."""
    match = _MEMBER.fullmatch(uri)
    return (match["archive"], match["member"]) if match else None


def local_path(uri: str) -> str:
    """The absolute path, with ``~`` expanded.

    Raises `InputError` for a scheme that is not supported, and for an empty address: a variable that is not set must
    not become the current folder.
    """
    if not uri:
        raise InputError("an address is empty; give a local path or s3://bucket/key ('.' is the current folder)")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    if scheme:
        raise InputError(f"{uri}: {scheme[1]}:// is not supported; give a local path or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))
