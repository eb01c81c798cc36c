"""A store on a local disk: files are written beside their place and renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from posebatch.core.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    StorageUnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    pass
from posebatch.storage.retry import retried
from posebatch.storage.store import Store, StoredObject, refused_error

SCRATCH_FOLDER = "_state/tmp"
"""Where a local store writes before it renames: below the root, so on the same file system, and hidden from readers."""


MAX_LOCAL_PATH_BYTES = 4096
"""What Linux takes as a path, with the zero at its end."""


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

    @retried
    def read(self, key: str) -> bytes:
        """A whole file; see `Store.read`."""
        with translated_disk_errors(self.uri(key)):
            return Path(self.root, key).read_bytes()

    @retried
    def head(self, key: str) -> StoredObject:
        """See `Store.head`."""
        with translated_disk_errors(self.uri(key)):
            return _stat_object(key, os.path.join(self.root, key))

    @retried
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write beside, flush to the disk, rename; see `Store.put`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            scratch.replace(target)
        return written

    @retried
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Nothing there: a hard link, which never replaces. Else a rename right after a look; see `Store.put_if`."""
        with self._written(key, content) as (scratch, target):
            written = _stat_object(key, str(scratch))
            try:
                if etag is None:
                    target.hardlink_to(scratch)
                elif _stat_object(key, str(target)).etag != etag:
                    raise refused_error(str(target))
                else:
                    scratch.replace(target)
            except (FileExistsError, FileNotFoundError) as error:
                raise refused_error(str(target)) from error
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                    raise UnsupportedError(f"{target}: this file system has no hard links") from error
                raise
        return written

    @retried
    def age_s(self, key: str) -> float:
        """By the clock that stamps files, which need not be this machine's; see `Store.age_s`."""
        with self._written(key, b"") as (scratch, target):
            return scratch.stat().st_mtime - target.stat().st_mtime

    @contextlib.contextmanager
    def _written(self, key: str, content: bytes | IO[bytes]) -> Iterator[tuple[Path, Path]]:
        """A scratch file with the content, safe on the disk and gone afterwards; and where it belongs."""
        target = Path(self.root, key)
        scratch = Path(self.root, SCRATCH_FOLDER, uuid.uuid4().hex)
        with translated_disk_errors(str(target)):
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

    @retried
    def delete(self, key: str, etag: str | None = None) -> None:
        """With an ``etag`` right after a look; see `Store.delete`."""
        path = Path(self.root, key)
        with translated_disk_errors(str(path)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if etag is not None and local_etag(path.stat()) != etag:
                raise refused_error(str(path))
            path.unlink()


def local_etag(stat: os.stat_result) -> str:
    """What stands for an etag of a local file: changes when its size or modification time does."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _walk(folder: str) -> Iterator[str]:
    """Files below a folder, sorted; links to folders are followed unless they lead back to where we are.

    However deep: no more than a path can say, and what it cannot say nobody can open.
    """
    within: dict[tuple[int, int], Iterator[os.DirEntry[str]]] = {}  # the folders that we are in: what is left of each
    with translated_disk_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
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
        if below is not None and below not in within:
            within[below] = _entries(entry.path)
        elif is_file:
            yield entry.path


def _identity(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


@retried
def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name."""
    entries: list[os.DirEntry[str]] = []
    with translated_disk_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return iter([entry for entry in entries if len(os.fsencode(entry.path)) < MAX_LOCAL_PATH_BYTES])


def _stat_object(key: str, path: str) -> StoredObject:
    stat = os.stat(path)
    return StoredObject(key, local_etag(stat), stat.st_size, stat.st_mtime)


def _blocks(content: bytes | IO[bytes]) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    content.seek(0)
    while block := content.read(1 << 20):
        yield block


@contextlib.contextmanager
def translated_disk_errors(path: str) -> Iterator[None]:
    """Translate what the operating system raises."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectNotFoundError(f"{path}: no such file") from error
    except PermissionError as error:
        raise AccessDeniedError(f"{path}: permission denied; check the owner and mode") from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise AccessDeniedError(
                f"{path}: the file system is read-only; mount it writable or choose another folder, and run the same "
                "command again"
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageUnavailableError(
                f"{path}: the disk is full; make room, and run the same command again"
            ) from error
        raise StorageUnavailableError(f"{path}: {error.strerror or error}") from error
