"""The story of one segment: open the source, decode ahead, estimate, stage."""

from __future__ import annotations

import time
from contextlib import closing

import torch

from posebatch.commits import Work
from posebatch.estimator import PoseEstimator
from posebatch.plan import RunContext
from posebatch.readahead import read_ahead
from posebatch.storage import check_unchanged, open_source, open_store
from posebatch.types import FrameBatch, SegmentDone, SegmentJob, StageSeconds
from posebatch.video import SegmentDecoder

READ_AHEAD_IMAGE_BYTES = 256 << 20
"""Decoded frames that may wait for the networks: bounds a worker's memory whatever the frames' size."""


class SegmentProcessor:
    """Both networks, loaded once, and what to do with a segment. Has no idea who calls it."""

    def __init__(self, context: RunContext, device: str = "auto", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._context, self._threads = context, threads
        self._estimator = PoseEstimator.load(context.settings.estimator, device)

    def process(self, job: SegmentJob) -> SegmentDone:
        """Decode a segment, find the persons in its frames, and stage the result.

        Raises `VideoError` for what will fail again, and retryable errors of storage.
        """
        started = time.perf_counter()
        context, estimator = self._context, self._estimator
        detect_before, pose_before = estimator.detect_seconds, estimator.pose_seconds
        with open_source(job.video.uri, job.video.etag, context.endpoint_url) as file:
            decoder = SegmentDecoder(
                file,
                job.video.uri,
                job.segment,
                job.info,
                context.settings.sampling,
                estimator.batch_frames,
                self._threads,
            )
            with closing(read_ahead(decoder, READ_AHEAD_IMAGE_BYTES, size=_image_bytes)) as batches:
                frames = list(estimator.estimate(batches))
        check_unchanged(job.video.uri, job.video.etag)
        seconds = StageSeconds(
            decode=decoder.seconds,
            detect=estimator.detect_seconds - detect_before,
            pose=estimator.pose_seconds - pose_before,
            total=time.perf_counter() - started,
        )
        work = Work.of(open_store(context.output, context.endpoint_url), job.video, context.data_fingerprint)
        work.stage(job.segment, frames, decoder.report, seconds, estimator.device)
        first, last = decoder.report.first_pts, decoder.report.last_pts
        covered = 0.0 if first is None or last is None else float((last - first) * job.info.time_base)
        return SegmentDone(len(frames), sum(len(frame) for frame in frames), covered)


def _image_bytes(batch: FrameBatch) -> int:
    return batch.images.nbytes
