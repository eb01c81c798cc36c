"""The entry point of all commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from posebatch.cli.compact import add_compact
from posebatch.cli.compare import add_compare
from posebatch.cli.derive import add_derive
from posebatch.cli.export import add_export
from posebatch.cli.models import add_models
from posebatch.cli.parser import Parser, add_command
from posebatch.cli.plot import add_plot
from posebatch.cli.query import add_query
from posebatch.cli.report import add_report
from posebatch.cli.run import add_plan, add_run, run_command
from posebatch.cli.show import add_show
from posebatch.cli.upkeep import add_gc, add_verify
from posebatch.core.scripts import run_script
from posebatch.core.version import __version__
from posebatch.demo.command import run_demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of ``posebatch``; returns its exit code: 0 done, 3 done but some videos failed, 2 or 1 for errors.

    See `run_script` for the errors.
    """

    def run_command() -> int:
        chosen = build_parser().parse_args(arguments)
        return int(chosen.command(chosen))

    return run_script("posebatch", run_command)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="posebatch",
        description="Extract human poses from an archive of videos.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"posebatch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    add_run(commands, "run", run_command, "process an archive: write poses, frames and a commit record of every video")
    add_plan(commands, "dry run: show what `run` would do with each video, and why")
    add_derive(commands)
    add_verify(commands)
    add_gc(commands)
    add_compact(commands)
    add_query(commands)
    add_export(commands)
    add_compare(commands)
    add_plot(commands)
    add_report(commands)
    add_show(commands)
    add_models(commands)
    demo = add_command(commands, "demo", demo_command, "process a sample video, or one of your own")
    demo.add_argument("video", nargs="?", metavar="VIDEO", help="file, folder or s3:// URI instead of the sample")
    demo.add_argument("--output", default="demo", metavar="URI", help="output folder or s3:// URI (default: demo)")
    return parser


def demo_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch demo``; returns the exit code."""
    return run_demo(chosen.video, chosen.output)
