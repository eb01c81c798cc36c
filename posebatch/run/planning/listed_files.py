"""A file of the inputs, as its listing shows it, before the rules of selection are applied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from posebatch.core.videos import SourceVideo
from posebatch.dataset.output_paths import encode_output_path
from posebatch.run.planning.names import PassedOver
from posebatch.storage.store import Store


@dataclass(frozen=True)
class ListedFile:
    """A file of an input."""

    key: str
    """The path to which the rules of selection apply: below the store's root, or below its web server."""
    uri: str
    path: str
    """The path of which the output path is made."""
    etag: str
    size_bytes: int
    last_modified: float
    """Unix time, seconds."""
    cold_class: str = ""
    access: str = ""
    """Both as in `SourceVideo`."""

    @property
    def shard_key(self) -> str:
        """The text that decides the shard: the output path of the video that it may be."""
        return encode_output_path(self.path)

    def video(self) -> SourceVideo:
        """The file as a video."""
        path = encode_output_path(self.path)
        return SourceVideo(
            self.uri, path, self.etag, self.size_bytes, self.last_modified, self.cold_class, access=self.access
        )


@dataclass(frozen=True)
class SkippedFile:
    """A file that is passed over."""

    uri: str
    reason: PassedOver

    @property
    def shard_key(self) -> str:
        """The text that decides the shard in which it is counted."""
        return self.uri


def listed_in_store(store: Store, prefix: str, output_prefix: str, access: str) -> Iterator[ListedFile]:
    """The files of a store whose keys start with ``prefix``, in the order of the listing.

    Keys that consoles write for folders are none. ``output_prefix`` precedes a key in its output path.
    """
    for stored in store.list(prefix):
        key = stored.key
        if not key.endswith("/"):
            yield ListedFile(
                key,
                store.uri(key),
                output_prefix + key,
                stored.etag,
                stored.size_bytes,
                stored.last_modified,
                stored.cold_class,
                access,
            )
