"""What runs write fits the published schemas, however the run ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from faults.plain_runs import Command, plain_command
from support.fake_pool import Fault, Task, no_fault
from support.tiny_video import write_tiny_video

from posebatch.core.errors import RunAbortedError
from posebatch.run.outcome import SUMMARY_SCHEMA
from posebatch.run.tasks import SegmentTask

DOCS = Path(__file__).resolve().parents[2] / "docs"


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((DOCS / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


SUMMARY, LOG = validator("summary"), validator("log")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_tiny_video(tmp_path / "in" / "a.mp4")
    (tmp_path / "in" / "b.mp4").write_bytes(b"no video")
    (tmp_path / "in" / "notes.txt").write_text("notes")
    return tmp_path / "in"


def stop(task: Task) -> None:
    if isinstance(task, SegmentTask):
        signal.raise_signal(signal.SIGTERM)


def abort(task: Task) -> None:
    if isinstance(task, SegmentTask):
        raise RunAbortedError("the cluster is gone")


def ended(tmp_path: Path, command: Command, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and summary of a command."""
    before = {*tmp_path.glob("out/runs/*/summary.json")}
    code = command(*arguments, "--output", str(tmp_path / "out"), "--log-format", "json")
    (path,) = {*tmp_path.glob("out/runs/*/summary.json")} - before
    return code, json.loads(path.read_text())


def check_log(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    printed = capsys.readouterr()
    lines = [json.loads(line) for line in [*printed.out.splitlines(), *printed.err.splitlines()]]
    for line in lines:
        LOG.validate(line)
    return lines


@pytest.mark.parametrize(
    ("fault", "code", "finished"),
    [(no_fault, 3, True), (stop, 1, False), (abort, 1, False)],
    ids=["3", "stop", "abort"],
)
def test_run_writes_what_the_schemas_describe(
    tmp_path: Path,
    archive: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: Fault,
    code: int,
    finished: bool,
) -> None:
    exit_code, summary = ended(tmp_path, plain_command(monkeypatch, fault), "run", str(archive))
    SUMMARY.validate(summary)
    assert (exit_code, summary["finished"], summary["schema"]) == (code, finished, SUMMARY_SCHEMA)
    events = {line["event"] for line in check_log(capsys)}
    assert events >= ({"run_started", "video_failed", "run_finished"} if finished else {"run_started", "error"})


def test_later_runs_write_what_the_schemas_describe(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with nothing to do, and a derivation of what was published."""
    command = plain_command(monkeypatch)
    ended(tmp_path, command, "run", str(archive))
    for arguments, derived in ((("run", str(archive)), 0), (("derive", "--cutoff-hz", "5"), 1)):
        code, summary = ended(tmp_path, command, *arguments)
        SUMMARY.validate(summary)
        assert (code, summary["finished"], summary["exit_code"], summary["derived"]) == (0, True, 0, derived)
    check_log(capsys)


def test_schema_refuses_unknown_and_missing_fields(
    tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, summary = ended(tmp_path, plain_command(monkeypatch), "run", str(archive))
    for changed in (
        {**summary, "new": 1},
        {**summary, "failed": -1},
        {name: value for name, value in summary.items() if name != "failed"},
    ):
        assert not SUMMARY.is_valid(changed)
    _, _, *_, last = check_log(capsys)
    assert not LOG.is_valid({**last, "new": 1})
