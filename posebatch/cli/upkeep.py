"""The commands ``verify`` and ``gc``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from posebatch.cli.parser import add_command
from posebatch.core.errors import RunAbortedError
from posebatch.core.redaction import visible
from posebatch.core.scripts import EXIT_OK, EXIT_SOME_FAILED
from posebatch.core.wording import counted
from posebatch.dataset.compaction.leases import hold_compaction
from posebatch.dataset.compaction.leftovers import can_judge_compaction
from posebatch.dataset.compaction.snapshot import has_compaction
from posebatch.dataset.gc import (
    DEFAULT_LIMIT_DAYS,
    SECONDS_PER_DAY,
    AgeLimit,
    Unreferenced,
    age_limit,
    check_is_output,
    remove,
    unreferenced,
)
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.verify import Verdict, verify
from posebatch.run.run_folder import new_run_id
from posebatch.storage.addresses import is_s3
from posebatch.storage.open import open_store
from posebatch.storage.store import Store

LOG_SECONDS: Final = 10.0
"""Between two lines about the progress."""


def add_verify(commands: Any) -> None:
    """Add the command ``verify``."""
    parser = add_command(
        commands, "verify", verify_command, "check a dataset: nothing is missing, duplicated or damaged"
    )
    parser.add_argument("--output", required=True, metavar="URI", help="the output to check")
    parser.add_argument(
        "--deep", action="store_true", help="read every byte: also check checksums, values, metadata and previews"
    )
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def add_gc(commands: Any) -> None:
    """Add the command ``gc``."""
    parser = add_command(commands, "gc", gc_command, "list unreferenced objects in an output; --delete removes them")
    parser.add_argument("--output", required=True, metavar="URI", help="the output to clean up")
    parser.add_argument(
        "--older-than-days",
        type=float,
        default=DEFAULT_LIMIT_DAYS,
        metavar="DAYS",
        help=f"minimum age in days, at least 0.042, which is an hour (default: {DEFAULT_LIMIT_DAYS:g})",
    )
    parser.add_argument("--delete", action="store_true", help="remove the objects; without it they are only listed")
    parser.add_argument("--wait", action="store_true", help="if a run holds the output, wait for its end")
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3-compatible store to use instead of AWS")


def verify_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch verify``; returns the exit code."""
    on_progress = _throttled(_print_progress)
    verdict = verify(open_store(chosen.output, chosen.endpoint_url), chosen.deep, on_progress)
    for problem in verdict.problems:
        print(f"problem: {visible(problem)}")
    state = counted(len(verdict.problems), "problem") if verdict.problems else "clean"
    videos, frames = counted(verdict.videos, "video"), counted(verdict.frames, "frame")
    print(f"{state}: {videos} ({verdict.failed} failed), {frames}, {counted(verdict.persons, 'person')}", end="")
    print(f"; {_megabytes(verdict.bytes_read)} read" if chosen.deep else "")
    if verdict.compacted is not None:
        behind = f"; {verdict.compaction_behind} not compacted yet" if verdict.compaction_behind else ""
        print(f"compacted tables: {counted(verdict.compacted, 'video')}{behind}")
    if verdict.compaction_unchecked:
        print("not checked: the compacted tables; pip install 'posebatch[compact]'")
    if verdict.without_checksum:
        print(
            f"not proven: {verdict.without_checksum} objects have no checksum, because an older version published "
            "them; they were read and checked, but only `posebatch run --on-existing overwrite` gives them one"
        )
    return EXIT_SOME_FAILED if verdict.problems else EXIT_OK


def _throttled(report: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """``report``, called at most once every `LOG_SECONDS` and for the first time after that."""
    last_report = time.monotonic()

    def report_if_due(verdict: Verdict) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= LOG_SECONDS:
            last_report = time.monotonic()
            report(verdict)

    return report_if_due


def _print_progress(verdict: Verdict) -> None:
    read = f", {_megabytes(verdict.bytes_read)} read" if verdict.bytes_read else ""
    videos, frames = counted(verdict.videos, "video"), counted(verdict.frames, "frame")
    print(f"{videos}, {frames} so far{read}", file=sys.stderr, flush=True)


def gc_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch gc``; returns the exit code. With ``--delete`` it holds the lease of the output."""
    store = open_store(chosen.output, chosen.endpoint_url)
    limit = age_limit(store, chosen.older_than_days)
    check_is_output(store)
    taken_over: list[str] = []
    lease = hold_lease(store, f"gc-{new_run_id()}", chosen.wait, print, taken_over.append)
    is_compacted = has_compaction(store)
    if is_compacted and not can_judge_compaction():
        print("not checked: the compacted tables; pip install 'posebatch[compact]'")
    compaction = hold_compaction(store, f"gc-{new_run_id()}", chosen.wait, print, taken_over.append)
    with lease if chosen.delete else nullcontext(), compaction if chosen.delete and is_compacted else nullcontext():
        objects, size_bytes = _collect(store, limit, chosen.delete, taken_over)
    if is_s3(store.root):
        print("not checked: incomplete multipart uploads; a lifecycle rule of the bucket removes those")
    hint = "" if chosen.delete or not objects else "; nothing was removed, --delete does it"
    print(f"{counted(objects, 'object')}, {_megabytes(size_bytes)} {'removed' if chosen.delete else 'to remove'}{hint}")
    return EXIT_OK


def _collect(store: Store, limit: AgeLimit, delete: bool, taken_over: list[str]) -> tuple[int, int]:
    """List or remove unreferenced objects; returns their number and bytes. Stops if another run takes the lease."""
    objects = size_bytes = 0
    for leftover in unreferenced(store, limit):
        if taken_over:
            raise RunAbortedError(f"stopped: {taken_over[0]}; the same command continues from here")
        if delete and not remove(store, leftover, limit):
            print(visible(f"kept {leftover.key}: it is in use again, or is gone"))
            continue
        print(visible(f"{'removed' if delete else 'would remove'} {_leftover_text(leftover)}"))
        objects, size_bytes = objects + leftover.objects, size_bytes + leftover.size_bytes
    return objects, size_bytes


def _leftover_text(leftover: Unreferenced) -> str:
    many = f"{counted(leftover.objects, 'object')}, " if leftover.key.endswith("/") else ""
    days = leftover.age_s / SECONDS_PER_DAY
    return f"{leftover.key}  ({many}{_megabytes(leftover.size_bytes)}, {days:.1f} days old): {leftover.why}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
