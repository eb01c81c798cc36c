"""The preview of a video: decode it again, and draw its persons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import PreviewError, StorageUnavailableError
from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.videos import Segment, VideoInfo
from posebatch.dataset.publication import read_published_frames, read_record
from posebatch.dataset.staging import StagingArea
from posebatch.motion.tracking.links import Links
from posebatch.report.gif import AnnotatedFrame, encode_gif, paced
from posebatch.report.track_drawing import ClipPainter
from posebatch.run.context import RunContext
from posebatch.run.tasks import PreviewTask
from posebatch.run.workers.finalize import links_of_staged, staged_frames
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.storage.open import open_source
from posebatch.video.frame_images import FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder

PREVIEW_BATCH_FRAMES: Final = 8


def draw_preview(task: PreviewTask, context: RunContext) -> int:
    """Stage the GIF of a video; returns its number of frames. Raises `PreviewError`, and `VideoError` of decoding.

    Tracks are drawn as far as the frames have `FramePoses.track_ids`.
    """
    staging = context.staging(task.video)
    info, poses = _poses_to_draw(task, staging, context)
    settings = context.settings
    scale = settings.preview.scale_of(info.width, info.height)
    painter = ClipPainter(settings.colors_by_track, settings.preview.trail, scale)
    with open_source(task.video.uri, task.video.etag, context.endpoint_url) as file:
        decoder = SegmentDecoder(
            file,
            task.video.uri,
            Segment(),
            info,
            DecodeOptions(
                sampling=context.settings.sampling,
                batch_frames=PREVIEW_BATCH_FRAMES,
                frame_format=FrameFormat(scale=scale),
                limits=context.settings.limits,
                on_frame=heartbeat.beat,
            ),
        )
        with closing(iter(decoder)) as batches:
            gif, frames = encode_gif(_annotated(_paired(poses, batches), painter, info.time_base))
    staging.store.put(staging.preview_key, gif)
    return frames


def _poses_to_draw(
    task: PreviewTask, staging: StagingArea, context: RunContext
) -> tuple[VideoInfo, Iterator[FramePoses]]:
    if task.plan is not None:
        frames = chain.from_iterable(staged_frames(staging, task.plan))
        shows_tracks = context.settings.colors_by_track or context.settings.preview.trail
        links = links_of_staged(staging, task.plan, context) if shows_tracks else None
        return task.plan.info, frames if links is None else _followed(frames, links)
    record = read_record(staging.store, task.video.output_path)
    if record is None or record.info is None:
        raise StorageUnavailableError(
            f"{task.video.uri}: its commit record is gone; the next run computes the video again"
        )
    return record.info, read_published_frames(staging.store, task.video.output_path)


def _followed(frames: Iterator[FramePoses], links: Links) -> Iterator[FramePoses]:
    """The frames of a whole video with the tracks of their persons."""
    begin = 0
    for frame in frames:
        end = begin + len(frame)
        yield replace(frame, track_ids=links.track_ids[begin:end])
        begin = end


def _annotated(
    pairs: Iterator[tuple[FramePoses, NDArray[np.uint8]]], painter: ClipPainter, time_base: Fraction
) -> Iterator[AnnotatedFrame]:
    """Draw the frames that a GIF shows. Trails follow the joints through the other frames, too."""

    def remembered() -> Iterator[tuple[float, FramePoses, NDArray[np.uint8]]]:
        for poses, image in pairs:
            time_s = float(poses.record.pts * time_base)
            painter.remember(poses, time_s)
            yield time_s, poses, image

    for time_s, poses, image in paced(remembered(), lambda timed: timed[0]):
        yield AnnotatedFrame(time_s, painter.draw(poses, image))


def _paired(
    poses: Iterator[FramePoses], batches: Iterator[FrameBatch]
) -> Iterator[tuple[FramePoses, NDArray[np.uint8]]]:
    """Join poses and images of the frames that could be decoded. Both come in order of the frames."""
    for batch in batches:
        heartbeat.beat()
        decoded = (record for record in batch.records if record.status == "ok")
        assert isinstance(batch.images, np.ndarray)
        for record, image in zip(decoded, batch.images, strict=True):
            frame = next((frame for frame in poses if frame.record.frame_index >= record.frame_index), None)
            if frame is None or frame.record.frame_index != record.frame_index:
                raise PreviewError(f"frame {record.frame_index} of the video is not in its tables")
            yield frame, image
