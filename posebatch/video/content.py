"""What a file is that is no video in a container that posebatch reads, and how to make such a video of it.

Files are told apart by their first bytes, and by the demuxer that FFmpeg found for them; their names play no part.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 4096
"""First bytes of a file that are looked at."""


@dataclass(frozen=True)
class Remedy:
    """What to do with a kind of files."""

    what: str
    command: str
    """With ``{file}``, ``{stem}`` and ``{extension}`` of a file's name, and ``{numbered}`` for a sequence of files."""
    note: str = ""

    def text(self, file: str) -> str:
        """The remedy for a file of this name."""
        return f"{self.what}. This makes a video of it: {self.advice(file)}"

    def advice(self, file: str) -> str:
        """The command for a file of this name."""
        stem, dot, extension = file.rpartition(".")
        numbered = re.sub(r"\d+\Z", lambda digits: f"%0{len(digits[0])}d", stem)
        if numbered == stem:
            numbered = "%04d"
        stem = f"{stem}-new" if extension in ("mp4", "mkv") else stem or file  # FFmpeg cannot write into its own input
        names = {"file": file, "stem": stem, "extension": dot + extension, "numbered": numbered}
        return self.command.format(**names) + self.note


_ENCODE: Final = "-fps_mode passthrough -c:v libx264 -crf 12 -pix_fmt yuv420p {stem}.mp4"
"""Keeps every frame and, where there are times, these. Copying a raw stream would take less time, but FFmpeg's tools
then lose its first frames or all its times."""


_RAW: Final = Remedy(
    "a raw video stream without a container and without times",
    f"ffmpeg -r 25 -i {{file}} {_ENCODE}",
    " (25: its frames per second)",
)
_HTTP_PICTURES: Final = Remedy(
    "a stream of JPEG pictures as network cameras send it, without times",
    f"ffmpeg -r 25 -f mpjpeg -i {{file}} {_ENCODE}",
    " (25: its frames per second)",
)
_ANIMATED_GIF: Final = Remedy("a GIF", "ffmpeg -i {file} -c:v ffv1 {stem}.mkv")
_ANIMATED_PNG: Final = Remedy("an animated PNG", "ffmpeg -f apng -i {file} -c:v ffv1 {stem}.mkv")
_ANIMATED_WEBP: Final = Remedy(
    "an animated WebP",
    "python -c \"from PIL import Image; Image.open('{file}').save('{stem}.apng', 'PNG', save_all=True)\" && "
    "ffmpeg -f apng -i {stem}.apng -c:v ffv1 {stem}.mkv",
)
_COPIED_PICTURES: Final = Remedy(
    "a picture; numbered pictures can be made a video",
    "ffmpeg -framerate 25 -i {numbered}{extension} -c copy pictures.mkv",
    " (25: pictures per second)",
)
_OTHER_PICTURES: Final = Remedy(
    "a picture; numbered pictures can be made a video",
    "ffmpeg -framerate 25 -i {numbered}{extension} -c:v png pictures.mkv",
    " (25: pictures per second)",
)
_OTHER_FORMAT: Final = Remedy("", f"ffmpeg -i {{file}} {_ENCODE}")


def _all(names: str, remedy: Remedy) -> dict[str, Remedy]:
    return dict.fromkeys(names.split(), remedy)


_BY_DEMUXER: Final[Mapping[str, Remedy]] = {
    **_all("av1 avs2 avs3 cavsvideo dirac dnxhd evc h261 h263 h264 hevc ingenient", _RAW),
    **_all("m4v mjpeg mjpeg_2000 mpegvideo obu vc1 vvc", _RAW),
    "mpjpeg": _HTTP_PICTURES,
    "gif": _ANIMATED_GIF,
    "apng": _ANIMATED_PNG,
    **_all("jpeg_pipe png_pipe", _COPIED_PICTURES),
}

_BY_EXTENSION: Final[Mapping[str, Remedy]] = {
    **_all(".264 .265 .266 .avc .h261 .h263 .h264 .h265 .hevc .m1v .m2v .mjpeg .mjpg .obu", _RAW),
    ".gif": _ANIMATED_GIF,
    ".apng": _ANIMATED_PNG,
    ".webp": _ANIMATED_WEBP,
    **_all(".jpeg .jpg .png", _COPIED_PICTURES),
    **_all(".bmp .tif .tiff", _OTHER_PICTURES),
    **_all(".amv .dav .gxf .ivf .mlv .nsv .nut .nuv .rm .rmvb .swf .wtv .y4m", _OTHER_FORMAT),
}


