"""Encode frames as a GIF that plays in real time and repeats forever.

One palette of 256 colours serves all frames, so two passes over the frames are needed. In between they are kept on
disk, so memory does not grow with the video.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import av.error
import av.filter
import numpy as np
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.errors import PreviewError

Shape = tuple[int, ...]


TICK: Final = Fraction(1, 100)
"""Unit of the delays in a GIF, seconds."""


MIN_DELAY: Final = 2
"""In hundredths of a second. Browsers show frames with shorter delays for ten hundredths."""


MAX_DELAY: Final = 0xFFFF
"""In hundredths of a second. A delay has 16 bits."""


MAX_GIF_PIXELS: Final = 250_000_000
"""Maximum pixels of all frames of a GIF together. The preview of a long video ends there."""


MAX_GIF_FRAMES: Final = 25_000
"""Maximum frames of a GIF, however small they are."""


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame of a preview and the time at which it is shown."""

    time_s: float
    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""


def encode_gif(frames: Iterable[AnnotatedFrame]) -> tuple[bytes, int]:
    """Encode frames as a GIF; returns its bytes and its number of frames.

    Frames less than `MIN_DELAY` after the previous one are left out. The GIF ends at `MAX_GIF_PIXELS` or
    `MAX_GIF_FRAMES`. Frames of another size than the first are resized to it. Raises `PreviewError` if there is no
    frame, or if FFmpeg fails.

    Example::

        content, count = encode_gif(AnnotatedFrame(i / 25, image) for i, image in enumerate(images))
    """
    with tempfile.TemporaryFile() as spool:
        delays, shape = _spool(_paced(frames), spool)
        if not delays:
            raise PreviewError("no frame of the video can be shown")
        try:
            palette = _palette(_unspooled(spool, shape, len(delays)), shape)
            return _write_gif(_unspooled(spool, shape, len(delays)), palette, delays, shape), len(delays)
        except av.error.FFmpegError as error:
            raise PreviewError(f"the GIF cannot be written: {error}") from error


def _paced(frames: Iterable[AnnotatedFrame]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The frames to show, each with its time in hundredths of a second."""
    last_shown: int | None = None
    for frame in frames:
        due = round(frame.time_s * 100)
        if last_shown is None or due >= last_shown + MIN_DELAY:
            last_shown = due
            yield due, frame.image


def _spool(paced: Iterator[tuple[int, NDArray[np.uint8]]], spool: io.BufferedRandom) -> tuple[list[int], Shape]:
    """Write the frames to ``spool``; returns their times from 0 on in hundredths of a second, and their shape."""
    times: list[int] = []
    shape: Shape = (0, 0, 3)
    for due, image in paced:
        shape = shape if times else image.shape
        fitted = image if image.shape == shape else np.asarray(Image.fromarray(image).resize((shape[1], shape[0])))
        spool.write(fitted.tobytes())
        times.append(due)
        if len(times) == MAX_GIF_FRAMES or (len(times) + 1) * shape[0] * shape[1] > MAX_GIF_PIXELS:
            break
    return [due - times[0] for due in times], shape


def _unspooled(spool: io.BufferedRandom, shape: Shape, count: int) -> Iterator[VideoFrame]:
    spool.seek(0)
    for _ in range(count):
        pixels = np.frombuffer(spool.read(shape[0] * shape[1] * 3), np.uint8).reshape(shape)
        yield VideoFrame.from_ndarray(pixels, "rgb24")


def _palette(frames: Iterator[VideoFrame], shape: Shape) -> VideoFrame:
    """The palette of 256 colours for all frames."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=shape[1], height=shape[0], format=av.VideoFormat("rgb24"), time_base=TICK)
    sink = graph.add("buffersink")
    graph.link_nodes(source, graph.add("palettegen"), sink).configure()
    for i, frame in enumerate(frames):
        frame.pts = i
        source.push(frame)
    source.push(None)
    return next(_ready(sink))


def _write_gif(frames: Iterator[VideoFrame], palette: VideoFrame, times: Sequence[int], shape: Shape) -> bytes:
    graph = av.filter.Graph()
    images = graph.add_buffer(width=shape[1], height=shape[0], format=av.VideoFormat("rgb24"), time_base=TICK)
    colours = graph.add_buffer(
        width=palette.width, height=palette.height, format=av.VideoFormat("bgra"), time_base=TICK
    )
    # ordered dithering is stable from frame to frame; error diffusion would flicker
    use = graph.add("paletteuse", "dither=bayer:bayer_scale=4:diff_mode=rectangle")
    sink = graph.add("buffersink")
    images.link_to(use, 0, 0)
    colours.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    palette.pts = 0
    colours.push(palette)
    colours.push(None)
    output = io.BytesIO()
    # the last frame lasts as long as the one before; FFmpeg would give it 1/100 s, which browsers extend to 1/10 s
    last = min(times[-1] - times[-2], MAX_DELAY) if len(times) > 1 else MIN_DELAY
    with av.open(output, "w", format="gif", options={"loop": "0", "final_delay": str(last)}) as container:
        stream = container.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = shape[1], shape[0], "pal8", TICK
        for due, frame in zip(times, frames, strict=True):
            frame.pts, frame.time_base = due, TICK
            images.push(frame)
            for mapped in _ready(sink):
                container.mux(stream.encode(mapped))
        images.push(None)
        for mapped in _ready(sink):
            container.mux(stream.encode(mapped))
        container.mux(stream.encode(None))
    return output.getvalue()


def _ready(sink: FilterContext) -> Iterator[VideoFrame]:
    """The frames that the filter graph has finished."""
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, VideoFrame)
        yield frame
