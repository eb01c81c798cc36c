from itertools import count

import numpy as np
import pytest

from posebatch.core.fingerprints import digest
from posebatch.run.planning.decisions import CommitOutcome, CommitSummary
from posebatch.run.planning.ledger import MAX_OUTCOMES, Ledger, LedgerBuilder, RecordListing, digests, merge

WHOLE = CommitOutcome("ok", "f" * 16)
FAILED = CommitOutcome("failed", "f" * 16, "damaged", "no frame", has_frames=False)
DRAWN = CommitOutcome("partial", "f" * 16, None, "3 frames are damaged", previews=("a", "b"))


def summary(etag: str = "source", outcome: CommitOutcome = WHOLE) -> CommitSummary:
    return CommitSummary(digest(etag), outcome)


def ledger_of(*entries: tuple[str, str, CommitSummary], max_outcomes: int = MAX_OUTCOMES) -> Ledger:
    builder = LedgerBuilder(max_outcomes)
    for path, etag, entry in entries:
        builder.add(path, etag, entry)
    return builder.build()


def names_with_zeros(place: int) -> list[str]:
    """Names whose digests have a zero byte there."""
    found = (name for name in (f"{place}, {i}" for i in count()) if not digest(name)[place])
    return [next(found) for _ in range(3)]


AWKWARD = [*names_with_zeros(-1), *names_with_zeros(0), "", "ä/b c.mp4", "\udcff.mp4"]


def known(ledger: Ledger, *paths: str) -> list[CommitSummary | None]:
    return ledger.summaries(digests(paths))


@pytest.mark.parametrize("number", [0, 1, 9])
def test_ledger_knows_the_entries_that_were_added(number: int):
    entries = [(path, f"record {path}", summary(path, DRAWN)) for path in AWKWARD[:number]]
    ledger = ledger_of(*entries)
    assert len(ledger) == number
    assert known(ledger, *AWKWARD) == [entry for _, _, entry in entries] + [None] * (9 - number)
    assert known(ledger) == []


@pytest.mark.parametrize("number", [0, 1, 9])
def test_ledger_survives_its_bytes(number: int):
    ledger = ledger_of(*((path, "r", summary(path, FAILED if i else DRAWN)) for i, path in enumerate(AWKWARD[:number])))
    again = Ledger.from_bytes(ledger.to_bytes())
    assert known(again, *AWKWARD) == known(ledger, *AWKWARD)
    assert again.to_bytes() == ledger.to_bytes()
    assert again.outcomes == ledger.outcomes


def test_ledger_detects_damage_at_any_byte():
    content = ledger_of(("a", "r", summary()), ("b", "r", summary(outcome=FAILED))).to_bytes()
    damaged = [content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(len(content))]
    for bad in (*damaged, b"", content[:-1], content + b"x", content[:10]):
        with pytest.raises(ValueError, match="damaged"):
            Ledger.from_bytes(bad)


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
def test_ledger_keeps_the_entries_that_match_the_listing(listed, proven, renamed):
    def named(name: str) -> str:
        return renamed.get(name, name)

    ledger = ledger_of(*((named(path), named(etag), summary(path)) for path, etag in ["a1", "b2", "c3"]))
    listing = RecordListing((named(path), named(etag)) for path, etag in listed)
    kept = ledger.matching(listing)
    everything = [named(path) for path in "abcd"]
    assert known(kept, *everything) == [summary(path) if path in proven else None for path in "abcd"]
    assert listing.contains(digests(everything)).tolist() == [path in dict(listed) for path in "abcd"]
    assert len(listing) == len(listed)


def test_merge_keeps_the_last_entry_of_each_path():
    old = ledger_of(("a", "1", summary("1")), ("b", "1", summary("1", FAILED)), ("c", "1", summary("1", DRAWN)))
    new = ledger_of(("b", "2", summary("2")), ("d", "2", summary("2")), ("b", "3", summary("3", DRAWN)))
    both = merge([old, Ledger.empty(), new])
    assert known(both, *"abcde") == [
        summary("1"),
        summary("3", DRAWN),
        summary("1", DRAWN),
        summary("2"),
        None,
    ]
    assert set(both.outcomes) == {WHOLE, DRAWN}, "outcomes without an entry are dropped"
    assert len(merge([Ledger.empty()])) == 0
    assert len(both.matching(RecordListing([("b", "3"), ("b2", "2")]))) == 1


def test_ledger_bounds_the_outcomes_that_it_keeps():
    texts = [CommitOutcome("failed", "f", "damaged", str(i)) for i in range(4)]
    entries = [(f"{i}", "r", summary(outcome=texts[i])) for i in range(4)]
    first = ledger_of(*entries, ("x", "r", summary(outcome=texts[0])), max_outcomes=2)
    assert known(first, *"0123x") == [
        summary(outcome=texts[0]),
        summary(outcome=texts[1]),
        None,
        None,
        summary(outcome=texts[0]),
    ]
    second = ledger_of(*((f"{i}", "r", summary(outcome=texts[i])) for i in (3, 2)))
    both = merge([first, second], max_outcomes=2)
    assert len(both.outcomes) == 2
    assert known(both, *"0123x") == known(first, *"0123x")


def test_ledger_takes_52_bytes_per_entry():
    ledger = ledger_of(*((str(i), str(i), summary(str(i))) for i in range(1000)))
    columns = (ledger.paths, ledger.record_etags, ledger.source_etags, ledger.outcome_numbers)
    assert sum(column.nbytes for column in columns) == 52 * 1000
    assert len(ledger.to_bytes()) < 53 * 1000 + 3000
    assert np.all(ledger.paths[1:] > ledger.paths[:-1])
