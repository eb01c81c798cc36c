"""Videos for tests: each frame carries its number in its pixels, so that a test can tell frames apart."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import av
import av.container
import av.logging
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from posebatch.core.frames import FramePoses
from posebatch.core.records import SegmentReport, VideoRecord
from posebatch.dataset.publication import CommittedRecord, Publication
from posebatch.dataset.tables.staged import StagedWriter
from posebatch.storage.store import Store

av.logging.set_level(av.logging.PANIC)

Image = NDArray[np.uint8]

COLUMNS, ROWS = 8, 4
"""A frame is a grid of black and white blocks. Each row is a byte."""

UPRIGHT = 0b11010000
"""The last row, which reads differently if the picture is rotated or mirrored."""

BLACK, WHITE = 24, 232

SPEED_OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "20"},
    "libx265": {"preset": "ultrafast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "b": "500k"},
    "mpeg4": {"q": "3"},
}


def numbered_image(number: int, size: tuple[int, int] = (128, 96)) -> Image:
    """A picture (height, width, 3) of a number: two bytes, a checksum, and `UPRIGHT`."""
    rows = (number >> 8 & 0xFF, number & 0xFF, _checksum(number), UPRIGHT)
    bits = np.unpackbits(np.array(rows, np.uint8)).reshape(ROWS, COLUMNS)
    width, height = size
    y, x = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    levels = np.where(bits[np.ix_(y, x)] == 1, WHITE, BLACK).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)


def frame_number(image: Image) -> int:
    """The number in a picture of `numbered_image`. Raises ValueError if there is none or it is not upright."""
    height, width = image.shape[:2]
    y = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    x = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    high, low, checksum, upright = np.packbits(image[np.ix_(y, x)].mean(axis=2) > 128, axis=1)[:, 0].tolist()
    number = high << 8 | low
    if upright != UPRIGHT or checksum != _checksum(number):
        raise ValueError(f"no frame number in this picture: {high:08b} {low:08b} {checksum:08b} {upright:08b}")
    return number


def _checksum(number: int) -> int:
    return (number * 37 + 11) & 0xFF


def encode_video(
    target: str | Path | IO[bytes],
    *,
    frames: int = 30,
    fps: int | Fraction = 25,
    codec: str = "libx264",
    container: str = "mp4",
    gop: int = 10,
    b_frames: int = 0,
    open_gop: bool = False,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    size: tuple[int, int] = (128, 96),
    audio: bool = False,
    faststart: bool = False,
    fragmented: bool = False,
    pixel_format: str = "yuv420p",
    first_number: int = 0,
    draw: Callable[[int], Image | VideoFrame] | None = None,
    matrix: int | None = None,
    color_range: int | None = None,
    options: Iterable[tuple[str, str]] = (),
    muxer_options: Iterable[tuple[str, str]] = (),
) -> None:
    """Encode ``frames`` pictures, numbered from ``first_number`` on, into a file or buffer.

    ``pts`` are the times in ticks of ``time_base``, which is one frame at ``fps`` by default. ``size`` and pictures
    are as displayed; with a ``rotation`` (degrees clockwise) they are coded rotated back, with a display matrix.
    ``draw`` makes the picture of a number, RGB or already coded. ``matrix`` and ``color_range`` are FFmpeg's numbers
    (709: 1, 601: 5 or 6; limited: 1, full: 2) and are written to the stream if given.
    """
    ticks = range(frames) if pts is None else pts
    draw = draw or partial(numbered_image, size=size)
    opened = av.open(
        target if not isinstance(target, Path) else str(target),
        "w",
        format="matroska" if container == "mkv" else container,
        options=_muxer_options(faststart, fragmented) | dict(muxer_options),
    )
    with _same_priority(), opened as output:
        chosen = _codec_options(codec, gop, b_frames, open_gop) | dict(options)
        stream: VideoStream = output.add_stream(codec, rate=fps, options=chosen)  # type: ignore[assignment]
        stream.width, stream.height = size[:: -1 if rotation in (90, 270) else 1]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base or 1 / Fraction(fps)
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if rotation:
            stream.set_display_rotation(-rotation)
        sound: AudioStream | None = output.add_stream("aac", rate=8000) if audio else None  # type: ignore[assignment]
        for i, tick in enumerate(ticks):
            frame = _coded(draw(first_number + i), rotation, pixel_format, matrix, color_range)
            frame.pts, frame.time_base = tick, stream.codec_context.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            seconds = float((max(ticks, default=-1) + 1) * stream.codec_context.time_base)
            _mux_sound(output, sound, seconds)


@contextlib.contextmanager
def _same_priority() -> Iterator[None]:
    """Run by root, SVT-AV1 gives the thread that encodes real-time priority, and all other processes wait for it."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


