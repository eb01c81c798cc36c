"""What commit records say, known without reading them: a cache, which the listing of the records proves entry by entry.

An entry says how one version of a record reads. It counts only where the listing shows that very version, so a ledger
that is old, lost, damaged or another run's costs requests and never a wrong decision. Nothing here reads or writes.
"""

from __future__ import annotations

import hashlib
import io
import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.fingerprints import DIGEST_BYTES, digest
from posebatch.run.planning.decisions import CommitOutcome, CommitSummary

MAX_ENDINGS: Final = 100_000
"""Different endings that are kept, which bounds the memory: all whole videos share a few, each failed one has its own
text. The records of further ones are read every time."""


Digests = NDArray[np.bytes_]
"""(n,) digests. NumPy drops the zeros at the end of a single one, so what leaves an array goes through `tobytes`."""


_DIGEST: Final = np.dtype(f"S{DIGEST_BYTES}")


_CHECKSUM_BYTES: Final = 32


def digests(names: Iterable[str]) -> Digests:
    """The digests of names, in their order."""
    return np.frombuffer(b"".join(map(digest, names)), _DIGEST)


class Listing:
    """The commit records that are there, as the store lists them: 32 bytes each."""

    def __init__(self, found: Iterable[tuple[str, str]]) -> None:
        """``found``: output path and etag of each record."""
        both = bytearray()
        for path, etag in found:
            both += digest(path) + digest(etag)
        table = np.frombuffer(both, _DIGEST).reshape(-1, 2)
        order = np.argsort(table[:, 0])
        self.paths: Digests = table[order, 0]
        self.etags: Digests = table[order, 1]

    def __len__(self) -> int:
        return len(self.paths)

    def holds(self, paths: Digests) -> NDArray[np.bool_]:
        """(n,) whether there is a record for each path."""
        return _places(self.paths, paths) >= 0


@dataclass(frozen=True)
class Ledger:
    """Entries in the order of their paths' digests: 52 bytes each."""

    paths: Digests
    records: Digests
    """Of the etags of the records that were read."""
    sources: Digests
    """Of the etags of the sources that the records are about."""
    endings: NDArray[np.int32]
    """Indices into ``told``."""
    told: tuple[CommitOutcome, ...] = ()
    """The different endings."""

    @classmethod
    def empty(cls) -> Ledger:
        """Of nothing."""
        none = np.zeros(0, _DIGEST)
        return cls(none, none, none, np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.paths)

    def proven(self, listing: Listing) -> Ledger:
        """The entries whose records are there in the very version that they are about."""
        places = _places(listing.paths, self.paths)
        there = np.flatnonzero(places >= 0)
        return self._only(there[listing.etags[places[there]] == self.records[there]])

    def standings(self, paths: Digests) -> list[CommitSummary | None]:
        """How the videos of these paths stand; None: not known."""
        places = _places(self.paths, paths)
        known = places[places >= 0]
        sources = self.sources[known].tobytes()
        found = iter(
            CommitSummary(sources[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES], self.told[number])
            for i, number in enumerate(self.endings[known].tolist())
        )
        return [next(found) if place >= 0 else None for place in places.tolist()]

    def to_bytes(self) -> bytes:
        """The ledger as a file: a checksum, then an ``.npz``."""
        columns = {name: getattr(self, name) for name in ("paths", "records", "sources", "endings")}
        told = json.dumps([asdict(ending) for ending in self.told]).encode()
        sink = io.BytesIO(bytes(_CHECKSUM_BYTES))
        sink.seek(_CHECKSUM_BYTES)
        np.savez(sink, told=np.frombuffer(told, np.uint8), **columns)
        content = sink.getbuffer()
        content[:_CHECKSUM_BYTES] = _checksum(content)
        return content.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Ledger:
        """The inverse of `to_bytes`. Raises ``ValueError`` for anything that it did not make."""
        if content[:_CHECKSUM_BYTES] != _checksum(memoryview(content)):
            raise ValueError("the ledger is damaged")
        columns: dict[str, NDArray[Any]] = dict(np.load(io.BytesIO(content[_CHECKSUM_BYTES:]), allow_pickle=False))
        told = json.loads(columns.pop("told").tobytes())
        return cls(**columns, told=tuple(CommitOutcome(**{**row, "previews": tuple(row["previews"])}) for row in told))

    def _only(self, rows: NDArray[Any]) -> Ledger:
        return Ledger(self.paths[rows], self.records[rows], self.sources[rows], self.endings[rows], self.told)


class LedgerBuilder:
    """Entries as they come."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._endings = array("i")
        self._numbers: dict[CommitOutcome, int] = {}

    def add(self, path: str, record_etag: str, standing: CommitSummary) -> None:
        """Note how the record of an output path stands in the version with this etag."""
        number = self._numbers.setdefault(standing.ending, len(self._numbers))
        if number >= MAX_ENDINGS:
            del self._numbers[standing.ending]
            return
        self._digests += digest(path) + digest(record_etag) + standing.source
        self._endings.append(number)

    def ledger(self) -> Ledger:
        """All that was noted."""
        columns = np.frombuffer(self._digests, _DIGEST).reshape(-1, 3).T
        return _sorted([*columns, np.array(self._endings, np.int32)], tuple(self._numbers))


def merged(parts: Sequence[Ledger]) -> Ledger:
    """One ledger of several; of entries for one path the last counts."""
    starts = np.cumsum([0, *(len(part.told) for part in parts)])
    columns = [
        (part.paths, part.records, part.sources, part.endings + np.int32(start))
        for part, start in zip(parts, starts[:-1], strict=True)
    ]
    told = tuple(chain.from_iterable(part.told for part in parts))
    return _compact(_sorted([np.concatenate(column) for column in zip(*columns, strict=True)], told))


def _compact(ledger: Ledger) -> Ledger:
    """The same, telling each ending once and none that no entry has."""
    numbers: dict[CommitOutcome, int] = {}
    used = np.unique(ledger.endings)
    renumbered = np.zeros(len(ledger.told), np.int32)
    renumbered[used] = [numbers.setdefault(ledger.told[number], len(numbers)) for number in used]
    told = tuple(numbers)[:MAX_ENDINGS]
    compact = replace(ledger, endings=renumbered[ledger.endings], told=told)
    return compact._only(np.flatnonzero(compact.endings < MAX_ENDINGS))


def _sorted(columns: Sequence[NDArray[Any]], told: tuple[CommitOutcome, ...]) -> Ledger:
    paths, records, sources, endings = columns
    order = np.argsort(paths, kind="stable")
    ordered = paths[order]
    last = np.append(ordered[1:] != ordered[:-1], True)[: len(order)]
    return Ledger(paths, records, sources, endings, told)._only(order[last])


def _places(paths: Digests, wanted: Digests) -> NDArray[np.intp]:
    """(n,) where each digest stands in the sorted ``paths``; -1: nowhere."""
    if not len(paths):
        return np.full(len(wanted), -1)
    places = np.minimum(np.searchsorted(paths, wanted), len(paths) - 1)
    return np.where(paths[places] == wanted, places, -1)


def _checksum(content: memoryview) -> bytes:
    return hashlib.sha256(content[_CHECKSUM_BYTES:]).digest()
