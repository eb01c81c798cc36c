"""Addresses of inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from posebatch.core.errors import InputError
from posebatch.storage.addresses import is_s3, local_path, split_s3


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://b", ("b", "")),
        ("s3://b/", ("b", "")),
        ("s3://b/k", ("b", "k")),
        ("s3://b/a//b/", ("b", "a//b/")),
        ("s3://b/new\nline", ("b", "new\nline")),
    ],
)
def test_split_s3_separates_bucket_and_key(uri: str, expected: tuple[str, str]) -> None:
    assert is_s3(uri)
    assert split_s3(uri) == expected


@pytest.mark.parametrize("uri", ["s3://", "s3:///k"])
def test_split_s3_refuses_an_address_without_a_bucket(uri: str) -> None:
    with pytest.raises(InputError, match="no S3 address"):
        split_s3(uri)


def test_local_path_is_absolute_and_refuses_other_schemes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert not is_s3("a/b")
    assert local_path("a/../b/") == str(tmp_path / "b")
    assert local_path("~/x") == "/home/somebody/x"
    with pytest.raises(InputError, match="gs:// is not supported"):
        local_path("gs://bucket/x")


def test_an_empty_address_is_not_the_current_folder() -> None:
    with pytest.raises(InputError, match="an address is empty"):
        local_path("")
