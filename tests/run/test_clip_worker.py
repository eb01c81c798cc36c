"""Groups of clips through a worker: real decoding and publishing, and networks that only read the numbers in frames."""

from __future__ import annotations

import io
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import pytest
from run.test_segment_worker import CUDA_ERROR, Archive, NumberReader
from support.factories import audio_only, video_bytes
from support.memory_store import MemoryStore

from posebatch.core.errors import (
    NotAVideoError,
    NoVideoStreamError,
    ObjectChangedError,
    ObjectNotFoundError,
    PutRefusedError,
    StorageUnavailableError,
    WorkerCrashError,
    WorkerDiedError,
)
from posebatch.core.images import FrameBatch
from posebatch.core.videos import Segment, SourceVideo
from posebatch.dataset.layout import artifact_keys, record_key
from posebatch.dataset.publication import CommittedRecord, Publication
from posebatch.dataset.verify import verify
from posebatch.pose.stage_clock import StageClock
from posebatch.run.context import RunContext
from posebatch.run.tasks import ClipResult, ClipsTask, ClipTask, FinalizeTask, ProbeResult, ProbeTask, SegmentTask
from posebatch.run.workers.clip_worker import ClipEnd, ClipProcessor
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.local import LocalStore

TABLES = ("poses", "frames", "tracks", "motion")
LONG = {"segment_seconds": 1000}


