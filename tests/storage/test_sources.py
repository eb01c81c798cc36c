"""A source is one version of an object, read by ranges."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import botocore.exceptions
import numpy as np
import pytest
from support.factories import frame_number, numbered_image, video_bytes
from support.stores import QUICK_RETRIES, open_key

from posebatch.core.errors import ObjectChangedError, ObjectNotFoundError, StorageUnavailableError
from posebatch.core.settings import SamplingSettings
from posebatch.storage import open as open_module
from posebatch.storage import s3
from posebatch.storage.local import LocalStore
from posebatch.storage.open import check_unchanged, open_source
from posebatch.storage.s3 import S3Store
from posebatch.storage.store import Store
from posebatch.video.indexes import transport_stream
from posebatch.video.indexes.packet_scan import scan
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder


@pytest.fixture
def film(store: Store) -> tuple[Store, bytes]:
    """A store, and the content of its object ``film``: five reads ahead long."""
    content = bytes(range(256)) * 20_000
    store.put("film", content)
    return store, content


def test_source_reads_as_a_file(film: tuple[Store, bytes]) -> None:
    store, content = film
    with open_key(store) as file:
        assert file.read(10) == content[:10]
        assert file.tell() == 10
        assert file.seek(0, io.SEEK_END) == len(content)
        assert file.read(1) == b""
        for first, length in ((0, 1), (1 << 20, 3), (len(content) - 5, 50), (4_000_000, 300_000), (7, 0)):
            assert file.seek(first) == first
            assert file.read(length) == content[first : first + length]
        file.seek(100)
        assert file.seek(-50, io.SEEK_CUR) == 50
        assert file.read(2) == content[50:52]
        assert file.seek(-3, io.SEEK_END) == len(content) - 3
        assert file.read() == content[-3:]
        file.seek(len(content) + 1000)
        assert file.read(5) == b""
        file.seek(0)
        assert file.read() == content


def test_source_of_an_empty_object_is_empty(store: Store) -> None:
    store.put("film", b"")
    with open_key(store) as file:
        assert (file.seek(0, io.SEEK_END), file.read()) == (0, b"")


def test_source_of_another_version_is_not_opened(film: tuple[Store, bytes]) -> None:
    store, _ = film
    etag = store.head("film").etag
    store.put("film", b"other")
    with pytest.raises(ObjectChangedError, match=re.escape(store.uri("film"))):
        open_source(store.uri("film"), etag)
    store.delete("film")
    with pytest.raises(ObjectNotFoundError, match=re.escape(store.uri("film"))):
        open_source(store.uri("film"), etag)


def test_source_that_changes_while_it_is_read_raises(film: tuple[Store, bytes]) -> None:
    store, content = film
    etag = store.head("film").etag
    with open_source(store.uri("film"), etag) as file:
        assert file.read(4) == content[:4]
        check_unchanged(store.uri("film"), etag)
        store.put("film", content[::-1])

        def read_on() -> None:
            file.seek(3_000_000)
            read = file.read(100)
            assert read == content[3_000_000:3_000_100], "bytes of another version"
            check_unchanged(store.uri("film"), etag)

        with pytest.raises(ObjectChangedError, match=re.escape(store.uri("film"))):
            read_on()


def test_check_unchanged_counts_a_touched_file_as_changed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("film", b"x")
    uri, etag = store.uri("film"), store.head("film").etag
    check_unchanged(uri, etag)
    os.utime(uri, ns=(1, 1))
    with pytest.raises(ObjectChangedError):
        check_unchanged(uri, etag)
    os.remove(uri)
    with pytest.raises(ObjectNotFoundError):
        check_unchanged(uri, etag)


# --- S3 only ---------------------------------------------------------------------------------------------------------


def noisy_frame(number: int) -> Any:
    """A frame's number below noise, which costs as many bytes as a real picture does."""
    image = numbered_image(number, (160, 128)).astype(int)
    return (image + np.random.default_rng(number).integers(-20, 20, image.shape)).astype(np.uint8)


def bytes_of(ranges: list[tuple[int, int]]) -> int:
    return sum(end - first for first, end in ranges)


