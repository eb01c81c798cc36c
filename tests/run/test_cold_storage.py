"""Cold storage classes, buckets whose requester pays, and access points, against a made-up S3 and recorded requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from support.moto_server import moto_client, running_moto_server

from posebatch.core.errors import AccessDeniedError, ColdObjectError
from posebatch.core.selection_settings import SelectionSettings
from posebatch.core.videos import SourceVideo
from posebatch.run.planning.cold_storage import COPY_DAYS, TIERS, ColdVideos
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.storage import s3 as s3_module
from posebatch.storage.addresses import REQUESTER_PAYS, bucket_folder, split_s3
from posebatch.storage.cold_classes import cold_class_in_listing, cold_class_of_head
from posebatch.storage.open import find_source, open_source, open_video
from posebatch.storage.s3 import S3Store

BUCKET = "archive"
CLASSES = {
    "a.mp4": "STANDARD",
    "cold.mp4": "GLACIER",
    "deep.mp4": "DEEP_ARCHIVE",
    "deep.zip": "DEEP_ARCHIVE",
    "near.mp4": "GLACIER_IR",
    "restored.mp4": "GLACIER",
    "tiered.mp4": "INTELLIGENT_TIERING",
}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with running_moto_server() as environment:
        client = moto_client(environment)
        client.create_bucket(Bucket=BUCKET)
        for key, storage_class in CLASSES.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=b"film", StorageClass=storage_class)
        client.restore_object(Bucket=BUCKET, Key="restored.mp4", RestoreRequest={"Days": 2})
        yield environment


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The client of the stores, led to the made-up S3."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3_module.s3_client.cache_clear()
    yield s3_module.s3_client(None)
    s3_module.s3_client.cache_clear()


@pytest.fixture
def with_restore_status(client: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The made-up S3 leaves the state of copies out of its listings. Gives the requests for listings."""
    list_objects, requests = client.list_objects_v2, list[dict[str, Any]]()

    def add_status(**request: Any) -> Any:
        requests.append(request)
        page = list_objects(**request)
        for entry in page["Contents"]:
            if entry["Key"] == "restored.mp4" and "OptionalObjectAttributes" in request:
                entry["RestoreStatus"] = {"IsRestoreInProgress": False, "RestoreExpiryDate": "later"}
        return page

    monkeypatch.setattr(client, "list_objects_v2", add_status)
    return requests


def listed(**selection: Any) -> dict[str, SourceVideo]:
    videos = list_videos(parse_inputs([f"s3://{BUCKET}"]), SelectionSettings(**selection))
    return {video.output_path.removeprefix(f"{BUCKET}/"): video for video in videos}


def test_cold_objects_are_told_from_the_listing(with_restore_status: list[dict[str, Any]]) -> None:
    videos = listed(archives=True)
    assert {name: video.cold_class for name, video in videos.items()} == {
        "a.mp4": "",
        "cold.mp4": "GLACIER",
        "deep.mp4": "DEEP_ARCHIVE",
        "deep.zip": "DEEP_ARCHIVE",  # cannot be listed before it is restored
        "near.mp4": "",
        "restored.mp4": "",
        "tiered.mp4": "",
    }
    *_, plain, with_status = with_restore_status
    assert ("OptionalObjectAttributes" in plain, "OptionalObjectAttributes" in with_status) == (False, True)


def test_listing_without_cold_objects_is_one_request(with_restore_status: list[dict[str, Any]]) -> None:
    assert [stored.cold_class for stored in S3Store(f"s3://{BUCKET}").list("near")] == [""]
    assert len(with_restore_status) == 1


@pytest.mark.parametrize(("key", "readable"), [("near.mp4", True), ("restored.mp4", True), ("deep.mp4", False)])
def test_cold_object_is_refused_when_it_is_opened(client: Any, key: str, readable: bool) -> None:
    uri = f"s3://{BUCKET}/{key}"
    etag = client.head_object(Bucket=BUCKET, Key=key)["ETag"].strip('"')
    if readable:
        with open_source(uri, etag) as file:
            assert file.read() == b"film"
        return
    with pytest.raises(ColdObjectError, match=f"{uri}: stored as DEEP_ARCHIVE; restore it"):
        open_source(uri, etag)
    with pytest.raises(ColdObjectError, match=uri):
        S3Store(f"s3://{BUCKET}").read(key)


