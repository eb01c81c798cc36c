"""The index of packets of a video whose container has none: scanned once, then kept beside the staged segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from posebatch.core.errors import StagedError
from posebatch.core.videos import SourceVideo
from posebatch.run.context import RunContext
from posebatch.run.workers.heartbeat import heartbeat
from posebatch.storage.open import check_unchanged, open_video
from posebatch.video.indexes.packet_index import NO_INDEX, PacketIndex
from posebatch.video.indexes.packet_scan import scan, scan_identity
from posebatch.video.limits import Limits

SCAN_READ_BYTES: Final = 8 << 20
"""Bytes of one ranged read during a scan, which needs the whole file and waits for each request."""


def packet_index(video: SourceVideo, context: RunContext) -> PacketIndex:
    """The index of a video. One that is lost, damaged or made by another version is made again, and staged.

    Raises `VideoError` and `StorageError`.
    """
    staging, track = context.staging(video), context.settings.sampling.video_track
    identity = scan_identity(video.etag, track)
    staged = staging.read_index()
    if staged is not None:
        try:
            return PacketIndex.from_bytes(staged, identity)
        except StagedError:
            pass  # made again
    with open_video(video, context.endpoint_url, SCAN_READ_BYTES) as file:
        index = scan(file, Limits(video.uri, context.settings.limits), track, heartbeat.beat)
    check_unchanged(video.uri, video.etag)
    staging.stage_index(index.to_bytes(identity))
    return index


@dataclass
class LatestIndex:
    """The index of the video that a worker had last: most of its segments follow one another."""

    context: RunContext
    _video: SourceVideo | None = None
    _index: PacketIndex = field(default_factory=lambda: NO_INDEX)

    def of(self, video: SourceVideo) -> PacketIndex:
        """The index of a video, see `packet_index`."""
        if self._video != video:
            self._index, self._video = packet_index(video, self.context), video
        return self._index
