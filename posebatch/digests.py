"""Names as a few bytes of one size, where a million of them are held and compared."""

from __future__ import annotations

import hashlib
from typing import Final

DIGEST_BYTES: Final = 16
"""128 bits, so that no two names of an archive share a digest."""


def digest(name: str) -> bytes:
    """`DIGEST_BYTES` bytes that stand for an address, a path or an etag; names that are no UTF-8 have one too."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()
