"""Records that are converted once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from posebatch.dataset import publication


@pytest.fixture(scope="module", autouse=True)
def records_converted_once() -> Iterator[None]:
    """For modules that write and read the same few records thousands of times, at milliseconds each."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("record_to_bytes", "record_from_bytes"):
            patched.setattr(publication, name, functools.cache(getattr(publication, name)))
        yield
