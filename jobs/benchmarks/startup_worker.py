"""A worker that notes the steps of its start."""

from __future__ import annotations

from typing import Any

from typing_extensions import override

from benchmarks.startup import NotedContext, note
from posebatch.run.workers.actors import CallResult, SegmentWorker


class NotedWorker(SegmentWorker):
    """A `SegmentWorker` whose first call of the pose network is noted."""

    def __init__(self, context: NotedContext, device: str, threads: int) -> None:
        note(context.notes, "worker's process there")
        super().__init__(context, device, threads)
        self._notes = context.notes

    @override
    def load(self) -> CallResult:
        import torch  # noqa: F401, PLC0415 - its time is measured

        note(self._notes, "torch loaded")
        from posebatch.pose.estimator import PoseEstimator  # noqa: PLC0415

        patched: Any = PoseEstimator
        keypoints, notes = patched.keypoints, self._notes

        def noted(*arguments: Any) -> Any:
            found = keypoints(*arguments)
            note(notes, "first frame")
            patched.keypoints = keypoints
            return found

        patched.keypoints = noted
        loaded = super().load()
        note(notes, "networks loaded")
        return loaded
