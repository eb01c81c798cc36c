"""The Makefile and the CI script, without installing anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files of a fresh checkout that make reads."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(checkout: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    outer = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VIDEO"}  # set by the make that runs these tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    environment |= {"PATH": path} if path else {}
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def installed(checkout: Path) -> Path:
    """A checkout with everything installed, newer than its requirements."""
    (checkout / ".venv/bin").mkdir(parents=True)
    for name in ("bin/python", ".installed-demo", ".installed-dev"):
        (checkout / ".venv" / name).touch()
    return checkout


def fake_python(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_help_is_the_default_target_and_lists_demo_and_test(checkout: Path):
    listed = make(checkout).stdout
    assert {"make demo", "make test"} <= {" ".join(line.split()[:2]) for line in listed.splitlines()}
    assert listed == make(checkout, "help").stdout


def test_first_call_makes_an_environment_and_installs(checkout: Path):
    planned = make(checkout, "-n", "demo").stdout
    assert "-m venv .venv" in planned
    assert "-e '.[openvino,query,compact,compare,plot,export]'" in planned
    assert "[dev]" not in planned


@pytest.mark.parametrize("target", ["demo", "test"])  # the two sets of requirements
def test_second_call_installs_nothing(checkout: Path, target: str):
    planned = make(installed(checkout), "-n", target).stdout
    assert ".venv/bin/" in planned
    assert "install" not in planned


def test_changed_requirements_are_installed(checkout: Path):
    installed(checkout)
    os.utime(checkout / "pyproject.toml", (2**32, 2**32))
    assert "-e '.[dev]'" in make(checkout, "-n", "test").stdout


def test_demo_accepts_a_video_with_a_space(checkout: Path):
    fake_python(installed(checkout) / ".venv/bin", "posebatch", 'printf "<%s>" "$@"')
    assert make(checkout, "demo", "VIDEO=my film.mp4").stdout == "<demo><my film.mp4>"
    assert make(checkout, "demo").stdout == "<demo>"


def test_python_shim_that_fails_is_skipped(checkout: Path):
    shims = checkout / "shims"
    fake_python(shims, "python3.12", "echo 'no such version' >&2; exit 127")
    fake_python(shims, "python3.11", f'exec "{sys.executable}" "$@"')
    planned = make(checkout, "-n", "demo", path=f"{shims}:/usr/bin:/bin").stdout
    assert '"python3.11" -m venv .venv' in planned


def test_old_python_is_refused_with_a_message(checkout: Path):
    old = checkout / "old"
    fake_python(old, "python3", "exit 1")
    refused = make(checkout, "demo", f"PYTHON={old / 'python3'}")
    assert refused.returncode != 0
    assert "needs Python 3.11 or newer" in refused.stderr
    assert "make demo PYTHON=" in refused.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(("skipped", "accepted"), [(0, True), (2, False)])
def test_gpu_tests_fail_when_skipped(checkout: Path, skipped: int, accepted: bool):
    report = f"echo '<testsuite skipped=\"{skipped}\">' > .pytest_cache/gpu.xml"
    fake_python(installed(checkout) / ".venv/bin", "python", report)
    assert (make(checkout, "test-gpu").returncode == 0) == accepted


@pytest.mark.parametrize("script", ["run", "gpu", "faults"])
def test_ci_scripts_can_be_executed(script: str):
    path = ROOT / ".ci" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
