"""A file that is no video in a container that posebatch reads is named as what it is, with what to do about it."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.factories import numbered_image, video_bytes

from posebatch.core.errors import NotAVideoError
from posebatch.video.content import HEAD_BYTES, advice_for_extension, describe, numbered_pictures, other_content
from posebatch.video.probe import probe

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n"
HTML = b'\n<!-- cached -->\n<!DOCTYPE html>\n<html lang="en"><title>404 Not Found</title>'
S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code></Error>'
TYPESCRIPT = "export const größe = '<html>';\n".encode()
QT = b'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n<TS version="2.1"></TS>'
M3U = b"#EXTM3U\n#EXTINF:1,\nwalk.mp4\n"
TRACKER = b"my song".ljust(1080, b"\x00") + b"M.K." + bytes(100)
MPEGTS = video_bytes(container="mpegts")[:HEAD_BYTES]

CONTENTS: dict[str, tuple[bytes, str | None, str | None]] = {
    # what the error message says, and what the file is that merely shares a name with videos
    "empty": (b"", None, None),
    "one byte": (b"\x00", None, None),
    "Git LFS": (LFS, "a Git LFS pointer, .* `git lfs pull` fetches it", None),
    "git-annex": (b"/annex/objects/SHA256E-s1--ab.mp4\n", "a git-annex pointer, .* `git annex get`", None),
    "HTML": (HTML, "an HTML page, .* download it again", None),
    "HTML, upper case": (b"<HTML><BODY>", "an HTML page", None),
    "S3 error": (S3_ERROR, "an error message of an S3 store", None),
    "playlist": (M3U, "a playlist", None),
    "TypeScript": (TYPESCRIPT, "a text, not a video", "a text"),
    "TypeScript, cut in a letter": (b"//" + "ü".encode() * 3000, "a text, not a video", "a text"),
    "UTF-8 with a mark": (b"\xef\xbb\xbf" + TYPESCRIPT, "a text", "a text"),
    "UTF-16": (TYPESCRIPT.decode().encode("utf-16"), "a text", "a text"),
    "Latin-1": (b"// Gr\xf6\xdfe in Metern, von Hand gemessen\n", "a text", "a text"),
    "Qt translation": (QT, "a text", "a text"),
    "Go module": (b"module example.org/x\n\ngo 1.22\n", "a text", "a text"),
    "tracker": (TRACKER, None, "music of a tracker"),
    "zeros": (bytes(HEAD_BYTES), "a file of zero bytes", None),
    "ZIP": (b"PK\x03\x04\x14\x00", "a ZIP archive", None),
    "PDF": (b"%PDF-1.7\n\xb5\xed\xae\xfb\x00", "a PDF document", None),
    "noise": (np.random.default_rng(0).bytes(HEAD_BYTES), None, None),
    "MPEG-TS": (MPEGTS, None, None),
    "MP4": (video_bytes()[:HEAD_BYTES], None, None),
}


@pytest.mark.parametrize(("head", "described", "other"), CONTENTS.values(), ids=CONTENTS)
def test_content_is_told_by_the_first_bytes(head: bytes, described: str | None, other: str | None) -> None:
    said = describe(head[:HEAD_BYTES], "", "s3://b/clip.mp4")
    assert said == described or (said and described and re.match(described, said)), said
    assert other_content(head[:HEAD_BYTES]) == other


def raw(codec: str, muxer: str, pixel_format: str = "yuv420p", **options: str) -> bytes:
    """Ten numbered frames in a raw stream or as an animated picture."""
    sink = io.BytesIO()
    with av.open(sink, "w", format=muxer) as output:
        stream = output.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 176, 144, pixel_format
        stream.codec_context.time_base = Fraction(1, 10)
        for i in range(10):
            picture = av.VideoFrame.from_ndarray(numbered_image(i, (176, 144)), "rgb24").reformat(format=pixel_format)
            picture.pts, picture.time_base = i, Fraction(1, 10)
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return sink.getvalue()


def pictures(kind: str, count: int = 10) -> bytes:
    """Pictures in one file, by Pillow."""
    first, *others = (Image.fromarray(numbered_image(i, (176, 144))) for i in range(count))
    sink = io.BytesIO()
    more = {"save_all": True, "append_images": others, "duration": 100, "loop": 0} if others else {}
    first.save(sink, kind, **more)
    return sink.getvalue()


def mpjpeg() -> bytes:
    """JPEG pictures as a network camera sends them."""
    parts = []
    for i in range(10):
        sink = io.BytesIO()
        Image.fromarray(numbered_image(i, (176, 144))).save(sink, "JPEG")
        picture = sink.getvalue()
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        parts.append(head.encode() + picture + b"\r\n")
    return b"".join(parts)


KINDS: dict[str, tuple[str, bytes, str]] = {
    "H.264": ("a.h264", raw("libx264", "h264", preset="ultrafast"), "a raw video stream"),
    "H.264 with B-frames": ("a.264", raw("libx264", "h264", bf="2"), "a raw video stream"),
    "HEVC": ("a.hevc", raw("libx265", "hevc", **{"x265-params": "log-level=none"}), "a raw video stream"),
    "MPEG-1": ("a.m1v", raw("mpeg1video", "mpeg1video", strict="-2"), "a raw video stream"),
    "MPEG-2": ("a.m2v", raw("mpeg2video", "mpeg2video", strict="-2"), "a raw video stream"),
    "MPEG-4": ("a.m4v", raw("mpeg4", "m4v"), "a raw video stream"),
    "MJPEG": ("a.mjpeg", raw("mjpeg", "mjpeg", "yuvj420p"), "a raw video stream"),
    "HTTP pictures": ("a.mjpg", mpjpeg(), "a stream of JPEG pictures"),
    "raw, called MP4": ("a.mp4", raw("libx264", "h264", preset="ultrafast"), "a raw video stream"),
    "GIF": ("a.gif", pictures("GIF"), "a GIF"),
    "APNG": ("a.apng", pictures("PNG"), "an animated PNG"),
    "WebP": ("a.webp", pictures("WEBP"), "an animated WebP"),
    "IVF": ("a.ivf", raw("libvpx", "ivf"), "a file in the format ivf"),
    "NUT": ("a.nut", raw("mpeg4", "nut"), "a file in the format nut"),
}
STILLS: dict[str, tuple[str, bytes]] = {
    "PNG": ("cam_0001.png", pictures("PNG", 1)),
    "JPEG": ("cam_0001.jpg", pictures("JPEG", 1)),
    "BMP": ("cam_0001.bmp", pictures("BMP", 1)),
    "TIFF": ("cam_0001.tif", pictures("TIFF", 1)),
    "still WebP": ("cam_0001.webp", pictures("WEBP", 1)),
}


def refusal(content: bytes, name: str) -> str:
    with pytest.raises(NotAVideoError) as raised:
        probe(io.BytesIO(content), f"s3://archive/x y/{name}", 20)
    said = str(raised.value)
    assert said.startswith(f"s3://archive/x y/{name}: ")
    return said.removeprefix(f"s3://archive/x y/{name}: ")


@pytest.mark.parametrize(("name", "content", "what"), KINDS.values(), ids=KINDS)
def test_file_that_is_not_read_is_refused_with_a_command(name: str, content: bytes, what: str) -> None:
    said = refusal(content, name)
    assert said.startswith(what)
    assert re.search(rf"ffmpeg .*-i {name[0]}\.", said)


@pytest.mark.parametrize(("name", "content"), STILLS.values(), ids=STILLS)
def test_picture_is_refused_with_a_command_for_its_sequence(name: str, content: bytes) -> None:
    said = refusal(content, name)
    assert said.startswith("a picture")
    assert f"-i cam_%04d{name[8:]} " in said


def test_command_does_not_hold_a_name_that_a_shell_would_read() -> None:
    for name in ("a b.h264", "$(rm).h264", "-y.h264", "'.h264"):
        assert "ffmpeg -r 25 -i NAME.h264 " in refusal(KINDS["H.264"][1], name)
    assert "-i NAME -fps_mode" in refusal(KINDS["H.264"][1], "a b")


COMMAND = re.compile(r"(?:^|: )((?:ffmpeg|python) .*?)(?: \(|$)")


def frames_after(said: str, folder: Path) -> int:
    """The frames of the video that a message's command makes; they are checked to have their times."""
    command = COMMAND.search(said)
    assert command, said
    python = f"{shlex.quote(sys.executable)} -c"
    typed = command[1].replace("python -c", python).replace("ffmpeg", "ffmpeg -v error -nostdin")
    subprocess.run(typed, shell=True, cwd=folder, check=True)
    made = folder / typed.rsplit(" ", 1)[-1]
    with made.open("rb") as file:
        probe(file, "made", 20)
    with av.open(str(made)) as container:
        times = [frame.time for frame in container.decode(video=0)]
        assert np.ptp(np.diff(times)) < 0.002
        return len(times)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs FFmpeg's tool")
