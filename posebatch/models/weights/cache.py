"""Weight files of others, brought to this node once: cache, mirror, download, hash.

A file appears in the cache whole and checked, or not at all: it is written beside its place and renamed. Processes of
one node wait for each other, so that one of them fetches and the others find.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import http.client
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from posebatch.core.errors import StorageError, StorageUnavailableError, WeightsError
from posebatch.core.redaction import redacted
from posebatch.core.version import __version__
from posebatch.models.weights.published import PublishedFile
from posebatch.storage.open import open_source, open_store
from posebatch.storage.spool import write_atomically

CACHE_VARIABLE: Final = "POSEBATCH_CACHE"
"""Names the folder of the cache."""


MIRROR_VARIABLE: Final = "POSEBATCH_WEIGHTS"
"""Names a folder, an s3:// prefix or an http(s) address that holds published files under their own names."""


RETRY_PAUSES_S: Final = (1.0, 4.0, 10.0)
"""Before each further attempt, when a server does not answer or breaks off."""


_TIMEOUT_S = 30.0


_BLOCK_BYTES = 1 << 20


_TRANSIENT_STATUS = (408, 425, 429)


def cache_folder() -> Path:
    """``POSEBATCH_CACHE``, else ``posebatch`` in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "posebatch"


def cached_path(file: PublishedFile) -> Path:
    """Where the file lies once it is fetched."""
    return cache_folder() / "weights" / file.file_name


def fetch_published(file: PublishedFile) -> Path:
    """The file in the cache, downloaded at the first call. Raises `WeightsError`."""
    path = cached_path(file)
    if not path.exists():
        _fill(path, _address(file), file.sha256_prefix)
    check_hash(path, file.sha256_prefix)
    return path


def fetch_object(uri: str) -> Path:
    """An ``s3://`` object in the cache, one file for each of its versions.

    Raises `WeightsError`, and `StorageUnavailableError` when the store does not answer.
    """
    root, _, key = uri.rpartition("/")
    try:
        found = open_store(root).head(key)
    except StorageUnavailableError:
        raise
    except StorageError as error:
        raise WeightsError(f"weights: {error}") from error
    version = hashlib.sha256(f"{uri} {found.etag}".encode()).hexdigest()[:16]
    path = cache_folder() / "objects" / version / key
    if not path.exists():
        _fill(path, uri, "")
    return path


def check_hash(path: Path, sha256_prefix: str) -> None:
    """Raise `WeightsError` when the file's sha256 does not begin like that."""
    if sha256_prefix and not sha256_of(path).startswith(sha256_prefix):
        raise WeightsError(
            f"{path}: its name promises a sha256 that begins with {sha256_prefix}, its content has another: it is "
            "damaged or not what its name says; delete it and fetch it again"
        )


def sha256_of(path: Path) -> str:
    """The file's sha256, 64 hexadecimal digits. Raises `WeightsError` when it cannot be read."""
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


class _BrokenOffError(Exception):
    """A download did not come to its end; another attempt may."""


@dataclass(frozen=True)
class _Stream:
    blocks: Iterator[bytes]
    size_bytes: int | None
    """None when the server does not say."""


