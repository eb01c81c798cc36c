"""Every command of the runbook exists, with its options; each alarm has a heading."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import duckdb
import pytest
import submit_nightly

from posebatch.cli.entry import build_parser
from posebatch.cli.run import _settings

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")

ALARMS = [
    *("PosebatchRunAborted", "PosebatchVideosFailed", "PosebatchNightMissing", "PosebatchDeadlineReached"),
    *("PosebatchLeaseHeld", "PosebatchNoProgress", "PosebatchWorkersDying", "PosebatchStorageRetries"),
    "PosebatchLagGrows",
]

COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", RUNBOOK, re.DOTALL)
    for line in block.splitlines()
]


def of(tool: str) -> list[list[str]]:
    return [words for words in COMMANDS if words[0] == tool]


def test_every_alarm_has_its_heading_and_its_parts():
    assert re.findall(r"^## (Posebatch\w+)$", RUNBOOK, re.MULTILINE) == ALARMS
    for section in RUNBOOK.split("\n## Posebatch")[1:]:
        parts = re.findall(r"^\*\*(Meaning\.|Type\.|It went well\*\*)", section, re.MULTILINE)
        assert parts == ["Meaning.", "Type.", "It went well**"], section[:40]


def test_every_command_is_of_a_tool_that_is_checked():
    assert {words[0] for words in COMMANDS} == {"posebatch", "python", "ray", "kubectl", "systemctl", "journalctl"}


@pytest.mark.parametrize("words", of("posebatch"), ids=" ".join)
def test_commands_of_posebatch_parse(words: list[str]):
    chosen = build_parser().parse_args(words[1:])
    if words[1] in ("run", "plan"):
        _settings(chosen)


@pytest.mark.parametrize("words", of("python"), ids=" ".join)
def test_scripts_parse(words: list[str]):
    assert (ROOT / words[1]).is_file()
    job = submit_nightly.parse(words[2:]).command
    assert (ROOT / job[1]).is_file()
    _settings(build_parser().parse_args(["run", *job[2:]]))


@pytest.mark.parametrize("words", [words for words in of("posebatch") if words[1] == "query"], ids=" ".join)
def test_queries_name_columns_that_exist(words: list[str], tmp_path: Path):
    from posebatch.dataset.tables.schemas import VIDEOS_SCHEMA  # noqa: PLC0415

    videos = VIDEOS_SCHEMA.empty_table()
    assert videos.num_rows == 0
    duckdb.sql(words[2])


@cache
def help_of(*words: str) -> str:
    """What a tool says about one of its commands."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    said = subprocess.run([*words, "--help"], capture_output=True, text=True, check=False)
    return said.stdout + said.stderr


@pytest.mark.parametrize("words", [*of("kubectl"), *of("systemctl"), *of("journalctl")], ids=" ".join)
def test_commands_of_other_tools_have_these_options(words: list[str]):
    verbs = {"systemctl": 1, "journalctl": 1}.get(words[0], 3 if words[1] == "create" else 2)
    text = help_of(*words[:verbs])
    if words[0] == "systemctl":
        assert re.search(rf"^ +{words[1]} ", text, re.MULTILINE), words[1]
    for option in (word.split("=")[0] for word in words[verbs:] if word.startswith("-")):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), f"{option} is no option of {' '.join(words[:verbs])}"


@pytest.mark.parametrize("words", of("ray"), ids=" ".join)
def test_commands_of_ray_have_these_options(words: list[str]):
    command = pytest.importorskip("ray.scripts.scripts").cli
    rest = words[1:]
    while hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known
