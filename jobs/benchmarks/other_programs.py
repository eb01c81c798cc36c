"""Other programs on the same frames, in an environment of their own: none of them is a dependency."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import other_programs_entry
from benchmarks.figures import Measured, Peer
from posebatch.core.errors import RunAbortedError


def other_program(python: str, program: str, videos: Sequence[Path], threads: int, limit: int) -> Peer | None:
    """One of `outside.PROGRAMS` by the Python of another environment; None when that has not got it.

    Raises `RunAbortedError` when it fails.
    """
    command = [python, "-I", other_programs_entry.__file__, program, str(threads), str(limit), *map(str, videos)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunAbortedError(f"--others {python}: cannot be run: {error}") from error
    if ended.returncode == other_programs_entry.NOT_INSTALLED:
        return None
    if ended.returncode != 0:
        raise RunAbortedError(f"--others {python}: {program} failed: {ended.stderr.strip()[-500:]}")
    return Peer(program, Measured(**json.loads(ended.stdout.splitlines()[-1])))
