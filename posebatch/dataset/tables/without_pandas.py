"""Arrow without pandas, for processes that make no data frame."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa
from typing_extensions import override


class _PandasNotFound(MetaPathFinder):
    """Makes ``import pandas`` fail."""

    @override
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is not loaded here", name=fullname)


def keep_pandas_unloaded() -> None:
    """Let Arrow go without pandas in this process, unless pandas is loaded already.

    Arrow looks with its first array of Python values whether pandas is installed, and imports it: a second of a core,
    and longer on a busy machine than a task may stall. If that import fails, Arrow does not try again. Its arrays are
    the same without pandas. Afterwards ``to_pandas`` of Arrow fails in this process.
    """
    if "pandas" in sys.modules:
        return
    finder = _PandasNotFound()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([], pa.int32())
    finally:
        sys.meta_path.remove(finder)
