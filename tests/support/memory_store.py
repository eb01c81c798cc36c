"""A store in memory that counts what it is asked, as S3 would bill it."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

from posebatch.core.errors import ObjectNotFoundError, PutRefusedError
from posebatch.storage.store import Store, StoredObject

KEYS_OF_A_PAGE = 1000


class MemoryStore(Store):
    """Etags are hashes of the content, as S3's are: what is put back has the etag that it had."""

    root = "memory://"

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.requests: Counter[str] = Counter()
        self.before_read: Callable[[str], None] = lambda _: None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        found = sorted(key for key in self.contents if key.startswith(prefix))
        self.requests["list"] += max(1, math.ceil(len(found) / KEYS_OF_A_PAGE))
        return iter([self._stored(key) for key in found])

    def fetch(self, key: str) -> tuple[bytes, str]:
        self.requests["get"] += 1
        self.before_read(key)
        return self._content(key), self._stored(key).etag

    def read(self, key: str) -> bytes:
        return self.fetch(key)[0]

    def head(self, key: str) -> StoredObject:
        self.requests["head"] += 1
        self._content(key)
        return self._stored(key)

    def put(self, key: str, content: bytes | IO[bytes]) -> StoredObject:
        self.requests["put"] += 1
        self.contents[key] = content if isinstance(content, bytes) else content.read()
        return self._stored(key)

    def put_if(self, key: str, content: bytes | IO[bytes], etag: str | None) -> StoredObject:
        if etag != (self._stored(key).etag if key in self.contents else None):
            raise PutRefusedError(key)
        return self.put(key, content)

    def age_s(self, key: str) -> float:
        raise NotImplementedError

    def delete(self, key: str, etag: str | None = None) -> None:
        self.requests["delete"] += 1
        self.contents.pop(key, None)

    def _content(self, key: str) -> bytes:
        if key not in self.contents:
            raise ObjectNotFoundError(key)
        return self.contents[key]

    def _stored(self, key: str) -> StoredObject:
        content = self.contents[key]
        return StoredObject(key, hashlib.md5(content).hexdigest(), len(content), 1.0)
