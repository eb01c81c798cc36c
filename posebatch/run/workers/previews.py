"""The previews of a video: decode it once more, draw its persons, and write every kind that is missing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from posebatch.core.errors import PreviewError
from posebatch.core.frames import FramePoses
from posebatch.core.images import FrameBatch
from posebatch.core.videos import Segment
from posebatch.dataset.layout import PREVIEWS
from posebatch.dataset.staging import StagingArea
from posebatch.report.head_regions import HeadsOfClip
from posebatch.report.picture_writer import AnnotatedFrame, PictureWriter
from posebatch.report.privacy import blank, blurred
from posebatch.report.track_drawing import ClipPainter
from posebatch.report.writers import writer_for
from posebatch.run.context import RunContext
from posebatch.run.tasks import PreviewOutcome, PreviewTask
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.run.workers.preview_source import ClipAngles, ClipSource, Outline, clip_source, outline
from posebatch.storage.open import open_video
from posebatch.storage.spool import spooled
from posebatch.video.frame_images import FrameFormat
from posebatch.video.options import DecodeOptions
from posebatch.video.segment_decoder import SegmentDecoder

PREVIEW_BATCH_FRAMES: Final = 8


T = TypeVar("T")


def draw_preview(task: PreviewTask, context: RunContext) -> PreviewOutcome:
    """Stage the previews of a video, in one pass over its pictures. Those that are published and current stay.

    A kind that fails costs no other kind; the outcome has its message. Raises `VideoError` of decoding, and
    `PreviewError` if the tables do not have the frames of the video. Tracks are drawn as far as the frames have
    `FramePoses.track_ids`.
    """
    staging = context.staging(task.video)
    source = clip_source(task, staging, context)
    outlined = outline(source, context)
    drawing = ClipDrawing(source, outlined, context)
    with ExitStack() as opened:
        time_base = source.info.time_base
        pictures = Pictures(
            {
                form: opened.enter_context(writer_for(form, outlined.frames, time_base))
                for form in _missing(source, context)
            }
        )
        with closing(_decoded(task, source, context)) as batches:
            for number, (poses, image) in enumerate(_paired(source.read(), batches)):
                time_s = float(poses.record.pts * time_base)
                drawing.remember(poses, time_s)
                if takers := pictures.takers(number, time_s):
                    pictures.add(takers, AnnotatedFrame(time_s, drawing.draw(poses, image)))
                if pictures.are_full:
                    break
        frames = {PREVIEWS[form].kind: count for form, count in pictures.staged(staging)}
    return PreviewOutcome(frames, pictures.error)


def _missing(source: ClipSource, context: RunContext) -> list[str]:
    """The wanted kinds, without those that are published and current."""
    published = source.record.objects if source.record else ()
    current = {each.kind for each in published if each.fingerprint == context.preview_fingerprints.get(each.kind)}
    return [form for form in context.settings.preview.formats if PREVIEWS[form].kind not in current]


class ClipDrawing:
    """Draws the frames of one clip: first hides what is to be hidden, then draws the persons."""

    def __init__(self, source: ClipSource, outlined: Outline, context: RunContext) -> None:
        settings, info = context.settings, source.info
        preview = settings.preview
        self._privacy, self._scale = preview.privacy, preview.scale_of(info.width, info.height)
        self._painter = ClipPainter(settings.colors_by_track, preview.trail, self._scale, preview.show)
        self._heads = HeadsOfClip(outlined.gaps)
        self._angles = ClipAngles(source, outlined.links, context) if "angles" in preview.show else None

    def remember(self, poses: FramePoses, time_s: float) -> None:
        """Take every frame in turn: trails follow the joints through frames that are not drawn, too."""
        self._painter.remember(poses, time_s)

    def draw(self, poses: FramePoses, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw a frame that was remembered just now; returns a new image."""
        if self._privacy == "skeleton-only":
            image = blank(image)
        elif self._privacy == "blur-faces":
            image = blurred(image, self._heads.regions(poses), self._scale)
        return self._painter.draw(poses, image, self._angles.of(poses) if self._angles else ())


class Pictures:
    """The files that one pass over a clip writes. A kind that fails is left out, and the others go on."""

    def __init__(self, writers: Mapping[str, PictureWriter]) -> None:
        """``writers``: by the name of their kind."""
        self._writers, self._failed = writers, dict[str, PreviewError]()

    @property
    def error(self) -> str | None:
        """Why kinds are missing; None if none is."""
        return "; ".join(f"{form}: {error}" for form, error in self._failed.items()) or None

    @property
    def are_full(self) -> bool:
        """Whether none of them takes a further frame."""
        return all(writer.is_full for _, writer in self._working())

    def takers(self, number: int, time_s: float) -> list[str]:
        """The kinds that show this frame of the clip."""
        return [form for form, writer in self._working() if writer.wants(number, time_s)]

    def add(self, takers: list[str], frame: AnnotatedFrame) -> None:
        """Give a drawn frame to the kinds that show it."""
        for form in takers:
            self._guarded(form, lambda writer: writer.add(frame))

    def staged(self, staging: StagingArea) -> Iterator[tuple[str, int]]:
        """Complete the files and stage them; gives each kind with its number of pictures."""
        for form, _ in self._working():
            heartbeat.beat()
            with spooled() as file:
                count = self._guarded(form, lambda writer, file=file: writer.finish(file))  # type: ignore[misc]
                if count is not None:
                    file.seek(0)
                    staging.store.put(staging.preview_key(PREVIEWS[form]), file)
                    yield form, count

    def _working(self) -> list[tuple[str, PictureWriter]]:
        return [(form, writer) for form, writer in self._writers.items() if form not in self._failed]

    def _guarded(self, form: str, act: Callable[[PictureWriter], T]) -> T | None:
        """The result of ``act``; None if the kind cannot be written."""
        try:
            return act(self._writers[form])
        except PreviewError as error:
            self._failed[form] = error
            return None


def _decoded(task: PreviewTask, source: ClipSource, context: RunContext) -> Generator[FrameBatch, None, None]:
    """The pictures of a whole video, in the size of its previews."""
    info = source.info
    scale = context.settings.preview.scale_of(info.width, info.height)
    with open_video(task.video, context.endpoint_url) as file:
        yield from SegmentDecoder(
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
