"""Encode frames as an animated WebP that plays in real time and repeats forever."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from typing import IO, Final

import av
import av.error
from PIL import Image

from posebatch.core.errors import PreviewError
from posebatch.report.encoders import stream_for
from posebatch.report.frame_spool import STEPS, FrameSpool, SpooledWriter
from posebatch.report.gif import MAX_GIF_FRAMES, MAX_GIF_PIXELS, TICK

MAX_WEBP_BYTES: Final = 5_000_000
"""Maximum size, as of a GIF. A single frame may be larger."""


ENCODERS: Final = ("libwebp_anim",)


_OPTIONS: Final = {"quality": "60", "compression_level": "3"}


class WebpWriter(SpooledWriter):
    """Writes an animated WebP. It shows the frames that a GIF shows, and ends at the same limits."""

    def __init__(self) -> None:
        super().__init__(FrameSpool(MAX_GIF_FRAMES, MAX_GIF_PIXELS))

    def finish(self, file: IO[bytes]) -> int:
        """Write the WebP.

        The size is known only when all frames are encoded: a try that is too large is followed by one with fewer.
        """
        total = len(self._spool.times)
        if not total:
            raise PreviewError("no frame of the video can be shown")
        shown = range(total)
        for step in STEPS:
            shown = range(0, total, step)
            content = self._encoded(shown)
            if len(content) <= MAX_WEBP_BYTES:
                break
        while len(content) > MAX_WEBP_BYTES and len(shown) > 1:
            shown = shown[: max(1, len(shown) * MAX_WEBP_BYTES * 9 // (len(content) * 10))]
            content = self._encoded(shown)
        file.write(content)
        with Image.open(io.BytesIO(content)) as image:
            return int(getattr(image, "n_frames", 1))  # the encoder joins equal frames

    def _encoded(self, shown: Sequence[int]) -> bytes:
        spool, output = self._spool, io.BytesIO()
        times = [spool.times[number] for number in shown]
        try:
            with av.open(output, "w", format="webp", options={"loop": "0"}) as container:
                stream = stream_for(container, ENCODERS, "an animated WebP", _OPTIONS)
                stream.width, stream.height, stream.pix_fmt = spool.width, spool.height, "yuv420p"
                stream.codec_context.time_base = TICK
                # the last frame lasts as long as the one before
                delays = [after - before for before, after in pairwise(times)] or [10]
                for pts, delay, frame in zip(times, [*delays, delays[-1]], spool.frames(shown), strict=False):
                    frame.pts, frame.time_base, frame.duration = pts, TICK, delay
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise PreviewError(f"the WebP cannot be written: {error}") from error
        return output.getvalue()
