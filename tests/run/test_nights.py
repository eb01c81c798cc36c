"""A run that stops at its deadline, and the run that goes on from there; last, one on a real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from faults.suite import FULL
from support.fake_pool import Archive, FakePool, Task, facts
from support.notice_receiver import receiving
from support.ray_head import RayHead
from support.tiny_video import write_tiny_video

from posebatch.core.night_settings import NightSettings
from posebatch.core.videos import SourceVideo
from posebatch.dataset.verify import verify
from posebatch.run.admission import Admission
from posebatch.run.outcome import summary
from posebatch.run.planning.planner import PLANNED_AHEAD
from posebatch.run.progress import Progress
from posebatch.run.tasks import FinalizeTask, ProbeTask, SegmentTask
from posebatch.storage.local import LocalStore

BEGUN_EARLY = 10
"""Videos that a run of two workers takes before the first one is done: see `SchedulerLimits`."""


class NightArchive(Archive):
    """An archive whose runs have a deadline: the moment at which a task begins."""

    def stop_when(self, is_last: Callable[[Task], bool], grace_minutes: float = 30) -> None:
        now = [100.0]

        def reached(task: Task) -> None:
            if is_last(task):
                now[0] = 200.0

        class Pool(FakePool):
            def _perform(self, task: Task):
                reached(task)
                return super()._perform(task)

        self.pool_class = Pool
        self.end_admission(NightSettings(grace_minutes=grace_minutes), datetime.fromtimestamp(150, UTC), lambda: now[0])

    def end_admission(self, night: NightSettings, deadline: datetime | None, clock: Callable[[], float]) -> None:
        def admission(progress: Progress) -> Admission:
            progress.tally.videos_total = 16
            return Admission(night, progress.tally, deadline, progress.say, clock)

        self.admission = admission

    def stop_never(self) -> None:
        self.pool_class, self.admission = FakePool, lambda _: None


@pytest.fixture
def archive(tmp_path: Path) -> NightArchive:
    archive = NightArchive(tmp_path)
    archive.add(*(f"{i:03}.mp4" for i in range(16)))
    return archive


def test_run_finishes_what_it_has_begun_at_the_deadline_and_the_next_one_the_rest(archive: NightArchive):
    archive.stop_when(lambda task: isinstance(task, SegmentTask))
    first = archive.run()
    begun = len(archive.submitted(ProbeTask))
    assert facts(first) == (begun, 0, 0, 0)
    assert 0 < begun <= BEGUN_EARLY
    assert (first.exit_code, first.tally.stopped_by) == (4, "deadline")
    assert (first.tally.videos_unfinished, archive.left_behind()) == (0, [])
    assert "has passed: no further video begins" in archive.said.getvalue()
    archive.stop_never()
    second = archive.run()
    assert (facts(second), second.exit_code) == ((16 - begun, begun, 0, 0), 0)
    verdict = verify(archive.store)
    assert (verdict.problems, verdict.videos) == ((), 16)


def test_run_leaves_what_takes_longer_than_the_grace_staged(archive: NightArchive):
    """The next run decodes no staged segment again."""
    archive.stop_when(lambda task: isinstance(task, FinalizeTask), grace_minutes=0)
    first = archive.run()
    begun = len(archive.submitted(ProbeTask))
    assert (first.exit_code, first.tally.videos_unfinished) == (4, begun - first.tally.published)
    assert first.tally.videos_unfinished > 0
    staged = len(archive.submitted(SegmentTask))
    archive.stop_never()
    second = archive.run()
    assert second.exit_code == 0
    assert archive.left_behind() == []
    segments = len({(task.video.uri, task.segment) for pool in archive.pools for task in pool.submitted
                    if isinstance(task, SegmentTask)})  # fmt: skip
    again = staged + len(archive.submitted(SegmentTask)) - segments
    assert again <= 4, "at most the two segments in each of two workers"
    assert verify(archive.store).problems == ()


def test_deadline_ends_the_planning(archive: NightArchive):
    looked_at: list[str] = []

    def endless() -> Iterator[SourceVideo]:
        """An archive that nobody could plan to its end."""
        videos = [*archive.videos()]
        for i in range(10**9):
            looked_at.append(videos[i % 16].uri)
            yield videos[i % 16]

    archive.stop_when(lambda task: isinstance(task, ProbeTask))
    assert archive.run(videos=endless()).tally.stopped_by == "deadline"
    assert len(looked_at) < 16 + 4 * PLANNED_AHEAD


def test_deadline_that_is_past_begins_nothing_and_starts_no_worker(archive: NightArchive):
    archive.end_admission(NightSettings(), datetime.fromtimestamp(1, UTC), lambda: 2.0)
    outcome = archive.run()
    assert (facts(outcome), outcome.exit_code, archive.pools) == ((0, 0, 0, 0), 4, [])


def test_gpu_hours_end_a_run_as_the_deadline_does(archive: NightArchive):
    now = [0.0]

    def later() -> float:
        now[0] += 60.0
        return now[0]

    night = NightSettings(max_gpu_hours=0.5, grace_minutes=1e6)
    archive.end_admission(night, None, later)
    outcome = archive.run()
    assert (outcome.exit_code, outcome.tally.stopped_by) == (4, "gpu_hours")
    assert outcome.tally.gpu_hours > 0.5
    assert 0 < outcome.tally.published < 16
    said = summary(archive.context(), outcome.tally, outcome.elapsed_s, outcome)
    assert {name: said[name] for name in ("finished", "exit_code", "stopped_by", "videos_unfinished")} == {
        **{"finished": True, "exit_code": 4, "stopped_by": "gpu_hours", "videos_unfinished": 0}
    }
    assert said["videos_left"] == 16 - outcome.tally.published


VIDEOS = 130
"""More than are in flight at once for one worker: 7 groups of 16 clips."""


@pytest.mark.ray
@pytest.mark.slow
def test_night_of_the_command_line_stops_and_goes_on(ray_head: RayHead, tmp_path: Path):
    """By the real clock: past, then after the first videos; in full also hours away."""
    (tmp_path / "in").mkdir()
    for i in range(VIDEOS):
        write_tiny_video(tmp_path / "in" / f"{i:03}.mp4")

    def night(*arguments: str) -> tuple[int, dict[str, Any]]:
        with receiving(200) as receiver:
            command = [Path(sys.executable).parent / "posebatch", "run", tmp_path / "in", "--output", tmp_path / "out",
                       "--workers", "1", "--notify", receiver.url, *arguments]  # fmt: skip
            environment = {**os.environ, **ray_head.environment()}
            ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
            assert len(receiver.bodies) == 1, ended.stderr
            return ended.returncode, receiver.bodies[0]

    code, told = night("--deadline", "2026-01-01T06:00Z")
    assert (code, told["exit_code"], told["counts"]["videos_left"]) == (4, 4, VIDEOS)
    assert not (tmp_path / "out/videos").exists()
    code, told = night("--max-gpu-hours", "0.000001")  # 4 ms of the worker: the first videos, and no more
    done = told["counts"]["published"]
    assert (code, told["counts"]["stopped_by"], told["counts"]["videos_left"]) == (4, "gpu_hours", VIDEOS - done)
    assert 0 < done < VIDEOS
    summary_of = json.loads((tmp_path / "out" / told["summary_key"]).read_text())
    assert {name: summary_of[name] for name in ("exit_code", "stopped_by", "videos_left", "videos_unfinished")} == {
        **{"exit_code": 4, "stopped_by": "gpu_hours", "videos_left": VIDEOS - done, "videos_unfinished": 0}
    }
    assert verify(LocalStore(tmp_path / "out")).problems == ()
    if not FULL:
        return
    deadline = datetime.now(UTC) + timedelta(hours=6)
    code, told = night("--deadline", f"{deadline:%H:%M}Z", "--fail-above", "1%")
    assert (code, told["counts"]["published"], told["counts"]["up_to_date"]) == (0, VIDEOS - done, done)
    assert verify(LocalStore(tmp_path / "out")).problems == ()
