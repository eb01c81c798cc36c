"""The commands `run` and `plan`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from posebatch.cli.groups import GROUPS, WHAT, WHERE, group_of
from posebatch.cli.parser import add_command
from posebatch.core.config_file import read_config
from posebatch.core.errors import InputError, PosebatchError
from posebatch.core.options import Option
from posebatch.core.scripts import EXIT_OK, exit_code_of
from posebatch.core.settings import Settings, options, settings_from
from posebatch.run.driver import run_job
from posebatch.run.dry_run import dry_run
from posebatch.run.log_lines import LogLine, LogWriter
from posebatch.run.outcome import RunOutcome
from posebatch.run.planning.inputs import read_input_list
from posebatch.run.planning.inventory import PREFIX as INVENTORY
from posebatch.run.planning.web_addresses import unsigned
from posebatch.storage.addresses import is_http


def add_run(commands: Any, name: str, command: Any, help_text: str) -> argparse.ArgumentParser:
    """Add the command ``run`` or ``plan``, which take inputs, an output and a flag for each setting; returns it."""
    parser = add_command(commands, name, command, help_text)
    parser.usage = f"{parser.prog} INPUT... --output URI [OPTION...]"
    groups = {
        group: parser.add_argument_group(group.title, f"example: {parser.prog} {group.example}") for group in GROUPS
    }
    what, where = groups[WHAT], groups[WHERE]
    what.add_argument(
        "inputs", nargs="*", metavar="INPUT", help="file, folder, glob, s3://bucket/key-or-prefix or ARCHIVE!/MEMBER"
    )
    what.add_argument(
        "--inputs-from",
        metavar="FILE",
        help="file with more inputs, one per line; may hold presigned https:// addresses",
    )
    what.add_argument(
        "--inventory",
        metavar="URI",
        action="append",
        default=[],
        help="manifest.json of an S3 Inventory, in place of a listing of its bucket; repeatable",
    )
    where.add_argument("--output", required=True, metavar="URI", help="folder or s3://bucket/prefix for the dataset")
    where.add_argument("--config", metavar="FILE.yaml", help="file of settings, named like these flags; flags win")
    for item in options():
        add_option(groups[group_of(item)], item)
    return parser


def add_plan(commands: Any, help_text: str) -> None:
    """Add the command ``plan``."""
    parser = add_run(commands, "plan", plan_command, help_text)
    parser.add_argument(
        "--probe-speed",
        action="store_true",
        help="estimate the time from ten seconds of real work on one of the videos, on this machine",
    )


def add_option(parser: argparse._ActionsContainer, item: Option) -> None:
    """Add the flag of a setting."""
    default = "" if item.default in (None, (), False) else f" (default: {item.default})"
    common: dict[str, Any] = {
        "dest": item.name,
        "default": argparse.SUPPRESS,
        "help": (item.help + default).replace("%", "%%"),
    }
    if item.value_type is bool:
        parser.add_argument(item.flag, action=argparse.BooleanOptionalAction, **common)
        return
    # no choices for argparse: the settings check them, with a better message
    metavar = item.metavar or ("{" + ",".join(item.choices) + "}" if item.choices else item.name.upper())
    action = "append" if item.repeatable else "store"
    parser.add_argument(item.flag, action=action, type=item.value_type, metavar=metavar, **common)


def flag_values(chosen: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as flags, by name."""
    names = {item.name for item in options()}
    return {name: value for name, value in vars(chosen).items() if name in names}


def _settings(chosen: argparse.Namespace) -> Settings:
    from_file = read_config(chosen.config) if chosen.config else {}
    settings_from(from_file, f"--config {chosen.config}")  # first, so that its errors name the file
    from_file = {str(key).replace("-", "_"): value for key, value in from_file.items()}
    return settings_from({**from_file, **flag_values(chosen)}, "command line")


def run_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch run``; returns the exit code."""
    settings = _settings(chosen)
    return logged(settings, lambda: run_job(_named_inputs(chosen), chosen.output, settings))


def logged(settings: Settings, job: Callable[[], RunOutcome]) -> int:
    """Do a job; returns the exit code. With ``--log-format json`` an error that ends it is a line as well."""
    try:
        return job().exit_code
    except PosebatchError as error:
        if settings.execution.log_format != "json":
            raise
        code = exit_code_of(error)
        LogWriter(sys.stderr, log_format="json").write(LogLine("error", str(error), "error", {"exit_code": code}))
        return code


def plan_command(chosen: argparse.Namespace) -> int:
    """Run ``posebatch plan``; returns the exit code."""
    dry_run(_named_inputs(chosen), chosen.output, _settings(chosen), chosen.probe_speed)
    return EXIT_OK


def refuse_signed(names: Iterable[str], instead: str) -> None:
    """Raise `InputError` for an address with a query among the arguments; ``instead``: what to do."""
    signed = next((name for name in names if is_http(name) and "?" in name), None)
    if signed is not None:
        raise InputError(
            f"{unsigned(signed)}: a signed address on the command line can be seen by other users; {instead}"
        )


def _named_inputs(chosen: argparse.Namespace) -> list[str]:
    refuse_signed(chosen.inputs, "write it into a file, and name the file with --inputs-from")
    listed = read_input_list(chosen.inputs_from) if chosen.inputs_from else []
    return [*chosen.inputs, *listed, *(f"{INVENTORY}{uri}" for uri in chosen.inventory)]
