"""The script of the nightly CronJob, run against a ``kubectl`` that plays every state of a RayJob."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from submit_nightly import night_of

from posebatch.core.deadline import Deadline

ROOT = Path(__file__).resolve().parents[2]

KUBECTL = """\
#!/bin/sh
# The states to play stand in the file states-N, one a line, of which the last one stays; N counts the RayJobs so far.
echo "$*" >> "$PLAY/calls"
number=$(cat "$PLAY/number")
states="$PLAY/states-$number"
night_in() { grep -o 'night: "[0-9-]*"' "$1" | cut -d '"' -f 2; }
case "$1" in
  create)
    [ ! -e "$PLAY/no-create" ] || exit 1
    if [ -e "$PLAY/faster" ]; then
      night_in "$3" > "$PLAY/night-$number"
      printf 'Running/RUNNING\\nComplete/SUCCEEDED\\n' > "$states"
      exit 1
    fi
    number=$((number + 1))
    echo $number > "$PLAY/number"
    cp "$3" "$PLAY/rayjob-$number"
    night_in "$3" > "$PLAY/night-$number" ;;
  delete)
    [ ! -e "$PLAY/no-delete" ] || exit 1
    echo gone > "$states" ;;
  get)
    case "$*" in
      *status.message*) cat "$PLAY/why-$number" ;;
      *)
        state=$(head -n 1 "$states")
        [ "$(wc -l < "$states")" -le 1 ] || sed -i 1d "$states"
        case "$state" in
          down) echo "the connection was refused" >&2; exit 1 ;;
          gone) ;;
          *) printf '%s:%s' "$(cat "$PLAY/night-$number")" "$state" ;;
        esac ;;
    esac ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


def container() -> dict[str, Any]:
    cron_job = next(iter(yaml.safe_load_all((ROOT / "infra/gpu/nightly.yaml").read_text())))
    (only,) = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return only


@dataclass(frozen=True)
class Night:
    """How a night ended."""

    code: int
    said: str
    calls: list[str]
    """The words of each call of ``kubectl`` that changed something: its first ones."""


SHELLS = [shell for shell in ("sh", "busybox", "bash") if shutil.which(shell)]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return ["busybox", "sh"] if request.param == "busybox" else [request.param]


def tonight() -> str:
    """The date on which this night begins, by UTC."""
    return str(night_of(datetime.now(UTC)))