class MixingReader(NumberReader):
    """Reads several batches ahead, as networks do whose batches hold frames of several videos."""

    def __init__(self, ahead: int = 3, before: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(before=before)
        self._ahead = ahead

    def estimate(self, batches: Iterable[FrameBatch], clock: StageClock) -> Iterator:
        return super().estimate(self._read_ahead(iter(batches)), clock)

    def _read_ahead(self, batches: Iterator[FrameBatch]) -> Iterator[FrameBatch]:
        held: list[FrameBatch] = []
        for batch in batches:
            held.append(batch)
            if len(held) > self._ahead:
                yield held.pop(0)
        yield from held


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


@pytest.fixture
def clips(archive: Archive) -> list[SourceVideo]:
    """Three good videos of several frames, one, and of another size."""
    return [
        archive.add("a.mp4", video_bytes(frames=11)),
        archive.add("b.mp4", video_bytes(frames=1, first_number=40)),
        archive.add("c.mp4", video_bytes(frames=7, first_number=50, b_frames=2, size=(320, 240))),
    ]


@contextmanager
def processor(context: RunContext, reader: NumberReader | None = None) -> Iterator[ClipProcessor]:
    with closing(SegmentProcessor(context, reader or MixingReader())) as segments:
        yield ClipProcessor(context, segments)
        assert segments._budget.used == 0
    assert heartbeat._steps == {}


def end_of(future) -> ClipEnd | Exception:
    return future.exception() or future.result()


def process(context: RunContext, tasks: Iterable[ClipTask], reader: NumberReader | None = None) -> list:
    with processor(context, reader) as clips:
        return [end_of(end) for end in clips.process(ClipsTask(tuple(tasks)))]


def one_by_one(context: RunContext, videos: Iterable[SourceVideo]) -> None:
    """Segment by segment, as videos are processed that are no clips."""
    with closing(SegmentProcessor(context, NumberReader())) as segments:
        for video in videos:
            probed = perform_probe(video, context)
            for segment in probed.plan.segments:
                segments.process(SegmentTask(video, probed.plan.info, segment))
            perform(FinalizeTask(video, probed.plan, 1), context)


def perform_probe(video: SourceVideo, context: RunContext) -> ProbeResult:
    probed = perform(ProbeTask(video), context)
    assert isinstance(probed, ProbeResult)
    return probed


def tables(context: RunContext) -> dict[str, bytes]:
    root = Path(context.output)
    return {
        str(path.relative_to(root)): path.read_bytes() for name in TABLES for path in (root / name).rglob("*.parquet")
    }


def left_behind(context: RunContext) -> list[str]:
    return [found.key for found in LocalStore(context.output).list("_state/")]


# --- results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0,), (0, 1, 2), (2, 1, 0), (1, 1, 2)])
def test_clips_are_published_with_the_bytes_of_single_videos(
    archive: Archive, clips: list[SourceVideo], order: tuple[int, ...]
) -> None:
    chosen = [clips[number] for number in dict.fromkeys(order)]
    alone, together = archive.context("alone", **LONG), archive.context("together", **LONG)
    one_by_one(alone, chosen)
    ends = process(together, map(ClipTask, chosen))
    assert [type(end.end) for end in ends] == [CommittedRecord] * len(chosen)
    assert [end.counts.frames for end in ends] == [{0: 11, 1: 1, 2: 7}[n] for n in dict.fromkeys(order)]
    assert tables(together) == tables(alone)
    assert left_behind(together) == []
    assert verify(LocalStore(together.output)).problems == ()


def test_clips_share_the_seconds_of_the_networks(archive: Archive, clips: list[SourceVideo]) -> None:
    ends = process(archive.context(**LONG), map(ClipTask, clips))
    seconds = [end.end.record.seconds for end in ends]
    assert sum(each.detect for each in seconds) == 3 + 1 + 2, "one for each batch"
    assert all(each.decode > 0 and each.total >= each.wait >= 0 for each in seconds)


def test_faulty_clip_costs_no_other_of_its_group(archive: Archive, clips: list[SourceVideo]) -> None:
    bad = {
        archive.add("text.mp4", b"no video at all"): NotAVideoError,
        archive.add("empty.mp4", b""): NotAVideoError,
        archive.add("sound.mp4", audio_only()): NoVideoStreamError,
        replace(clips[0], uri="/nowhere/x.mp4", output_path="x.mp4"): ObjectNotFoundError,
        replace(clips[0], etag="another", output_path="y.mp4"): ObjectChangedError,
    }
    damaged = archive.add("damaged.mp4", video_bytes(frames=60, gop=20, faststart=True)[:-2000])
    mixed = [video for pair in zip_longest(bad, [*clips, damaged]) for video in pair if video]
    ends = process(archive.context(**LONG), map(ClipTask, mixed))
    end_by_path = {video.output_path: end for video, end in zip(mixed, ends, strict=True)}
    assert {video: type(end_by_path[video.output_path]) for video in bad} == bad
    good = [end_by_path[video.output_path].end.record.status for video in [*clips, damaged]]
    assert good == ["ok", "ok", "ok", "partial"]


def test_clip_takes_few_requests(archive: Archive, clips: list[SourceVideo], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its five objects: what is staged of it, and what is published of it."""
    store = MemoryStore()
    monkeypatch.setattr(RunContext, "store", lambda _: store)
    process(archive.context(**LONG), [ClipTask(clips[0])])
    assert dict(store.requests) == {"list": 1, "head": len(artifact_keys("a.mp4")) + 1, "put": 5}


def test_clip_that_is_long_is_handed_back_with_its_plan(archive: Archive, clips: list[SourceVideo]) -> None:
    long = archive.add("long.mp4", video_bytes(frames=30))
    uncut = archive.add("uncut.mkv", video_bytes(frames=30, container="mkv"))
    context = archive.context(segment_seconds=0.5)
    ends = process(context, map(ClipTask, [long, clips[0], uncut]))
    assert isinstance(ends[1], ClipResult)
    assert [ends[0], ends[2]] == [perform_probe(video, context) for video in (long, uncut)]
    assert [len(end.plan.segments) for end in (ends[0], ends[2])] == [2, 2]


def test_clip_whose_segment_is_staged_is_handed_back(archive: Archive, clips: list[SourceVideo]) -> None:
    """An earlier run may have died between staging and publishing."""
    context = archive.context(**LONG)
    probed = perform_probe(clips[0], context)
    with closing(SegmentProcessor(context, NumberReader())) as segments:
        segments.process(SegmentTask(clips[0], probed.plan.info, probed.plan.segments[0]))
    (end,) = process(context, [ClipTask(clips[0])])
    assert end == ProbeResult(clips[0], probed.plan, frozenset(probed.plan.segments))


def test_clip_clears_what_earlier_attempts_have_left(archive: Archive, clips: list[SourceVideo]) -> None:
    context = archive.context(**LONG)
    staging = context.staging(clips[0])
    staging.stage(Segment(0, 0, 3), io.BytesIO(b"of another cut"))
    staging.note_attempt(staging.failed_attempts(), "x", "x")
    (end,) = process(context, [ClipTask(clips[0], attempts=2)])
    assert end.end.record.attempts == 2
    assert left_behind(context) == []


def test_clip_is_staged_where_a_preview_is_wanted(archive: Archive, clips: list[SourceVideo]) -> None:
    context = archive.context(**LONG, preview="gif")
    (end,) = process(context, [ClipTask(clips[0])])
    probed = perform_probe(clips[0], context)
    assert probed.staged == frozenset(probed.plan.segments)
    assert end.end == replace(probed, staged=frozenset())
    assert (end.counts.frames, tables(context)) == (11, {})


def test_clip_that_this_run_has_published_is_not_computed_again(archive: Archive, clips: list[SourceVideo]) -> None:
    context, other = archive.context(**LONG), replace(archive.context(**LONG), run_id="another run")
    (first,) = process(context, [ClipTask(clips[0])])

    class Unused(NumberReader):
        def estimate(self, batches, clock):
            assert list(batches) == []
            return iter(())

    (again,) = process(context, [ClipTask(clips[0], again=True)], Unused())
    assert (again.end.etag, again.end.record.objects) == (first.end.etag, first.end.record.objects)
    assert again.counts.frames == 11
    (anew,) = process(other, [ClipTask(clips[0], again=True)])
    assert anew.end.record.run_id == "another run"
    context.store().put(record_key(clips[0].output_path), b"half")
    (anew,) = process(context, [ClipTask(clips[0], again=True)])
    assert anew.end.record == replace(first.end.record, seconds=anew.end.record.seconds)


# --- faults --------------------------------------------------------------------------------------------------------


def test_clip_that_cannot_be_published_costs_no_other(
    archive: Archive, clips: list[SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Publication.put

    def refusing(self, artifact, content):
        if self.output_path == "b.mp4":
            raise PutRefusedError("another run has it")
        if self.output_path == "c.mp4":
            raise StorageUnavailableError("slow down")
        return put(self, artifact, content)

    monkeypatch.setattr(Publication, "put", refusing)
    ends = process(archive.context(**LONG), map(ClipTask, clips))
    assert [type(end) for end in ends] == [ClipResult, PutRefusedError, StorageUnavailableError]


@pytest.mark.parametrize(
    ("error", "at", "published"), [(CUDA_ERROR, 0, 0), (ZeroDivisionError("a bug"), 11, 0), (CUDA_ERROR, 12, 1)]
)
def test_failed_networks_accuse_no_clip_of_a_group(
    archive: Archive, clips: list[SourceVideo], error: Exception, at: int, published: int
) -> None:
    """Frames of several clips share a batch. Those that have passed are published; the others must be tried alone."""
    frames = iter(range(100))

    def before(_: int) -> None:
        if next(frames) == at:
            raise error

    context = archive.context(**LONG)
    with processor(context, MixingReader(before=before)) as clip_processor:
        ends = [end_of(end) for end in clip_processor.process(ClipsTask(tuple(map(ClipTask, clips))))]
        again = [end_of(end) for end in clip_processor.process(ClipsTask((ClipTask(clips[0]),)))]
    assert [type(end) for end in ends] == [ClipResult] * published + [WorkerDiedError] * (3 - published)
    assert [type(end) for end in again] == [WorkerDiedError], "the process is not used again"


@pytest.mark.parametrize(("error", "kind"), [(CUDA_ERROR, WorkerCrashError), (ZeroDivisionError("a bug"), None)])
def test_failed_networks_accuse_a_clip_that_is_alone(
    archive: Archive, clips: list[SourceVideo], error: Exception, kind: type | None
) -> None:
    def before(_: int) -> None:
        raise error

    (end,) = process(archive.context(**LONG), [ClipTask(clips[0], alone=True)], MixingReader(before=before))
    assert type(end) is (kind or ZeroDivisionError)


def test_steps_of_clips_are_noted_in_the_heartbeat(archive: Archive, clips: list[SourceVideo]) -> None:
    """A crash while a clip is decoded or published names it; one of the networks names no clip of several."""
    noted: set[tuple[str, str]] = set()

    def before(_: int) -> None:
        time.sleep(0.01)
        noted.update((step.stage, step.subject) for step in list(heartbeat._steps.values()) if step.since < math.inf)

    context = archive.context(**LONG)
    task = ClipsTask(tuple(map(ClipTask, clips)))
    with processor(context, MixingReader(before=before)) as clip_processor:
        clip_processor.process(task)
    uris = {video.uri for video in clips}
    assert ("networks", task.name) in noted
    assert task.name not in uris
    assert {subject for stage, subject in noted if stage != "networks"} <= uris
    assert {stage for stage, _ in noted} <= {"fetch", "probe", "decode", "networks", "publish"}
    assert ClipsTask((ClipTask(clips[0]),)).name == clips[0].uri


def test_interrupted_group_leaves_no_thread_at_work(
    archive: Archive, clips: list[SourceVideo], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, threads = archive.context(**LONG), threading.active_count()
    with processor(context) as clip_processor:
        with monkeypatch.context() as patched:
            patched.setattr(SegmentProcessor, "_pass_through", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                clip_processor.process(ClipsTask(tuple(map(ClipTask, clips))))
        assert [type(end_of(end)) for end in clip_processor.process(ClipsTask((ClipTask(clips[0]),)))] == [ClipResult]
    assert threading.active_count() <= threads
