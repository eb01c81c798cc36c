"""The ledger: a cache of what the commit records of an output say, so that most need not be read.

An entry describes one version of a record, and counts only if a listing shows the ETag of that version. So a ledger
that is old, lost, damaged or of another run costs requests, never a wrong decision. Nothing here does I/O.
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
from posebatch.core.shards import Shard
from posebatch.run.planning.decisions import CommitOutcome, CommitSummary

MAX_OUTCOMES: Final = 100_000
"""Distinct outcomes that a ledger keeps, to bound its memory: each failed video has an error text of its own. Records
with further outcomes have no entry and are read in every run."""


Digests = NDArray[np.bytes_]
"""(n,) digests, as byte strings of fixed width: NumPy sorts and searches these. `_to_bytes` takes them out."""


_DIGEST: Final = np.dtype(f"S{DIGEST_BYTES}")


_CHECKSUM_BYTES: Final = 32


def digests(names: Iterable[str]) -> Digests:
    """(n,) The digests of names, in order."""
    return np.frombuffer(b"".join(map(digest, names)), _DIGEST)


def _to_bytes(values: Digests) -> list[bytes]:
    # As byte strings, items would lose their trailing zeros; as raw data they do not.
    return list(values.view(np.dtype(f"V{DIGEST_BYTES}")).tolist())


class RecordListing:
    """The commit records in an output, as the store lists them: 32 bytes each, sorted by path."""

    def __init__(self, records: Iterable[tuple[str, str]], part: Shard | None = None) -> None:
        """``records``: output path and ETag of each record. Those that are not in ``part`` are left out."""
        buffer = bytearray()
        for path, etag in records:
            path_digest = digest(path)
            if part is None or part.holds(path_digest):
                buffer += path_digest + digest(etag)
        table = np.frombuffer(buffer, _DIGEST).reshape(-1, 2)
        order = np.argsort(table[:, 0])
        self.paths: Digests = table[order, 0]
        self.etags: Digests = table[order, 1]

    def __len__(self) -> int:
        return len(self.paths)

    def contains(self, paths: Digests) -> NDArray[np.bool_]:
        """(n,) Whether each path has a record."""
        return _find(self.paths, paths) >= 0


@dataclass(frozen=True)
class Ledger:
    """One entry per commit record, sorted by path: 52 bytes each."""

    paths: Digests
    """(n,) Of output paths."""
    record_etags: Digests
    """(n,) Of the ETags that the records had when they were read."""
    source_etags: Digests
    """(n,) Of the ETags of the sources that the records are about."""
    outcome_numbers: NDArray[np.int32]
    """(n,) Indices into ``outcomes``."""
    outcomes: tuple[CommitOutcome, ...] = ()
    """The distinct outcomes."""

    @classmethod
    def empty(cls) -> Ledger:
        """A ledger without entries."""
        none = np.zeros(0, _DIGEST)
        return cls(none, none, none, np.zeros(0, np.int32))

    def __len__(self) -> int:
        return len(self.paths)

    def matching(self, listing: RecordListing) -> Ledger:
        """The entries whose record is listed with the ETag that it had when it was read."""
        positions = _find(listing.paths, self.paths)
        listed = np.flatnonzero(positions >= 0)
        return self._select(listed[listing.etags[positions[listed]] == self.record_etags[listed]])

    def not_in(self, listing: RecordListing) -> Ledger:
        """The entries whose record is not listed in any version."""
        return self._select(np.flatnonzero(_find(listing.paths, self.paths) < 0))

    def in_part(self, part: Shard) -> Ledger:
        """The entries of one shard."""
        return self._select(np.flatnonzero([part.holds(path) for path in _to_bytes(self.paths)]))

    def summaries(self, paths: Digests) -> list[CommitSummary | None]:
        """The summary of each path's record; None if it has no entry."""
        positions = _find(self.paths, paths)
        known = positions[positions >= 0]
        sources, numbers = _to_bytes(self.source_etags[known]), self.outcome_numbers[known].tolist()
        summaries = map(CommitSummary, sources, (self.outcomes[number] for number in numbers))
        return [next(summaries) if position >= 0 else None for position in positions.tolist()]

    def to_bytes(self) -> bytes:
        """The ledger as a file: a checksum, then an ``.npz``."""
        outcomes = json.dumps([asdict(outcome) for outcome in self.outcomes]).encode()
        file = io.BytesIO(bytes(_CHECKSUM_BYTES))
        file.seek(_CHECKSUM_BYTES)
        np.savez(  # the names of the arrays are those of the file format
            file,
            told=np.frombuffer(outcomes, np.uint8),
            paths=self.paths,
            records=self.record_etags,
            sources=self.source_etags,
            endings=self.outcome_numbers,
        )
        content = file.getbuffer()
        content[:_CHECKSUM_BYTES] = _checksum(content)
        return content.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Ledger:
        """The inverse of `to_bytes`. Raises ``ValueError`` for any other bytes."""
        if content[:_CHECKSUM_BYTES] != _checksum(memoryview(content)):
            raise ValueError("the ledger is damaged")
        arrays: dict[str, NDArray[Any]] = dict(np.load(io.BytesIO(content[_CHECKSUM_BYTES:]), allow_pickle=False))
        rows = json.loads(arrays["told"].tobytes())
        outcomes = tuple(CommitOutcome(**{**row, "previews": tuple(row["previews"])}) for row in rows)
        return cls(arrays["paths"], arrays["records"], arrays["sources"], arrays["endings"], outcomes)

    def _select(self, rows: NDArray[Any]) -> Ledger:
        return Ledger(
            self.paths[rows],
            self.record_etags[rows],
            self.source_etags[rows],
            self.outcome_numbers[rows],
            self.outcomes,
        )