@pytest.mark.parametrize(("name", "content"), [kind[:2] for kind in KINDS.values()], ids=KINDS)
def test_command_makes_a_video_with_every_frame(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert frames_after(refusal(content, name), tmp_path) == 10


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs FFmpeg's tool")
@pytest.mark.parametrize(("name", "content"), STILLS.values(), ids=STILLS)
def test_command_makes_a_video_of_numbered_pictures(tmp_path: Path, name: str, content: bytes) -> None:
    for i in range(10):
        (tmp_path / name.replace("0001", f"{i:04d}")).write_bytes(content)
    assert frames_after(refusal(content, name), tmp_path) == 10


@pytest.mark.parametrize(
    ("extension", "command"),
    [
        (".txt", None),
        (".mp4", None),
        (".h264", "ffmpeg -r 25 -i NAME.h264 "),
        (".gif", "ffmpeg -i NAME.gif "),
        (".png", "ffmpeg -framerate 25 -i %04d.png -c copy"),
        (".tiff", "ffmpeg -framerate 25 -i %04d.tiff -c:v png"),
        (".rm", "ffmpeg -i NAME.rm -fps_mode passthrough -c:v libx264"),
    ],
)
def test_advice_by_extension(extension: str, command: str | None) -> None:
    advice = advice_for_extension(extension)
    assert advice == command or (advice and command and advice.startswith(command))


@pytest.mark.parametrize(("pattern", "copied"), [("seq/%04d.png", True), ("a_%d.JPG", True), ("x%03d.bmp", False)])
def test_numbered_pictures_keep_the_pattern(pattern: str, copied: bool) -> None:
    command = numbered_pictures(pattern)
    assert f"-framerate 25 -i {pattern} " in command
    assert ("-c copy" in command) == copied
