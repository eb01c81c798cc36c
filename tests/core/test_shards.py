"""Shards: a partition of any archive for every N, balanced, and the same for ever."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posebatch.core.errors import SettingsError
from posebatch.core.fingerprints import digest
from posebatch.core.settings import settings_from
from posebatch.core.shards import Shard

PATHS = st.text(st.characters(exclude_categories=()), max_size=40)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "a/b", "1 / 4", "1/10001", "٣/٤"])
def test_shard_that_is_none_is_refused(text: str):
    with pytest.raises(SettingsError, match="shard must be K/N, such as 3/64"):
        settings_from({"shard": text})


def test_shard_is_parsed_and_written():
    assert settings_from({}).selection.part is None
    assert settings_from({"shard": "3/64"}).selection.part == Shard(3, 64)
    assert str(Shard(3, 64)) == "3/64"


@given(PATHS, st.integers(1, 10_000))
def test_each_path_is_in_one_shard_of_any_division(path: str, count: int):
    owners = [number for number in range(1, count + 1) if Shard(number, count).holds(digest(path))]
    assert len(owners) == 1


@pytest.mark.parametrize("count", [2, 7, 64])
def test_shards_are_balanced(count: int):
    """Within five standard deviations of a fair lot."""
    videos = 20_000
    paths = [digest(f"archive/dt=2026-11-{n % 30 + 1:02d}/cam{n % 17}/clip-{n:06d}.mp4") for n in range(videos)]
    sizes = Counter(int.from_bytes(path[:8], "big") % count for path in paths)
    mean = videos / count
    assert max(abs(sizes[number] - mean) for number in range(count)) < 5 * mean**0.5


@given(PATHS, st.integers(1, 200))
def test_larger_shards_hold_all_of_a_shard(path: str, count: int):
    (shard,) = (Shard(n, count) for n in range(1, count + 1) if Shard(n, count).holds(digest(path)))
    assert all(larger.holds(digest(path)) for larger in shard.within())
    assert all(count % larger.count == 0 for larger in shard.within())


def test_shard_of_a_path_never_changes():
    """Two versions at work on one output must agree on every path."""
    for path, number in {"": 1, "a.mp4": 56, "ü/b.mp4": 36}.items():
        assert Shard(number, 64).holds(digest(path)), path
