"""The S3 test server behaves as the storage tests assume, and leaves no process behind."""

import dataclasses
import io
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

import support.s3_server as s3_server_module
from support.s3_server import S3Server

pytestmark = pytest.mark.s3

BUCKET = "self-test"
PART_SIZE = 5 * 1024 * 1024


@pytest.fixture(scope="module")
def client(s3_server: S3Server) -> Iterator[Any]:
    client = s3_server.client()
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


def status_of(error: ClientError) -> int:
    return error.response["ResponseMetadata"]["HTTPStatusCode"]


def test_server_returns_objects_whole_and_in_ranges(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="a/ü 1.bin", Body=b"0123456789", Metadata={"made-by": "test"})
    whole = client.get_object(Bucket=BUCKET, Key="a/ü 1.bin")
    part = client.get_object(Bucket=BUCKET, Key="a/ü 1.bin", Range="bytes=2-4")
    assert (whole["Body"].read(), whole["Metadata"]) == (b"0123456789", {"made-by": "test"})
    assert (part["Body"].read(), part["ContentRange"]) == (b"234", "bytes 2-4/10")


def test_server_lists_in_pages(client: Any) -> None:
    keys = [f"pages/{number}" for number in range(5)]
    for key in keys:
        client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=BUCKET, Prefix="pages/", PaginationConfig={"PageSize": 2}
    )
    assert [[item["Key"] for item in page["Contents"]] for page in pages] == [keys[:2], keys[2:4], keys[4:]]


def test_server_honours_a_condition_on_get(client: Any) -> None:
    first = client.put_object(Bucket=BUCKET, Key="condition", Body=b"first")
    assert client.get_object(Bucket=BUCKET, Key="condition", IfMatch=first["ETag"])["Body"].read() == b"first"
    client.put_object(Bucket=BUCKET, Key="condition", Body=b"second")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=BUCKET, Key="condition", IfMatch=first["ETag"])
    assert status_of(caught.value) == 412


def test_server_honours_a_condition_on_put(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=BUCKET, Key="once", Body=b"second", IfNoneMatch="*")
    assert status_of(caught.value) == 412
    assert client.get_object(Bucket=BUCKET, Key="once")["Body"].read() == b"first"


def test_server_refuses_a_wrong_secret(s3_server: S3Server, client: Any) -> None:
    wrong_client = dataclasses.replace(s3_server, secret_key="guess").client()
    with pytest.raises(ClientError) as caught:
        wrong_client.list_objects_v2(Bucket=BUCKET)
    assert status_of(caught.value) == 403


def test_server_joins_uploaded_parts(client: Any) -> None:
    parts = [b"a" * PART_SIZE, b"b"]
    upload = client.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    done = []
    for number, body in enumerate(parts, start=1):
        answer = client.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=number, Body=body)
        done.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload={"Parts": done})
    assert client.get_object(Bucket=BUCKET, Key="parts")["Body"].read() == b"".join(parts)


def test_server_deletes_objects(client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="gone", Body=b"x")
    client.delete_object(Bucket=BUCKET, Key="gone")
    client.delete_object(Bucket=BUCKET, Key="gone")
    with pytest.raises(ClientError) as caught:
        client.get_object(Bucket=BUCKET, Key="gone")
    assert status_of(caught.value) == 404
    assert client.list_objects_v2(Bucket=BUCKET, Prefix="gone")["KeyCount"] == 0


def test_environment_leads_a_plain_client_to_the_server(
    s3_server: S3Server, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    plain = boto3.session.Session().client("s3")
    plain.upload_fileobj(io.BytesIO(b"body"), BUCKET, "plain")
    assert plain.get_object(Bucket=BUCKET, Key="plain")["Body"].read() == b"body"


def test_server_processes_die_with_a_killed_parent(tmp_path: Path) -> None:
    command = [sys.executable, s3_server_module.__file__, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("export AWS_")
        ports = [
            int(line.removeprefix("bind_port = "))
            for configuration in tmp_path.glob("*-server.conf")
            for line in configuration.read_text().splitlines()
            if line.startswith("bind_port = ")
        ]
        assert [accepts(port) for port in ports] == [True] * 4
        process.kill()
    deadline = time.monotonic() + 5
    while any(accepts(port) for port in ports) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(accepts(port) for port in ports)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_server_that_does_not_start_shows_its_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_server_module, "PROXY", "[pipeline:main]\npipeline = {filters} absent\n")
    expected = r"(?s)did not start.*--- proxy\.log.*No section 'proxy-server'"
    with pytest.raises(RuntimeError, match=expected), s3_server_module.running_s3_server(tmp_path):
        pytest.fail("it must not start")
