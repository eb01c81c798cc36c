"""A table of an output as a dataset of Arrow, for DuckDB. Arrow's datasets load pandas, so that few modules do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from typing_extensions import override

from posebatch.dataset.compaction.columns import PLAIN_SCHEMAS
from posebatch.dataset.compaction.current import find_current_rows
from posebatch.dataset.compaction.names import PATH
from posebatch.dataset.compaction.snapshot import Snapshot
from posebatch.dataset.tables.schemas import Schema
from posebatch.storage.arrow_files import arrow_files
from posebatch.storage.store import Store


class TableNow(ds.Dataset):  # type: ignore[misc]  # pyarrow has no types
    """A table of an output, found when it is first read.

    DuckDB takes it for any other dataset of Arrow: it asks for ``schema`` when a view is made, and calls ``scanner``
    when the view is queried. Later queries show the files that the first one has found.
    """

    def __init__(self, store: Store, name: str, snapshot: Callable[[], Snapshot | None]) -> None:
        self._store, self._name, self._snapshot = store, name, snapshot
        self._found: tuple[ds.Dataset, pa.Array] | None = None

    @property
    @override
    def schema(self) -> Schema:
        """The columns, without lists: their form differs between versions."""
        return pa.schema([column for column in PLAIN_SCHEMAS[self._name] if not pa.types.is_list(column.type)])

    @override
    def scanner(self, columns: list[str] | None = None, filter: pc.Expression | None = None, **chosen: Any) -> Any:
        """A scan of the rows; arguments as for any dataset of Arrow."""
        if self._found is None:
            self._found = self._find()
        rows, outdated = self._found
        if len(outdated):
            current = ~ds.field(PATH).isin(outdated)
            filter = current if filter is None else filter & current  # noqa: A001 - the name of the argument
        wanted = self.schema.names if columns is None else columns
        # Arrow keeps the footer of each file otherwise: 16 GB for 100,000 small files
        return rows.scanner(columns=wanted, filter=filter, cache_metadata=False, **chosen)

    def _find(self) -> tuple[ds.Dataset, pa.Array]:
        listed = [stored for stored in self._store.list(f"{self._name}/") if stored.key.endswith(".parquet")]
        now = find_current_rows(self._snapshot(), self._name, listed)
        schema = pa.schema([pa.field(PATH, pa.string()), *self.schema])
        form, place = ds.ParquetFileFormat(), arrow_files(self._store.root, self._store.endpoint_url)
        fragments = [
            form.make_fragment(stored.key, filesystem=place, file_size=stored.size_bytes) for stored in now.small_files
        ]
        small = ds.FileSystemDataset(fragments, schema, form, place)
        if now.snapshot is None:
            return small, now.outdated
        large = now.snapshot.dataset(self._name, schema, now.snapshot.files(self._name))
        return ds.dataset([large, small]), now.outdated
