from itertools import count

import numpy as np
import pytest

from posebatch.core.fingerprints import digest
from posebatch.run.planning import ledger as ledger_module
from posebatch.run.planning.decisions import CommitOutcome, CommitSummary
from posebatch.run.planning.ledger import Ledger, LedgerBuilder, Listing, digests, merged

WHOLE = CommitOutcome("ok", "f" * 16)
FAILED = CommitOutcome("failed", "f" * 16, "damaged", "no frame", has_frames=False)
DRAWN = CommitOutcome("partial", "f" * 16, None, "3 frames are damaged", previews=("a", "b"))


def standing(etag: str = "source", ending: CommitOutcome = WHOLE) -> CommitSummary:
    return CommitSummary(digest(etag), ending)


def ledger_of(*entries: tuple[str, str, CommitSummary]) -> Ledger:
    draft = LedgerBuilder()
    for path, etag, stands in entries:
        draft.add(path, etag, stands)
    return draft.ledger()


def names_with_zeros(place: int) -> list[str]:
    """Names whose digests have a zero byte there."""
    found = (name for name in (f"{place}, {i}" for i in count()) if not digest(name)[place])
    return [next(found) for _ in range(3)]


AWKWARD = [*names_with_zeros(-1), *names_with_zeros(0), "", "ä/b c.mp4", "\udcff.mp4"]


def known(ledger: Ledger, *paths: str) -> list[CommitSummary | None]:
    return ledger.standings(digests(paths))


@pytest.mark.parametrize("number", [0, 1, 2, 9])
def test_what_is_noted_is_known(number: int):
    entries = [(path, f"record {path}", standing(path, DRAWN)) for path in AWKWARD[:number]]
    ledger = ledger_of(*entries)
    assert len(ledger) == number
    assert known(ledger, *AWKWARD) == [one for _, _, one in entries] + [None] * (9 - number)
    assert known(ledger) == []


@pytest.mark.parametrize("number", [0, 1, 9])
def test_bytes_and_back(number: int):
    ledger = ledger_of(
        *((path, "r", standing(path, FAILED if i else DRAWN)) for i, path in enumerate(AWKWARD[:number]))
    )
    again = Ledger.from_bytes(ledger.to_bytes())
    assert known(again, *AWKWARD) == known(ledger, *AWKWARD)
    assert again.to_bytes() == ledger.to_bytes()
    assert again.told == ledger.told


def test_damage_is_seen_wherever_it_is():
    content = ledger_of(("a", "r", standing()), ("b", "r", standing(ending=FAILED))).to_bytes()
    damaged = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(len(content))]
    for one in (*damaged, b"", content[:-1], content + b"x", content[:10]):
        with pytest.raises(ValueError, match="damaged"):
            Ledger.from_bytes(one)


@pytest.mark.parametrize(
    ("listed", "proven"),
    [
        pytest.param([], [], id="nothing is there"),
        pytest.param([("a", "1"), ("b", "2"), ("c", "3")], ["a", "b", "c"], id="all as they were"),
        pytest.param([("a", "1"), ("c", "3")], ["a", "c"], id="one has gone"),
        pytest.param([("a", "1"), ("b", "9"), ("c", "3")], ["a", "c"], id="one is another version"),
        pytest.param([("a", "2"), ("b", "1"), ("c", "3")], ["c"], id="two have changed places"),
        pytest.param([("a", "1"), ("b", "2"), ("c", "3"), ("d", "1")], ["a", "b", "c"], id="one is new"),
    ],
)
@pytest.mark.parametrize("renamed", [{}, {"a": AWKWARD[0], "1": AWKWARD[1]}])
def test_the_listing_proves_entries(listed, proven, renamed):
    def named(name: str) -> str:
        return renamed.get(name, name)

    ledger = ledger_of(*((named(path), named(etag), standing(path)) for path, etag in ["a1", "b2", "c3"]))
    listing = Listing((named(path), named(etag)) for path, etag in listed)
    kept = ledger.proven(listing)
    everything = [named(path) for path in "abcd"]
    assert known(kept, *everything) == [standing(path) if path in proven else None for path in "abcd"]
    assert listing.holds(digests(everything)).tolist() == [path in dict(listed) for path in "abcd"]
    assert len(listing) == len(listed)


def test_of_several_entries_for_one_path_the_last_counts():
    old = ledger_of(("a", "1", standing("1")), ("b", "1", standing("1", FAILED)), ("c", "1", standing("1", DRAWN)))
    new = ledger_of(("b", "2", standing("2")), ("d", "2", standing("2")), ("b", "3", standing("3", DRAWN)))
    both = merged([old, Ledger.empty(), new])
    assert known(both, *"abcde") == [
        standing("1"),
        standing("3", DRAWN),
        standing("1", DRAWN),
        standing("2"),
        None,
    ]
    assert set(both.told) == {WHOLE, DRAWN}, "what nobody refers to is forgotten"
    assert len(merged([Ledger.empty()])) == 0
    assert len(both.proven(Listing([("b", "3"), ("b2", "2")]))) == 1


def test_the_texts_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledger_module, "MAX_ENDINGS", 2)
    texts = [CommitOutcome("failed", "f", "damaged", str(i)) for i in range(4)]
    one = ledger_of(
        *((f"{i}", "r", standing(ending=texts[i])) for i in range(4)), ("x", "r", standing(ending=texts[0]))
    )
    assert known(one, *"0123x") == [
        standing(ending=texts[0]),
        standing(ending=texts[1]),
        None,
        None,
        standing(ending=texts[0]),
    ]
    other = ledger_of(*((f"{i}", "r", standing(ending=texts[i])) for i in (3, 2)))
    both = merged([one, other])
    assert len(both.told) == 2
    assert known(both, *"0123x") == known(one, *"0123x")


def test_a_million_would_fit():
    """The memory of an entry, which is what a million of them take."""
    ledger = ledger_of(*((str(i), str(i), standing(str(i))) for i in range(1000)))
    columns = (ledger.paths, ledger.records, ledger.sources, ledger.endings)
    assert sum(column.nbytes for column in columns) == 52 * 1000
    assert len(ledger.to_bytes()) < 53 * 1000 + 3000
    assert np.all(ledger.paths[1:] > ledger.paths[:-1])
