"""Encode frames as a GIF that plays in real time and repeats forever.

One palette serves all frames, so two passes over the frames are needed. In between they are kept on disk.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import IO, Final

import av
import av.error
import av.filter
from av.filter.context import FilterContext
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from posebatch.core.errors import PreviewError
from posebatch.report.frame_spool import MIN_DELAY, STEPS, FrameSpool, SpooledWriter
from posebatch.report.picture_writer import AnnotatedFrame

TICK: Final = Fraction(1, 100)
"""Unit of the delays in a GIF, seconds."""


MAX_DELAY: Final = 0xFFFF
"""In hundredths of a second. A delay has 16 bits."""


MAX_GIF_PIXELS: Final = 250_000_000
"""Maximum pixels of all frames of a GIF together. The preview of a long video ends there."""


MAX_GIF_FRAMES: Final = 25_000
"""Maximum frames of a GIF, however small they are."""


MAX_GIF_BYTES: Final = 5_000_000
"""Maximum size of a GIF, so that a phone loads it in seconds. A single frame may be larger."""


_HEADER_BYTES: Final = 1024
"""More than a GIF needs besides its frames: 800 bytes, most of them for the palette."""


_FRAME_HEADER_BYTES: Final = 32
"""More than a frame needs besides its packet."""


class GifWriter(SpooledWriter):
    """Writes a GIF.

    Frames less than `MIN_DELAY` after the previous one are left out, and more of them (`STEPS`) if the GIF would exceed
    `MAX_GIF_BYTES`. It ends at that size, at `MAX_GIF_PIXELS` or at `MAX_GIF_FRAMES`. Frames of another size than the
    first are resized to it.
    """

    def __init__(self) -> None:
        super().__init__(FrameSpool(MAX_GIF_FRAMES, MAX_GIF_PIXELS))

    def finish(self, file: IO[bytes]) -> int:
        """Write the GIF. Raises `PreviewError` if there is no frame, or if FFmpeg fails."""
        spool, times = self._spool, self._spool.times
        if not times:
            raise PreviewError("no frame of the video can be shown")
        shape = (spool.height, spool.width, 3)
        try:
            palette = _palette(spool.frames(range(len(times))), shape)
            for step in STEPS:
                shown = range(0, len(times), step)
                gif, count = _write_gif(spool.frames(shown), palette, times[::step], shape)
                if count == len(shown):
                    break
        except av.error.FFmpegError as error:
            raise PreviewError(f"the GIF cannot be written: {error}") from error
        file.write(gif)
        return count


def encode_gif(frames: Iterable[AnnotatedFrame]) -> tuple[bytes, int]:
    """Encode frames as `GifWriter` does; returns the bytes of the GIF and its number of frames.

    Example::

        content, count = encode_gif(AnnotatedFrame(i / 25, image) for i, image in enumerate(images))
    """
    file = io.BytesIO()
    with GifWriter() as writer:
        for number, frame in enumerate(frames):
            if writer.wants(number, frame.time_s):
                writer.add(frame)
            if writer.is_full:
                break
        count = writer.finish(file)
    return file.getvalue(), count


def _palette(frames: Iterator[VideoFrame], shape: tuple[int, ...]) -> VideoFrame:
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
    frames: Iterator[VideoFrame], palette: VideoFrame, times: Sequence[int], shape: tuple[int, ...]
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
