"""The command ``query``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from posebatch.cli.parser import add_command
from posebatch.core.errors import InputError, UsageError
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK

if TYPE_CHECKING:
    import duckdb


def add_query(commands: Any) -> None:
    """Add the command ``query``."""
    parser = add_command(commands, "query", query_command, "run SQL over the tables of an output, with DuckDB")
    parser.epilog = 'example: posebatch query "SELECT video, status FROM videos" --output out --to videos.csv'
    parser.add_argument("sql", metavar="SQL", help="one statement; the tables are poses, frames, videos and so on")
    parser.add_argument("--output", required=True, metavar="URI", help="the output to read")
    parser.add_argument("--to", metavar="FILE", help="write the rows to a .csv or .parquet file, print nothing")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def query_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch query``; returns the exit code."""
    if chosen.to and not chosen.to.endswith((".csv", ".parquet")):
        raise UsageError(f"--to {chosen.to}: the name must end in .csv or .parquet")
    from posebatch.dataset.sql import connect  # noqa: PLC0415 - loads pandas

    connection = connect(chosen.output, chosen.endpoint_url)
    import duckdb  # noqa: PLC0415 - an optional extra, which connect has checked

    try:
        rows = connection.sql(chosen.sql)
        if rows is not None:
            _deliver(rows, chosen.to)
    except duckdb.Error as error:
        raise InputError(f"the query failed: {visible(str(error))}") from error
    return EXIT_OK


def _deliver(rows: duckdb.DuckDBPyRelation, path: str | None) -> None:
    if path is None:
        print(rows)
    elif path.endswith(".csv"):
        rows.write_csv(path)
    else:
        rows.write_parquet(path)
