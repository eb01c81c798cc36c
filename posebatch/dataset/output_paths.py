"""Output paths: where the results of a video lie, by the path of its source in the archive.

`encode_output_path` makes the path, so that different sources get different paths and any file system and Parquet
reader can use them. `check_case_collisions` refuses videos that a local disk would still take for one, because it
ignores case or normalizes accents.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from posebatch.core.errors import InputError
from posebatch.core.fingerprints import digest
from posebatch.core.shards import Shard
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import GUARDED_SUFFIXES
from posebatch.dataset.tables.schemas import COLUMNS
from posebatch.storage.local import SCRATCH_FOLDER, LocalStore
from posebatch.storage.store import Store

MAX_SEGMENT_BYTES: Final = 200
"""Maximum length of a folder or file name in an output path. File systems allow 255, with the suffix."""


MAX_PATH_BYTES: Final = 700
"""Maximum length of an output path. S3 keys allow 1,024, with the prefix of the output."""


NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
"""Hive's name for a null value. pandas cannot read folders where only some files have it."""


_ENCODED: Final = re.compile(r"[%\x00-\x1f\x7f-\x9f\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""``%`` itself, control characters, backslashes, characters that end lines or reorder text, bytes that are not UTF-8.
They are listed one by one, because Unicode's categories grow, and the path of a video must never change."""


_LIKE_OURS: Final = re.compile(rf"\.({'|'.join(GUARDED_SUFFIXES)})\Z", re.IGNORECASE)
"""The suffixes of artifacts. A folder with such a name would collide with a file."""


HASH_DIGITS: Final = 40
"""160 bits of SHA-256 in a shortened name, too many to find two names with the same digits."""


_LIKE_A_HASH: Final = re.compile(rf"~(?=[0-9a-f]{{{HASH_DIGITS}}}\Z)")
"""Suffix of a shortened name. Original names ending like this are escaped, so that they cannot collide."""


def encode_output_path(path: str) -> str:
    """Encode the path of a source as an output path, without suffix. Different paths stay different.

    Percent-encoded are:

    - ``%``, control characters, characters that reorder text, and bytes that are not UTF-8;
    - ``.`` and ``_`` at the start of a name, because Parquet readers hide such files, and ``..`` must not climb;
    - ``=`` if a reader would make a partition column of it that it cannot read or that a table already has;
    - the last ``.`` of a folder that ends like an artifact, and the ``~`` of a name that ends like a shortened one.

    An empty name becomes ``%``. Names over 200 bytes and paths over 700 bytes are shortened and get a hash of the
    whole path.

    Example::

        encode_output_path("ski/_raw/a.mp4") == "ski/%5Fraw/a.mp4"
    """
    *folders, name = path.split("/")
    names = [*(_LIKE_OURS.sub(r"%2E\1", _encode_name(folder)) for folder in folders), _encode_name(name)]
    return _shortened("/".join(_shortened(name, MAX_SEGMENT_BYTES) for name in names), MAX_PATH_BYTES, of=path)


def _encode_name(name: str) -> str:
    if not name:
        return "%"
    text = _LIKE_A_HASH.sub("%7E", _ENCODED.sub(_percent, name))
    if text[0] in "._":
        text = _percent(text[0]) + text[1:]
    key, _, value = text.partition("=")
    if "%" in text or value == NULL_PARTITION:
        return text.replace("=", "%3D")
    return text.replace("=", "%3D", 1) if key.casefold() in COLUMNS else text


def _percent(character: re.Match[str] | str) -> str:
    text = character if isinstance(character, str) else character[0]
    return "".join(f"%{byte:02X}" for byte in os.fsencode(text))


def _shortened(text: str, limit: int, of: str | None = None) -> str:
    raw = text.encode()
    if len(raw) <= limit:
        return text
    suffix = "~" + hashlib.sha256((of or text).encode("utf-8", "surrogateescape")).hexdigest()[:HASH_DIGITS]
    kept = raw[: limit - len(suffix)].rstrip(b"/")
    last_name = kept.rfind(b"/") + 1  # the suffix makes this name longer, so it has a limit of its own
    return kept[: last_name + MAX_SEGMENT_BYTES - len(suffix)].decode(errors="ignore") + suffix


_COMPOSED, _DECOMPOSED = "\u00e9", "e\u0301"


def merges_names(root: str) -> bool:
    """Whether the file system of a folder equates names that differ in case or in the encoding of accents. Tests it."""
    scratch = Path(root, SCRATCH_FOLDER)
    scratch.mkdir(parents=True, exist_ok=True)
    probe = scratch / f"{uuid.uuid4().hex}-a{_COMPOSED}"
    probe.touch()
    try:
        variants = (probe.name.replace("-a", "-A"), probe.name.replace(_COMPOSED, _DECOMPOSED))
        return any(os.path.lexists(scratch / variant) for variant in variants)
    finally:
        probe.unlink()


def check_case_collisions(
    store: Store,
    videos: Callable[[], Iterable[SourceVideo]],
    merges: Callable[[str], bool] = merges_names,
    *,
    part: Shard | None = None,
) -> None:
    """Raise `InputError` if the file system of a local output would equate the output paths of two videos.

    Each call of ``videos`` returns all videos. 16 bytes of each are kept, if ``merges`` says that the file system
    equates names. If they are those of one ``part`` only, such a file system is refused: the other of the two may be in
    another part.
    """
    if not isinstance(store, LocalStore) or not merges(store.root):
        return
    if part is not None:
        raise InputError(
            f"--shard {part}: the file system of the output {store.root} takes names that differ in case alone for the "
            "same, and a shard does not see those of the others; run without --shard, or choose another --output"
        )
    seen: set[bytes] = set()
    for video in videos():
        folded = _folded_digest(video)
        if folded in seen:
            other = next(earlier for earlier in videos() if _folded_digest(earlier) == folded)
            raise InputError(
                f"{other.uri} and {video.uri}: the file system of the output {store.root} takes their names for the "
                "same and would keep the results of one only; rename one, exclude it, or choose another --output"
            )
        seen.add(folded)


def _folded_digest(video: SourceVideo) -> bytes:
    """Digest of the output path without case and with decomposed accents."""
    return digest(unicodedata.normalize("NFD", unicodedata.normalize("NFD", video.output_path).casefold()))
