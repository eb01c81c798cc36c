"""Output paths: the path of a video's results, made from the address of its source."""

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
from posebatch.core.videos import SourceVideo
from posebatch.dataset.layout import GUARDED_SUFFIXES
from posebatch.dataset.tables.schemas import COLUMNS
from posebatch.storage.local import SCRATCH_FOLDER, LocalStore
from posebatch.storage.store import Store

MAX_SEGMENT_BYTES: Final = 200
"""Longest folder or file name of an output path: file systems stop at 255 bytes, and ``.parquet`` is added."""


MAX_PATH_BYTES: Final = 700
"""Longest output path: S3 keys stop at 1,024 bytes, and the output's own prefix comes before it."""


NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"
"""The value by which Hive means none at all; pandas cannot read a folder where some files have it and others do not."""


_ENCODED: Final = re.compile(r"[%\x00-\x1f\x7f-\x9f\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""``%`` itself, control characters, backslashes, what ends a line or turns the text around it, bytes that are no UTF-8.
Spelled out, not by Unicode's categories: those grow, and a path must stay what it is."""


_LIKE_OURS: Final = re.compile(rf"\.({'|'.join(GUARDED_SUFFIXES)})\Z", re.IGNORECASE)
"""How our files end: a folder of such a name would lie where a file of ours belongs."""


HASH_DIGITS: Final = 40
"""160 bits of SHA-256 in a shortened name: nobody finds two names with the same ones, however long they search."""


_LIKE_A_HASH: Final = re.compile(rf"~(?=[0-9a-f]{{{HASH_DIGITS}}}\Z)")
"""How shortened names end: what is named like that from the beginning could be taken for another one, shortened."""


def encode_output_path(path: str) -> str:
    """The path of an object as the path of its results, without ``.parquet``; different paths stay different.

    Percent-encoded are: ``%`` itself, control characters, what turns text around and bytes that are no UTF-8; ``.`` and
    ``_`` at the start of a folder or file name, because Parquet readers hide such files (so ``..`` cannot climb); ``=``
    where a reader would make a column of it that it cannot read or that is one of ours; and whatever could be taken for
    another path's result: the ending of a folder that ends like our files, the ``~`` before what looks like our hash.
    An empty name becomes a single ``%``. Names over 200 bytes and paths over 700 keep their beginning and get a hash of
    the whole.
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
    mark = "~" + hashlib.sha256((of or text).encode("utf-8", "surrogateescape")).hexdigest()[:HASH_DIGITS]
    kept = raw[: limit - len(mark)].rstrip(b"/")
    name = kept.rfind(b"/") + 1  # of the last one kept, which gets longer
    return kept[: name + MAX_SEGMENT_BYTES - len(mark)].decode(errors="ignore") + mark


_COMPOSED, _DECOMPOSED = "\u00e9", "e\u0301"


def merges_names(root: str) -> bool:
    """Whether a folder takes names for one that differ in case, or in how accents are written; tries it out."""
    scratch = Path(root, SCRATCH_FOLDER)
    scratch.mkdir(parents=True, exist_ok=True)
    tried = scratch / f"{uuid.uuid4().hex}-a{_COMPOSED}"
    tried.touch()
    try:
        others = (tried.name.replace("-a", "-A"), tried.name.replace(_COMPOSED, _DECOMPOSED))
        return any(os.path.lexists(scratch / other) for other in others)
    finally:
        tried.unlink()


def check_case_collisions(
    store: Store, videos: Callable[[], Iterable[SourceVideo]], merges: Callable[[str], bool] = merges_names
) -> None:
    """Raise `InputError` when two of the videos would be one in a local output; ``videos`` lists them anew.

    Remembers 16 bytes of each video, and only where the file system merges names.
    """
    if not isinstance(store, LocalStore) or not merges(store.root):
        return
    seen: set[bytes] = set()
    for video in videos():
        mark = _mark(video)
        if mark in seen:
            other = next(one for one in videos() if _mark(one) == mark)
            raise InputError(
                f"{other.uri} and {video.uri}: the disk of the output {store.root} takes their names for one and "
                "would keep the results of one only; rename one, exclude it, or choose another --output"
            )
        seen.add(mark)


def _mark(video: SourceVideo) -> bytes:
    return digest(unicodedata.normalize("NFD", unicodedata.normalize("NFD", video.output_path).casefold()))
