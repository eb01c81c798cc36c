"""The settings of pictures that are published besides the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from posebatch.core.options import option
from posebatch.core.skeleton import KEYPOINT_NAMES

PREVIEW_LONG_SIDE: Final = 480
"""Pixels of the longer side of a preview: as much as a phone shows."""


@dataclass(frozen=True)
class PreviewSettings:
    """Pictures that are published besides the tables."""

    preview: tuple[str, ...] = option((), "annotated preview to make; repeatable", choices=("none", "gif"))
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

    report: bool = option(False, "write HTML pages about the run and its videos at its end; see `posebatch report`")

    @property
    def wanted(self) -> bool:
        """Whether a GIF is asked for."""
        return "gif" in self.preview

    def scale_of(self, width: int, height: int) -> float:
        """Size of the preview relative to a frame of these pixels."""
        return min(1.0, PREVIEW_LONG_SIDE / max(width, height)) if self.preview_scale is None else self.preview_scale
