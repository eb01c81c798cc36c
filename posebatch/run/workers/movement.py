"""The tables ``tracks`` and ``motion`` of a video, written from its frames in two passes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Self

from posebatch.core.videos import VideoInfo
from posebatch.dataset.tables.derived import motion_table, tracks_table
from posebatch.dataset.tables.parquet import TableWriter
from posebatch.dataset.tables.schemas import MOTION_SCHEMA, TRACKS_SCHEMA
from posebatch.motion.blocks import FrameBlock
from posebatch.motion.movement.quality import video_grade
from posebatch.motion.movement.series import Movement
from posebatch.motion.tracking.linking import link
from posebatch.motion.tracking.links import Links
from posebatch.run.context import RunContext
from posebatch.run.workers.heartbeat import heartbeat


@dataclass(frozen=True)
class MovementTotals:
    """The result of both passes over a video."""

    tracks: int
    motion_rows: int
    grade: str | None


def link_persons(blocks: Iterable[FrameBlock], info: VideoInfo, context: RunContext) -> Links:
    """The first pass: who is who."""
    settings = context.settings
    return link(_beating(blocks), settings.motion, (info.width, info.height), settings.estimator.kpt_thr)


class MovementTables:
    """The second pass: writes both tables. Leaving the ``with`` block completes them; then `totals` is known."""

    def __init__(
        self,
        tracks_file: IO[bytes],
        motion_file: IO[bytes],
        links: Links,
        video: str,
        info: VideoInfo,
        metadata: Mapping[str, str],
        context: RunContext,
    ) -> None:
        """``video``: its address; ``metadata``: the origin of its poses, as `provenance` makes it."""
        settings = context.settings
        size_wh, kpt_thr = (info.width, info.height), settings.estimator.kpt_thr
        described = {
            **metadata,
            "posebatch.settings_fingerprint": context.motion_fingerprint or "",
            "posebatch.motion": json.dumps({**dataclasses.asdict(settings.motion), "kpt_thr": kpt_thr}),
        }
        self._video = video
        self._series = Movement(links, settings.motion, size_wh, kpt_thr)
        with ExitStack() as opened:
            self._tracks = opened.enter_context(TableWriter(tracks_file, TRACKS_SCHEMA, described))
            self._motion = opened.enter_context(TableWriter(motion_file, MOTION_SCHEMA, described))
            self._opened = opened.pop_all()
        self.totals = MovementTotals(0, 0, None)
        """Set at the end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._opened:
            if error[0] is not None:
                return
            for rows in self._series.finish():
                heartbeat.beat()
                self._motion.add(motion_table(rows, self._video))
            summaries = self._series.summaries()
            self._tracks.add(tracks_table(summaries, self._video))
        self.totals = MovementTotals(len(summaries), self._motion.rows, video_grade(summaries))

    def add(self, block: FrameBlock) -> None:
        """Add the next frames."""
        heartbeat.beat()
        for rows in self._series.add(block):
            self._motion.add(motion_table(rows, self._video))


def _beating(blocks: Iterable[FrameBlock]) -> Iterator[FrameBlock]:
    for block in blocks:
        heartbeat.beat()
        yield block
