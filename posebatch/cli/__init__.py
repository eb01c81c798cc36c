"""The command line: ``posebatch run``, ``plan``, ``derive``, ``verify``, ``gc``, ``models`` and ``demo``."""

from posebatch.cli.entry import main

__all__ = ["main"]
