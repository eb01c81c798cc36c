"""Files that share their extension with videos, told apart by their first bytes."""

from __future__ import annotations

import os
from typing import Final

from posebatch.core.errors import PosebatchError
from posebatch.core.videos import SourceVideo
from posebatch.storage.open import open_video
from posebatch.video.content import HEAD_BYTES, other_content

SHARED_EXTENSIONS: Final = frozenset({".mod", ".mts", ".ts"})
"""Extensions of videos that other files have as well: TypeScript, Qt's translations, Go's modules, trackers' music."""


MAX_BYTES: Final = 16 << 20
"""Larger files are videos. Their first bytes are not read, which saves requests."""


def other_content_of(video: SourceVideo, endpoint_url: str | None) -> str | None:
    """What a file is that is no video in spite of its name; None for all others.

    Reads the first bytes of files whose name is ambiguous. A file that cannot be read now is taken for a video, and the
    error is met again when it is opened.
    """
    if os.path.splitext(video.uri)[1].lower() not in SHARED_EXTENSIONS or video.size_bytes > MAX_BYTES:
        return None
    try:
        with open_video(video, endpoint_url) as file:
            return other_content(file.read(HEAD_BYTES))
    except (PosebatchError, OSError):
        return None
