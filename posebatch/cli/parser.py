"""The argument parser and the exit codes of all commands."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from posebatch.core.errors import UsageError
from posebatch.core.options import nearest


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the nearest flag for an unknown one."""

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError` that names the help and, for an unknown flag, the nearest known one."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = message.removeprefix("unrecognized arguments: ").split()
        hint = nearest(unknown[0].split("=")[0], flags) if message.startswith("unrecognized arguments: -") else ""
        raise UsageError(f"{message}{hint or ';'} see {self.prog} --help")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments. The parser of the chosen command reports unknown ones, with its own usage."""
        chosen, unknown = self.parse_known_args(args, namespace)
        if unknown:
            used = getattr(chosen, "parser", self)
            used.error(f"unrecognized arguments: {' '.join(unknown)}")
        return chosen


def add_command(commands: Any, name: str, command: Any, help_text: str) -> argparse.ArgumentParser:
    """Add a command. The parsed arguments are passed to ``command``, which returns the exit code."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=help_text, allow_abbrev=False
    )
    parser.set_defaults(command=command, parser=parser)
    return parser
