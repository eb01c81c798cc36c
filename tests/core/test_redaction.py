"""Credentials are masked in everything that leaves the process, and no name controls the terminal."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_video import write_tiny_video

from posebatch.cli import entry, models
from posebatch.core.errors import PosebatchError
from posebatch.core.redaction import SECRET_VARIABLES, redacted, visible
from posebatch.core.settings import settings_from
from posebatch.run.context import RunContext
from posebatch.run.preparation import prepare
from posebatch.run.progress import Progress
from posebatch.run.run_folder import RunFolder
from posebatch.run.tally import Tally
from posebatch.storage.local import LocalStore
from posebatch.storage.s3 import s3_client

SECRET = "wJalr/XUtnFEMI+K7MDENG"

TEXTS: dict[str, tuple[str, str]] = {
    "nothing": ("", ""),
    "no secret": ("s3://bucket/a@b.mp4: no such file", "s3://bucket/a@b.mp4: no such file"),
    "a local path": ("/in/user:name@x.mp4?a=1", "/in/user:name@x.mp4?a=1"),
    "a password": ("at http://me:pa$$@host:9/x: no", "at http://***@host:9/x: no"),
    "a password with a slash": ('to "https://me:p/a@s@host/x"', 'to "https://***@host/x"'),
    "a user alone": ("HTTP://token@host/", "HTTP://***@host/"),
    "two addresses": ("http://a:b@x/ and http://c:d@y/", "http://***@x/ and http://***@y/"),
    "an address without": ("http://host:9/x", "http://host:9/x"),
    "a signed address": (
        "https://b.s3.amazonaws.com/k.mp4?X-Amz-Credential=AKIA%2F1&X-Amz-Date=2026&X-Amz-Signature=abc0#t",
        "https://b.s3.amazonaws.com/k.mp4?X-Amz-Credential=***&X-Amz-Date=2026&X-Amz-Signature=***#t",
    ),
    "the old way to sign": (
        "?AWSAccessKeyId=AK&Expires=1&Signature=x%3D",
        "?AWSAccessKeyId=***&Expires=1&Signature=***",
    ),
    "another maker's": ("https://x.blob/k?sv=1&sig=abc", "https://x.blob/k?sv=1&sig=***"),
    "a security token": ('"?x-amz-security-token=abc" said', '"?x-amz-security-token=***" said'),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_redacted_masks_credentials_in_urls(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize("variable", SECRET_VARIABLES)
def test_redacted_masks_secrets_of_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, SECRET)
    assert redacted(f"key={SECRET}, quoted wJalr%2FXUtnFEMI%2BK7MDENG.") == "key=***, quoted ***."


@pytest.mark.parametrize("value", ["", "testing"])
def test_redacted_keeps_short_values(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", value)
    assert redacted("a testing ground") == "a testing ground"


def test_errors_mask_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    error = PosebatchError(f"http://u:hunter22@host/: {SECRET}")
    assert (str(error), error.args) == ("http://***@host/: ***", ("http://***@host/: ***",))


SHOWN: dict[str, tuple[str, str]] = {
    "nothing": ("", ""),
    "plain": ("a b.mp4", "a b.mp4"),
    "other scripts": ("ü/日本/\u0645\u0644\u0641.mp4", "ü/日本/\u0645\u0644\u0641.mp4"),
    "a line": ("a\nfailed: b", "a\n  | failed: b"),
    "a carriage return": ("a\rb", "a\\x0db"),
    "colours": ("\x1b[31mred", "\\x1b[31mred"),
    "one byte that begins a command": ("\x9b2J", "\\x9b2J"),
    "a bell and a tab": ("\x07\t\x7f", "\\x07\\x09\\x7f"),
    "turned around": ("\u202e4pm.exe", "\\u202e4pm.exe"),
    "not to be seen": ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
    "other ends of a line": ("a\u2028b\x85c", "a\\u2028b\\x85c"),
    "no UTF-8": (os.fsdecode(b"caf\xe9"), "caf\\xe9"),
    "half a pair": ("\ud800", "\\ud800"),
}


@pytest.mark.parametrize(("text", "expected"), SHOWN.values(), ids=SHOWN)
def test_visible_escapes_control_characters(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(text=st.text(st.characters()))
def test_visible_text_is_printable_and_moves_no_cursor(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert all(line.startswith("  | ") for line in shown.split("\n")[1:])
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)


# --- where text leaves the process --------------------------------------------------------------------------------


def test_progress_escapes_control_characters() -> None:
    printed = io.StringIO()
    Progress(Tally(), printed).say("try 1 failed: \x1b[2J\nhttp://u:p@h/")
    assert printed.getvalue() == "try 1 failed: \\x1b[2J\n  | http://***@h/\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "https://b.s3.amazonaws.com/k.mp4?X-Amz-Signature=hunter22", "--output", "out"],
        ["run", "http://me:hunter22@host/k.mp4", "--output", "out"],
        ["run", "x.mp4", "--output", "https://me:hunter22@host/out"],
        ["run", "s3://bucket/x", "--output", "out", "--endpoint-url", "http://me:hunter22@127.0.0.1:9"],
        ["plan", "s3://bucket/x", "--output", "out", "--endpoint-url", "http://me:hun ter22@127.0.0.1:9"],
        ["verify", "--output", "s3://bucket/out", "--endpoint-url", "http://me:hunter22@127.0.0.1:9"],
        ["run", "x.mp4", "--output", "out", "--endpoint", "http://me:hunter22@127.0.0.1:9"],
        ["run", "x.mp4", "--output", "out", "--stride", "https://me:hunter22@host/"],
        ["run", "s3://bucket/x?X-Amz-Signature=hunter22\x1b[31m", "--output", "http://x"],
    ],
    ids=" ".join,
)
def test_commands_mask_passwords_of_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert entry.main(arguments) in (1, 2)
    printed = "".join(capsys.readouterr())
    assert "ter22" not in printed
    assert "\x1b" not in printed
    assert "Traceback" not in printed
    assert printed.startswith("posebatch: ")


def test_s3_client_refuses_an_endpoint_with_a_password() -> None:
    with pytest.raises(PosebatchError, match="without user and password"):
        s3_client("https://me:hunter22@host")


@pytest.mark.slow  # botocore tries again
def test_commands_mask_an_endpoint_that_a_library_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {
        "AWS_ENDPOINT_URL": "http://me:hunter22@127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "AKIA0",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    s3_client.cache_clear()
    try:
        assert entry.main(["verify", "--output", "s3://bucket/out"]) == 1
    finally:
        s3_client.cache_clear()
    printed = capsys.readouterr().err
    assert "127.0.0.1:9/bucket" in printed
    assert "hunter22" not in printed


def test_commands_mask_credentials_in_tracebacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bug() -> None:
        raise RuntimeError("http://me:hunter22@host/ is down")

    monkeypatch.setattr(models, "list_models", bug)
    assert entry.main(["models"]) == 1
    printed = capsys.readouterr().err
    assert "RuntimeError: http://***@host/ is down" in printed
    assert "hunter22" not in printed


def test_run_folder_masks_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", SECRET)
    settings = settings_from({"endpoint_url": "http://me:hunter22@host"})
    folder = RunFolder(LocalStore(tmp_path), RunContext("run", settings, str(tmp_path), "d@1", "p@1"))
    folder.open(["s3://bucket/a", "http://me:hunter22@host/k?X-Amz-Signature=hunter22"])
    folder.close({"complaints": [{"reason": f"http://me:hunter22@host said {SECRET}"}]})
    written = [(tmp_path / "runs/run" / name).read_text() for name in ("settings.yaml", "summary.json")]
    assert all("***@host" in text and "hunter22" not in text and SECRET not in text for text in written)


def test_plan_escapes_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["red\x1b[31m.mp4", "two\ncompute     lines.mp4", os.fsdecode(b"caf\xe9.mp4"), "\u202egnp.mp4"]
    for name in names:
        write_tiny_video(tmp_path / "in" / name)
    (tmp_path / "in" / "bad\x1b[2J.mp4").write_bytes(b"no video")
    assert entry.main(["plan", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert not re.search("[\x1b\u202e]", printed)
    assert sum(line.startswith("compute") for line in printed.splitlines()) == len(names) + 1
    assert "caf\\xe9.mp4" in printed
    prepared = prepare([str(tmp_path / "in")], str(tmp_path / "out"), settings_from({}))
    assert len(prepared.listing.videos) == len(names) + 1


def test_commands_print_names_that_the_terminal_cannot_encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_video(tmp_path / "in" / "日.mp4")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert entry.main(["plan", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    terminal.flush()
    assert b"\\u65e5.mp4" in terminal.buffer.getvalue()  # type: ignore[attr-defined]
