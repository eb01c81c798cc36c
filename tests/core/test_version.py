"""The commit of the code: of the build, of the checkout, or unknown; never that of a repository around it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.sources import SOURCES

from posebatch.core import version


@pytest.fixture(autouse=True)
def _not_cached() -> None:
    version.commit.cache_clear()


def repository(folder: Path) -> str:
    """Make a repository with one commit; returns the commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "--allow-empty", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def test_commit_of_a_checkout_says_if_files_have_changed(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("")
    commit = repository(tmp_path)
    assert version._commit_of_checkout(tmp_path) == commit
    (tmp_path / "code.py").write_text("changed")
    assert version._commit_of_checkout(tmp_path) == f"{commit}-dirty"


def test_commit_of_a_repository_around_an_installation_is_not_taken(tmp_path: Path) -> None:
    repository(tmp_path)
    (tmp_path / "site-packages").mkdir()
    assert version._commit_of_checkout(tmp_path / "site-packages") is None


def test_commit_without_git_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version._commit_of_checkout(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "commit"), [("abc\n", "abc"), ("\n", "of the checkout"), (None, "of the checkout")]
)
def test_commit_of_the_build_counts_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, commit: str
) -> None:
    stamp = tmp_path / "commit.txt"
    if content is not None:
        stamp.write_text(content)
    monkeypatch.setattr(version, "COMMIT_FILE", stamp)
    monkeypatch.setattr(version, "_commit_of_checkout", lambda _: "of the checkout")
    assert version.commit() == commit


def test_commit_is_told_of_runs_alone() -> None:
    """In a data file it would make equal rows differ."""
    users = {module for module, source in SOURCES.items() if re.search(r"core\.version import .*\bcommit\b", source)}
    assert users == {"run.run_folder", "run.outcome"}
