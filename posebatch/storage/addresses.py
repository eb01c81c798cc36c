"""Addresses of inputs and outputs, taken apart: ``s3://bucket/key`` or a local path."""

from __future__ import annotations

import os
import re

from posebatch.core.errors import InputError

_S3_URI = re.compile(r"s3://(?P<bucket>[^/]+)(?:/(?P<key>.*))?", re.DOTALL)


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
    """The absolute path, with ``~`` expanded. Raises `InputError` for a scheme that is not supported."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", uri)
    if scheme:
        raise InputError(f"{uri}: {scheme[1]}:// is not supported; give a local path or s3://bucket/key")
    return os.path.abspath(os.path.expanduser(uri))
