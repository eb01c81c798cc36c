"""Segments from video to rows: decode, estimate, and for a single segment, stage. The stages of two calls overlap."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import IO, Any, Final

import torch

from posebatch.core.errors import WorkerCrashError, WorkerDiedError
from posebatch.core.settings import EstimatorSettings
from posebatch.core.videos import Segment, SourceVideo, VideoInfo
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.uploads import Uploads, pinned_array
from posebatch.run.context import RunContext
from posebatch.run.tasks import SegmentResult, SegmentTask
from posebatch.run.workers.channel import Channel, SharedBudget
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.packet_indexes import LatestIndex
from posebatch.run.workers.pieces import Decoded, Piece, PiecesInNetworks
from posebatch.storage.open import check_unchanged, open_video
from posebatch.storage.spool import spooled
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder

READ_AHEAD_BYTES: Final = 256 << 20
"""Decoded frames that may wait for the networks, in bytes, over all segments of a worker: bounds its memory."""

READ_AHEAD_BATCHES: Final = 3
"""Most batches that may wait, counting the one in the networks, however small their frames are."""

GPU_PACKING: Final = FrameFormat(planes=True, new_array=pinned_array)
"""The form of frames that go to a GPU: planes, in pinned memory."""


class _NetworksFailedError(Exception):
    """An error of torch or OpenVINO: after one of CUDA every further call fails."""


class _StoppedError(Exception):
    """The networks take no more frames."""


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

    @property
    def device(self) -> str:
        """Device, precision and engine of the networks."""
        return str(self._estimator.placement)

    def process(self, task: SegmentTask) -> SegmentResult:
        """Decode a segment, find the persons in its frames, and stage the result.

        On return, the result is in the store. On an exception, no thread works on the segment any more. Raises
        `VideoError` if the video is at fault, and `StorageError`. Raises `WorkerCrashError` if the networks failed;
        every later call then raises `WorkerDiedError`.
        """
        context = self._context
        with spooled() as spool:
            piece = Piece(task.name, lambda: self._opened(task), StagedWriter(spool))
            self.run(task.name, [piece])
            result = piece.complete(self.device)
            check_unchanged(task.video.uri, task.video.etag)
            size_bytes, started = spool.seek(0, io.SEEK_END), time.perf_counter()
            with heartbeat.step("stage", task.name):
                context.staging(task.video).stage(task.segment, spool)
            staging_seconds = time.perf_counter() - started
        return replace(result, staging_seconds=staging_seconds, staged_bytes=size_bytes)

    def run(self, name: str, pieces: Sequence[Piece]) -> None:
        """Pass pieces through both threads, in order; ``name`` stands for all of them in crash reports.

        On return each has its result or its error, and neither thread works on one of them. The error of one piece does
        not affect the others, but for one of the networks: it may be the fault of any piece that has not passed.
        """
        try:
            self._pass_through(name, pieces)
        except Exception as error:  # of the networks, as each piece has its own errors
            self._fail([piece for piece in pieces if not piece.passed.done()], error)
        finally:  # the call was interrupted
            for piece in pieces:
                piece.passed.cancel()

    def decoder_of(
        self, file: IO[bytes], video: SourceVideo, segment: Segment, info: VideoInfo, index: PacketIndex = NO_INDEX
    ) -> SegmentDecoder:
        """A decoder that gives frames as the networks take them. ``index``: of a video that was scanned."""
        settings = self._context.settings
        options = DecodeOptions(
            sampling=settings.sampling,
            batch_frames=self._estimator.batch_frames,
            threads=self._threads,
            group_frames=settings.estimator.group_frames,
            frame_format=RGB if self._uploads is None else GPU_PACKING,
            on_gpu=self._decode_on_gpu,
            limits=settings.limits,
            on_frame=heartbeat.beat,
        )
        return SegmentDecoder(file, video.uri, segment, info, options, index)

    @contextmanager
    def _opened(self, task: SegmentTask) -> Iterator[SegmentDecoder]:
        with open_video(task.video, self._context.endpoint_url) as file:
            index = self._indexes.of(task.video) if task.segment.is_scanned else NO_INDEX
            yield self.decoder_of(file, task.video, task.segment, task.info, index)

    def _pass_through(self, name: str, pieces: Sequence[Piece]) -> None:
        """Run both threads on pieces. A failure of the networks stops the decoder."""
        frames = Channel[Decoded](self._budget, self._budgeted_bytes)
        with self._order:  # the same order in both threads, which would otherwise wait for each other
            decoding = self._decoder.submit(self._decode, pieces, frames)
            estimating = self._networks.submit(self._estimate, name, frames)
        try:
            decoding.result()
            estimating.result()
        finally:
            frames.close()
            running: list[Future[Any]] = [future for future in (decoding, estimating) if not future.cancel()]
            wait(running)

    def _budgeted_bytes(self, decoded: Decoded) -> int:
        """Bytes of the budget that a batch takes: of its images, or a share by `READ_AHEAD_BATCHES` if that is more."""
        if decoded.batch is None:
            return 0
        share = len(decoded.batch.records) / (READ_AHEAD_BATCHES * self._estimator.batch_frames)
        return max(decoded.batch.images.nbytes, int(share * self._budget.limit))

    def _decode(self, pieces: Sequence[Piece], frames: Channel[Decoded]) -> None:
        for piece in pieces:
            try:
                end: SegmentDecoder | Exception = self._decode_piece(piece, frames)
            except _StoppedError:
                return
            except _NetworksFailedError:
                raise
            except Exception as error:
                end = error
            if not frames.put(Decoded(piece, end=end)):
                return
        frames.end()

    def _decode_piece(self, piece: Piece, frames: Channel[Decoded]) -> SegmentDecoder:
        with piece.opened() as decoder, heartbeat.step("decode", piece.name), closing(iter(decoder)) as batches:
            for batch in batches:
                with self._catch_network_failure():
                    sent = batch if self._uploads is None else self._uploads.send(batch)
                with heartbeat.waiting():
                    accepted = frames.put(Decoded(piece, sent))
                if not accepted:
                    raise _StoppedError
        return decoder

    def _estimate(self, name: str, frames: Channel[Decoded]) -> None:
        with closing(frames), heartbeat.step("networks", name), self._catch_network_failure():
            if self._broken:
                raise WorkerDiedError("the networks of this process failed with another segment")
            PiecesInNetworks(self._estimator, frames).run()

    @contextmanager
    def _catch_network_failure(self) -> Iterator[None]:
        """An error of torch or OpenVINO breaks this processor."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            self._broken = True
            raise _NetworksFailedError(f"the networks failed: {type(error).__name__}: {error}") from error

    def _fail(self, pieces: Sequence[Piece], error: Exception) -> None:
        """End pieces with an error of the networks. Of several, any may be the culprit: each must be tried alone."""
        for piece in pieces:
            piece.passed.set_exception(self._error_of(piece, len(pieces), error))

    def _error_of(self, piece: Piece, suspects: int, error: Exception) -> Exception:
        if isinstance(error, WorkerDiedError):
            return WorkerDiedError(f"{piece.name}: {error}")
        if suspects > 1:
            self._broken = True
            return WorkerDiedError(f"{piece.name}: its process failed with {suspects} clips in the networks: {error}")
        if isinstance(error, _NetworksFailedError):
            return WorkerCrashError(f"{piece.name}: {error}")
        return error
