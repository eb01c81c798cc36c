"""How errors of commands and scripts become exit codes and messages."""

import pytest

from posebatch.core.errors import InputError, PosebatchError, RunAbortedError, StorageUnavailableError, UsageError
from posebatch.core.scripts import run_script


def raising(error: BaseException):
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3)])
def test_run_script_returns_the_exit_code_of_its_action(result, code, capsys: pytest.CaptureFixture[str]):
    assert run_script("quantize", lambda: result) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("as asked"), 2),
        (InputError("as asked"), 2),
        (PosebatchError("as asked"), 1),
        (RunAbortedError("as asked"), 1),
        (StorageUnavailableError("as asked"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_run_script_maps_errors_to_exit_codes(error, code, capsys: pytest.CaptureFixture[str]):
    assert run_script("quantize", raising(error)) == code
    assert capsys.readouterr() == ("", "quantize: as asked\n")


def test_run_script_shows_neither_credentials_nor_control_characters(capsys: pytest.CaptureFixture[str]):
    error = InputError("https://me:hunter22@host/\x1b[31m: no such file\nposebatch: done")
    assert run_script("quantize", raising(error)) == 2
    assert capsys.readouterr().err == "quantize: https://***@host/\\x1b[31m: no such file\n  | posebatch: done\n"


def test_run_script_prints_the_traceback_of_a_bug_without_credentials(capsys: pytest.CaptureFixture[str]):
    assert run_script("quantize", raising(KeyError("http://me:hunter22@host/"))) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert "http://***@host/" in printed
    assert "hunter22" not in printed


def test_run_script_ends_quietly_on_an_interrupt(capsys: pytest.CaptureFixture[str]):
    assert run_script("quantize", raising(KeyboardInterrupt())) == 1
    assert capsys.readouterr().err == "quantize: stopped\n"
