"""The one frame that a player shows at an instant, without decoding the whole video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final

from posebatch.core.errors import InputError
from posebatch.core.execution_settings import LimitSettings
from posebatch.core.images import FrameBatch
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment, VideoInfo, VideoPlan
from posebatch.video.fallback import SampledFrames
from posebatch.video.frame_images import FrameFormat
from posebatch.video.frame_numbers import Sampler
from posebatch.video.full_decode import DecodedFrame
from posebatch.video.limits import DEFAULT_LIMITS, Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.orientation import Orientation
from posebatch.video.probe import probe

EVERY_KEYFRAME: Final = 1e-6
"""Length of segments, seconds, with which each keyframe begins one."""


@dataclass(frozen=True)
class Instant:
    """A frame by its time or by its number."""

    time_s: float | None = None
    """Seconds as in the column ``time_s``: the frame is the last one that is not later."""
    frame_index: int | None = None

    def __str__(self) -> str:
        return f"frame {self.frame_index}" if self.time_s is None else f"{self.time_s:g} s"

    def includes(self, frame: DecodedFrame, info: VideoInfo) -> bool:
        """Whether the wanted frame is this one or a later one."""
        if self.time_s is not None:
            return float(frame.record.pts * info.time_base) <= self.time_s
        assert self.frame_index is not None
        return frame.record.frame_index <= self.frame_index


def frame_at(
    file: IO[bytes],
    name: str,
    instant: Instant,
    limits: LimitSettings = DEFAULT_LIMITS,
    video_track: str = "default",
) -> tuple[VideoInfo, FrameBatch]:
    """A video's facts, and the frame of an instant as a batch of one RGB image.

    Decoding begins at most two keyframes before the instant, in a container with an index. Raises `InputError` for an
    instant outside the video and for a frame that cannot be decoded, and the errors of `probe`.
    """
    plan = probe(file, name, EVERY_KEYFRAME, limits, video_track)
    options, chosen = DecodeOptions(limits=limits), None
    for frame in _frames_from(file, name, plan, _first_segment(plan, instant), options):
        if not instant.includes(frame, plan.info):
            break
        chosen = frame
    else:
        _check_reached(chosen, plan.info, instant, name)
    if chosen is None:
        raise InputError(f"{name}: nothing is shown at {instant}; its first frame comes later")
    if chosen.frame is None:
        raise InputError(f"{name}: the frame at {instant} cannot be decoded; its status is {chosen.record.status}")
    size_wh = (plan.info.width, plan.info.height)
    orientation = Orientation.of_rotation(plan.info.rotation, plan.info.mirrored)
    picture = FrameFormat(size_wh=size_wh, orientation=orientation).pack([chosen.frame])
    return plan.info, FrameBatch((chosen.record,), picture)


def _first_segment(plan: VideoPlan, instant: Instant) -> int:
    """The segment before the one in which the instant lies: frames around a keyframe may belong to either."""
    tick = plan.info.time_base
    begun = [
        segment.index
        for segment in plan.segments
        if (
            segment.first_packet <= instant.frame_index
            if instant.frame_index is not None
            else (segment.start_dts or 0) * tick <= (instant.time_s or 0)
        )
    ]
    return max(0, max(begun, default=0) - 1)


def _frames_from(
    file: IO[bytes], name: str, plan: VideoPlan, first: int, options: DecodeOptions
) -> Iterator[DecodedFrame]:
    sampler = Sampler.of(SamplingSettings(), plan.info)
    for segment in plan.segments[first:] or (Segment(),):
        yield from SampledFrames(file, Limits(name, options.limits), segment, plan.info, sampler, options)


def _check_reached(last: DecodedFrame | None, info: VideoInfo, instant: Instant, name: str) -> None:
    """Raise `InputError` if the video ends before the instant."""
    if last is None:
        raise InputError(f"{name}: no frame was found at {instant}")
    end_s = float((last.record.pts + last.duration) * info.time_base)
    beyond = (
        last.record.frame_index < instant.frame_index
        if instant.frame_index is not None
        else (instant.time_s or 0) > end_s
    )
    if beyond:
        raise InputError(f"{name}: it ends with frame {last.record.frame_index} at {end_s:.2f} s, before {instant}")
