"""S3 Inventory as an input: the listing of a bucket that the store has written, as CSV or Parquet files.

The inventory may be days old. A video that has changed or disappeared since is met when it is opened: by its etag.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import posixpath
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Final
from urllib.parse import unquote_plus

from posebatch.core.errors import InputError, ObjectNotFoundError
from posebatch.run.planning.listed_files import ListedFile
from posebatch.storage.addresses import bucket_folder, is_s3
from posebatch.storage.cold_classes import cold_class
from posebatch.storage.open import open_newest

PREFIX: Final = "inventory+"
"""Precedes the address of a manifest among the inputs of a run."""


BATCH_ROWS: Final = 10_000
"""Rows of a Parquet file that are in memory at once."""


_NAMES: Final[Mapping[str, str]] = {
    # column in CSV: column in Parquet
    "Bucket": "bucket",
    "Key": "key",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "VersionId": "version_id",
    "StorageClass": "storage_class",
    "IntelligentTieringAccessTier": "intelligent_tiering_access_tier",
}


_NEEDED: Final = ("key", "size", "last_modified_date", "e_tag")


@dataclass(frozen=True)
class Inventory:
    """The manifest of an inventory."""

    named: str
    """Its address."""
    bucket: str
    """Whose objects it lists."""
    file_format: str
    columns: tuple[str, ...]
    """Of its CSV files, in order."""
    files: tuple[str, ...]
    """Addresses of its data files."""
    folder: str
    """Folder of the manifest: data files that were copied together with it are found there."""


def read_manifest(named: str, endpoint_url: str | None) -> Inventory:
    """Read a ``manifest.json``. Raises `InputError` if it is none, or lacks a column that is needed."""
    try:
        with open_newest(named, endpoint_url) as file:
            manifest = json.loads(file.read())
        bucket, target = manifest["sourceBucket"], manifest["destinationBucket"].rpartition(":")[2]
        file_format, schema = manifest["fileFormat"], manifest["fileSchema"]
        files = tuple(f"s3://{target}/{one['key']}" for one in manifest["files"])
    except ObjectNotFoundError as error:
        raise InputError(f"--inventory {named}: no such manifest") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--inventory {named}: not the manifest.json of an S3 Inventory") from error
    if file_format not in ("CSV", "Parquet"):
        raise InputError(
            f"--inventory {named}: an inventory in {file_format}, which is not read; configure one in CSV or Parquet"
        )
    columns = tuple(_NAMES.get(name.strip(), "") for name in schema.split(",")) if file_format == "CSV" else ()
    if file_format == "CSV":
        _check_columns(named, columns)
    return Inventory(named, bucket, file_format, columns, files, posixpath.dirname(named))


def _check_columns(named: str, columns: Sequence[str]) -> None:
    in_csv = {column: name for name, column in _NAMES.items()}
    missing = [in_csv[column] for column in _NEEDED if column not in columns]
    if "version_id" in columns and "is_latest" not in columns:
        missing.append("IsLatest")
    if missing:
        raise InputError(f"--inventory {named}: it lacks {', '.join(missing)}; add them to its configuration")


def listed_in_inventory(inventory: Inventory, endpoint_url: str | None, access: str) -> Iterator[ListedFile]:
    """The current objects of an inventory, in its order. Raises `InputError` if a file of it cannot be read."""
    folder = bucket_folder(inventory.bucket)
    for address in inventory.files:
        try:
            with open_newest(_address(inventory, address), endpoint_url) as file:
                rows = _csv_rows(file, inventory) if inventory.file_format == "CSV" else _parquet_rows(file, inventory)
                yield from (_listed(row, inventory, folder, access) for row in rows if _is_current(row))
        except ObjectNotFoundError as error:
            raise InputError(f"--inventory {inventory.named}: its file {address} is gone") from error
        except (ValueError, OSError, EOFError, LookupError, csv.Error, zlib.error) as error:
            raise InputError(f"--inventory {inventory.named}: its file {address} is damaged: {error}") from error


def _address(inventory: Inventory, address: str) -> str:
    """Where a data file lies: beside a manifest on the disk, else where the manifest says."""
    return address if is_s3(inventory.named) else f"{inventory.folder}/{posixpath.basename(address)}"


def _csv_rows(file: IO[bytes], inventory: Inventory) -> Iterator[dict[str, Any]]:
    # the address may lack .gz, so the first bytes decide
    unpacked = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file  # type: ignore[attr-defined]
    for values in csv.reader(io.TextIOWrapper(unpacked, encoding="utf-8", newline="")):
        if len(values) != len(inventory.columns):
            raise ValueError(f"a row of {len(values)} values, {len(inventory.columns)} columns")
        row: dict[str, Any] = dict(zip(inventory.columns, values, strict=True))
        row["key"] = unquote_plus(row["key"], errors="surrogateescape")
        for name in ("is_latest", "is_delete_marker"):
            row[name] = row[name].lower() == "true" if name in row else None
        row["last_modified_date"] = datetime.fromisoformat(row["last_modified_date"])
        yield row


def _parquet_rows(file: IO[bytes], inventory: Inventory) -> Iterator[dict[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415 - few runs read an inventory
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        table = pq.ParquetFile(file)
        present = [name for name in table.schema_arrow.names if name in _NAMES.values()]
        _check_columns(inventory.named, present)
        for batch in table.iter_batches(BATCH_ROWS, columns=present):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _is_current(row: Mapping[str, Any]) -> bool:
    """Whether a row is an object that a listing would show."""
    is_object = row.get("is_latest") is not False and not row.get("is_delete_marker")
    return is_object and not row["key"].endswith("/")


def _listed(row: Mapping[str, Any], inventory: Inventory, folder: str, access: str) -> ListedFile:
    key, changed = row["key"], row["last_modified_date"]
    cold = cold_class(row.get("storage_class") or "", row.get("intelligent_tiering_access_tier") or "")
    size, etag, modified = int(row["size"]), row["e_tag"].strip('"'), changed.timestamp()
    return ListedFile(key, f"s3://{inventory.bucket}/{key}", f"{folder}/{key}", etag, size, modified, cold, access)
