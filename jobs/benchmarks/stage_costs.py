"""Cost of each stage of the job alone, and of each network against matrix products: the limits of the job's speed.

Call `measure_stages` in a child process: it sets the number of threads.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from typing import Final

import av
import torch

from benchmarks.figures import NetworkSpeed, StageTimes
from benchmarks.matrix_products import gemm_gflops_per_s, gemm_type
from benchmarks.timing import seconds_per_image, wait_for
from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.records import SegmentReport
from posebatch.core.settings import Settings
from posebatch.core.videos import Segment, SourceVideo, VideoPlan
from posebatch.dataset.staging import StagingArea
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.models.weights.listing import network_cost
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.stage_clock import StageClock
from posebatch.run.preparation import Prepared, prepare
from posebatch.run.tasks import FinalizeTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.run.workers.segment_worker import GPU_PACKING
from posebatch.storage.spool import SPOOL_BYTES
from posebatch.video.frame_images import RGB
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

KEPT_BATCHES: Final = 8
"""Batches of decoded frames on which the networks are measured: spread over the video, or its first ones if the
detector does not run on every frame, because its share of the frames is right in consecutive frames only."""


PUBLISHED_FRAMES: Final = 500
"""Frames of the published video."""


def measure_stages(archive: str, output: str, settings: Settings, threads: int, seconds: float) -> StageTimes:
    """Measure every stage on the first video of an archive, each for about ``seconds``.

    Raises `SettingsError` or `WeightsError` if the networks cannot be run with these settings.
    """
    torch.set_num_threads(threads)
    estimator = PoseEstimator.load(settings.estimator, settings.execution.device, settings.execution.engine)
    device, precision = estimator.placement.device, estimator.placement.precision
    prepared = prepare([archive], output, settings)
    video = next(prepared.videos())
    with open(video.uri, "rb") as file:
        plan = replace(probe(file, video.uri, settings.execution.segment_seconds), segments=(Segment(),))

    decode_only = seconds_per_image(lambda: _decode_by_ffmpeg(video, threads), seconds)
    batches: list[FrameBatch] = []
    decode = seconds_per_image(lambda: _decode(video, plan, prepared, estimator, threads, batches), seconds)
    kept = batches[:: max(1, len(batches) // KEPT_BATCHES)][:KEPT_BATCHES]
    gemm_dtype = gemm_type(precision, device)
    detect, pose, poses = _measure_networks(estimator, kept, device, seconds)
    return StageTimes(
        device=device,
        precision=precision,
        engine=estimator.placement.engine,
        threads=threads,
        persons_per_frame=sum(map(len, poses)) / len(poses),
        decode_only=decode_only,
        decode=decode,
        detect=detect,
        pose=pose,
        publish=_publish(prepared, video, plan, poses),
        gemm_type=str(gemm_dtype).removeprefix("torch."),
        detector=_detector_speed(estimator, kept[0], device, gemm_dtype, seconds),
        pose_network=_pose_speed(estimator, device, gemm_dtype, seconds),
    )


def _decode_by_ffmpeg(video: SourceVideo, threads: int) -> int:
    with av.open(video.uri) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO"
        return sum(1 for _ in container.decode(stream))


def _decode(
    video: SourceVideo,
    plan: VideoPlan,
    prepared: Prepared,
    estimator: PoseEstimator,
    threads: int,
    kept: list[FrameBatch],
) -> int:
    """Decode as a worker does; returns the number of frames. Keeps up to `KEPT_BATCHES` batches in ``kept``."""
    kept.clear()
    settings, device = prepared.context.settings, estimator.placement.device
    spread = max(1, plan.info.frames_in_header // estimator.batch_frames // KEPT_BATCHES)
    frames, every = 0, spread if settings.estimator.detect_every == 1 else 1
    with open(video.uri, "rb") as file:
        decoder = SegmentDecoder(
            file,
            video.uri,
            Segment(),
            plan.info,
            DecodeOptions(
                sampling=settings.sampling,
                batch_frames=estimator.batch_frames,
                threads=threads,
                frame_format=RGB if device == "cpu" else GPU_PACKING,
                on_gpu=use_nvdec(settings.execution.decoder, device),
            ),
        )
        for number, batch in enumerate(decoder):
            frames += len(batch.records)
            if number % every == 0 and len(kept) < KEPT_BATCHES:
                kept.append(batch)
    wait_for(device)
    return frames


def _measure_networks(
    estimator: PoseEstimator, batches: Sequence[FrameBatch], device: str, seconds: float
) -> tuple[float, float, list[FramePoses]]:
    """Seconds per frame of the stages detect and pose, and the poses."""
    poses = list(estimator.estimate(batches))
    frames, started, clock = 0, time.perf_counter(), StageClock()
    while not frames or time.perf_counter() < started + 2 * seconds:
        frames += len(list(estimator.estimate(batches, clock)))
        wait_for(device)
    return clock.detect_seconds / frames, clock.pose_seconds / frames, poses


def _detector_speed(
    estimator: PoseEstimator, batch: FrameBatch, device: str, dtype: torch.dtype, seconds: float
) -> NetworkSpeed:
    frames = estimator.to_device(batch)

    def run() -> int:
        return len(estimator.detector.detect(frames))

    return _against_gemm(network_cost(estimator.detector.record)[0], run, device, dtype, seconds)


def _pose_speed(estimator: PoseEstimator, device: str, dtype: torch.dtype, seconds: float) -> NetworkSpeed:
    width, height = estimator.pose.record.input_size_wh
    crops = 255 * torch.rand(estimator.pose.batch_size, 3, height, width, device=device)

    def run() -> int:
        for _ in range(1 if device == "cpu" else 20):
            maps = estimator.pose.heatmaps(crops)
        wait_for(device)
        return len(maps) * (1 if device == "cpu" else 20)

    return _against_gemm(network_cost(estimator.pose.record)[0], run, device, dtype, seconds)


def _against_gemm(
    gflops: float, run: Callable[[], int], device: str, dtype: torch.dtype, seconds: float
) -> NetworkSpeed:
    before = gemm_gflops_per_s(device, dtype, seconds / 2)
    images_per_s = 1 / seconds_per_image(run, seconds)
    return NetworkSpeed(gflops, images_per_s, (before + gemm_gflops_per_s(device, dtype, seconds / 2)) / 2)


def _publish(prepared: Prepared, video: SourceVideo, plan: VideoPlan, poses: Sequence[FramePoses]) -> float:
    """Seconds per frame to stage and to publish."""
    context = prepared.context
    frames = list(_numbered(poses, PUBLISHED_FRAMES))
    started = time.perf_counter()
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        writer = StagedWriter(spool)
        for frame in frames:
            writer.add(frame)
        writer.close(SegmentReport())
        StagingArea.of(prepared.store, video, context.data_fingerprint).stage(plan.segments[0], spool)
    finalize_video(FinalizeTask(video, plan, attempts=1), context)
    return (time.perf_counter() - started) / len(frames)


def _numbered(poses: Sequence[FramePoses], count: int) -> Iterator[FramePoses]:
    """``count`` frames of one video, with the persons of ``poses`` repeated."""
    for number, frame in enumerate(islice(cycle(poses), count)):
        yield replace(frame, record=replace(frame.record, frame_index=number, pts=number))
