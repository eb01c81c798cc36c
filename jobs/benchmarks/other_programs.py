"""Run YOLO, MediaPipe and Keypoint R-CNN on the same frames, in another Python environment: none is a dependency."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks import other_programs_entry
from benchmarks.figures import Measured, Peer
from posebatch.core.errors import RunAbortedError


def other_program(python: str, program: str, videos: Sequence[Path], threads: int, limit: int) -> Peer | None:
    """Run one of `other_programs_entry.PROGRAMS` with ``python``; None if the program is not installed there.

    Raises `RunAbortedError` if it fails.
    """
    command = [python, "-I", other_programs_entry.__file__, program, str(threads), str(limit), *map(str, videos)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunAbortedError(f"--others {python}: cannot be run: {error}") from error
    if done.returncode == other_programs_entry.NOT_INSTALLED:
        return None
    if done.returncode != 0:
        raise RunAbortedError(f"--others {python}: {program} failed: {done.stderr.strip()[-500:]}")
    return Peer(program, Measured(**json.loads(done.stdout.splitlines()[-1])))