class LedgerBuilder:
    """Collects the entries of a ledger, in any order."""

    def __init__(self, max_outcomes: int = MAX_OUTCOMES) -> None:
        self._max_outcomes = max_outcomes
        self._digests = bytearray()
        self._outcome_numbers = array("i")
        self._outcomes: dict[CommitOutcome, int] = {}

    def add(self, path: str, record_etag: str, summary: CommitSummary) -> None:
        """Add what the record of an output path says in the version with this ETag."""
        if summary.outcome not in self._outcomes:
            if len(self._outcomes) == self._max_outcomes:
                return
            self._outcomes[summary.outcome] = len(self._outcomes)
        self._digests += digest(path) + digest(record_etag) + summary.source_etag
        self._outcome_numbers.append(self._outcomes[summary.outcome])

    def build(self) -> Ledger:
        """The ledger of all entries; of several for one path, the last counts."""
        paths, record_etags, source_etags = np.frombuffer(self._digests, _DIGEST).reshape(-1, 3).T
        numbers = np.array(self._outcome_numbers, np.int32)
        return _sorted(Ledger(paths, record_etags, source_etags, numbers, tuple(self._outcomes)))


def merge(ledgers: Sequence[Ledger], max_outcomes: int = MAX_OUTCOMES) -> Ledger:
    """One ledger of several; of several entries for one path, the last counts."""
    offsets = np.cumsum([0, *(len(ledger.outcomes) for ledger in ledgers)])
    numbers = [ledger.outcome_numbers + np.int32(offset) for ledger, offset in zip(ledgers, offsets, strict=False)]
    together = Ledger(
        np.concatenate([ledger.paths for ledger in ledgers]),
        np.concatenate([ledger.record_etags for ledger in ledgers]),
        np.concatenate([ledger.source_etags for ledger in ledgers]),
        np.concatenate(numbers),
        tuple(chain.from_iterable(ledger.outcomes for ledger in ledgers)),
    )
    return _with_distinct_outcomes(_sorted(together), max_outcomes)


def _with_distinct_outcomes(ledger: Ledger, max_outcomes: int) -> Ledger:
    """The same ledger with each outcome once, and only those that an entry has."""
    numbers: dict[CommitOutcome, int] = {}
    used = np.unique(ledger.outcome_numbers)
    renumbered = np.zeros(len(ledger.outcomes), np.int32)
    renumbered[used] = [numbers.setdefault(ledger.outcomes[number], len(numbers)) for number in used]
    outcomes = tuple(numbers)[:max_outcomes]
    distinct = replace(ledger, outcome_numbers=renumbered[ledger.outcome_numbers], outcomes=outcomes)
    return distinct._select(np.flatnonzero(distinct.outcome_numbers < max_outcomes))


def _sorted(ledger: Ledger) -> Ledger:
    """The entries sorted by path; of several for one path, only the last."""
    order = np.argsort(ledger.paths, kind="stable")
    paths = ledger.paths[order]
    is_last = np.append(paths[1:] != paths[:-1], True)[: len(order)]
    return ledger._select(order[is_last])


def _find(sorted_digests: Digests, wanted: Digests) -> NDArray[np.intp]:
    """(n,) The position of each wanted digest in ``sorted_digests``; -1 if it is absent."""
    if not len(sorted_digests):
        return np.full(len(wanted), -1)
    positions = np.minimum(np.searchsorted(sorted_digests, wanted), len(sorted_digests) - 1)
    return np.where(sorted_digests[positions] == wanted, positions, -1)


def _checksum(content: memoryview) -> bytes:
    return hashlib.sha256(content[_CHECKSUM_BYTES:]).digest()
