"""The story of one segment: decode, estimate, stage; and how the stories of several overlap."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import torch

from posebatch.core.errors import WorkerCrashError, WorkerDiedError
from posebatch.core.images import FrameBatch
from posebatch.core.records import SegmentReport, StageSeconds
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.pose.uploads import Uploads, pinned_array
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentResult, SegmentTask
from posebatch.run.workers.channel import Channel, SharedBudget
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.storage.open import check_unchanged, open_source
from posebatch.storage.spool import spooled
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder

READ_AHEAD_BYTES: Final = 256 << 20
"""Decoded frames that may wait for the networks, of all segments in a worker: bounds its memory whatever their size."""


READ_AHEAD_BATCHES: Final = 3
"""Nor may more than so many batches wait, one of them in the networks' hands, however small their frames."""


GPU_PACKING: Final = FrameFormat(planes=True, new_array=pinned_array)
"""The form in which frames go to a GPU."""


@dataclass(frozen=True)
class _Estimated:
    """What the networks made of a segment."""

    frames: int
    persons: int
    frames_cut: int
    """See `SegmentResult.frames_cut`."""
    seconds: StageSeconds


class SegmentProcessor:
    """Both networks, loaded once, and what to do with a segment. Has no idea who calls it.

    Two threads may call `process` at once. Each stage is one thread, through which the segments go one after another,
    so while the networks have one segment, the frames of the next are decoded, and its caller stages the last. What
    waits between the stages shares one bound.
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
        """``uploads`` where the networks run on a GPU; only then may frames be decoded there too."""
        self._context, self._estimator, self._threads = context, estimator, threads
        self._uploads, self._decode_on_gpu = uploads, decode_on_gpu
        self._budget = SharedBudget(read_ahead_bytes)
        self._broken = False
        self._order = threading.Lock()
        self._decoder = ThreadPoolExecutor(1, "decoder")
        # OpenMP keeps the number of threads for each thread that calls it
        self._networks = ThreadPoolExecutor(1, "networks", torch.set_num_threads, (torch.get_num_threads(),))

    @classmethod
    def load(cls, context: RunContext, device: str = "auto", threads: int = 1) -> SegmentProcessor:
        """Load the networks. Rounding depends on ``threads``: workers of one run should have equally many."""
        torch.set_num_threads(threads)
        execution = context.settings.execution
        estimator = PoseEstimator.load(context.settings.estimator, device, execution.engine)
        decode_on_gpu = use_nvdec(execution.decoder, estimator.placement.device)
        uploads = Uploads() if estimator.placement.device == "cuda" else None
        return cls(context, estimator, threads, uploads=uploads, decode_on_gpu=decode_on_gpu)

    def close(self) -> None:
        """End the threads, once what is under way has ended."""
        self._decoder.shutdown()
        self._networks.shutdown()

    def process(self, job: SegmentTask) -> SegmentResult:
        """Decode a segment, find the persons in its frames, and stage the result.

        Raises `VideoError` for what will fail again, retryable errors of storage, and `WorkerDiedError` when the
        networks fail: then this processor is of no use any more. When it returns, the result is
        in the store; when it raises, nothing of this segment is under way any more.
        """
        context = self._context
        with spooled() as spool:
            writer = StagedWriter(spool)
            decoder, estimated = self._run(job, writer)
            seconds = replace(estimated.seconds, decode=decoder.seconds)
            writer.close(SegmentReport(decoder.report, seconds, str(self._estimator.placement)))
            check_unchanged(job.video.uri, job.video.etag)
            work = context.staging(job.video)
            with heartbeat.step("stage", job.name):
                work.stage(job.segment, spool)
        covered = _covered_seconds(decoder)
        return SegmentResult(estimated.frames, estimated.persons, covered, estimated.frames_cut)

    def _run(self, job: SegmentTask, writer: StagedWriter) -> tuple[SegmentDecoder, _Estimated]:
        """Send a segment through both stages; whichever fails stops the other."""
        frames = Channel[FrameBatch](self._budget, self._size)
        with self._order:  # the same in both stages: else each would wait for the other
            decoding = self._decoder.submit(self._decode, job, frames)
            estimating = self._networks.submit(self._estimate, job, frames, writer)
        try:
            decoder = decoding.result()
            return decoder, estimating.result()
        finally:
            frames.close()
            under_way: list[Future[Any]] = [stage for stage in (decoding, estimating) if not stage.cancel()]
            wait(under_way)

    def _size(self, batch: FrameBatch) -> int:
        """What a batch takes of the read-ahead; frames that could not be decoded count too."""
        share = len(batch.records) / (READ_AHEAD_BATCHES * self._estimator.batch_frames)
        return max(batch.images.nbytes, int(share * self._budget.limit))

    def _decode(self, job: SegmentTask, frames: Channel[FrameBatch]) -> SegmentDecoder:
        context = self._context
        source = open_source(job.video.uri, job.video.etag, context.endpoint_url)
        with heartbeat.step("decode", job.name), source as file:
            decoder = SegmentDecoder(
                file,
                job.video.uri,
                job.segment,
                job.info,
                DecodeOptions(
                    sampling=context.settings.sampling,
                    batch_frames=self._estimator.batch_frames,
                    threads=self._threads,
                    detect_every=context.settings.estimator.detect_every,
                    packing=RGB if self._uploads is None else GPU_PACKING,
                    on_gpu=self._decode_on_gpu,
                    limits=context.settings.limits,
                    on_frame=heartbeat.beat,
                ),
            )
            with closing(iter(decoder)) as batches:
                for batch in batches:
                    with self._networks_may_fail(job):
                        sent = batch if self._uploads is None else self._uploads.send(batch)
                    with heartbeat.waiting():
                        taken = frames.put(sent)
                    if not taken:
                        return decoder  # the networks have failed
                frames.end()
        return decoder

    def _estimate(self, job: SegmentTask, frames: Channel[FrameBatch], writer: StagedWriter) -> _Estimated:
        with closing(frames), heartbeat.step("networks", job.name), self._networks_may_fail(job):
            if self._broken:
                raise WorkerDiedError(f"{job.name}: the networks of this process have failed with another segment")
            return self._infer(frames, writer)

    @contextmanager
    def _networks_may_fail(self, job: SegmentTask) -> Iterator[None]:
        """What torch and OpenVINO raise ends this processor: after an error of CUDA's every further call fails too."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            self._broken = True
            raise WorkerCrashError(f"{job.name}: the networks failed: {type(error).__name__}: {error}") from error

    def _infer(self, frames: Channel[FrameBatch], writer: StagedWriter) -> _Estimated:
        started = time.perf_counter()
        estimator = self._estimator
        clock = StageClock()
        count = persons = frames_cut = 0
        for frame in estimator.estimate(_awaited(frames), clock):
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


def _awaited(batches: Iterable[FrameBatch]) -> Iterator[FrameBatch]:
    """The same; to wait for the decoder is no step of the networks."""
    iterator = iter(batches)
    while True:
        with heartbeat.waiting():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def _covered_seconds(decoder: SegmentDecoder) -> float:
    """How much of the video the segment covers."""
    first, last = decoder.report.first_pts, decoder.report.last_pts
    return 0.0 if first is None or last is None else float((last - first) * decoder.info.time_base)
