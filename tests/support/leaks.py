"""Looks for credentials in all that a run leaves behind: no file, table, log, message or listing may hold one."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from posebatch.storage.store import Store


def assert_no_secrets(said: Mapping[str, str | bytes], secrets: Sequence[str]) -> None:
    """Fail when one of the texts, by the names of their places, holds one of the secrets, plain or encoded."""
    assert all(len(secret) >= 16 for secret in secrets), "a short secret is found everywhere"
    sought = {spelling for secret in secrets for spelling in _spellings(secret)}
    found = [
        f"{place}: {spelling[:4].decode()}..."
        for place, text in said.items()
        for spelling in sought
        if spelling in (text.encode(errors="surrogateescape") if isinstance(text, str) else text)
    ]
    assert found == []


def everything_in(folder: Path) -> dict[str, bytes]:
    """What a reader sees of all files below a folder, by path: tables are unpacked."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): readable(path.name, path.read_bytes()) for path in paths}


def everything_of(store: Store) -> dict[str, bytes]:
    """The same of all objects in a store."""
    return {store.uri(found.key): readable(found.key, store.read(found.key)) for found in store.list()}


def readable(name: str, content: bytes) -> bytes:
    """The text in a file, with the file as it is."""
    return content + b"\n" + b"\n".join(_unpacked(name, content))


def _unpacked(name: str, content: bytes) -> Iterator[bytes]:
    if name.endswith(".parquet"):
        yield _table_text(pa.parquet.read_table(pa.BufferReader(content)))
    elif name.endswith(".arrow"):
        yield _table_text(pa.ipc.open_file(content).read_all())
    elif name.endswith(".gz"):
        yield gzip.decompress(content)


def _table_text(table: pa.Table) -> bytes:
    """All that is no number; each text once."""
    texts = [str(table.schema.metadata)]
    for column in table.columns:
        if pa.types.is_nested(column.type):
            texts.append(str(column.to_pylist()))
        elif not pa.types.is_floating(column.type) and not pa.types.is_integer(column.type):
            texts += map(str, column.unique().to_pylist())
    return "\n".join(texts).encode(errors="surrogateescape")


def _spellings(secret: str) -> Iterable[bytes]:
    raw = secret.encode()
    return raw, quote(secret, safe="").encode(), base64.b64encode(raw).rstrip(b"=")