RESTORED = {"IsRestoreInProgress": False, "RestoreExpiryDate": "later"}
LISTED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "standard": ({"StorageClass": "STANDARD"}, ""),
    "cold": ({"StorageClass": "GLACIER"}, "GLACIER"),
    "being restored": (
        {"StorageClass": "DEEP_ARCHIVE", "RestoreStatus": {"IsRestoreInProgress": True}},
        "DEEP_ARCHIVE, restore in progress",
    ),
    "restored": ({"StorageClass": "GLACIER", "RestoreStatus": RESTORED}, ""),
}


@pytest.mark.parametrize(("entry", "expected"), LISTED.values(), ids=LISTED)
def test_cold_class_in_a_listing(entry: dict[str, Any], expected: str) -> None:
    assert cold_class_in_listing(entry) == expected


HEADS: dict[str, tuple[dict[str, Any], str]] = {
    "standard": ({}, ""),
    "cold": ({"StorageClass": "GLACIER"}, "GLACIER"),
    "restored": ({"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="x"'}, ""),
    "being restored": (
        {"StorageClass": "GLACIER", "Restore": 'ongoing-request="true"'},
        "GLACIER, restore in progress",
    ),
    "tier": ({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"}, "ARCHIVE_ACCESS"),
}


@pytest.mark.parametrize(("head", "expected"), HEADS.values(), ids=HEADS)
def test_cold_class_in_a_head(head: dict[str, Any], expected: str) -> None:
    assert cold_class_of_head(head) == expected


# --- what restoring takes --------------------------------------------------------------------------------------------


def cold(*sizes: int, storage_class: str = "GLACIER") -> ColdVideos:
    videos = ColdVideos()
    for number, size in enumerate(sizes):
        videos.add(SourceVideo(f"s3://b/{number}.mp4", "", "e", size, 1.0, storage_class))
    return videos


def test_cold_videos_are_counted_with_what_restoring_takes() -> None:
    assert (ColdVideos().videos, ColdVideos().rows(), list(ColdVideos().lines())) == (0, [], [])
    both = cold(*[1 << 30] * 1000)
    both.update(cold(5 << 30, storage_class="DEEP_ARCHIVE"))
    deep, flexible = both.rows()
    assert (both.videos, flexible["videos"], flexible["size_bytes"], len(flexible["examples"])) == (
        1001,
        1000,
        1000 << 30,
        20,
    )
    copy = 0.023 * COPY_DAYS / 30
    assert [(way["tier"], way["hours"], way["dollars"]) for way in flexible["restore"]] == [
        ("Standard", "3-5", pytest.approx(1000 * (0.01 + copy) + 0.05, abs=0.01)),
        ("Bulk", "5-12", pytest.approx(1000 * copy, abs=0.01)),
    ]
    assert deep["restore"][1]["dollars"] == pytest.approx(5 * (0.0025 + copy) + 0.000025, abs=0.01)
    heading, first, second = both.lines()
    assert heading.startswith("cold: 1001 videos to be restored")
    assert "DEEP_ARCHIVE, 5.4 GB; to restore: Standard 12 h, $0.13 or Bulk 48 h" in first
    assert "GLACIER, 1073.7 GB; to restore: Standard 3-5 h, $15.42" in second
    assert second.endswith("such as s3://b/0.mp4")


def test_video_that_is_being_restored_needs_no_further_restore() -> None:
    [_, line] = cold(1, storage_class="GLACIER, restore in progress").lines()
    assert "to restore" not in line
    assert all(tier.dollars(0, 0) == 0 for tiers in TIERS.values() for tier in tiers)


# --- payers, access points, keys of KMS ------------------------------------------------------------------------------


@pytest.fixture
def sent(client: Any) -> list[AWSPreparedRequest]:
    """The requests that the client sends."""
    requests: list[AWSPreparedRequest] = []

    def note(request: AWSPreparedRequest, **_: Any) -> None:
        requests.append(request)

    client.meta.events.register("before-send.s3", note)
    return requests


@pytest.mark.parametrize("access", ["", REQUESTER_PAYS])
def test_requester_pays_for_each_request_to_an_input(sent: list[AWSPreparedRequest], access: str) -> None:
    [video] = list_videos(parse_inputs([f"s3://{BUCKET}/a.mp4"], access=access), SelectionSettings())
    with open_video(video) as file:
        assert file.read() == b"film"
    assert find_source(video.uri, access=access).size_bytes == 4
    payers = {(request.headers.get("x-amz-request-payer") or b"").decode() for request in sent}
    assert payers == {access}
    assert {request.method for request in sent} == {"HEAD", "GET"}
    assert "requester" not in repr(video)


ACCESS_POINT = "arn:aws:s3:us-west-2:123456789012:accesspoint/films"
POINTS: dict[str, tuple[str, str, str, str]] = {
    "access point": (f"s3://{ACCESS_POINT}/cam/a.mp4", ACCESS_POINT, "cam/a.mp4", "films"),
    "of several regions": (
        "s3://arn:aws:s3::123456789012:accesspoint/x1.mrap/a",
        "arn:aws:s3::123456789012:accesspoint/x1.mrap",
        "a",
        "x1.mrap",
    ),
    "in China, alone": (
        "s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:films",
        "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:films",
        "",
        "films",
    ),
    "on an outpost": (
        "s3://arn:aws:s3-outposts:us-west-2:1234:outpost/op-1/accesspoint/films/a",
        "arn:aws:s3-outposts:us-west-2:1234:outpost/op-1/accesspoint/films",
        "a",
        "films",
    ),
    "of an object lambda": (
        "s3://arn:aws:s3-object-lambda:us-west-2:1234:accesspoint/films/a/b",
        "arn:aws:s3-object-lambda:us-west-2:1234:accesspoint/films",
        "a/b",
        "films",
    ),
    "alias": ("s3://films-abc-s3alias/a", "films-abc-s3alias", "a", "films-abc-s3alias"),
    "a bucket called arn": ("s3://arn/aws:s3/a", "arn", "aws:s3/a", "arn"),
}


@pytest.mark.parametrize(("uri", "bucket", "key", "ends"), POINTS.values(), ids=POINTS)
def test_access_point_is_split_from_the_key(uri: str, bucket: str, key: str, ends: str) -> None:
    assert split_s3(uri) == (bucket, key)
    folder = bucket_folder(bucket)
    assert folder.endswith(ends)
    assert ":" not in folder
    assert "/" not in folder


def test_objects_behind_an_access_point_are_requested_there(
    client: Any, sent: list[AWSPreparedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Raw:
        def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
            yield b""

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        headers = {"ETag": '"e1"', "Content-Length": "4", "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        return AWSResponse(request.url, 200, headers, Raw())

    client.meta.events.register_first("before-send.s3", answer)
    uri = f"s3://{ACCESS_POINT}/cam/a.mp4"
    assert find_source(uri).key == uri
    assert "films-123456789012." in sent[-1].url
    assert sent[-1].url.endswith("/cam/a.mp4")


def test_refusal_by_a_key_of_kms_says_what_to_allow(client: Any) -> None:
    def refuse(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        message = b"User: x is not authorized to perform: kms:Decrypt"
        body = b"<Error><Code>AccessDenied</Code><Message>" + message + b"</Message></Error>"

        class Raw:
            def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
                yield b"" if request.method == "HEAD" else body

        return AWSResponse(request.url, 403, {"Content-Length": str(len(body))}, Raw())

    client.meta.events.register_first("before-send.s3", refuse)
    with pytest.raises(AccessDeniedError, match="allow kms:Decrypt"):
        find_source(f"s3://{BUCKET}/a.mp4")