@lru_cache(maxsize=64)
def video_bytes(**wanted: Any) -> bytes:
    """`encode_video` into memory, cached by arguments. Pass ``pts`` as a tuple."""
    with tempfile.TemporaryDirectory() as folder:  # a file, because "faststart" opens its output a second time
        path = Path(folder, "video")
        encode_video(path, **wanted)
        return path.read_bytes()


def audio_only(container: str = "mp4", seconds: float = 0.5, cover: bool = False) -> bytes:
    """A container with sound but without a video stream; with ``cover``, with an attached picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska" if container == "mkv" else container) as output:
        sound: AudioStream = output.add_stream("aac", rate=8000)  # type: ignore[assignment]
        picture: VideoStream | None = None
        if cover:
            picture = output.add_stream("mjpeg", rate=1)  # type: ignore[assignment]
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            output.mux(picture.encode(_coded(numbered_image(0, (64, 48)), 0, "yuvj420p", None, None)))
            output.mux(picture.encode(None))
        _mux_sound(output, sound, seconds)
    return buffer.getvalue()


def truncate(content: bytes, share: float = 0.5) -> bytes:
    """The first part of a file, ``share`` of its bytes."""
    return content[: int(len(content) * share)]


def corrupt_middle(content: bytes, share: float = 0.1, at: float = 0.5, seed: int = 0) -> bytes:
    """A file with ``share`` of the bytes of its pictures replaced by noise, around ``at`` (0: begin, 1: end)."""
    first, end = _media(content)
    length = max(1, int((end - first) * share))
    hit = first + max(0, min(end - first - length, int((end - first) * at - length / 2)))
    noise = np.random.default_rng(seed).integers(0, 256, length, np.uint8).tobytes()
    return content[:hit] + noise + content[hit + length :]


def _media(content: bytes) -> tuple[int, int]:
    """Begin and end of the pictures: the media box of an MP4, so that its index stays intact; else the whole file."""
    position = 0
    while content[4:8] == b"ftyp" and position + 8 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        if content[position + 4 : position + 8] == b"mdat":
            return position + 8, position + size
        position += max(8, size)
    return 0, len(content)


def _muxer_options(faststart: bool, fragmented: bool) -> dict[str, str]:
    flags = ["faststart"] * faststart + ["frag_keyframe", "empty_moov", "default_base_moof"] * fragmented
    return {"movflags": "+".join(flags)} if flags else {}


def _codec_options(codec: str, gop: int, b_frames: int, open_gop: bool) -> dict[str, str]:
    options = dict(SPEED_OPTIONS.get(codec, {}))
    if codec == "libx264":
        options["x264-params"] = (
            f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0:open-gop={int(open_gop)}"
        )
    if codec == "libx265":
        options["x265-params"] = (
            f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes={b_frames}:b-adapt=0:open-gop={int(open_gop)}"
            ":log-level=none:pools=none:frame-threads=1"
        )
    return options


def _coded(
    picture: Image | VideoFrame, rotation: int, pixel_format: str, matrix: int | None, color_range: int | None
) -> VideoFrame:
    if isinstance(picture, VideoFrame):
        frame = picture
    else:
        turned = np.ascontiguousarray(np.rot90(picture, rotation // 90))
        frame = VideoFrame.from_ndarray(turned, format="rgb24").reformat(format=pixel_format, dst_colorspace=matrix)
    if matrix is not None:
        frame.colorspace = matrix
    if color_range is not None:
        frame.color_range = color_range
    return frame


def _mux_sound(output: av.container.OutputContainer, stream: AudioStream, seconds: float) -> None:
    for first in range(0, max(1024, int(seconds * 8000)), 1024):
        frame = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 8000, first, Fraction(1, 8000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def staged_file(frames: Sequence[FramePoses], report: SegmentReport | None = None) -> io.BytesIO:
    """A staged segment, as a worker writes it."""
    sink = io.BytesIO()
    writer = StagedWriter(sink)
    for frame in frames:
        writer.add(frame)
    writer.close(report or SegmentReport())
    return sink


def publish_record(store: Store, output_path: str, record: VideoRecord) -> CommittedRecord:
    """Commit a record."""
    return Publication.begin(store, output_path).commit(record)
