"""The command line."""

from posebatch.cli.entry import main

__all__ = ["main"]
