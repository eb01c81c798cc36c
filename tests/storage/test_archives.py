"""Members of archives are listed and read by ranges, and odd archives are refused with a reason."""

from __future__ import annotations

import contextlib
import io
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import archive_factories as made
from support.stores import QUICK_RETRIES

from posebatch.core.errors import ArchiveError, ObjectChangedError, ObjectNotFoundError
from posebatch.core.videos import SourceVideo
from posebatch.storage.archives import inflated, tar_members, zip_members
from posebatch.storage.archives.members import WHOLE, ArchiveListing, Location, is_archive, member_source
from posebatch.storage.archives.opening import list_archive
from posebatch.storage.open import (
    check_unchanged,
    find_source,
    list_members,
    open_newest,
    open_source,
    open_video,
    relist,
)
from posebatch.storage.s3 import S3Store

NOISE = random.Random(1).randbytes(300_000)
LATIN = "caf\udce9.mp4"
LONG = "d/" * 150 + "n" * 120 + ".mp4"

FILES = {"a.mp4": NOISE, "cam1/day 2/b.mkv": NOISE[:1000][::-1], "empty.mp4": b"", "notes.txt": b"x" * 700}

SOUND: dict[str, tuple[str, bytes, dict[str, bytes]]] = {
    "zip, empty": ("x.zip", made.zip_bytes({}), {}),
    "zip": ("x.zip", made.zip_bytes(FILES), FILES),
    "zip, deflated": ("x.ZIP", made.zip_bytes(FILES, zipfile.ZIP_DEFLATED), FILES),
    "zip, streamed": ("x.zip", made.streamed_zip_bytes(FILES), FILES),
    "zip64": ("x.zip", made.zip64_bytes(FILES), FILES),
    "zip with a comment": ("x.zip", made.zip_bytes(FILES, comment=b"c" * 60_000), FILES),
    "zip behind a program": ("x.zip", b"#!/bin/sh\n" * 500 + made.zip_bytes(FILES), FILES),
    "zip, odd names": (
        "x.zip",
        made.zip_bytes({"../up.mp4": b"1", "/root.mp4": b"2", "ü日.mp4": b"3", "a\nb.mp4": b"4", "./c.mp4": b"5"}),
        {"../up.mp4": b"1", "/root.mp4": b"2", "ü日.mp4": b"3", "a\nb.mp4": b"4", "c.mp4": b"5"},
    ),
    "zip, a folder": ("x.zip", made.zip_bytes({"cam/": b"", "cam/a.mp4": b"1"}), {"cam/a.mp4": b"1"}),
    "tar, empty": ("x.tar", made.tar_bytes({}), {}),
    "tar, pax": ("x.tar", made.tar_bytes({**FILES, LONG: b"l", LATIN: b"e"}), {**FILES, LONG: b"l", LATIN: b"e"}),
    "tar, gnu": (
        "x.TAR",
        made.tar_bytes({**FILES, LONG: b"l", LATIN: b"e"}, tarfile.GNU_FORMAT),
        {**FILES, LONG: b"l", LATIN: b"e"},
    ),
    "tar, ustar": ("x.tar", made.tar_bytes(FILES, tarfile.USTAR_FORMAT), FILES),
    "tar, names of `tar -c .`": (
        "x.tar",
        made.tar_of((made.entry(".", kind=tarfile.DIRTYPE), b""), (made.entry("./c/a.mp4", 1), b"1")),
        {"c/a.mp4": b"1"},
    ),
    "tar, hard link": (
        "x.tar",
        made.tar_of((made.entry("a.mp4", 3), b"abc"), (made.entry("b.mp4", kind=tarfile.LNKTYPE, link="a.mp4"), b"")),
        {"a.mp4": b"abc", "b.mp4": b"abc"},
    ),
}


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def listing_of(uri: str) -> ArchiveListing:
    return list_members(uri, find_source(uri).etag)


@pytest.mark.parametrize(("name", "content", "files"), SOUND.values(), ids=SOUND)
def test_archive_lists_and_reads_its_members(
    tmp_path: Path, name: str, content: bytes, files: dict[str, bytes]
) -> None:
    uri = written(tmp_path, name, content)
    etag, listing = find_source(uri).etag, listing_of(uri)
    assert {name: member.size_bytes for name, member in listing.members.items()} == {
        name: len(content) for name, content in files.items()
    }
    for name, member in listing.members.items():
        with open_source(f"{uri}!/{name}", member.location.etag(etag)) as file:
            assert (file.read(), file.seek(0, io.SEEK_END)) == (files[name], len(files[name]))
            middle = len(files[name]) // 2
            file.seek(middle)
            assert file.read(100) == files[name][middle : middle + 100]
        check_unchanged(f"{uri}!/{name}", member.location.etag(etag))


