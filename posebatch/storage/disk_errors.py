"""Errors of the operating system, translated into ours."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from posebatch.core.errors import AccessDeniedError, ObjectNotFoundError, StorageUnavailableError


@contextlib.contextmanager
def translated_disk_errors(path: str) -> Iterator[None]:
    """Raise a `StorageError` for each `OSError` of the block; ``path`` stands in its message."""
    try:
        yield
    except (NotADirectoryError, FileExistsError) as error:
        raise ObjectNotFoundError(f"{path}: no such file; a part of this path is a file, not a folder") from error
    except (FileNotFoundError, IsADirectoryError) as error:
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
