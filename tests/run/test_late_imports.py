"""Libraries that a task loads when it begins: that time does not count for the task."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.run.context import RunContext
from posebatch.run.tasks import DeriveTask, FinalizeTask, PreviewOutcome, PreviewTask, PublishPreviewTask, VideoTask
from posebatch.run.workers.clip_worker import ClipProcessor
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.video_tasks import perform

VIDEO = SourceVideo("/in/a.mp4", "a.mp4", "etag", 1, 1.0)
PLAN: Any = SimpleNamespace()


class _ImportSeenError(Exception):
    """The import of the module began; its argument is whether the time of the step stood still."""


class _Finder(MetaPathFinder):
    def __init__(self, module: str) -> None:
        self._module = module

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == self._module:
            raise _ImportSeenError(heartbeat._steps[threading.get_ident()].since == math.inf)


def publish_clip(context: RunContext) -> object:
    clip: Any = SimpleNamespace(task=SimpleNamespace(video=VIDEO, attempts=1))
    return ClipProcessor(context, PLAN)._publish(clip, PLAN)


def performing(task: VideoTask) -> Callable[[RunContext], object]:
    return lambda context: perform(task, context)


@pytest.mark.parametrize(
    ("begin", "module"),
    [
        pytest.param(performing(PreviewTask(VIDEO, None)), "previews", id="preview"),
        pytest.param(performing(FinalizeTask(VIDEO, PLAN, 1)), "finalize", id="finalize"),
        pytest.param(performing(PublishPreviewTask(VIDEO, PreviewOutcome())), "finalize", id="publish-preview"),
        pytest.param(performing(DeriveTask(VIDEO)), "derive", id="derive"),
        pytest.param(publish_clip, "finalize", id="clip"),
    ],
)
def test_time_to_load_libraries_does_not_count_for_the_task(
    begin: Callable[[RunContext], object], module: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"posebatch.run.workers.{module}"
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [_Finder(name), *sys.meta_path])
    context = RunContext("run-1", Settings(), str(tmp_path), "none", "none")
    with heartbeat.step("publish", VIDEO.uri), pytest.raises(_ImportSeenError) as seen:
        begin(context)
    assert seen.value.args == (True,)
