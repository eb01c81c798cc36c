"""A store in memory that counts requests, as S3 would bill them."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

from posebatch.core.errors import ObjectNotFoundError
from posebatch.storage.store import Store, StoredObject, refused_error

PAGE_KEYS = 1000


class MemoryStore(Store):
    """Etags are hashes of the content, as on S3: equal content has an equal etag. Objects do not age."""

    root = "memory://"

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.before_read: Callable[[str], None] = lambda _: None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        keys = sorted(key for key in self.contents if key.startswith(prefix))
        self.requests["list"] += max(1, math.ceil(len(keys) / PAGE_KEYS))
        return iter([self._stored(key) for key in keys])

    def fetch(self, key: str) -> tuple[bytes, str]:
        self.requests["get"] += 1
        self.before_read(key)
        return self._content(key), self._stored(key).etag

    def read(self, key: str) -> bytes:
        return self.fetch(key)[0]

    def head(self, key: str) -> StoredObject:
        self.requests["head"] += 1
        return self._stored(key)

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        self.requests["put"] += 1
        if not isinstance(content, bytes):
            content.seek(0, io.SEEK_SET)
            content = content.read()
        self.contents[key] = content
        return self._stored(key)

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        self._check_etag(key, etag)
        return self.put(key, content)

    def age_s(self, key: str) -> float:
        self._content(key)
        return 0.0

    def delete(self, key: str, etag: str | None = None) -> None:
        self.requests["delete"] += 1
        if etag is not None and key in self.contents:
            self._check_etag(key, etag)
        self.contents.pop(key, None)

    def _check_etag(self, key: str, etag: str | None) -> None:
        if etag != (self._stored(key).etag if key in self.contents else None):
            raise refused_error(self.uri(key))

    def _content(self, key: str) -> bytes:
        if key not in self.contents:
            raise ObjectNotFoundError(f"{self.uri(key)}: no such key")
        return self.contents[key]

    def _stored(self, key: str) -> StoredObject:
        content = self._content(key)
        return StoredObject(key, hashlib.md5(content).hexdigest(), len(content), 1.0)
