"""The interface of a store: objects by key, below one root."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from posebatch.core.errors import ColdObjectError, ObjectChangedError, PutRefusedError, StorageUnavailableError

FETCH_ATTEMPTS: Final = 3
"""Reads of one object by `Store.fetch` before it gives up on an object that is rewritten all the time."""


@dataclass(frozen=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    """Path below the root of the store."""
    etag: str
    """Changes with the content."""
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""
    cold_class: str = ""
    """See `posebatch.storage.cold_classes.cold_class`."""


class Store(ABC):
    """A root in object storage or on a disk; keys are paths below it with forward slashes.

    Every method may raise `AccessDeniedError` and `StorageUnavailableError` besides the errors that it names.
    """

    root: str
    endpoint_url: str | None = None
    """URL of an S3-compatible store other than AWS, as given to `open_store`."""

    def uri(self, key: str) -> str:
        """The full address of a key."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, sorted within each folder; none when the root does not exist."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A whole object. Raises `ObjectNotFoundError`."""

    def fetch(self, key: str) -> tuple[bytes, str]:
        """A whole object and its etag, both of one version.

        Raises `ObjectNotFoundError`, and `StorageUnavailableError` when the object changed during each of
        `FETCH_ATTEMPTS` reads.
        """
        for _ in range(FETCH_ATTEMPTS):
            etag, content = self.head(key).etag, self.read(key)
            if self.head(key).etag == etag:
                return content, etag
        raise StorageUnavailableError(f"{self.uri(key)}: it changed during each of {FETCH_ATTEMPTS} reads")

    @abstractmethod
    def head(self, key: str) -> StoredObject:
        """One object as a listing would show it. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write a whole object in one step, and replace an older one. A file is read from its beginning."""

    @abstractmethod
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Write a whole object only if the current one has this ``etag``; with None, only if there is none.

        Raises `PutRefusedError` when there is another version, `UnsupportedError` where the store has no conditional
        puts.
        """

    @abstractmethod
    def age_s(self, key: str) -> float:
        """Seconds since an object was written, by the store's own clock. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def delete(self, key: str, etag: str | None = None) -> None:
        """Remove an object, with an ``etag`` only this version; no error when there is no such object.

        Raises `PutRefusedError` when there is another version, `UnsupportedError` where the store has no conditional
        deletes.
        """


def refused_error(uri: str) -> PutRefusedError:
    """The error of a conditional write that found another version."""
    return PutRefusedError(f"{uri}: something else was written there meanwhile")


def changed_error(uri: str) -> ObjectChangedError:
    """The error of a read that found another version."""
    return ObjectChangedError(f"{uri} changed while it was being processed; it will be planned anew")


def cold_error(uri: str, cold_class: str) -> ColdObjectError:
    """The error of a read from a cold storage class."""
    return ColdObjectError(f"{uri}: stored as {cold_class}; restore it, and the next run reads it")
