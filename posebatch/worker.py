"""The story of one segment: open the source, decode ahead, estimate, stage."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing

import torch

from posebatch.commits import Work
from posebatch.estimator import PoseEstimator
from posebatch.plan import RunContext
from posebatch.readahead import read_ahead
from posebatch.storage import SPOOL_BYTES, check_unchanged, open_source, open_store
from posebatch.tables import StagedWriter
from posebatch.types import FrameBatch, SegmentDone, SegmentJob, SegmentReport, StageSeconds
from posebatch.video import SegmentDecoder

READ_AHEAD_IMAGE_BYTES = 256 << 20
"""Decoded frames that may wait for the networks: bounds a worker's memory whatever the frames' size."""


class SegmentProcessor:
    """Both networks, loaded once, and what to do with a segment. Has no idea who calls it."""

    def __init__(self, context: RunContext, estimator: PoseEstimator, threads: int = 1) -> None:
        self._context, self._estimator, self._threads = context, estimator, threads

    @classmethod
    def load(cls, context: RunContext, device: str = "auto", threads: int = 1) -> SegmentProcessor:
        """Load the networks. Rounding depends on ``threads``: workers of one run should have equally many."""
        torch.set_num_threads(threads)
        return cls(context, PoseEstimator.load(context.settings.estimator, device), threads)

    def process(self, job: SegmentJob) -> SegmentDone:
        """Decode a segment, find the persons in its frames, and stage the result.

        Raises `VideoError` for what will fail again, and retryable errors of storage.
        """
        context, estimator = self._context, self._estimator
        with (
            tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool,
            open_source(job.video.uri, job.video.etag, context.endpoint_url) as file,
        ):
            decoder = SegmentDecoder(
                file,
                job.video.uri,
                job.segment,
                job.info,
                context.settings.sampling,
                estimator.batch_frames,
                self._threads,
            )
            done = self._estimate(decoder, StagedWriter(spool))
            check_unchanged(job.video.uri, job.video.etag)
            work = Work.of(open_store(context.output, context.endpoint_url), job.video, context.data_fingerprint)
            work.stage(job.segment, spool)
        return done

    def _estimate(self, decoder: SegmentDecoder, writer: StagedWriter) -> SegmentDone:
        started = time.perf_counter()
        estimator = self._estimator
        detect_before, pose_before = estimator.detect_seconds, estimator.pose_seconds
        frames = persons = 0
        with closing(read_ahead(decoder, READ_AHEAD_IMAGE_BYTES, size=_image_bytes)) as batches:
            for frame in estimator.estimate(batches):
                writer.add(frame)
                frames += 1
                persons += len(frame)
        seconds = StageSeconds(
            decode=decoder.seconds,
            detect=estimator.detect_seconds - detect_before,
            pose=estimator.pose_seconds - pose_before,
            total=time.perf_counter() - started,
        )
        writer.close(SegmentReport(decoder.report, seconds, estimator.device))
        return SegmentDone(frames, persons, _covered_seconds(decoder))


def _covered_seconds(decoder: SegmentDecoder) -> float:
    """How much of the video the segment covers."""
    first, last = decoder.report.first_pts, decoder.report.last_pts
    return 0.0 if first is None or last is None else float((last - first) * decoder.info.time_base)


def _image_bytes(batch: FrameBatch) -> int:
    return batch.images.nbytes
