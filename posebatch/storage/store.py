"""The interface of a store: objects by key, below one root."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from posebatch.core.errors import (
    ObjectChangedError,
    PutRefusedError,
)

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class StoredObject:
    """One object as a listing shows it."""

    key: str
    """Below the root that was listed."""
    etag: str
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""


class Store(ABC):
    """A root in object storage or on a disk; keys are paths below it with forward slashes."""

    root: str

    def uri(self, key: str) -> str:
        """The full address of a key."""
        return f"{self.root.rstrip('/')}/{key}" if key else self.root

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Objects whose key starts with ``prefix``, sorted within each folder; none when there is no such root."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """A whole object. Raises `ObjectNotFoundError`."""

    def fetch(self, key: str) -> tuple[bytes, str]:
        """A whole object and its etag, both of one version. Raises `ObjectNotFoundError`."""
        while True:
            etag, content = self.head(key).etag, self.read(key)
            if self.head(key).etag == etag:
                return content, etag

    @abstractmethod
    def head(self, key: str) -> StoredObject:
        """What a listing would show of one key. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        """Write a whole object in one step, replacing what was there."""

    @abstractmethod
    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        """Write a whole object only if what is there now has this ``etag``; None: only if nothing is there.

        Raises `PutRefusedError` when something else is there, `UnsupportedError` where the store has no such puts.
        """

    @abstractmethod
    def age_s(self, key: str) -> float:
        """Seconds since an object was written, by the store's own clock. Raises `ObjectNotFoundError`."""

    @abstractmethod
    def delete(self, key: str, etag: str | None = None) -> None:
        """Remove an object, with an ``etag`` only if it has this one; no error when it is not there.

        Raises `PutRefusedError` when something else is there, `UnsupportedError` where the store cannot look.
        """


def refused_error(uri: str) -> PutRefusedError:
    """The error of a conditional write that found another version."""
    return PutRefusedError(f"{uri}: something else was written there meanwhile")


def changed_error(uri: str) -> ObjectChangedError:
    """The error of a read that found another version."""
    return ObjectChangedError(f"{uri} changed while it was being processed; it will be planned anew")
