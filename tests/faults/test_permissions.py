"""The policy in infra/ against the real S3 calls of the job: all are allowed, and each permission is needed."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from faults.plain_runs import plain_command
from support.fake_pool import Task
from support.s3_server import S3Server
from support.tiny_video import write_tiny_video

from posebatch import read_poses
from posebatch.core.errors import PosebatchError, StorageError, StorageUnavailableError
from posebatch.models.weights.cache import fetch_object
from posebatch.models.weights.environment import MIRROR_VARIABLE
from posebatch.run.tasks import SegmentTask
from posebatch.storage import retry, s3
from posebatch.storage.s3 import S3Store

POLICY = json.loads((Path(__file__).resolve().parents[2] / "infra/iam-policy.json").read_text())
ARCHIVE, POSES = "my-archive", "my-poses"
"""The buckets of the policy."""

ACTIONS = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "DeleteObject": "s3:DeleteObject",
}
"""The permission that AWS requires for each operation. Conditional puts require the same as plain ones."""

Call = tuple[str, str]
"""Action and resource."""


def allows(policy: dict[str, Any], call: Call) -> bool:
    """Evaluate a policy like AWS, without conditions: an explicit denial wins, and the default is denial."""
    effects = {statement["Effect"] for statement in policy["Statement"] if _applies_to(statement, *call)}
    return effects == {"Allow"}


def _applies_to(statement: dict[str, Any], action: str, resource: str) -> bool:
    assert statement.keys() == {"Sid", "Effect", "Action", "Resource"}, "this evaluation knows no conditions"
    return any(_matches(pattern, action) for pattern in np.atleast_1d(statement["Action"])) and any(
        _matches(pattern, resource) for pattern in np.atleast_1d(statement["Resource"])
    )


def _matches(pattern: str, text: str) -> bool:
    rules = {"*": ".*", "?": "."}
    return (
        re.fullmatch("".join(rules.get(letter) or re.escape(letter) for letter in pattern), text, re.DOTALL) is not None
    )


EVALUATIONS: dict[str, tuple[list[tuple[str, str, str]], Call, bool]] = {
    "nothing": ([], ("s3:GetObject", "arn:b/k"), False),
    "allowed": ([("Allow", "s3:GetObject", "arn:b/*")], ("s3:GetObject", "arn:b/k/l"), True),
    "another action": ([("Allow", "s3:GetObject", "arn:b/*")], ("s3:PutObject", "arn:b/k"), False),
    "any action": ([("Allow", "s3:Get*", "arn:b/*")], ("s3:GetObject", "arn:b/k"), True),
    "another bucket": ([("Allow", "s3:*", "arn:b/*")], ("s3:GetObject", "arn:bb/k"), False),
    "the bucket is not in it": ([("Allow", "s3:*", "arn:b/*")], ("s3:ListBucket", "arn:b"), False),
    "denied": ([("Allow", "*", "*"), ("Deny", "s3:Put*", "arn:b/*")], ("s3:PutObject", "arn:b/k"), False),
    "dots are dots": ([("Allow", "s3:GetObject", "arn:b.c/*")], ("s3:GetObject", "arn:bxc/k"), False),
}


@pytest.mark.parametrize(("statements", "call", "expected"), EVALUATIONS.values(), ids=EVALUATIONS)
def test_policy_evaluation_follows_aws(statements: list[tuple[str, str, str]], call: Call, expected: bool) -> None:
    names = ("Sid", "Effect", "Action", "Resource")
    policy = {"Statement": [dict(zip(names, ("x", *values), strict=True)) for values in statements]}
    assert allows(policy, call) is expected


@dataclass
class Recorder:
    """Records every call of the S3 client of this process, in the terms of the policy."""

    buckets: dict[str, str]
    """Names of buckets, to their names in the policy."""
    calls: set[Call] = field(default_factory=set)
    failing: str = ""
    """An operation whose next call fails."""

    def note(self, params: dict[str, Any], model: Any, **_: Any) -> None:
        resource = f"arn:aws:s3:::{self.buckets[params['Bucket']]}"
        if model.name != "ListObjectsV2":
            resource += f"/{params['Key']}"
        self.calls.add((ACTIONS[model.name], resource))
        if model.name == self.failing:
            self.failing = ""
            raise OSError("the network went away")


@pytest.fixture(scope="module")
def recorder(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """All calls of several runs: videos published, failed, retried and changed; verify, gc and readers."""
    mark = uuid4().hex[:8]
    buckets = {f"{name}-{mark}": name for name in (ARCHIVE, POSES)}
    archive, poses = buckets
    client = s3_server.client()
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    folder = tmp_path_factory.mktemp("permissions")

    def upload(name: str, content: bytes) -> None:
        client.put_object(Bucket=archive, Key=f"videos/{name}", Body=content)

    def video(shade: int) -> bytes:
        return write_tiny_video(folder / "x.mp4", shade=shade).read_bytes()

    upload("good.mp4", video(0))
    upload("unlucky.mp4", video(1))
    upload("text.mp4", b"no video")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_PROFILE", raising=False)
        patch.setenv("POSEBATCH_CACHE", str(folder / "cache"))
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        s3.s3_client.cache_clear()
        recorder = Recorder(buckets)
        s3.s3_client(None).meta.events.register("before-parameter-build.s3", recorder.note)
        _run_the_job(patch, recorder, f"s3://{archive}/videos/", f"s3://{poses}/dataset", upload, video)
        s3.s3_client.cache_clear()
        yield recorder


def _run_the_job(
    patch: pytest.MonkeyPatch, recorder: Recorder, named: str, output: str, upload: Any, video: Any
) -> None:
    def fault(task: Task) -> PosebatchError | None:
        unlucky = isinstance(task, SegmentTask) and task.video.uri.endswith("unlucky.mp4") and task.segment.index == 1
        return StorageUnavailableError("scripted") if unlucky else None

    job = ("--output", output, "--segment-seconds", "0.2")
    assert plain_command(patch, fault)("run", named, *job, "--preview", "gif") == 3
    posebatch = plain_command(patch)
    assert posebatch("plan", named, *job) == 0
    upload("good.mp4", video(2))  # a new version
    assert posebatch("run", named, *job, "--preview", "gif", "--retry-failed") == 3
    assert posebatch("run", f"{named}good.mp4", "--output", output, "--on-existing", "error") == 2
    assert posebatch("run", f"{named}*.mp4", *job, "--stride", "2", "--fail-on", "any") == 3
    assert posebatch("verify", "--output", output) == 0
    assert posebatch("gc", "--output", output, "--delete") == 0
    assert len(read_poses(output))
    patch.setattr(s3, "PART_BYTES", 5 << 20)  # as for the tables of a very long video
    patch.setattr(retry, "DEFAULT_POLICY", retry.RetryPolicy(attempts=1))
    large = io.BytesIO(bytes(9 << 20))
    S3Store(output).put("poses/long.mp4.parquet", large)
    recorder.failing = "UploadPart"
    with pytest.raises((StorageError, OSError)):
        S3Store(output).put("poses/long.mp4.parquet", large)


def without(policy: dict[str, Any], dropped: tuple[int, str, str]) -> dict[str, Any]:
    """The policy without one pair of action and resource in one statement."""
    statements = []
    for number, statement in enumerate(policy["Statement"]):
        for action in np.atleast_1d(statement["Action"]):
            for resource in np.atleast_1d(statement["Resource"]):
                if (number, action, resource) != dropped:
                    statements.append({**statement, "Action": action, "Resource": resource})
    return {"Statement": statements}


GRANTS = [
    (number, str(action), str(resource))
    for number, statement in enumerate(POLICY["Statement"])
    for action in np.atleast_1d(statement["Action"])
    for resource in np.atleast_1d(statement["Resource"])
]


@pytest.mark.s3
def test_policy_allows_every_call_of_the_job(recorder: Recorder) -> None:
    assert {action for action, _ in recorder.calls} == set(ACTIONS.values())
    assert [call for call in sorted(recorder.calls) if not allows(POLICY, call)] == []


@pytest.mark.s3
@pytest.mark.parametrize("grant", GRANTS, ids=lambda grant: " ".join(map(str, grant)))
def test_policy_grants_only_what_some_call_needs(recorder: Recorder, grant: tuple[int, str, str]) -> None:
    assert all(allows(without(POLICY, (-1, "", "")), call) for call in recorder.calls)
    assert [call for call in recorder.calls if not allows(without(POLICY, grant), call)]


DENIED = [
    *((action, f"arn:aws:s3:::{ARCHIVE}/videos/a.mp4") for action in ("s3:PutObject", "s3:DeleteObject")),
    ("s3:AbortMultipartUpload", f"arn:aws:s3:::{ARCHIVE}/videos/a.mp4"),
    ("s3:GetObject", f"arn:aws:s3:::{ARCHIVE}/payroll.csv"),
    ("s3:GetObject", f"arn:aws:s3:::{ARCHIVE}/videos"),
    *((f"s3:{verb}Object", f"arn:aws:s3:::{POSES}/other/x") for verb in ("Get", "Put", "Delete")),
    *((f"s3:{verb}Object", f"arn:aws:s3:::{POSES}/dataset-2/x") for verb in ("Get", "Put", "Delete")),
    ("s3:GetObject", "arn:aws:s3:::elsewhere/videos/a.mp4"),
    ("s3:ListBucket", "arn:aws:s3:::elsewhere"),
    ("s3:ListAllMyBuckets", "arn:aws:s3:::*"),
    ("s3:DeleteBucket", f"arn:aws:s3:::{POSES}"),
    ("s3:PutBucketPolicy", f"arn:aws:s3:::{POSES}"),
    ("s3:PutObjectAcl", f"arn:aws:s3:::{POSES}/dataset/x"),
    ("s3:GetObjectVersion", f"arn:aws:s3:::{ARCHIVE}/videos/a.mp4"),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/x"),
]


@pytest.mark.parametrize("call", DENIED, ids=" ".join)
def test_policy_denies_everything_else(call: Call) -> None:
    assert not allows(POLICY, call)


@pytest.mark.s3
def test_job_writes_only_below_its_output(recorder: Recorder) -> None:
    for action, resource in recorder.calls:
        if resource.startswith(f"arn:aws:s3:::{ARCHIVE}"):
            assert action in {"s3:GetObject", "s3:ListBucket"}
        elif action != "s3:ListBucket":
            assert resource.startswith(f"arn:aws:s3:::{POSES}/dataset/")


@pytest.mark.s3
def test_fetching_weights_needs_get_object_only(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bucket = f"weights-{uuid4().hex[:8]}"
    s3_server.client().create_bucket(Bucket=bucket)
    s3_server.client().put_object(Bucket=bucket, Key="mirror/mine.safetensors", Body=b"weights")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("POSEBATCH_CACHE", str(tmp_path))
    monkeypatch.delenv(MIRROR_VARIABLE, raising=False)
    s3.s3_client.cache_clear()
    recorder = Recorder({bucket: "weights"})
    s3.s3_client(None).meta.events.register("before-parameter-build.s3", recorder.note)
    try:
        assert fetch_object(f"s3://{bucket}/mirror/mine.safetensors").read_bytes() == b"weights"
    finally:
        s3.s3_client.cache_clear()
    assert recorder.calls == {("s3:GetObject", "arn:aws:s3:::weights/mirror/mine.safetensors")}
