"""The cache of weight files on this node: mirror, download, hash check.

A file enters the cache complete and checked, or not at all: it is written to a temporary file and renamed. A lock makes
the processes of one node take turns, so that one of them downloads and the others find the file.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from posebatch.core.errors import StorageError, StorageUnavailableError, WeightsError
from posebatch.models.weights.environment import CACHE_VARIABLE, MIRROR_VARIABLE
from posebatch.models.weights.published import PublishedFile
from posebatch.storage.open import open_store


def cache_folder() -> Path:
    """``POSEBATCH_CACHE``, else ``posebatch`` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "posebatch"


def cached_path(file: PublishedFile) -> Path:
    """The path of a published file in the cache."""
    return cache_folder() / "weights" / file.file_name


def fetch_published(file: PublishedFile) -> Path:
    """The path of a published file in the cache; the first call downloads it. Raises `WeightsError`."""
    path = cached_path(file)
    if not path.exists():
        _download(path, _address(file), file.sha256_prefix)
    check_hash(path, file.sha256_prefix)
    return path


def fetch_object(uri: str) -> Path:
    """The path of an ``s3://`` object in the cache, which keeps each version of the object in a file of its own.

    Raises `WeightsError`, and `StorageUnavailableError` when the store does not answer.
    """
    root, _, key = uri.rpartition("/")
    try:
        stored = open_store(root).head(key)
    except StorageUnavailableError:
        raise
    except StorageError as error:
        raise WeightsError(f"weights: {error}") from error
    version = hashlib.sha256(f"{uri} {stored.etag}".encode()).hexdigest()[:16]
    path = cache_folder() / "objects" / version / key
    if not path.exists():
        _download(path, uri, "")
    return path


def check_hash(path: Path, sha256_prefix: str) -> None:
    """Raise `WeightsError` unless the sha256 of the file begins with ``sha256_prefix``."""
    if sha256_prefix and not sha256_of(path).startswith(sha256_prefix):
        raise WeightsError(
            f"{path}: its name promises a sha256 that begins with {sha256_prefix}, its content has another: the file "
            "is damaged or not what its name says; delete it and fetch it again"
        )


def sha256_of(path: Path) -> str:
    """The sha256 of a file, 64 hexadecimal digits. Raises `WeightsError` when the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except OSError as error:
        raise WeightsError(f"{path}: the weight file cannot be read: {error.strerror}") from error


def _address(file: PublishedFile) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if mirror:
        return f"{mirror.rstrip('/')}/{file.file_name}"
    if file.url:
        return file.url
    raise WeightsError(
        f"{file.file_name} has no address that a program can fetch. Get it by hand from {file.page}, then "
        f"give its path where you would name the network, or put it into {cached_path(file).parent}"
    )


def _download(path: Path, address: str, sha256_prefix: str) -> None:
    from posebatch.models.weights.download import download  # noqa: PLC0415 - see there

    download(path, address, sha256_prefix)