def test_member_is_found_by_its_address_and_changes_with_its_archive(tmp_path: Path) -> None:
    uri = written(tmp_path, "x.zip", made.zip_bytes(FILES))
    with open_newest(f"{uri}!/cam1/day 2/b.mkv") as file:
        assert file.read() == FILES["cam1/day 2/b.mkv"]
    with pytest.raises(ObjectNotFoundError, match="no such member"):
        open_newest(f"{uri}!/cam1/none.mp4")
    etag = find_source(f"{uri}!/a.mp4").etag
    video = SourceVideo(f"{uri}!/a.mp4", "x.zip!/a.mp4", etag, 1, 1.0)
    assert relist(video, None).etag == etag
    written(tmp_path, "x.zip", made.zip_bytes({"new.mp4": b"1", **FILES}))
    with open_video(relist(video, None)) as file:
        assert file.read() == NOISE
    whole = SourceVideo(uri, "x.zip", WHOLE.etag("old"), 1, 1.0)
    assert relist(whole, None).etag == WHOLE.etag(find_source(uri).etag)
    with pytest.raises(ObjectChangedError):
        open_source(f"{uri}!/a.mp4", etag)
    with pytest.raises(ObjectChangedError):
        check_unchanged(f"{uri}!/a.mp4", etag)


