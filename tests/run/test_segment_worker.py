"""Segments through a worker: real decoding and staging, and networks that only read the numbers in the frames."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import frame_number, video_bytes

from posebatch.core.errors import (
    IndexDisagreesError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageUnavailableError,
    WorkerCrashError,
    WorkerDiedError,
)
from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.records import SegmentReport
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.staged import read_staged
from posebatch.pose.stage_clock import StageClock
from posebatch.run.context import RunContext
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.tasks import ProbeResult, ProbeTask, SegmentResult, SegmentTask
from posebatch.run.workers import segment_worker as worker_module
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore
from posebatch.video.segment_decoder import SegmentDecoder

PATIENCE_S = 30.0
MANY_BYTES = 1 << 40
LIMITS = (0, MANY_BYTES)
"""Of the bytes that may wait: one item at a time, or all."""

CUDA_ERROR = RuntimeError("CUDA error: an illegal memory access")


class NumberReader:
    """Replaces the networks: a frame that shows the number n has n % 3 persons, all at n."""

    placement = "nowhere"

    def __init__(self, batch_frames: int = 4, before: Callable[[int], None] = lambda _: None) -> None:
        self.batch_frames, self._before = batch_frames, before
        self.threads: set[str] = set()

    def estimate(self, batches: Iterable[FrameBatch], clock: StageClock) -> Iterator[FramePoses]:
        for batch in batches:
            self.threads.add(threading.current_thread().name)
            assert len(batch.records) <= self.batch_frames
            images = iter(batch.images)
            for record in batch.records:
                number = frame_number(next(images)) if record.status == "ok" else 0
                self._before(record.frame_index)
                yield poses(record, number)
            clock.detect_seconds += 1
            clock.pose_seconds += 2


def poses(record, number: int) -> FramePoses:
    shapes = ((4,), (), (), (17, 3))
    return FramePoses(record, *(np.full((number % 3, *shape), number, np.float32) for shape in shapes))


class Archive:
    """Videos whose frames show consecutive numbers, and the contexts of runs over them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "in").mkdir()

    def add(self, name: str, content: bytes) -> SourceVideo:
        (self.root / "in" / name).write_bytes(content)
        return next(iter(list_videos(parse_inputs([str(self.root / "in" / name)]), settings_from({}).selection)))

    def context(self, output: str = "out", **chosen) -> RunContext:
        return RunContext(
            "run", settings_from({"segment_seconds": 0.4, **chosen}), str(self.root / output), "d@1", "p@1"
        )

    def tasks(self, video: SourceVideo, context: RunContext) -> list[SegmentTask]:
        probed = perform(ProbeTask(video), context)
        assert isinstance(probed, ProbeResult)
        return [SegmentTask(video, probed.plan.info, segment) for segment in probed.plan.segments]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def videos(archive: Archive) -> list[SourceVideo]:
    return [
        archive.add("a.mp4", video_bytes(frames=50)),
        archive.add("b.mp4", video_bytes(frames=21, gop=7, b_frames=2, open_gop=True, first_number=100)),
        archive.add("c.mkv", video_bytes(frames=10, container="mkv", first_number=300)),
    ]


@pytest.fixture(autouse=True)
def _threads_end_with_the_test() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before


def work_off(
    processors: Sequence[SegmentProcessor], tasks: Iterable[SegmentTask], at_once: int
) -> list[SegmentResult | Exception]:
    """Process all tasks, ``at_once`` on each processor at any time; returns results or errors in order of the tasks."""
    waiting = iter(list(enumerate(tasks)))
    taking, ends = threading.Lock(), {}

    def call(processor: SegmentProcessor) -> None:
        while True:
            with taking:
                number, task = next(waiting, (None, None))
            if task is None:
                return
            try:
                ends[number] = processor.process(task)
            except Exception as error:
                ends[number] = error

    with ThreadPoolExecutor(at_once * len(processors)) as callers:
        calls = [callers.submit(call, processor) for processor in processors for _ in range(at_once)]
        for running in calls:
            running.result(PATIENCE_S)
    return [ends[number] for number in sorted(ends)]


def staged(context: RunContext, tasks: Iterable[SegmentTask]) -> tuple[list[list[tuple]], list[SegmentReport]]:
    """The staged frames of each task, as plain values, and the reports."""
    store = LocalStore(context.output)
    frames, reports = [], []
    for task in tasks:
        pieces, report = read_staged(
            store.read(StagingArea.of(store, task.video, context.data_fingerprint).segment_key(task.segment))
        )
        frames.append(
            [
                (frame.record, frame.keypoints.tolist(), frame.bbox_xyxy.tolist())
                for frame in chain.from_iterable(pieces)
            ]
        )
        reports.append(report)
    return frames, reports