@pytest.mark.s3
def test_source_of_a_segment_reads_the_header_and_its_own_bytes(
    s3_store: S3Store, requested_ranges: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 32 << 10
    monkeypatch.setattr(open_module, "READ_AHEAD_BYTES", ahead)
    video = video_bytes(frames=120, gop=10, faststart=True, size=(160, 128), options=(("crf", "5"),), draw=noisy_frame)
    assert len(video) > 20 * ahead
    s3_store.put("film.mp4", video)
    uri, etag = s3_store.uri("film.mp4"), s3_store.head("film.mp4").etag
    with open_source(uri, etag) as file:
        plan = probe(file, uri, 0.1)
    assert len(plan.segments) == 12
    assert bytes_of(requested_ranges) <= 5 * ahead

    options = DecodeOptions(sampling=SamplingSettings(), batch_frames=4)
    for segment in (plan.segments[0], plan.segments[6], plan.segments[-1]):
        requested_ranges.clear()
        with open_source(uri, etag) as file:
            batches = list(SegmentDecoder(file, uri, segment, plan.info, options))
        first = segment.first_packet
        assert [frame_number(image) for batch in batches for image in batch.images] == list(range(first, first + 10))
        assert bytes_of(requested_ranges) <= len(video) / 12 + 5 * ahead


@pytest.mark.s3
@pytest.mark.parametrize("look", [{"container": "mkv"}, {"container": "mpegts"}, {"fragmented": True}], ids=str)
def test_source_of_a_scanned_segment_reads_the_beginning_and_its_own_bytes(
    s3_store: S3Store, requested_ranges: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, look: dict[str, Any]
) -> None:
    ahead = 32 << 10
    monkeypatch.setattr(open_module, "READ_AHEAD_BYTES", ahead)
    monkeypatch.setattr(transport_stream, "TABLE_BYTES", (ahead,))
    video = video_bytes(frames=120, gop=10, size=(160, 128), options=(("crf", "5"),), draw=noisy_frame, **look)
    s3_store.put("film", video)
    uri, etag = s3_store.uri("film"), s3_store.head("film").etag
    with open_source(uri, etag, read_ahead_bytes=20 * ahead) as file:
        info = probe(file, uri, 0.1).info
        requested_ranges.clear()
        index = scan(file, Limits(uri))
    assert len(requested_ranges) <= 3 * len(video) / (20 * ahead) + 16, "the file, its ends, and eight samples"
    segments = index.segments(0.1 / info.time_base)
    assert len(segments) == 12
    options = DecodeOptions(sampling=SamplingSettings(), batch_frames=4)
    for segment in (segments[0], segments[6], segments[-1]):
        requested_ranges.clear()
        with open_source(uri, etag) as file:
            batches = list(SegmentDecoder(file, uri, segment, info, options, index))
        first = segment.first_packet
        assert [frame_number(image) for batch in batches for image in batch.images] == list(range(first, first + 10))
        opening = 0 if look.get("container") == "mkv" else 24  # frames that FFmpeg reads to know the stream
        assert bytes_of(requested_ranges) <= (10 + opening) / 120 * len(video) + 6 * ahead


@pytest.mark.s3
def test_source_read_to_its_end_is_one_request(s3_store: S3Store, requested_ranges: list[tuple[int, int]]) -> None:
    s3_store.put("film", bytes(3 << 20))
    with open_key(s3_store) as file:
        assert file.read(1) == b"\0"
        assert len(file.read()) == (3 << 20) - 1
        assert file.read() == b""
    assert len(requested_ranges) == 2


@pytest.mark.s3
def test_source_that_vanishes_while_it_is_read_raises(s3_store: S3Store) -> None:
    s3_store.put("film", bytes(3 << 20))
    with open_key(s3_store) as file:
        file.read(1)
        s3_store.delete("film")
        file.seek(2 << 20)
        with pytest.raises(ObjectNotFoundError, match=re.escape(s3_store.uri("film"))):
            file.read(1)


class BrokenBody:
    def read(self, size: int) -> bytes:
        raise botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2)

    def close(self) -> None:
        pass


@pytest.mark.s3
@pytest.mark.parametrize("breaks", [1, QUICK_RETRIES.attempts - 1, QUICK_RETRIES.attempts])
def test_source_requests_an_answer_again_that_breaks_off(
    s3_store: S3Store, monkeypatch: pytest.MonkeyPatch, breaks: int
) -> None:
    s3_store.put("film", b"0123456789")
    client = s3.s3_client(None)
    get_object, left = client.get_object, [None] * breaks

    def break_off(**request: Any) -> Any:
        answer = get_object(**request)
        if left:
            left.pop()
            answer["Body"] = BrokenBody()
        return answer

    monkeypatch.setattr(client, "get_object", break_off)
    with open_key(s3_store) as file:
        file.seek(3)
        if breaks < QUICK_RETRIES.attempts:
            assert file.read(4) == b"3456"
        else:
            with pytest.raises(StorageUnavailableError, match=re.escape(s3_store.uri("film"))):
                file.read(4)
    assert not left