@pytest.mark.parametrize("pack", [made.zip_bytes, made.tar_bytes], ids=["zip", "tar"])
def test_the_last_of_several_members_with_one_name_counts(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    old, new = pack({"./a.mp4": b"old"}), pack({"a.mp4": b"newer"})
    if pack is made.zip_bytes:
        sink = io.BytesIO(old)
        with zipfile.ZipFile(sink, "a") as archive:
            archive.writestr("a.mp4", b"newer")
        uri = written(tmp_path, "x.zip", sink.getvalue())
    else:
        uri = written(tmp_path, "x.tar", old[:1024] + new)
    assert listing_of(uri).left_out == {"older version of a file in the same archive": 1}
    with open_newest(f"{uri}!/a.mp4") as file:
        assert file.read() == b"newer"


def test_links_and_devices_are_counted(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("l.mp4")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(link, b"a.mp4")
    assert listing_of(written(tmp_path, "x.zip", sink.getvalue())) == ArchiveListing({}, {"link in an archive": 1})
    kinds = [(tarfile.SYMTYPE, "a"), (tarfile.LNKTYPE, "gone"), (tarfile.CHRTYPE, ""), (tarfile.FIFOTYPE, "")]
    entries = [(made.entry(f"{i}.mp4", kind=kind, link=to), b"") for i, (kind, to) in enumerate(kinds)]
    left_out = listing_of(written(tmp_path, "x.tar", made.tar_of(*entries))).left_out
    assert left_out == {"link in an archive": 2, "device in an archive": 2}


ZIP, TAR = made.zip_bytes(FILES), made.tar_bytes(FILES)
DAMAGED_HEADER = bytearray(TAR)
DAMAGED_HEADER[tarfile.BLOCKSIZE + len(NOISE) + -len(NOISE) % 512] ^= 0xFF
HUGE_PAX = made.entry("x", 1 << 40, tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
BAD: dict[str, tuple[str, bytes, str]] = {
    "empty zip file": ("x.zip", b"", "damaged, incomplete, or no ZIP"),
    "empty tar file": ("x.tar", b"", "damaged, incomplete, or no TAR"),
    "no zip": ("x.zip", NOISE, "no ZIP archive"),
    "no tar": ("x.tar", NOISE, "no TAR archive"),
    "truncated zip": ("x.zip", ZIP[:-100], "incomplete"),
    "zip cut in the middle": ("x.zip", ZIP[: len(ZIP) // 2], "incomplete"),
    "zip with a damaged directory": ("x.zip", ZIP.replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged"),
    "zip with a name that is no UTF-8": ("x.zip", made.with_flag(made.zip_bytes({"ü": b""}), 0x800)[:-30], "damaged"),
    "tar cut in a member": ("x.tar", TAR[:100_000], "incomplete"),
    "tar with a damaged header": ("x.tar", bytes(DAMAGED_HEADER), "damaged"),
    "tar with a header of a terabyte": ("x.tar", HUGE_PAX, "damaged"),
    "compressed tar": ("x.tar", made.tar_bytes(FILES, mode="w:gz"), "it is compressed"),
    "tar.gz": ("x.tar.gz", made.tar_bytes(FILES, mode="w:gz"), "cannot be read by ranges: unpack it"),
    "7z": ("x.7z", b"7z\xbc\xaf", "cannot be read by ranges: unpack it"),
}


@pytest.mark.parametrize(("name", "content", "says"), BAD.values(), ids=BAD)
def test_bad_archive_is_refused_with_the_reason(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    uri = written(tmp_path, name, content)
    with pytest.raises(ArchiveError, match=f"{re.escape(uri)}.*{says}"):
        listing_of(uri)
    with pytest.raises(ArchiveError, match=says):  # as a run meets it, when it opens the archive in place of a video
        open_source(uri, WHOLE.etag(find_source(uri).etag))


def test_archive_that_can_be_listed_again_is_reported_and_not_recorded(tmp_path: Path) -> None:
    uri = written(tmp_path, "x.zip", ZIP)
    with pytest.raises(ObjectNotFoundError, match="the next run takes its members"):
        open_source(uri, WHOLE.etag(find_source(uri).etag))


def test_tar_that_goes_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarfile.TarInfo, "_block", lambda _, size: -512)  # a negative size, as damage may make it
    with pytest.raises(ArchiveError, match="negative size"):
        list_archive(io.BytesIO(TAR), "x.tar")


DEFLATED = made.zip_bytes({"a.mp4": NOISE}, zipfile.ZIP_DEFLATED)
DAMAGED_DATA = bytearray(DEFLATED)
DAMAGED_DATA[1000] ^= 0xFF
LARGER = bytearray(DEFLATED)
struct.pack_into("<I", LARGER, DEFLATED.find(b"PK\x01\x02") + 24, 1000)  # a size that lies
UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "encrypted": ("x.zip", made.with_flag(made.zip_bytes({"a.mp4": b"1"}), 1), "encrypted with a password"),
    "bzip2": ("x.zip", made.zip_bytes({"a.mp4": b"1"}, zipfile.ZIP_BZIP2), "compressed by bzip2.*zip -0"),
    "deflate64": ("x.zip", made.with_method(made.zip_bytes({"a.mp4": b"1"}), 9), "deflate64.*zip -0"),
    "unknown": ("x.zip", made.with_method(made.zip_bytes({"a.mp4": b"1"}), 200), "method 200.*zip -0"),
    "another method in the local header": ("x.zip", made.with_method(made.zip_bytes({"a.mp4": b"1"}), 8), "damaged"),
    "larger than its directory says": ("x.zip", bytes(LARGER), "another size"),
    "damaged data": ("x.zip", bytes(DAMAGED_DATA), "damaged"),
    "no local header": ("x.zip", DEFLATED.replace(b"PK\x03\x04", b"PK\x03\x05"), "does not lead to this member"),
    "sparse": ("x.tar", made.sparse_tar_bytes("a.mp4", b"x" * 512, 4096), "stored with gaps"),
}


@pytest.mark.parametrize(("name", "content", "says"), UNREADABLE.values(), ids=UNREADABLE)
def test_member_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    uri = written(tmp_path, name, content)
    [member] = listing_of(uri).members.values()
    with pytest.raises(ArchiveError, match=f"{re.escape(uri)}!/a.mp4.*{says}"):
        open_source(f"{uri}!/a.mp4", member.location.etag(find_source(uri).etag))


def test_large_deflated_member_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "MAX_INFLATED_BYTES", len(NOISE) - 1)
    with pytest.raises(ArchiveError, match=r"larger than .* zip -0"):
        open_newest(written(tmp_path, "x.zip", DEFLATED) + "!/a.mp4")


def test_deflated_member_is_unpacked_once_for_several_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked, really = [], inflated._inflate
    monkeypatch.setattr(inflated, "_inflate", lambda *of: unpacked.append(of) or really(*of))
    uri = written(tmp_path, "x.zip", DEFLATED)
    with open_newest(f"{uri}!/a.mp4") as first, open_newest(f"{uri}!/a.mp4") as second:
        first.seek(100)
        assert (second.read(10), first.read(10)) == (NOISE[:10], NOISE[100:110])
    assert len(unpacked) == 1


def test_zip_with_an_endless_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_members, "MAX_DIRECTORY_BYTES", 100)
    monkeypatch.setattr(zip_members, "TAIL_BYTES", 30)
    with pytest.raises(ArchiveError, match="directory"):
        listing_of(written(tmp_path, "x.zip", ZIP))


ETAGS: dict[str, tuple[str, str, Any]] = {
    "empty": ("", "", None),
    "a plain file": ("s3://b/x.zip", "0a-2", None),
    "a member": ("s3://b/x.zip!/a!/b", "0a!tar:5:6", ("s3://b/x.zip", "0a", "a!/b", Location("tar", (5, 6)))),
    "of an archive in a folder": ("/d.tar/x.zip!/a", "1-2!sparse", ("/d.tar/x.zip", "1-2", "a", Location("sparse"))),
    "a whole archive": ("/x.tar.gz", "1-2!whole", ("/x.tar.gz", "1-2", "", WHOLE)),
    "an etag that looks like one": ("/x.mp4", "1-2!tar:5:6", None),
    "a file in a folder named like an archive": ("/x.zip!/a.mp4", "1-2", None),
}


@pytest.mark.parametrize(("uri", "etag", "expected"), ETAGS.values(), ids=ETAGS)
def test_etag_of_a_member_says_where_it_lies(uri: str, etag: str, expected: Any) -> None:
    source = member_source(uri, etag)
    found = source and (source.archive, source.archive_etag, source.name, source.location)
    assert found == expected
    if source:
        assert source.location.etag(source.archive_etag) == etag


def test_names_of_archives() -> None:
    assert [is_archive(name) for name in ("", "a.zip", "b/A.TAR", "a.tar.gz", "a.tgz", "a.gz", "zip", "a.zip/b")] == [
        *(False, True, True, True, True, False, False, False)
    ]


@settings(max_examples=150)
@given(
    content=st.one_of(
        st.binary(max_size=2000),
        st.tuples(st.sampled_from([ZIP[-600:], TAR[:2048], DEFLATED[-200:]]), st.integers(0, 599), st.integers(0, 255))
        .map(lambda of: of[0][: of[1]] + bytes([of[2]]) + of[0][of[1] + 1 :]),
    ),
    name=st.sampled_from(["x.zip", "x.tar"]),
)  # fmt: skip
def test_any_bytes_are_listed_or_refused(content: bytes, name: str) -> None:
    with contextlib.suppress(ArchiveError):
        list_archive(io.BytesIO(content), name)


# --- S3 --------------------------------------------------------------------------------------------------------------


LARGE = {f"{i}.mp4": random.Random(i).randbytes(2 << 20) for i in range(4)}


@pytest.mark.s3
@pytest.mark.parametrize(
    ("name", "content", "most_requests", "most_bytes"),
    [
        ("x.zip", made.zip_bytes(LARGE), 1, zip_members.TAIL_BYTES),
        ("x.tar", made.tar_bytes(LARGE), len(LARGE) + 1, (len(LARGE) + 1) * (16 << 10)),
    ],
)
def test_listing_and_opening_read_few_ranges(
    s3_store: S3Store, requested_ranges: list[Any], name: str, content: bytes, most_requests: int, most_bytes: int
) -> None:
    s3_store.put(name, content)
    uri, etag = s3_store.uri(name), s3_store.head(name).etag
    members = list_members(uri, etag).members
    assert set(members) == set(LARGE)
    assert len(requested_ranges) <= most_requests
    assert sum(end - first for first, end in requested_ranges) <= most_bytes
    requested_ranges.clear()
    with open_source(f"{uri}!/2.mp4", members["2.mp4"].location.etag(etag), retry_policy=QUICK_RETRIES) as file:
        assert file.read(1000) == LARGE["2.mp4"][:1000]
        file.seek((2 << 20) - 10)
        assert file.read() == LARGE["2.mp4"][-10:]
    assert len(requested_ranges) == 2
    assert sum(end - first for first, end in requested_ranges) <= 2 << 20
    s3_store.put(name, content + b"\0" * 512)
    with pytest.raises(ObjectChangedError):
        open_source(f"{uri}!/2.mp4", members["2.mp4"].location.etag(etag))


def test_header_reader_reads_no_gigabytes() -> None:
    with pytest.raises(tarfile.ReadError):
        tar_members._HeaderReader(io.BytesIO()).read(tar_members.MAX_HEADER_BYTES + 1)
