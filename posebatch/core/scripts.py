"""Exit codes, and the mapping of errors to them, for the commands and for the scripts in ``jobs/``."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import Final

from posebatch.core.errors import BucketNotFoundError, PosebatchError, UsageError
from posebatch.core.redaction import redacted, visible

EXIT_OK: Final = 0
EXIT_CANNOT_GO_ON: Final = 1
EXIT_USAGE: Final = 2
EXIT_SOME_FAILED: Final = 3
EXIT_VIDEOS_LEFT: Final = 4
"""The run stopped at its deadline or at the end of its budget; the same command continues."""


def run_script(name: str, action: Callable[[], int | None]) -> int:
    """Run the body of a command or script; returns its exit code, and turns errors into a message on stderr.

    ``action`` returns an exit code, or None for 0. Errors give 2 (`UsageError`, `BucketNotFoundError`) or 1 (anything
    else). Messages are printed after ``name``, without credentials and control characters.

    Example::

        def main(arguments: Sequence[str] | None = None) -> int:
            chosen = build_parser().parse_args(arguments)
            return run_script("train_pose", lambda: train(chosen))
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name that the terminal cannot encode is no error
    try:
        return action() or EXIT_OK
    except PosebatchError as error:
        return _print_error(name, error, exit_code_of(error))
    except BrokenPipeError:  # the reader of stdout has ended, as in `posebatch plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        return _print_error(name, PosebatchError("stopped"), EXIT_CANNOT_GO_ON)
    except Exception:  # a bug; libraries may quote credentials in their messages
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        return EXIT_CANNOT_GO_ON


def exit_code_of(error: PosebatchError) -> int:
    """The exit code of a command that ends with this error."""
    return EXIT_USAGE if isinstance(error, UsageError | BucketNotFoundError) else EXIT_CANNOT_GO_ON


def _print_error(name: str, error: PosebatchError, exit_code: int) -> int:
    print(f"{name}: {visible(str(error))}", file=sys.stderr)
    return exit_code
