"""The settings of pictures that are published besides the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from posebatch.core.options import option
from posebatch.core.skeleton import KEYPOINT_NAMES

PREVIEW_LONG_SIDE: Final = 480
"""Pixels of the longer side of a preview: as much as a phone shows."""


PREVIEW_FORMATS: Final = ("gif", "mp4", "webp", "sheet")
"""Kinds of previews, in the order in which they are published."""


NEEDS_TRACKS: Final = (
    "color_by track, trail, show ids, show angles and privacy blur-faces need tracks: they cannot be combined with "
    "no-track"
)


@dataclass(frozen=True)
class PreviewSettings:
    """Pictures that are published besides the tables."""

    preview: tuple[str, ...] = option(
        (),
        "annotated preview to make; repeatable; mp4: the whole video, gif and webp: at most 5 MB of it, sheet: a page "
        "of thumbnails",
        choices=("none", *PREVIEW_FORMATS),
    )
    preview_scale: float | None = option(
        None,
        f"size of the preview relative to the frame; without it the longer side has {PREVIEW_LONG_SIDE} pixels, or "
        "those of a smaller frame",
        low=0.01,
        high=1,
    )
    color_by: str | None = option(
        None,
        "colours of the skeletons; edge: left, right and middle of the body, track: one colour and a number for each "
        "person; without it by track, and by edge with --no-track",
        choices=("edge", "track"),
    )
    trail: tuple[str, ...] = option(
        (), "joint whose path over the last second is drawn for each person; repeatable", choices=KEYPOINT_NAMES
    )

    show: tuple[str, ...] = option(
        (),
        "what to draw besides the skeletons; repeatable; boxes: those of the detector, ids: the number of each track "
        "(always with --color-by track), angles: of elbows and knees, in degrees",
        choices=("boxes", "ids", "angles"),
    )
    privacy: str | None = option(
        None,
        "hide persons in previews; blur-faces: heads of all persons found, also while one is lost for a moment, "
        "skeleton-only: no pixel of the video; persons who are not found are not blurred",
        choices=("blur-faces", "skeleton-only"),
    )
    report: bool = option(False, "write HTML pages about the run and its videos at its end; see `posebatch report`")

    @property
    def formats(self) -> tuple[str, ...]:
        """The kinds of previews that are asked for."""
        return tuple(form for form in PREVIEW_FORMATS if form in self.preview)

    @property
    def blurs_faces(self) -> bool:
        """Whether heads are blurred."""
        return self.privacy == "blur-faces"

    @property
    def needs_tracks(self) -> bool:
        """Whether tracks are drawn, or heads are blurred in their gaps; ``color_by`` apart."""
        return bool(self.trail) or self.blurs_faces or "ids" in self.show or "angles" in self.show

    def scale_of(self, width: int, height: int) -> float:
        """Size of the preview relative to a frame of these pixels."""
        return min(1.0, PREVIEW_LONG_SIDE / max(width, height)) if self.preview_scale is None else self.preview_scale
