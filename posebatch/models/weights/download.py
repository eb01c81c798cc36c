"""Download a weight file: by HTTP with retries, from a folder, or from S3; one process of a node at a time.

`posebatch.models.weights.cache` imports this module when a file is missing: the HTTP library takes time to load.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm
from urllib3.util import Retry

from posebatch.core.errors import StorageError, StorageUnavailableError, WeightsError
from posebatch.core.redaction import redacted
from posebatch.core.version import USER_AGENT
from posebatch.models.weights.environment import CACHE_VARIABLE, MIRROR_VARIABLE
from posebatch.storage.open import open_source, open_store
from posebatch.storage.spool import write_atomically

RETRIES: Final = Retry(3, backoff_factor=2.5, backoff_jitter=1, status_forcelist=(408, 425, 429, *range(500, 600)))
"""Further attempts after a transient error, with pauses of 0, 5 and 10 s and up to 1 s of jitter."""


_TIMEOUT_S = 30.0


_BLOCK_BYTES = 1 << 20


class _TransientError(Exception):
    """A download failed, and another attempt may succeed."""


@dataclass(frozen=True)
class _Source:
    """A file that is being received."""

    blocks: Iterator[bytes]
    size_bytes: int | None
    """None when the server does not state it."""


def download(path: Path, address: str, sha256_prefix: str) -> None:
    """Download ``address`` to ``path``. Raises `WeightsError`, and then leaves nothing behind."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            if not path.exists():  # another process may have downloaded it meanwhile
                _download_with_retries(path, address, sha256_prefix)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be written ({error.strerror or error}); {CACHE_VARIABLE} can name another cache folder"
        ) from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which one process of this node has at a time. The lock ends with its process."""
    lock = FileLock(folder / ".lock", mode=0o666)  # users may share a cache
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        print(f"waiting for another process that downloads into {folder}", file=sys.stderr)
        held = lock.acquire()
    with held:
        yield


def _download_with_retries(path: Path, address: str, sha256_prefix: str) -> None:
    for left_over in path.parent.glob(f".{path.name}.*.part"):  # from a killed process: this one holds the lock
        left_over.unlink()
    retries = RETRIES
    while True:
        try:
            write_atomically(path, functools.partial(_copy, address, sha256_prefix))
            return
        except _TransientError as error:
            if not retries.total:
                raise WeightsError(
                    f"{address} could not be fetched in {len(retries.history) + 1} attempts: {error}. Where there is "
                    f"no network, fetch it elsewhere and put it at {path}, or let {MIRROR_VARIABLE} name a mirror"
                ) from error
            retries = retries.increment(error=error)
            pause_s = retries.get_backoff_time()
            print(redacted(f"{address}: {error}; trying again in {pause_s:.0f} s"), file=sys.stderr)
            time.sleep(pause_s)


def _copy(address: str, sha256_prefix: str, file: IO[bytes]) -> None:
    """Write the content of ``address`` to ``file``.

    Raises `_TransientError`, and `WeightsError` for content with another sha256.
    """
    digest, received, name = hashlib.sha256(), 0, address.rsplit("/", 1)[-1]
    with _opened(address) as source:
        size = "" if source.size_bytes is None else f", {source.size_bytes / 1e6:.1f} MB"
        print(f"fetching {name}{size}", file=sys.stderr)
        # Only a terminal gets the bar, which is removed at the end.
        with tqdm(desc=name, total=source.size_bytes, unit="B", unit_scale=True, leave=False, disable=None) as progress:
            for block in source.blocks:
                digest.update(block)
                file.write(block)
                received += len(block)
                progress.update(len(block))
    if source.size_bytes is not None and received != source.size_bytes:
        raise _TransientError(f"{received} of {source.size_bytes} bytes came")
    sha256 = digest.hexdigest()
    if not sha256.startswith(sha256_prefix):
        raise WeightsError(
            f"{address}: its name promises a sha256 that begins with {sha256_prefix}, what came has "
            f"{sha256[:8]}; nothing was kept. If you know the file to be right, get it by other means, "
            "convert it with `posebatch models convert`, and name the result"
        )
    os.fchmod(file.fileno(), 0o644)  # readable by other users of the node, whatever the umask


@contextlib.contextmanager
def _opened(address: str) -> Iterator[_Source]:
    if address.lower().startswith(("http://", "https://")):
        with _opened_http(address) as source:
            yield source
        return
    try:
        root, _, key = address.rpartition("/")
        store = open_store(root)
        stored = store.head(key)
        with open_source(store.uri(key), stored.etag) as file:
            yield _Source(iter(lambda: file.read(_BLOCK_BYTES), b""), stored.size_bytes)
    except StorageUnavailableError as error:
        raise _TransientError(str(error)) from error
    except StorageError as error:
        raise WeightsError(f"weights: {error}") from error


@contextlib.contextmanager
def _opened_http(url: str) -> Iterator[_Source]:
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, timeout=_TIMEOUT_S, stream=True) as response:
            if not response.ok:
                answer = f"the server said {response.status_code} {response.reason}"
                if RETRIES.is_retry("GET", response.status_code):
                    raise _TransientError(answer)
                raise WeightsError(f"{url}: {answer}; is the address right?")
            response.raw.enforce_content_length = False  # the size is checked for every kind of source, in _copy
            length = response.headers.get("Content-Length")
            yield _Source(response.iter_content(_BLOCK_BYTES), int(length) if length else None)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _TransientError(_root_cause(error)) from error
    except requests.RequestException as error:
        raise WeightsError(f"{url}: {_root_cause(error)}; is the address right?") from error


def _root_cause(error: BaseException) -> str:
    """The message of the innermost error: requests and urllib3 wrap those of the socket several times."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__
