"""Encode frames as a GIF that plays in real time and repeats forever.

One palette serves all frames, so two passes over the frames are needed. In between they are kept on disk, so memory
does not grow with the video. Noise costs most of the bytes: pixels that hardly change keep their value.
"""

from __future__ import annotations

import io
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeVar

import av
import av.error
import av.filter
import numpy as np
from av.filter.context import FilterContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.errors import PreviewError

Shape = tuple[int, ...]


T = TypeVar("T")


TICK: Final = Fraction(1, 100)
"""Unit of the delays in a GIF, seconds."""


MIN_DELAY: Final = 10
"""In hundredths of a second: at most ten frames a second, because each costs some 10 kB."""


MAX_DELAY: Final = 0xFFFF
"""In hundredths of a second. A delay has 16 bits."""


MAX_GIF_PIXELS: Final = 250_000_000
"""Maximum pixels of all frames of a GIF together. The preview of a long video ends there."""


MAX_GIF_FRAMES: Final = 25_000
"""Maximum frames of a GIF, however small they are."""


MAX_GIF_BYTES: Final = 5_000_000
"""Maximum size of a GIF, so that a phone loads it in seconds. A single frame may be larger."""


STEPS: Final = (1, 2, 4)
"""A GIF that would be too large shows every second frame, or every fourth. If that is too large, its end is missing."""


STILL: Final = 8
"""A pixel keeps its colour while no channel differs by more, of 255. Without this, noise would cost half of a GIF."""


_HEADER_BYTES: Final = 1024
"""More than a GIF needs besides its frames: 800 bytes, most of them for the palette."""


_FRAME_HEADER_BYTES: Final = 32
"""More than a frame needs besides its packet."""


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame of a preview and the time at which it is shown."""

    time_s: float
    image: NDArray[np.uint8]
    """(height, width, 3) RGB."""


def encode_gif(frames: Iterable[AnnotatedFrame]) -> tuple[bytes, int]:
    """Encode frames as a GIF; returns its bytes and its number of frames.

    Frames less than `MIN_DELAY` after the previous one are left out, and more of them (`STEPS`) if the GIF would exceed
    `MAX_GIF_BYTES`. It ends at that size, at `MAX_GIF_PIXELS` or at `MAX_GIF_FRAMES`. Frames of another size than the
    first are resized to it. Raises `PreviewError` if there is no frame, or if FFmpeg fails.

    Example::

        content, count = encode_gif(AnnotatedFrame(i / 25, image) for i, image in enumerate(images))
    """
    with tempfile.TemporaryFile() as spool:
        times, shape = _spool(paced(frames, lambda frame: frame.time_s), spool)
        if not times:
            raise PreviewError("no frame of the video can be shown")
        try:
            palette = _palette(_unspooled(spool, shape, range(len(times))), shape)
            for step in STEPS:
                shown = range(0, len(times), step)
                gif, count = _write_gif(_unspooled(spool, shape, shown), palette, times[::step], shape)
                if count == len(shown):
                    break
            return gif, count
        except av.error.FFmpegError as error:
            raise PreviewError(f"the GIF cannot be written: {error}") from error


def paced(frames: Iterable[T], time_s: Callable[[T], float]) -> Iterator[T]:
    """The frames that a GIF shows: each at least `MIN_DELAY` after the one before. Only these need to be drawn."""
    last_shown: int | None = None
    for frame in frames:
        due = _due(time_s(frame))
        if last_shown is None or due >= last_shown + MIN_DELAY:
            last_shown = due
            yield frame


def _due(time_s: float) -> int:
    return round(time_s * 100)


def _spool(frames: Iterator[AnnotatedFrame], spool: io.BufferedRandom) -> tuple[list[int], Shape]:
    """Write the frames to ``spool``; returns their times from 0 on in hundredths of a second, and their shape."""
    times: list[int] = []
    shape: Shape = (0, 0, 3)
    shown: NDArray[np.uint8] | None = None
    for frame in frames:
        image = frame.image
        shape = shape if times else image.shape
        fitted = image if image.shape == shape else np.asarray(Image.fromarray(image).resize((shape[1], shape[0])))
        shown = fitted if shown is None else _steadied(fitted, shown)
        spool.write(shown.tobytes())
        times.append(_due(frame.time_s))
        if len(times) == MAX_GIF_FRAMES or (len(times) + 1) * shape[0] * shape[1] > MAX_GIF_PIXELS:
            break
    return [due - times[0] for due in times], shape


def _steadied(image: NDArray[np.uint8], shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, with the pixels of the frame ``shown`` before it where they differ by at most `STILL`."""
    change = np.maximum(image, shown) - np.minimum(image, shown)
    return np.where((change <= STILL).all(axis=2, keepdims=True), shown, image)


def _unspooled(spool: io.BufferedRandom, shape: Shape, numbers: range) -> Iterator[VideoFrame]:
    size = math.prod(shape)
    for number in numbers:
        spool.seek(number * size)
        pixels = np.frombuffer(spool.read(size), np.uint8).reshape(shape)
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


def _write_gif(
    frames: Iterator[VideoFrame], palette: VideoFrame, times: Sequence[int], shape: Shape
) -> tuple[bytes, int]:
    """The GIF of as many frames as fit into `MAX_GIF_BYTES`, at least one; and their number."""
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
        size_bytes, count = _HEADER_BYTES, 0
        for packet in _packets(zip(times, frames, strict=True), images, sink, stream):
            size_bytes += packet.size + _FRAME_HEADER_BYTES
            if count and size_bytes > MAX_GIF_BYTES:
                break
            container.mux(packet)
            count += 1
    return output.getvalue(), count


def _packets(
    timed: Iterable[tuple[int, VideoFrame]], images: FilterContext, sink: FilterContext, stream: VideoStream
) -> Iterator[Packet[VideoStream]]:
    """The frames, mapped to the palette and encoded: one packet each."""
    for due, frame in timed:
        frame.pts, frame.time_base = due, TICK
        images.push(frame)
        for mapped in _ready(sink):
            yield from stream.encode(mapped)
    images.push(None)
    for mapped in _ready(sink):
        yield from stream.encode(mapped)
    yield from stream.encode(None)


def _ready(sink: FilterContext) -> Iterator[VideoFrame]:
    """The frames that the filter graph has finished."""
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, VideoFrame)
        yield frame