# --- results -------------------------------------------------------------------------------------------------------


def test_each_frame_is_processed_once(archive: Archive, videos: list[SourceVideo]) -> None:
    context = archive.context("whole", segment_seconds=1000)
    tasks = [task for video in videos[:2] for task in archive.tasks(video, context)]
    with closing(SegmentProcessor(context, NumberReader())) as processor:
        done = work_off([processor], tasks, 1)
    numbers = [range(50), range(100, 121)]
    assert done == [
        SegmentResult(50, sum(n % 3 for n in numbers[0]), pytest.approx(49 / 25)),
        SegmentResult(21, sum(n % 3 for n in numbers[1]), pytest.approx(20 / 25)),
    ]
    frames, reports = staged(context, tasks)
    assert [[len(keypoints) for _, keypoints, _ in segment] for segment in frames] == [
        [n % 3 for n in those] for those in numbers
    ]
    assert [report.decode.frames_decoded for report in reports] == [50, 21]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_do_not_depend_on_segments_workers_or_batches(archive: Archive, videos: list[SourceVideo], data) -> None:
    sampling = data.draw(st.sampled_from([{}, {"stride": 3}, {"fps": 10.0}]), label="sampling")
    alone = archive.context("alone", segment_seconds=1000, **sampling)
    here = archive.context("shared", segment_seconds=data.draw(st.sampled_from([0.1, 0.5, 1000])), **sampling)
    whole = [task for video in videos for task in archive.tasks(video, alone)]
    tasks = [task for video in videos for task in archive.tasks(video, here)]
    with closing(SegmentProcessor(alone, NumberReader())) as processor:
        work_off([processor], whole, 1)

    limit = data.draw(st.sampled_from([0, 1, 100_000, 5 << 20, MANY_BYTES]), label="read ahead")
    batches = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3), label="batch sizes of the workers")
    order, at_once = data.draw(st.permutations(tasks)), data.draw(st.integers(1, 2), label="at once")
    with ExitStack() as opened:
        processors = [SegmentProcessor(here, NumberReader(batch), 1, limit) for batch in batches]
        for processor in processors:
            opened.enter_context(closing(processor))
        ends = work_off(processors, order, at_once)
    assert all(isinstance(end, SegmentResult) for end in ends)

    def rows(context: RunContext, tasks: list[SegmentTask]) -> dict[str, list[tuple]]:
        frames, _ = staged(context, tasks)
        return {
            video.uri: [row for task, rows in zip(tasks, frames, strict=True) if task.video == video for row in rows]
            for video in videos
        }

    assert rows(here, tasks) == rows(alone, whole)


def test_report_holds_the_seconds_of_each_stage(archive: Archive, videos: list[SourceVideo]) -> None:
    context = archive.context("report")
    tasks = archive.tasks(videos[0], context)
    with closing(SegmentProcessor(context, NumberReader())) as processor:
        work_off([processor], tasks, 2)
    _, reports = staged(context, tasks)
    assert len(reports) == 5
    for report in reports:
        assert (report.seconds.detect, report.seconds.pose, report.device) == (3, 6, "nowhere"), "10 frames: 3 batches"
        assert 0 < report.seconds.wait < report.seconds.total
        assert report.seconds.decode > 0


# --- overlap -------------------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[str, threading.Event]:
    """Set when the first frames of a video are decoded, by its name."""
    first_frames = {name: threading.Event() for name in ("a.mp4", "b.mp4")}

    class Noting(SegmentDecoder):
        def __iter__(self):
            for batch in super().__iter__():
                first_frames[Path(self.name).name].set()
                yield batch

    monkeypatch.setattr(worker_module, "SegmentDecoder", Noting)
    return first_frames


@pytest.mark.parametrize("others", [1, 2])
def test_next_segment_is_decoded_while_the_networks_have_the_last(
    archive: Archive, videos: list[SourceVideo], decoded: dict[str, threading.Event], others: int
) -> None:
    context = archive.context("ahead", segment_seconds=1000)
    a, b = (archive.tasks(video, context)[0] for video in videos[:2])

    def before(frame_index: int) -> None:
        if frame_index == 49:  # the last of a
            assert decoded["b.mp4"].wait(PATIENCE_S)

    reader = NumberReader(before=before)
    with closing(SegmentProcessor(context, reader)) as processor, ThreadPoolExecutor() as callers:
        first = callers.submit(processor.process, a)
        assert decoded["a.mp4"].wait(PATIENCE_S)
        rest = [callers.submit(processor.process, b) for _ in range(others)]
        assert [call.result(PATIENCE_S).frames for call in (first, *rest)] == [50, *[21] * others]
    assert len(reader.threads) == 1


