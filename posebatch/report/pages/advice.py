"""What a reader of a report can do about a video that failed or is published in part."""

from __future__ import annotations

from typing import Final

_DAMAGED: Final = (
    "The file is damaged. Compare it with the original, copy it again, or convert it: ffmpeg -i IN -c copy OUT.mp4"
)

_STORE: Final = "The store did not deliver. Run the same command again, with --retry-failed if the video is skipped."

_ADVICE: Final = {
    "not_a_video": "The file is no video that posebatch reads. Leave it out with --exclude, or convert it with FFmpeg.",
    "no_video_stream": "The file holds sound only. Leave it out with --exclude.",
    "encrypted": "The video is encrypted. Export a copy without copy protection.",
    "archive": "The archive cannot be read. Do what the reason says, or leave it out with --exclude.",
    "cold": "The video must be restored from its storage class. Run again after that; docs/stores.md has the hours.",
    "limit": "The video is beyond a limit. Raise the limit that the reason names, then run with --retry-failed.",
    "damaged": _DAMAGED,
    "video": _DAMAGED,
    "index_disagrees": _DAMAGED,
    "preview": "The tables are whole, only the preview is missing. Run again to try it once more.",
    "access_denied": "The credentials may not read the video or write its tables. Extend them, then run again.",
    "not_found": "The video was removed while the run was going on. Run again once it is back.",
    "source_changed": "The video was replaced while the run was going on. Run again.",
    "storage": _STORE,
    "storage_unavailable": _STORE,
    "poison": "The video ends its worker each time. Look at it alone, or raise --max-memory-gb; then --retry-failed.",
    "worker_died": "Workers died. Check the memory of the machines, then run again with --retry-failed.",
    "taken_away": "Workers were taken away too often. Run again with --retry-failed when the cluster is calm.",
    "internal": "This is a bug of posebatch. Please report it with the reason above.",
}


def advice_for(error_kind: str | None) -> str:
    """What to do about an error of this kind, see `PosebatchError.kind`."""
    return _ADVICE.get(error_kind or "", "Read the reason, change what it names, and run with --retry-failed.")
