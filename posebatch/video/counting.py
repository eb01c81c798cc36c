"""Count the frames of a complete video file."""

from __future__ import annotations

import io

import av
import av.error

from posebatch.core.errors import PreviewError


def count_frames(content: bytes) -> int:
    """Decode all frames of the first video track; returns their number. Raises `PreviewError` for damage."""
    try:
        with av.open(io.BytesIO(content), "r") as container:
            return sum(1 for _ in container.decode(video=0))
    except (av.error.FFmpegError, IndexError) as error:
        raise PreviewError(f"not a readable video: {error}") from error
