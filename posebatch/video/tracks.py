"""The choice of a video track in a file that has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from posebatch.core.errors import NoVideoStreamError


@dataclass(frozen=True)
class VideoTrack:
    """A video track, as the container describes it."""

    number: int
    """Index among all streams of the file, from 0."""
    codec: str
    width: int
    """Pixels, as stored."""
    height: int
    rate: float
    """Frames a second; 0 when the container does not say."""
    frames: int
    """Number of frames; 0 when the container does not say."""
    is_default: bool
    """The container marks the track as the one to play."""
    is_cover: bool = False
    """The container marks the track as an attached picture."""

    def __str__(self) -> str:
        rate = f", {self.rate:g} fps" if self.rate else ""
        return f"{self.number}: {self.codec} {self.width}x{self.height}{rate}"


def choose_track(tracks: Sequence[VideoTrack], wanted: str, name: str) -> VideoTrack | None:
    """The track to decode; None when there is none but attached pictures.

    ``wanted`` is ``default``, ``largest``, or the number of a track. ``default``: no still beside a video, then the
    tracks that the container marks, then the largest, then the first. Raises `NoVideoStreamError` for a number of no
    track.
    """
    if wanted.isdecimal():
        return _numbered(tracks, int(wanted), name)
    pictures = [track for track in tracks if not track.is_cover]
    moving = [track for track in pictures if track.frames != 1] or pictures
    marked = [track for track in moving if track.is_default] or moving
    candidates = moving if wanted == "largest" else marked
    return max(candidates, key=lambda track: track.width * track.height, default=None)


def _numbered(tracks: Sequence[VideoTrack], number: int, name: str) -> VideoTrack:
    for track in tracks:
        if track.number == number:
            return track
    known = "; ".join(map(str, tracks)) or "none"
    raise NoVideoStreamError(f"{name}: no video track {number} (--video-track); the tracks are {known}")
