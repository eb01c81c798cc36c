"""The entry point: all commands, and the mapping of errors to exit codes and messages."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from posebatch.cli.models import add_models
from posebatch.cli.parser import EXIT_CANNOT_GO_ON, EXIT_OK, EXIT_USAGE, Parser, add_command
from posebatch.cli.run import add_run, plan_command, run_command
from posebatch.cli.upkeep import add_gc, add_verify
from posebatch.core.errors import PosebatchError, UsageError
from posebatch.core.redaction import redacted, visible
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


def run_script(name: str, action: Callable[[], int | None]) -> int:
    """Run the body of a command or script; returns its exit code, and turns errors into a message on stderr.

    ``action`` returns an exit code, or None for 0. Errors give 2 (`UsageError`) or 1 (anything else). Messages are
    printed after ``name``, without credentials and control characters.

    Example::

        def main(arguments: Sequence[str] | None = None) -> int:
            chosen = build_parser().parse_args(arguments)
            return run_script("train_pose", lambda: train(chosen))
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot encode is no error
    try:
        return action() or EXIT_OK
    except UsageError as error:
        return _print_error(name, error, EXIT_USAGE)
    except PosebatchError as error:
        return _print_error(name, error, EXIT_CANNOT_GO_ON)
    except BrokenPipeError:  # the reader of stdout has ended, as in `posebatch plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return _print_error(name, PosebatchError("stopped"), EXIT_CANNOT_GO_ON)
    except Exception:  # a bug; libraries may quote credentials in their messages
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_CANNOT_GO_ON


def _print_error(name: str, error: PosebatchError, exit_code: int) -> int:
    print(f"{name}: {visible(str(error))}", file=sys.stderr)
    return exit_code


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
    add_run(commands, "plan", plan_command, "dry run: show what `run` would do with each video, and why")
    add_verify(commands)
    add_gc(commands)
    add_models(commands)
    demo = add_command(commands, "demo", demo_command, "process a sample video, or one of your own")
    demo.add_argument("video", nargs="?", metavar="VIDEO", help="file, folder or s3:// URI instead of the sample")
    demo.add_argument("--output", default="demo", metavar="URI", help="output folder or s3:// URI (default: demo)")
    return parser


def demo_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch demo``; returns the exit code."""
    return run_demo(chosen.video, chosen.output)