def night(
    place: Path,
    shell: list[str],
    *rayjobs: str,
    why: str = "",
    deadline: int = 60,
    lacks: str = "",
    of: str = "2026-01-01",
) -> Night:
    """Run the script. ``rayjobs``: the states of the RayJob that is there at first, then of each that is created.

    ``of``: the night of the first one. ``lacks``: what ``kubectl`` does not do, or ``faster``.
    """
    (place / "bin").mkdir()
    (place / "bin/kubectl").write_text(KUBECTL)
    (place / "bin/kubectl").chmod(0o755)
    (place / "number").write_text("0")
    (place / "night-0").write_text(of)
    for number, states in enumerate([*rayjobs, "gone"]):
        (place / f"states-{number}").write_text("\n".join(states.split()) + "\n")
        (place / f"why-{number}").write_text(why)
    if lacks:
        (place / lacks).touch()
    submit = container()
    environment = {variable["name"]: variable["value"] for variable in submit["env"]}
    environment |= {"POLL_SECONDS": "0.01", "DEADLINE_SECONDS": str(deadline), "MAX_UNANSWERED": "4"}
    environment |= {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "PLAY": str(place), "HOME": str(place)}
    environment |= {"RAYJOB": str(ROOT / "infra/gpu/rayjob.yaml")}
    _, *options, script = submit["command"]
    ended = subprocess.run(
        [*shell, *options, script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    calls = [call.split() for call in (place / "calls").read_text().splitlines()]
    return Night(ended.returncode, ended.stdout + ended.stderr, [call[0] for call in calls if call[0] != "get"])


FAILED = "Running/RUNNING Failed/FAILED"
EXIT = "AppFailed: Job entrypoint command failed with exit code {}, last available logs (truncated to 20,000 chars):"

ENDS = [
    # the states of the RayJob, why it failed, then: exit code, a part of what the night says, changes
    pytest.param("/ Initializing/ Running/RUNNING Complete/SUCCEEDED", "", 0, "the run is complete", id="complete"),
    pytest.param("Initializing/ Running/PENDING Complete/STOPPED", "", 1, "the run was stopped", id="ray job stop"),
    pytest.param(FAILED, EXIT.format(3), 1, "the run is complete, and videos failed tonight: AppFailed", id="exit 3"),
    pytest.param(FAILED, EXIT.format(4), 0, "the run stopped at its deadline", id="exit 4"),
    pytest.param(FAILED, EXIT.format(2), 1, "the command in rayjob.yaml is wrong: AppFailed", id="exit 2"),
    pytest.param(FAILED, "DeadlineExceeded: too long", 1, "the run took too long", id="RayJob's own deadline"),
    pytest.param(
        "/ ValidationFailed/", "ValidationFailed: bad", 1, "the operator refuses rayjob.yaml: V", id="invalid"
    ),
    pytest.param("Running/RUNNING Suspending/ Suspended/", "", 1, "suspended: resume it", id="suspended"),
    pytest.param("Running/RUNNING gone", "", 1, "the RayJob was deleted", id="deleted"),
    pytest.param("gone", "", 1, "the RayJob was deleted", id="deleted at once"),
    pytest.param("Running/RUNNING down", "", 1, "kubectl failed 4 times in a row", id="no API server"),
]


@pytest.mark.parametrize(("states", "why", "code", "says"), ENDS)
def test_night_ends_with_every_end_of_its_rayjob(
    tmp_path: Path, shell: list[str], states: str, why: str, code: int, says: str
):
    ended = night(tmp_path, shell, "gone", states, why=why)
    assert (ended.code, ended.calls) == (code, ["create"]), ended.said
    assert says in ended.said


def test_night_bears_an_api_server_that_is_away_for_a_while(tmp_path: Path, shell: list[str]):
    ended = night(tmp_path, shell, "down down down gone", "down Running/RUNNING down down down Complete/SUCCEEDED")
    assert (ended.code, ended.calls) == (0, ["create"]), ended.said


@pytest.mark.parametrize(
    ("second", "code", "says"),
    [
        ("/ Running/RUNNING Complete/SUCCEEDED", 0, "the run is complete"),
        (FAILED, 1, "the run failed twice: AppFailed"),
    ],
)
def test_night_tries_an_aborted_run_once_more(tmp_path: Path, shell: list[str], second: str, code: int, says: str):
    ended = night(tmp_path, shell, "gone", FAILED, second, why=EXIT.format(1))
    assert (ended.code, ended.calls) == (code, ["create", "delete", "create"]), ended.said
    assert "tried again on a new cluster" in ended.said
    assert says in ended.said


@pytest.mark.parametrize("state", ["Running/RUNNING", "Waiting/", "/", "SomethingNew/RUNNING"])
def test_night_ends_at_its_deadline(tmp_path: Path, shell: list[str], state: str):
    """Also in a state that a later operator may have."""
    ended = night(tmp_path, shell, "gone", state, deadline=1)
    assert (ended.code, ended.calls) == (1, ["create", "delete"]), ended.said
    assert "did not end within 1 s" in ended.said


@pytest.mark.parametrize("left", ["Complete/SUCCEEDED", "Complete/STOPPED", "Failed/FAILED", "ValidationFailed/"])
def test_night_replaces_the_rayjob_of_the_night_before(tmp_path: Path, shell: list[str], left: str):
    ended = night(tmp_path, shell, left, "Running/RUNNING Complete/SUCCEEDED")
    assert (ended.code, ended.calls) == (0, ["delete", "create"]), ended.said


@pytest.mark.parametrize(
    ("there", "why", "code", "says", "calls"),
    [
        ("Running/RUNNING Complete/SUCCEEDED", "", 0, "the run is complete", []),
        ("Complete/SUCCEEDED", "", 0, "the run is complete", []),
        ("Running/RUNNING " + FAILED, EXIT.format(3), 1, "videos failed tonight", []),
        ("Failed/FAILED", EXIT.format(3), 1, "videos failed tonight", []),
        ("Failed/FAILED", EXIT.format(4), 0, "the run stopped at its deadline", []),
        ("Failed/FAILED", EXIT.format(1), 0, "the run is complete", ["delete", "create"]),
        ("Failed/FAILED", EXIT.format(2), 0, "the run is complete", ["delete", "create"]),
        ("Running/RUNNING Running/RUNNING " + FAILED, EXIT.format(1), 0, "the run is complete", ["delete", "create"]),
        ("Complete/STOPPED", "", 0, "the run is complete", ["delete", "create"]),
        ("ValidationFailed/", "", 0, "the run is complete", ["delete", "create"]),
        ("Suspended/", "", 1, "suspended: resume it", []),
    ],
)
def test_second_submission_of_a_night_ends_as_the_first(
    tmp_path: Path, shell: list[str], there: str, why: str, code: int, says: str, calls: list[str]
):
    ended = night(tmp_path, shell, there, "Running/RUNNING Complete/SUCCEEDED", why=why, of=tonight())
    assert (ended.code, ended.calls) == (code, calls), ended.said
    assert says in ended.said


def test_submission_that_is_overtaken_attaches_to_the_faster_one(tmp_path: Path, shell: list[str]):
    ended = night(tmp_path, shell, "gone", lacks="faster")
    assert (ended.code, ended.calls) == (0, ["create"]), ended.said


def test_rayjob_of_a_night_has_its_date_and_its_deadline(tmp_path: Path, shell: list[str]):
    """Every try has the same deadline, so that none takes that of the next day."""
    night(tmp_path, shell, "gone", FAILED, "Complete/SUCCEEDED", why=EXIT.format(1))
    first, second = (yaml.safe_load((tmp_path / f"rayjob-{number}").read_text()) for number in (1, 2))
    assert first == second
    assert first["metadata"] == {"name": "posebatch", "labels": {"night": tonight()}}
    words = shlex.split(first["spec"]["entrypoint"])
    morning = date.fromisoformat(tonight()) + timedelta(days=1)
    assert words[words.index("--deadline") + 1] == f"{morning}T06:00 Etc/UTC"
    Deadline.parse(f"{morning}T06:00 Etc/UTC")
    (rayjob,) = yaml.safe_load_all((ROOT / "infra/gpu/rayjob.yaml").read_text())
    assert len(words) == len(shlex.split(rayjob["spec"]["entrypoint"]))


@pytest.mark.parametrize("left", ["/", "Initializing/", "Waiting/", "Running/RUNNING", "Retrying/", "Suspending/"])
def test_night_leaves_a_run_in_progress_alone(tmp_path: Path, shell: list[str], left: str):
    ended = night(tmp_path, shell, left)
    assert (ended.code, ended.calls) == (0, []), ended.said
    assert "still in progress" in ended.said


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ("Suspended/", "suspended: resume it, or delete it"),
        ("SomethingNew/", "in the state SomethingNew/, which this script does not know"),
        ("down", "kubectl failed 4 times in a row"),
    ],
)
def test_night_that_cannot_begin_fails(tmp_path: Path, shell: list[str], left: str, says: str):
    ended = night(tmp_path, shell, left)
    assert (ended.code, ended.calls) == (1, []), ended.said
    assert says in ended.said


