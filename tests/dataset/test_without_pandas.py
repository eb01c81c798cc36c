"""Arrow without pandas writes the same bytes, and neither kind of actor loads pandas."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RECORD_BYTES = """
import hashlib, sys
from posebatch.core.records import VideoRecord
from posebatch.dataset.tables.records import record_to_bytes
from posebatch.dataset.tables.without_pandas import keep_pandas_unloaded
{first}
content = record_to_bytes(VideoRecord('/in/a.mp4', 'e', 1, 1.0, 'failed', 'f', 'run-1', '0', 'damaged', 'no frame'))
print(hashlib.sha256(content).hexdigest(), 'pandas' in sys.modules)
import pandas
print(pandas.DataFrame({{'a': [1]}})['a'].sum())
"""

ACTORS = """
import sys
from types import SimpleNamespace
from posebatch.core.settings import Settings
from posebatch.dataset.tables.records import videos_table
from posebatch.run.context import RunContext
from posebatch.run.workers import actors
actors._start_heartbeat = lambda context: None
context = RunContext('run-1', Settings(), {output!r}, 'none', 'none')
if {kind!r} == 'helper':
    actors.TaskHelper(context)
else:
    from posebatch.run.workers.segment_worker import SegmentProcessor
    SegmentProcessor.load = lambda *_: SimpleNamespace()
    loaded = actors.SegmentWorker(context, 'cpu', 1).load()
    assert loaded.error is None, loaded.error
videos_table([])
print('pandas' in sys.modules)
"""


def output_of(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_arrow_writes_the_same_bytes_without_pandas():
    sha256, loaded, total = output_of(RECORD_BYTES.format(first="keep_pandas_unloaded()"))
    assert (loaded, total) == ("False", "1"), "pandas can still be imported"
    assert output_of(RECORD_BYTES.format(first="")) == [sha256, "True", "1"]


def test_arrow_keeps_pandas_where_it_is_loaded():
    script = (
        "import pandas, pyarrow as pa\n"
        "from posebatch.dataset.tables.without_pandas import keep_pandas_unloaded\n"
        "keep_pandas_unloaded()\n"
        "print(pa.table({'a': [1, 2]}).to_pandas()['a'].sum())\n"
    )
    assert output_of(script) == ["3"]


@pytest.mark.parametrize("kind", ["helper", pytest.param("worker", marks=pytest.mark.slow)])
def test_actors_load_no_pandas_with_their_first_table(kind: str, tmp_path: Path):
    """On a busy machine it takes longer to load than a task may stall."""
    assert output_of(ACTORS.format(kind=kind, output=str(tmp_path))) == ["False"]
