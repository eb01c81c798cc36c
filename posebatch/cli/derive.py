"""The command ``derive``."""

from __future__ import annotations

import argparse
from typing import Any, Final

from posebatch.cli.parser import add_command
from posebatch.cli.run import add_option, flag_values, logged
from posebatch.core.settings import options, settings_from
from posebatch.run.derivation import derive_job

OTHERS: Final = ("kpt_thr", "workers", "wait", "endpoint_url", "log_format")
"""Options besides those of motion and previews."""


def add_derive(commands: Any) -> None:
    """Add the command ``derive``."""
    parser = add_command(
        commands, "derive", derive_command, "tracks, motion and previews of published videos again, from stored poses"
    )
    parser.epilog = f"example: {parser.prog} --output out --match 'ski/*' --cutoff-hz 4"
    parser.add_argument("--output", required=True, metavar="URI", help="the output that holds the poses")
    parser.add_argument(
        "--match", default="*", metavar="GLOB", help="only videos whose path in the archive matches (default: *)"
    )
    for item in options():
        if item.group in ("motion", "preview") or item.name in OTHERS:
            add_option(parser, item)


def derive_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch derive``; returns the exit code."""
    settings = settings_from(flag_values(chosen), "command line")
    return logged(settings, lambda: derive_job(chosen.output, settings, chosen.match))