@pytest.mark.parametrize(
    ("lacks", "calls", "says"),
    [
        ("no-create", ["delete", "create"], "the RayJob cannot be created"),
        ("no-delete", ["delete"], "the RayJob cannot be deleted"),
    ],
)
def test_night_fails_if_it_may_not_create_or_delete(
    tmp_path: Path, shell: list[str], lacks: str, calls: list[str], says: str
):
    ended = night(tmp_path, shell, "Complete/SUCCEEDED", lacks=lacks)
    assert (ended.code, ended.calls) == (1, calls), ended.said
    assert says in ended.said


def test_night_ends_before_the_next_begins():
    """Forbid blocks the next night as long as the pod of this one lives."""
    cron_job = next(iter(yaml.safe_load_all((ROOT / "infra/gpu/nightly.yaml").read_text())))["spec"]
    job = cron_job["jobTemplate"]["spec"]
    variables = {variable["name"]: variable["value"] for variable in container()["env"]}
    rayjob = yaml.safe_load((ROOT / "infra/gpu/rayjob.yaml").read_text())["spec"]
    assert cron_job["concurrencyPolicy"] == "Forbid"
    assert (job["backoffLimit"], rayjob["backoffLimit"]) == (0, 0), "only the script tries again"
    ends = [
        rayjob["activeDeadlineSeconds"],
        int(variables["DEADLINE_SECONDS"]),
        job["activeDeadlineSeconds"],
        24 * 3600,
    ]
    assert ends == sorted(ends)