def _fill(path: Path, address: str, sha256_prefix: str) -> None:
    """Put what lies at the address into ``path``; raises `WeightsError` and leaves nothing when that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if not path.exists():  # another process was faster
                _download(path, address, sha256_prefix)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written ({error.strerror or error}); {CACHE_VARIABLE} can name another cache folder"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process of this node at a time; the lock goes with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that downloads into {folder}", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _download(path: Path, address: str, sha256_prefix: str) -> None:
    for left_over in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed: we hold the lock
        left_over.unlink()
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            write_atomically(path, functools.partial(_copy, address, sha256_prefix))
        except _BrokenOffError as error:
            if pause_s is None:
                raise WeightsError(
                    f"{address} could not be fetched in {len(RETRY_PAUSES_S) + 1} attempts: {error}. Where there is no "
                    f"network, fetch it elsewhere and put it at {path}, or let {MIRROR_VARIABLE} name a mirror"
                ) from error
            print(redacted(f"{address}: {error}; trying again in {pause_s:g} s"), file=sys.stderr)
            time.sleep(pause_s * random.uniform(0.8, 1.2))
        else:
            return


def _copy(address: str, sha256_prefix: str, file: IO[bytes]) -> None:
    """Write what lies at the address. Raises `_BrokenOffError`, and `WeightsError` when its sha256 is another."""
    digest, received = hashlib.sha256(), 0
    with _opened(address) as stream, _Progress(address, stream.size_bytes) as progress:
        for block in stream.blocks:
            digest.update(block)
            file.write(block)
            received += len(block)
            progress.show(received)
    if stream.size_bytes is not None and received != stream.size_bytes:
        raise _BrokenOffError(f"{received} of {stream.size_bytes} bytes came")
    sha256 = digest.hexdigest()
    if not sha256.startswith(sha256_prefix):
        raise WeightsError(
            f"{address}: its name promises a sha256 that begins with {sha256_prefix}, what came has "
            f"{sha256[:8]}; nothing was kept. If you know the file to be right, get it by other means, "
            "convert it with `posebatch models convert`, and name the result"
        )
    os.fchmod(file.fileno(), 0o644)  # readable by other users of the node, whatever the umask


@contextlib.contextmanager
def _opened(address: str) -> Iterator[_Stream]:
    if urllib.parse.urlsplit(address).scheme in ("http", "https"):
        with _opened_http(address) as stream:
            yield stream
        return
    try:
        root, _, key = address.rpartition("/")
        store = open_store(root)
        found = store.head(key)
        with open_source(store.uri(key), found.etag) as source:
            yield _Stream(_storage_blocks(source), found.size_bytes)
    except StorageUnavailableError as error:
        raise _BrokenOffError(str(error)) from error
    except StorageError as error:
        raise WeightsError(f"weights: {error}") from error


def _storage_blocks(source: IO[bytes]) -> Iterator[bytes]:
    while block := source.read(_BLOCK_BYTES):
        yield block


@contextlib.contextmanager
def _opened_http(url: str) -> Iterator[_Stream]:
    request = urllib.request.Request(url, headers={"User-Agent": f"posebatch/{__version__}"})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code >= 500 or error.code in _TRANSIENT_STATUS:
            raise _BrokenOffError(f"the server said {error.code} {error.reason}") from error
        raise WeightsError(f"{url}: the server said {error.code} {error.reason}; is the address right?") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    with response:
        length = response.headers.get("Content-Length")
        yield _Stream(_http_blocks(response), int(length) if length else None)


def _http_blocks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            block = response.read(_BLOCK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block


class _Progress:
    """Says on stderr how far a download is: a line that is redrawn on a terminal, else a line every few seconds."""

    def __init__(self, address: str, size_bytes: int | None) -> None:
        self._name = address.rsplit("/", 1)[-1]
        self._size_bytes = size_bytes
        self._terminal = sys.stderr.isatty()
        self._every_s = 0.2 if self._terminal else 5.0
        self._last = time.monotonic()

    def __enter__(self) -> _Progress:
        size = "" if self._size_bytes is None else f", {self._size_bytes / 1e6:.1f} MB"
        print(f"fetching {self._name}{size}", file=sys.stderr)
        return self

    def show(self, received: int) -> None:
        """Say it when it is time."""
        if time.monotonic() - self._last < self._every_s:
            return
        self._last = time.monotonic()
        share = f" ({received / self._size_bytes:.0%})" if self._size_bytes else ""
        end = "\r" if self._terminal else "\n"
        print(f"  {self._name}: {received / 1e6:.1f} MB{share}  ", end=end, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
