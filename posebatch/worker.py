"""The story of one segment: open the source, decode ahead, estimate, stage."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

from posebatch.commits import Work
from posebatch.estimator import PoseEstimator
from posebatch.plan import RunContext
from posebatch.readahead import read_ahead
from posebatch.storage import check_unchanged, open_source, open_store
from posebatch.types import FrameBatch, Segment, SourceVideo, StageSeconds, VideoInfo
from posebatch.video import SegmentDecoder

READ_AHEAD_IMAGE_BYTES = 256 << 20
"""Decoded frames that may wait for the networks: bounds a worker's memory whatever the frames' size."""


@dataclass(frozen=True)
class SegmentJob:
    """One segment to work on: a few hundred bytes, which is all that travels."""

    video: SourceVideo
    info: VideoInfo
    segment: Segment


@dataclass(frozen=True)
class SegmentDone:
    """What the driver learns of a staged segment."""

    frames: int
    """Frames processed."""
    persons: int
    video_seconds: float
    """How much of the video the segment covers."""


def process_segment(job: SegmentJob, context: RunContext, estimator: PoseEstimator, threads: int = 1) -> SegmentDone:
    """Decode a segment, find the persons in its frames, and stage the result.

    Raises `VideoError` for what will fail again, and retryable errors of storage.
    """
    started = time.perf_counter()
    detect_before, pose_before = estimator.detect_seconds, estimator.pose_seconds
    with open_source(job.video.uri, job.video.etag, context.endpoint_url) as file:
        decoder = SegmentDecoder(
            file, job.video.uri, job.segment, job.info, context.settings.sampling, estimator.batch_frames, threads
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
