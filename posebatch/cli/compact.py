"""The command ``compact``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from posebatch.cli.parser import add_command
from posebatch.core.extras import need
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK, EXIT_SOME_FAILED
from posebatch.core.wording import counted
from posebatch.dataset.compaction.compaction import Progress, compact
from posebatch.dataset.compaction.leases import hold_compaction
from posebatch.dataset.gc import check_is_output
from posebatch.run.run_folder import new_run_id
from posebatch.storage.open import open_store

LOG_SECONDS: Final = 10.0
"""Between two lines about the progress."""


PROBLEMS_SHOWN: Final = 20


def add_compact(commands: Any) -> None:
    """Add the command ``compact``."""
    parser = add_command(
        commands, "compact", compact_command, "gather the small files of an output in large Delta tables, for queries"
    )
    parser.epilog = f"example: {parser.prog} --output s3://my-poses/out"
    parser.add_argument("--output", required=True, metavar="URI", help="the output; the tables go to URI/compact/")
    parser.add_argument("--wait", action="store_true", help="if another compaction is at work, wait for its end")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def compact_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch compact``; returns the exit code."""
    need("deltalake")
    store = open_store(chosen.output, chosen.endpoint_url)
    check_is_output(store)
    taken_over: list[str] = []
    with hold_compaction(store, f"compact-{new_run_id()}", chosen.wait, print, taken_over.append):
        done = compact(store, _throttled(_print_progress), lambda: bool(taken_over))
    problems = [video for video in done.left if video.is_problem]
    for video in problems[:PROBLEMS_SHOWN]:
        print(visible(f"problem: {video.path}: {video.why}"))
    if len(problems) > PROBLEMS_SHOWN:
        print(f"and {len(problems) - PROBLEMS_SHOWN} more; `posebatch verify` names all")
    print(
        f"{counted(done.taken, 'video')} taken, {done.dropped} dropped, {counted(done.videos, 'video')} in the tables; "
        f"{counted(done.files, 'file')}, {done.bytes_written / 1e6:.1f} MB written"
    )
    if done.left:
        print(f"{counted(len(done.left), 'video')} left to the next compaction; readers read the small files")
    return EXIT_SOME_FAILED if problems else EXIT_OK


def _throttled(report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """``report``, called at most once every `LOG_SECONDS` and for the first time after that."""
    last_report = time.monotonic()

    def report_if_due(progress: Progress) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= LOG_SECONDS:
            last_report = time.monotonic()
            report(progress)

    return report_if_due


def _print_progress(progress: Progress) -> None:
    done = progress.taken + len(progress.left)
    print(f"{done} of {counted(progress.to_take, 'video')} so far", file=sys.stderr, flush=True)
