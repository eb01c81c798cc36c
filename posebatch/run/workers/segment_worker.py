"""One segment from video to staging area: decode, estimate, stage. The stages of two segments overlap."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from posebatch.core.errors import WorkerCrashError, WorkerDiedError
from posebatch.core.images import FrameBatch
from posebatch.core.records import SegmentReport, StageSeconds
from posebatch.core.settings import EstimatorSettings
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.pose.uploads import Uploads, pinned_array
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentResult, SegmentTask
from posebatch.run.workers.channel import Channel, SharedBudget
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.packet_indexes import LatestIndex
from posebatch.storage.open import check_unchanged, open_video
from posebatch.storage.spool import spooled
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.indexes.packet_index import NO_INDEX
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder

READ_AHEAD_BYTES: Final = 256 << 20
"""Decoded frames that may wait for the networks, in bytes, over all segments of a worker: bounds its memory."""

READ_AHEAD_BATCHES: Final = 3
"""Most batches that may wait, counting the one in the networks, however small their frames are."""

GPU_PACKING: Final = FrameFormat(planes=True, new_array=pinned_array)
"""The form of frames that go to a GPU: planes, in pinned memory."""


@dataclass(frozen=True)
class _Estimated:
    """Sums over the frames of a segment, counted by the stage of the networks."""

    frames: int
    persons: int
    frames_cut: int
    """See `SegmentResult.frames_cut`."""
    seconds: StageSeconds


class SegmentProcessor:
    """Both networks, loaded once, and the processing of segments. Knows nothing of Ray.

    Two threads may call `process` at once. One thread decodes and one runs the networks; segments pass through both in
    the same order. While the networks have one segment, the next is decoded, and the last one is staged by its caller.
    The frames that wait between the two threads share one budget.
    """

    def __init__(
        self,
        context: RunContext,
        estimator: PoseEstimator,
        threads: int = 1,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
        uploads: Uploads | None = None,
        decode_on_gpu: bool = False,
    ) -> None:
        """Give ``uploads`` where the networks run on a GPU; only then may ``decode_on_gpu`` be set."""
        self._context, self._estimator, self._threads = context, estimator, threads
        self._uploads, self._decode_on_gpu = uploads, decode_on_gpu
        self._indexes = LatestIndex(context)  # used by the one thread that decodes
        self._budget = SharedBudget(read_ahead_bytes)
        self._broken = False
        self._order = threading.Lock()
        self._decoder = ThreadPoolExecutor(1, "decoder")
        # OpenMP has a number of threads for each calling thread: set it in the thread of the networks
        self._networks = ThreadPoolExecutor(1, "networks", torch.set_num_threads, (torch.get_num_threads(),))

    @classmethod
    def load(
        cls,
        context: RunContext,
        device: str = "auto",
        threads: int = 1,
        load_estimator: Callable[[EstimatorSettings, str, str], PoseEstimator] = PoseEstimator.load,
    ) -> SegmentProcessor:
        """Load the networks. Rounding depends on ``threads``: use the same number in all workers of a run."""
        torch.set_num_threads(threads)
        execution = context.settings.execution
        estimator = load_estimator(context.settings.estimator, device, execution.engine)
        decode_on_gpu = use_nvdec(execution.decoder, estimator.placement.device)
        uploads = Uploads() if estimator.placement.device == "cuda" else None
        return cls(context, estimator, threads, uploads=uploads, decode_on_gpu=decode_on_gpu)

    def close(self) -> None:
        """End both threads. Segments under way are finished first."""
        self._decoder.shutdown()
        self._networks.shutdown()

    def process(self, task: SegmentTask) -> SegmentResult:
        """Decode a segment, find the persons in its frames, and stage the result.

        On return, the result is in the store. On an exception, no thread works on the segment any more. Raises
        `VideoError` if the video is at fault, and `StorageError`. Raises `WorkerCrashError` if the networks failed;
        every later call then raises `WorkerDiedError`.
        """
        context = self._context
        with spooled() as spool:
            writer = StagedWriter(spool)
            decoder, estimated = self._run(task, writer)
            seconds = replace(estimated.seconds, decode=decoder.seconds)
            writer.close(SegmentReport(decoder.report, seconds, str(self._estimator.placement)))
            check_unchanged(task.video.uri, task.video.etag)
            size_bytes, started = spool.seek(0, io.SEEK_END), time.perf_counter()
            with heartbeat.step("stage", task.name):
                context.staging(task.video).stage(task.segment, spool)
            staging_seconds = time.perf_counter() - started
        video_seconds = _covered_seconds(decoder)
        return SegmentResult(
            estimated.frames,
            estimated.persons,
            video_seconds,
            estimated.frames_cut,
            seconds,
            staging_seconds,
            size_bytes,
        )

    def _run(self, task: SegmentTask, writer: StagedWriter) -> tuple[SegmentDecoder, _Estimated]:
        """Run both threads on a segment. A failure of either stops the other."""
        frames = Channel[FrameBatch](self._budget, self._budgeted_bytes)
        with self._order:  # the same order in both threads, which would otherwise wait for each other
            decoding = self._decoder.submit(self._decode, task, frames)
            estimating = self._networks.submit(self._estimate, task, frames, writer)
        try:
            decoder = decoding.result()
            return decoder, estimating.result()
        finally:
            frames.close()
            running: list[Future[Any]] = [future for future in (decoding, estimating) if not future.cancel()]
            wait(running)

    def _budgeted_bytes(self, batch: FrameBatch) -> int:
        """Bytes of the budget that a batch takes: of its images, or a share by `READ_AHEAD_BATCHES` if that is more."""
        share = len(batch.records) / (READ_AHEAD_BATCHES * self._estimator.batch_frames)
        return max(batch.images.nbytes, int(share * self._budget.limit))

    def _decode(self, task: SegmentTask, frames: Channel[FrameBatch]) -> SegmentDecoder:
        context = self._context
        source = open_video(task.video, context.endpoint_url)
        with heartbeat.step("decode", task.name), source as file:
            index = self._indexes.of(task.video) if task.segment.is_scanned else NO_INDEX
            decoder = SegmentDecoder(
                file,
                task.video.uri,
                task.segment,
                task.info,
                DecodeOptions(
                    sampling=context.settings.sampling,
                    batch_frames=self._estimator.batch_frames,
                    threads=self._threads,
                    group_frames=context.settings.estimator.group_frames,
                    frame_format=RGB if self._uploads is None else GPU_PACKING,
                    on_gpu=self._decode_on_gpu,
                    limits=context.settings.limits,
                    on_frame=heartbeat.beat,
                ),
                index,
            )
            with closing(iter(decoder)) as batches:
                for batch in batches:
                    with self._catch_network_failure(task):
                        sent = batch if self._uploads is None else self._uploads.send(batch)
                    with heartbeat.waiting():
                        accepted = frames.put(sent)
                    if not accepted:
                        return decoder  # the networks failed, and closed the channel
                frames.end()
        return decoder

    def _estimate(self, task: SegmentTask, frames: Channel[FrameBatch], writer: StagedWriter) -> _Estimated:
        with closing(frames), heartbeat.step("networks", task.name), self._catch_network_failure(task):
            if self._broken:
                raise WorkerDiedError(f"{task.name}: the networks of this process failed with another segment")
            return self._infer(frames, writer)

    @contextmanager
    def _catch_network_failure(self, task: SegmentTask) -> Iterator[None]:
        """An error of torch or OpenVINO breaks this processor: after a CUDA error every further call fails."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            self._broken = True
            raise WorkerCrashError(f"{task.name}: the networks failed: {type(error).__name__}: {error}") from error

    def _infer(self, frames: Channel[FrameBatch], writer: StagedWriter) -> _Estimated:
        started = time.perf_counter()
        estimator = self._estimator
        clock = StageClock()
        count = persons = frames_cut = 0
        for frame in estimator.estimate(_await_batches(frames), clock):
            writer.add(frame)
            heartbeat.beat()
            count += 1
            persons += len(frame)
            frames_cut += frame.left_out > 0
        seconds = StageSeconds(
            wait=frames.waited_s,
            detect=clock.detect_seconds,
            pose=clock.pose_seconds,
            total=time.perf_counter() - started,
        )
        return _Estimated(count, persons, frames_cut, seconds)


def _await_batches(batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
    """The same batches. Time spent waiting for the decoder does not count for the step of the networks."""
    iterator = iter(batches)
    while True:
        with heartbeat.waiting():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _covered_seconds(decoder: SegmentDecoder) -> float:
    """Seconds of the video from the first to the last frame of the segment."""
    first, last = decoder.report.first_pts, decoder.report.last_pts
    return 0.0 if first is None or last is None else float((last - first) * decoder.info.time_base)