_FETCHED_WRONGLY: Final = "not the video itself; download it again"
_PLAYLIST: Final = "a playlist, which names other files; give the videos themselves"
_TEXTS: Final[Mapping[str, str]] = {
    r"version https://git-lfs\.github\.com/spec/": "a Git LFS pointer, not the video itself; `git lfs pull` fetches it",
    r"(/|[./\\]*\.git/)annex/objects/": "a git-annex pointer, not the video itself; `git annex get` fetches it",
    r"\s*(<!--.*?-->\s*)*<(!doctype\s+html|html)\b": f"an HTML page, as servers send on errors, {_FETCHED_WRONGLY}",
    r"\s*(#EXTM3U|ffconcat version|file '|\[playlist\]|v=0\s+o=|(<\?xml[^>]*>\s*)?<(mpd|asx|smil)\b)": _PLAYLIST,
    r"\s*<\?xml[^>]*>\s*<Error>": f"an error message of an S3 store, {_FETCHED_WRONGLY}",
}
"""Beginnings of texts that stand for a video, and what they are."""


_MAGIC: Final[Mapping[bytes, str]] = {
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"Rar!\x1a\x07": "a RAR archive; unpack it",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it",
    b"\x1f\x8b\x08": "a gzip archive; unpack it",
    b"%PDF-": "a PDF document",
    bytes(512): "a file of zero bytes; its download or copy was not finished",
}


_TRACKER_MUSIC: Final = re.compile(rb"M\.K\.|M!K!|FLT[48]|[2-9]CHN|[1-3][0-9]CH", re.DOTALL)
_TRACKER_OFFSET: Final = 1080


def describe(head: bytes, demuxer: str, name: str) -> str | None:
    """What a file is and what to do with it, as the end of an error message; None if that is not known.

    ``head``: its first `HEAD_BYTES`. ``demuxer``: FFmpeg's name for the format; empty if it found none.

    Example::

        describe(b"<!DOCTYPE html>", "", "clip.mp4")  # an HTML page, ...
    """
    text = _decoded_text(head)
    if text is not None:
        return _stand_in(text) or "a text, not a video"
    if magic := next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None):
        return magic
    if not demuxer:
        return None
    remedy = _ANIMATED_WEBP if _is_animated_webp(head) else _BY_DEMUXER.get(demuxer)
    if remedy is None and demuxer.endswith("_pipe"):
        remedy = _OTHER_PICTURES
    if remedy is not None:
        return remedy.text(_plain(name))
    return f"a file in the format {demuxer}, which is not read. If it is a video: {_OTHER_FORMAT.advice(_plain(name))}"


def other_content(head: bytes) -> str | None:
    """What a file is that merely shares its extension with videos: a text, or music. None for all others.

    TypeScript is called ``.ts``, and Go's modules ``.mod``. A text that stands for a video, such as a Git LFS pointer,
    a playlist or an error page, is not among these.
    """
    text = _decoded_text(head)
    if text is not None:
        return None if _stand_in(text) else "a text"
    return "music of a tracker" if _TRACKER_MUSIC.match(head, _TRACKER_OFFSET) else None


def advice_for_extension(extension: str) -> str | None:
    """The command that makes a video of files with this extension (lower case, with its dot); None if there is none."""
    remedy = _BY_EXTENSION.get(extension)
    return remedy.advice(f"NAME{extension}") if remedy else None


def numbered_pictures(pattern: str) -> str:
    """The command that makes a video of pictures with names like ``seq/%04d.png``."""
    remedy = _BY_EXTENSION.get(pattern[pattern.rfind(".") :].lower())
    kept = remedy if remedy in (_COPIED_PICTURES, _OTHER_PICTURES) else _OTHER_PICTURES
    return kept.command.format(numbered=pattern, extension="") + kept.note


def _decoded_text(head: bytes) -> str | None:
    """The text that a file begins with; None if it is empty or no text."""
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        text = head.decode("latin-1")
        if sum(character > "\x7f" for character in text) * 4 > len(text):
            return None
    return text if text and not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", text) else None


def _stand_in(text: str) -> str | None:
    matching = (what for start, what in _TEXTS.items() if re.match(start, text, re.IGNORECASE | re.DOTALL))
    return next(matching, None)


def _is_animated_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and bool(head[20:21]) and bool(head[20] & 2)


def _plain(name: str) -> str:
    """The file name of an address, if it can stand in a command as it is."""
    file = name.rsplit("/", 1)[-1]
    if re.fullmatch(r"\w[\w.+-]*", file, re.ASCII):
        return file
    extension = re.search(r"\.\w+\Z", file, re.ASCII)
    return f"NAME{extension[0] if extension else ''}"
