"""A store on a local disk: files are written beside their place and renamed."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from typing_extensions import override

from posebatch.core.errors import UnsupportedError
from posebatch.storage import retry
from posebatch.storage.disk_errors import translated_disk_errors
from posebatch.storage.retry import RetryPolicy, retried
from posebatch.storage.spool import Write, scratch_file, write_atomically
from posebatch.storage.store import Store, StoredObject, refused_error

SCRATCH_FOLDER = "_state/tmp"
"""Files are written here before they are renamed: on the file system of the root, and hidden from readers."""


MAX_LOCAL_PATH_BYTES = 4096
"""``PATH_MAX`` of Linux, with the zero byte at the end."""


class LocalStore(Store):
    """A folder on a disk. An etag is made of a file's size and modification time, see `local_etag`."""

    def __init__(self, root: str | Path, retry_policy: RetryPolicy | None = None) -> None:
        self.root = os.path.abspath(root)
        self.retry_policy = retry_policy or retry.DEFAULT_POLICY

    @override
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        start = os.path.join(self.root, prefix)
        folder = start if prefix.endswith("/") or not prefix else os.path.dirname(start)
        for path in _walk(folder, self.retry_policy):
            key = os.path.relpath(path, self.root).replace(os.sep, "/")
            if key.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):  # deleted since its folder was read
                    yield _stored(key, os.stat(path))

    @override
    @retried
    def read(self, key: str) -> bytes:
        with translated_disk_errors(self.uri(key)):
            return Path(self.root, key).read_bytes()

    @override
    @retried
    def head(self, key: str) -> StoredObject:
        with translated_disk_errors(self.uri(key)):
            return _stored(key, os.stat(os.path.join(self.root, key)))

    @override
    @retried
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        target = Path(self.root, key)
        with translated_disk_errors(str(target)):
            return _stored(key, write_atomically(target, _writer(content), self._scratch_path(target)))

    @override
    @retried
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """With None by a hard link, which never replaces a file. With an ``etag`` by a rename right after a look.

        Another process can write between the look and the rename. Disks have no conditional rename.
        """
        target = Path(self.root, key)
        with translated_disk_errors(str(target)):
            scratch = self._scratch_path(target)
            with scratch_file(scratch, _writer(content)) as status:
                try:
                    if etag is None:
                        target.hardlink_to(scratch)
                    elif local_etag(target.stat()) != etag:
                        raise refused_error(str(target))
                    else:
                        scratch.replace(target)
                except (FileExistsError, FileNotFoundError) as error:
                    raise refused_error(str(target)) from error
                except OSError as error:
                    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                        raise UnsupportedError(f"{target}: this file system has no hard links") from error
                    raise
        return _stored(key, status)

    @override
    @retried
    def age_s(self, key: str) -> float:
        """By the clock that stamps files: on a network file system that is not this machine's clock."""
        target = Path(self.root, key)
        with translated_disk_errors(str(target)), scratch_file(self._scratch_path(target), _writer(b"")) as now:
            return now.st_mtime - target.stat().st_mtime

    @override
    @retried
    def delete(self, key: str, etag: str | None = None) -> None:
        path = Path(self.root, key)
        with translated_disk_errors(str(path)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if etag is not None and local_etag(path.stat()) != etag:
                raise refused_error(str(path))
            path.unlink()

    def _scratch_path(self, target: Path) -> Path:
        """A new path to write to before ``target`` is replaced; the folders of both exist afterwards."""
        scratch = Path(self.root, SCRATCH_FOLDER, uuid.uuid4().hex)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        return scratch


def local_etag(stat: os.stat_result) -> str:
    """The etag of a local file: changes when its size or modification time does."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _walk(folder: str, retry_policy: RetryPolicy) -> Iterator[str]:
    """Paths of the files below a folder, depth first and sorted.

    Links to folders are followed, unless they lead to a folder on the way down. Paths that are too long to open are
    left out.
    """
    open_folders: dict[tuple[int, int], Iterator[os.DirEntry[str]]] = {}  # on the way down, with their entries to come
    with translated_disk_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        open_folders[_inode(os.stat(folder))] = retry_policy.call(_entries, folder)
    while open_folders:
        entry = next(next(reversed(open_folders.values())), None)
        if entry is None:
            open_folders.popitem()
            continue
        try:
            subfolder = _inode(entry.stat()) if entry.is_dir() else None
            is_file = entry.is_file()
        except OSError:  # a link to itself
            continue
        if subfolder is not None and subfolder not in open_folders:
            open_folders[subfolder] = retry_policy.call(_entries, entry.path)
        elif is_file:
            yield entry.path


def _inode(stat: os.stat_result) -> tuple[int, int]:
    """Identifies a folder, by any path that leads to it."""
    return stat.st_dev, stat.st_ino


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; none when the folder has been deleted."""
    entries: list[os.DirEntry[str]] = []
    with translated_disk_errors(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    return iter([entry for entry in entries if len(os.fsencode(entry.path)) < MAX_LOCAL_PATH_BYTES])


def _stored(key: str, stat: os.stat_result) -> StoredObject:
    return StoredObject(key, local_etag(stat), stat.st_size, stat.st_mtime)


def _writer(content: bytes | IO[bytes]) -> Write:
    return functools.partial(_write, content)


def _write(content: bytes | IO[bytes], file: IO[bytes]) -> None:
    if isinstance(content, bytes):
        file.write(content)
    else:
        content.seek(0)
        shutil.copyfileobj(content, file, 1 << 20)