def test_segment_is_staged_while_the_networks_have_the_next(
    archive: Archive, videos: list[SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = archive.context("behind", segment_seconds=1000)
    a, b = (archive.tasks(video, context)[0] for video in videos[:2])
    put, next_has_begun = LocalStore.put, threading.Event()

    def slow_put(self, key, content):
        assert next_has_begun.wait(PATIENCE_S)
        return put(self, key, content)

    monkeypatch.setattr(LocalStore, "put", slow_put)
    begun = []

    def before(frame_index: int) -> None:
        begun.append(frame_index)
        if begun.count(0) == 2:
            next_has_begun.set()

    with closing(SegmentProcessor(context, NumberReader(before=before))) as processor:
        assert [end.frames for end in work_off([processor], [a, b], 2)] == [50, 21]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux lists them")
def test_networks_run_with_the_number_of_threads_they_were_loaded_with(archive: Archive) -> None:
    """Without a setting in the thread of the networks, OpenMP uses every core there."""

    def convolve(_: int) -> None:
        before = len(os.listdir("/proc/self/task"))
        with torch.inference_mode():
            torch.nn.Conv2d(16, 16, 3)(torch.zeros(4, 16, 64, 64))
        begun.append(len(os.listdir("/proc/self/task")) - before)

    begun: list[int] = []
    video = archive.add("short.mp4", video_bytes(frames=1))
    context = archive.context("threads")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with closing(SegmentProcessor(context, NumberReader(before=convolve))) as processor:
            processor.process(archive.tasks(video, context)[0])
    finally:
        torch.set_num_threads(before)
    assert begun[0] <= 0, "other threads may end meanwhile"


# --- failures ----------------------------------------------------------------------------------------------------


def network_fails(at: int) -> Callable[..., None]:
    def arrange(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
        def before(frame_index: int) -> None:
            if frame_index == at:
                reader._before = lambda _: None
                raise ZeroDivisionError("a bug in the networks")

        reader._before = before
        return task

    return arrange


def decoder_fails(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    return replace(task, segment=Segment(1, 5, 5, start_dts=77, end_dts=None))


def source_breaks_off(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    class BreaksOff(SegmentDecoder):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__()):
                if number == 2 and self.name == task.video.uri:
                    raise StorageUnavailableError("the connection broke")
                yield batch

    monkeypatch.setattr(worker_module, "SegmentDecoder", BreaksOff)
    return task


def source_is_missing(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    return replace(task, video=replace(task.video, uri="/nowhere/a.mp4"))


def source_has_changed(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    return replace(task, video=replace(task.video, etag="another"))


def source_changes_meanwhile(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    really = worker_module.check_unchanged

    def check_unchanged(uri: str, etag: str) -> None:
        really(uri, "another" if uri == task.video.uri else etag)

    monkeypatch.setattr(worker_module, "check_unchanged", check_unchanged)
    return task


def store_fails(monkeypatch: pytest.MonkeyPatch, reader: NumberReader, task: SegmentTask) -> SegmentTask:
    really = StagingArea.stage

    def stage(self, segment, content):
        if segment == task.segment and self.work_id == StagingArea.of(self.store, task.video, FINGERPRINT).work_id:
            raise StorageUnavailableError("the store does not answer")
        return really(self, segment, content)

    monkeypatch.setattr(StagingArea, "stage", stage)
    return task


FINGERPRINT = RunContext("run", settings_from({}), "/nowhere", "d@1", "p@1").data_fingerprint


@pytest.mark.parametrize(
    ("fault", "error", "position", "limit"),
    [
        *((network_fails(19), ZeroDivisionError, position, limit) for position in range(3) for limit in LIMITS),
        *((source_breaks_off, StorageUnavailableError, position, limit) for position in range(3) for limit in LIMITS),
        (network_fails(0), ZeroDivisionError, 1, 0),
        (decoder_fails, IndexDisagreesError, 0, MANY_BYTES),
        (source_is_missing, ObjectNotFoundError, 1, 0),
        (source_has_changed, ObjectChangedError, 0, 0),
        (source_changes_meanwhile, ObjectChangedError, 1, MANY_BYTES),
        (store_fails, StorageUnavailableError, 1, 0),
    ],
)
def test_failed_segment_does_not_affect_the_others(
    archive: Archive,
    videos: list[SourceVideo],
    monkeypatch: pytest.MonkeyPatch,
    fault,
    error,
    position: int,
    limit: int,
) -> None:
    """One of three segments fails. The others are processed, and the worker works as before."""
    context = archive.context("faults", segment_seconds=1000)
    bad, *good = (archive.tasks(video, context)[0] for video in videos)
    reader = NumberReader()
    bad = fault(monkeypatch, reader, bad)
    tasks = [*good[:position], bad, *good[position:]]
    with closing(SegmentProcessor(context, reader, 1, limit)) as processor:
        ends = work_off([processor], tasks, 2)
        assert processor._budget.used == 0
        again = work_off([processor], good, 2)
    failed = [end for end in ends if isinstance(end, Exception)]
    assert [type(end) for end in failed] == [error]
    assert sum(isinstance(end, SegmentResult) for end in ends) == 2
    assert [end.frames for end in again] == [21, 10]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("at", [0, 20, 49])
def test_interrupted_call_leaves_no_thread_at_work(
    archive: Archive, videos: list[SourceVideo], monkeypatch: pytest.MonkeyPatch, limit: int, at: int
) -> None:
    """As by Ctrl-C: the exception comes out of the wait for the stages."""
    context = archive.context("interrupted", segment_seconds=1000)
    (task,) = archive.tasks(videos[0], context)
    reached, interrupted = threading.Event(), threading.Event()

    def before(frame_index: int) -> None:
        if frame_index == at:
            reached.set()
            assert interrupted.wait(PATIENCE_S)

    def interrupt(self, timeout=None):
        assert reached.wait(PATIENCE_S)
        interrupted.set()
        raise KeyboardInterrupt

    with closing(SegmentProcessor(context, NumberReader(before=before), 1, limit)) as processor:
        with monkeypatch.context() as patched:
            patched.setattr("concurrent.futures.Future.result", interrupt)
            with pytest.raises(KeyboardInterrupt):
                processor.process(task)
        assert processor._budget.used == 0
        assert processor.process(task).frames == 50


@pytest.mark.parametrize(
    ("error", "position"), [*((CUDA_ERROR, position) for position in range(3)), (MemoryError(), 1)]
)
def test_failed_networks_are_not_used_again(
    archive: Archive, videos: list[SourceVideo], error: Exception, position: int
) -> None:
    """After a CUDA error every call fails: only the segment that met it first is the culprit."""
    context = archive.context("faults", segment_seconds=1000)
    tasks = [archive.tasks(video, context)[0] for video in videos]
    begun: list[int] = []

    def before(frame_index: int) -> None:
        begun.extend([0] * (frame_index == 0))
        if len(begun) == position + 1 and frame_index == 2:
            raise error

    with closing(SegmentProcessor(context, NumberReader(before=before))) as processor:
        ends = work_off([processor], tasks, 2)
        assert processor._budget.used == 0
    kinds = [type(end) for end in ends]
    assert (kinds.count(SegmentResult), kinds.count(WorkerCrashError), kinds.count(WorkerDiedError)) == (
        position,
        1,
        2 - position,
    )
    (crash,) = (end for end in ends if isinstance(end, WorkerCrashError))
    assert f"segment 0: the networks failed: {type(error).__name__}: {error}" in str(crash)
    assert len(begun) == position + 1


def test_steps_of_a_segment_are_noted_in_the_heartbeat(archive: Archive, videos: list[SourceVideo]) -> None:
    """A crash report names the step. Waiting for the other stage is no step."""
    context = archive.context("steps", segment_seconds=1000)
    task = archive.tasks(videos[0], context)[0]
    noted: list[set[tuple[str, str]]] = []

    def before(_: int) -> None:
        time.sleep(0.01)
        noted.append({(step.stage, step.subject) for step in list(heartbeat._steps.values()) if step.since < math.inf})

    with closing(SegmentProcessor(context, NumberReader(before=before), 1, 0)) as processor:
        processor.process(task)
    assert all(("networks", task.name) in steps for steps in noted)
    assert {("networks", task.name)} in noted, "the decoder waits for the budget"
    assert set().union(*noted) <= {("networks", task.name), ("decode", task.name)}
    assert heartbeat._steps == {}
