"""The commands `verify` and `gc`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from posebatch.cli.parser import EXIT_OK, EXIT_SOME_FAILED, add_command
from posebatch.core.errors import RunAbortedError
from posebatch.core.redaction import visible
from posebatch.dataset.gc import (
    DEFAULT_LIMIT_DAYS,
    SECONDS_PER_DAY,
    AgeLimit,
    Unreferenced,
    age_limit,
    remove,
    unreferenced,
)
from posebatch.dataset.lease import hold_lease
from posebatch.dataset.verify import Verdict, verify
from posebatch.run.progress import LOG_SECONDS
from posebatch.run.run_folder import new_run_id
from posebatch.storage.addresses import is_s3
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


def add_gc(commands: Any) -> None:
    """Add the command ``gc``."""
    parser = add_command(commands, "gc", gc_command, "show what nobody needs any more in an output, or take it away")
    parser.add_argument("--output", required=True, metavar="URI", help="the output to tidy up")
    parser.add_argument(
        "--older-than-days",
        type=float,
        default=DEFAULT_LIMIT_DAYS,
        metavar="DAYS",
        help=f"leave alone what is younger; fractions will do, from an hour on (default: {DEFAULT_LIMIT_DAYS:g})",
    )
    parser.add_argument("--delete", action="store_true", help="take it away; otherwise it is only shown")
    parser.add_argument("--wait", action="store_true", help="where a run has the output: wait for its end")
    parser.add_argument("--endpoint-url", metavar="URL", help="S3-compatible store to talk to, instead of AWS")


def verify_command(chosen: argparse.Namespace) -> int:
    """``posebatch verify``."""
    verdict = verify(open_store(chosen.output, chosen.endpoint_url), chosen.deep, _now_and_then(_say_how_far))
    for problem in verdict.problems:
        print(f"problem: {visible(problem)}")
    state = f"{len(verdict.problems)} problems" if verdict.problems else "clean"
    print(f"{state}: {verdict.videos} videos ({verdict.failed} failed), {verdict.frames} frames, ", end="")
    print(f"{verdict.persons} persons" + (f"; {_megabytes(verdict.bytes_read)} read" if chosen.deep else ""))
    if verdict.without_checksum:
        print(
            f"not proven: {verdict.without_checksum} objects have no checksum, an older version published them; they "
            "were read and checked, but only `posebatch run --on-existing overwrite` gives them one"
        )
    return EXIT_SOME_FAILED if verdict.problems else EXIT_OK


def _now_and_then(say: Callable[[Verdict], None]) -> Callable[[Verdict], None]:
    """The same, but it says nothing when it said something a moment ago."""
    said = time.monotonic()

    def maybe(verdict: Verdict) -> None:
        nonlocal said
        if time.monotonic() - said >= LOG_SECONDS:
            said = time.monotonic()
            say(verdict)

    return maybe


def _say_how_far(verdict: Verdict) -> None:
    read = f", {_megabytes(verdict.bytes_read)} read" if verdict.bytes_read else ""
    print(f"{verdict.videos} videos, {verdict.frames} frames so far{read}", file=sys.stderr, flush=True)


def gc_command(chosen: argparse.Namespace) -> int:
    """``posebatch gc``; what is removed is removed while no run has the output."""
    store = open_store(chosen.output, chosen.endpoint_url)
    limit = age_limit(store, chosen.older_than_days)
    lost: list[str] = []
    keeping_runs_out = hold_lease(store, f"gc-{new_run_id()}", chosen.wait, print, lost.append)
    with keeping_runs_out if chosen.delete else nullcontext():
        found, size_bytes = _collect(store, limit, chosen.delete, lost)
    if is_s3(store.root):
        print("not looked at: parts of uploads that were broken off; a lifecycle rule of the bucket removes those")
    dry = "" if chosen.delete or not found else "; nothing was removed, --delete does it"
    print(f"{found} objects, {_megabytes(size_bytes)} {'removed' if chosen.delete else 'to remove'}{dry}")
    return EXIT_OK


def _collect(store: Store, limit: AgeLimit, delete: bool, lost: list[str]) -> tuple[int, int]:
    """Objects and bytes that are removed, or would be."""
    found = size_bytes = 0
    for leftover in unreferenced(store, limit):
        if lost:
            raise RunAbortedError(f"stopped: {lost[0]}; the same command goes on from here")
        if delete and not remove(store, leftover, limit):
            print(f"kept {leftover.key}: it is needed again, or has gone")
            continue
        print(f"{'removed' if delete else 'would remove'} {_leftover_text(leftover)}")
        found, size_bytes = found + leftover.objects, size_bytes + leftover.size_bytes
    return found, size_bytes


def _leftover_text(leftover: Unreferenced) -> str:
    many = f"{leftover.objects} objects, " if leftover.key.endswith("/") else ""
    days = leftover.age_s / SECONDS_PER_DAY
    return f"{leftover.key}  ({many}{_megabytes(leftover.size_bytes)}, {days:.1f} days old): {leftover.why}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
