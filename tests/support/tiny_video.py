"""The smallest real videos, for tests that do not look at the pictures."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_tiny_video(path: Path, frames: int = 6, fps: int = 10, keyframe_every: int = 3, shade: int = 0) -> Path:
    """An MP4 of 64 x 48 pixels whose frames get brighter; another ``shade`` (0 to 255) gives another content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = keyframe_every
        stream.codec_context.options = {"sc_threshold": "1000000000"}  # no keyframes at scene changes
        for i in range(frames):
            image = np.full((48, 64, 3), (shade + 20 * i) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return path
