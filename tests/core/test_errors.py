import pickle
import re

import pytest

from posebatch.core import errors
from posebatch.core.errors import PosebatchError

RETRYABLE = {
    "ObjectChangedError",
    "WorkerCrashError",
    "PutRefusedError",
    "StorageUnavailableError",
    "EvictedError",
    "WorkerDiedError",
}


def tree(root: type[PosebatchError]) -> list[type[PosebatchError]]:
    return [root, *(below for child in root.__subclasses__() for below in tree(child))]


EVERY = tree(PosebatchError)


def parents_in_docstring() -> dict[str, str | None]:
    """Each class in the tree of the docstring, with its parent there."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    (?P<branches>[│├└─ ]*)(?P<name>[A-Z]\w+Error)\b", line)
        if match:
            depth = len(match["branches"]) // 4
            path = [*path[:depth], match["name"]]
            parents[match["name"]] = path[-2] if depth else None
    return parents


def test_error_tree_in_the_docstring_is_complete():
    assert parents_in_docstring() == {
        cls.__name__: None if cls is PosebatchError else next(base.__name__ for base in cls.__bases__) for cls in EVERY
    }


def test_error_tree_marks_retryable_errors():
    lines = (errors.__doc__ or "").splitlines()
    marked = {
        name for name in parents_in_docstring() for line in lines if re.search(rf"\b{name}\b.*\(retryable\)", line)
    }
    assert marked == {cls.__name__ for cls in EVERY if cls.retryable} == RETRYABLE


def test_error_kinds_are_unique():
    kinds = [cls.kind for cls in EVERY]
    assert sorted(kinds) == sorted(set(kinds))
    assert all(re.fullmatch(r"[a-z_]+", kind) for kind in kinds)


@pytest.mark.parametrize("message", ["", "clip.mp4: 0 bytes", "über %s {0}\n\udcff"])
def test_errors_survive_pickling(message: str):
    for cls in EVERY:
        before = cls(message)
        after = pickle.loads(pickle.dumps(before))
        assert type(after) is cls
        assert str(after) == message
        assert after.args == before.args
        assert (after.retryable, after.kind) == (cls.retryable, cls.kind)
