"""Counts with their nouns."""

import pytest

from posebatch.core.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 segments"), (1, "1 segment"), (2, "2 segments"), (1000, "1000 segments")]
)
def test_counted_agrees_in_number(count: int, text: str):
    assert counted(count, "segment") == text


def test_counted_takes_an_irregular_plural():
    assert (counted(1, "entry", "entries"), counted(2, "entry", "entries")) == ("1 entry", "2 entries")
