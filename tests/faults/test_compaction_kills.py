"""A compaction dies at any step: readers go on, and the next compaction makes it right.

The short form dies at a few steps within the process, and once by SIGKILL. POSEBATCH_FAULTS=full takes all steps, each
in a process of its own.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.compaction_child import KilledError, compact_until, die_here
from faults.suite import FULL, note_figure
from support.compaction_factories import assert_compacted, assert_same_rows, fail, publish_some, remove_video
from support.upkeep_factories import publish

from posebatch.dataset.compaction.compaction import compact
from posebatch.dataset.gc import AgeLimit, remove, unreferenced
from posebatch.storage.local import LocalStore

CHILD = Path(__file__).with_name("compaction_child.py")
NEVER = 1 << 30


def change(root: Path) -> None:
    """New, replaced, removed and failed videos after the first compaction."""
    publish(root, "dt=2026-01-01/a.mp4", persons=3)
    publish(root, "dt=2026-01-03/e.mp4", persons=1)
    remove_video(LocalStore(root), "dt=2026-01-02/c.mp4")
    fail(LocalStore(root), "dt=2026-01-01/b.mp4")


def make(root: Path, later: bool) -> None:
    publish_some(root)
    if later:
        compact(LocalStore(root))
        change(root)


def assert_recovers(root: Path) -> None:
    assert_same_rows(str(root))
    compact(LocalStore(root))
    assert_compacted(str(root))
    limit = AgeLimit(1e12, 3600)
    for leftover in list(unreferenced(LocalStore(root), limit)):
        remove(LocalStore(root), leftover, limit)
    assert_same_rows(str(root))


def test_compaction_of_changes_dies_at_some_steps(tmp_path: Path):
    make(tmp_path / "whole", later=True)
    copies = [tmp_path / name for name in ("poses", "motion", "videos")]
    for root in copies:
        shutil.copytree(tmp_path / "whole", root, copy_function=shutil.copy2)
    steps = compact_until(str(tmp_path / "whole"), NEVER, die_here)
    for root, step in zip(copies, (steps - 19, steps - 13, steps - 11), strict=True):  # after its transaction
        with pytest.raises(KilledError):
            compact_until(str(root), step, die_here)
        assert_recovers(root)


def test_compaction_dies_again_and_again(tmp_path: Path):
    """Each attempt gets as far as the one before or further, over the leftovers of all attempts."""
    make(tmp_path, later=False)
    for step in (2, 17, 21, 21):
        with pytest.raises(KilledError):
            compact_until(str(tmp_path), step, die_here)
    change(tmp_path)
    assert_recovers(tmp_path)


@pytest.mark.parametrize("later", [False, True])
def test_compaction_is_killed_at_every_step(tmp_path: Path, later: bool):
    make(tmp_path / "whole", later)
    steps = compact_until(str(tmp_path / "whole"), NEVER, die_here)
    chosen = range(steps) if FULL else [steps - 11] if later else []
    for step in chosen:
        root = tmp_path / str(step)
        make(root, later)
        done = subprocess.run([sys.executable, str(CHILD), str(root), str(step)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert_recovers(root)
    when = "with changes" if later else "for the first time"
    note_figure(
        f"kills of a compaction {when}, at each write", "rows are right, `verify --deep` clean", "yes", len(chosen)
    )
