"""The command ``report``."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from posebatch.cli.parser import add_command
from posebatch.core.errors import UsageError
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK, EXIT_SOME_FAILED
from posebatch.core.wording import counted
from posebatch.report.pages.addresses import MOST_PAGES
from posebatch.storage.open import open_store


def add_report(commands: Any) -> None:
    """Add the command ``report``."""
    parser = add_command(commands, "report", report_command, "write HTML pages about a run and about its videos")
    parser.epilog = "example: posebatch report --output out --match 'ski/*'"
    parser.add_argument("--output", required=True, metavar="URI", help="the output to report about, and to write to")
    parser.add_argument("--run", metavar="ID", help="the run, a folder below runs/ (default: the last one)")
    parser.add_argument("--match", metavar="GLOB", help="make pages for published videos with such a path instead")
    parser.add_argument(
        "--max-pages",
        type=int,
        default=MOST_PAGES,
        metavar="N",
        help=f"maximum number of pages about videos (default: {MOST_PAGES})",
    )
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def report_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch report``; returns the exit code."""
    if chosen.max_pages < 0:
        raise UsageError(f"--max-pages must be at least 0, got {chosen.max_pages}")
    from posebatch.report.pages.writing import write_report  # noqa: PLC0415 - loads templates and pictures

    store = open_store(chosen.output, chosen.endpoint_url)
    written = write_report(store, chosen.run, chosen.match, chosen.max_pages, chosen.endpoint_url)
    print(f"{counted(written.pages, 'page')} about videos below {visible(store.uri('reports'))}/")
    if written.left_out:
        print(f"{counted(written.left_out, 'video')} left out: --max-pages {chosen.max_pages}")
    for error in written.damaged:
        print(f"no page: {visible(str(error))}", file=sys.stderr)
    print(f"report   {visible(store.uri(written.run_page))}")
    return EXIT_SOME_FAILED if written.damaged else EXIT_OK
