"""One submission a night, on a made-up cluster; `faults/test_scheduled_runs.py` has a real one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from submit_nightly import MAX_UNANSWERED, Night, Submission, deadline_of, main, night_of

from posebatch.core.errors import RunAbortedError

DONE, RUNNING, STOPPED = Submission("SUCCEEDED", 0), Submission("RUNNING"), Submission("STOPPED")


def failed(code: int | None) -> Submission:
    return Submission("FAILED", code, "Job entrypoint command failed")


@dataclass
class MadeUpCluster:
    """Plays the states of each job; the last one stays."""

    plays: dict[str, list[Submission]]
    """Of the jobs that are there, and of those that will be submitted."""
    there: set[str] = field(default_factory=set)
    submitted: list[str] = field(default_factory=list)
    silent: int = 0
    """Questions that get no answer."""
    before_submit: Callable[[str], None] = lambda _: None

    def _hear(self) -> None:
        if self.silent:
            self.silent -= 1
            raise ConnectionError("refused")

    def find(self, submission_id: str) -> Submission | None:
        self._hear()
        if submission_id not in self.there:
            return None
        states = self.plays[submission_id]
        return states.pop(0) if len(states) > 1 else states[0]

    def submit(self, submission_id: str, command: str) -> bool:
        self._hear()
        self.before_submit(submission_id)
        if submission_id in self.there:
            return False
        self.there.add(submission_id)
        self.submitted.append(submission_id)
        return True


def night(cluster: MadeUpCluster, tries: int = 2) -> int:
    return Night(cluster, "n", "command", tries, sleep=lambda _: None).run()


@pytest.mark.parametrize(
    ("plays", "there", "code", "submitted"),
    [
        pytest.param({"n": [RUNNING, DONE]}, [], 0, ["n"], id="a night"),
        pytest.param({"n": [RUNNING, failed(3)]}, [], 3, ["n"], id="videos failed"),
        pytest.param({"n": [failed(4)]}, [], 4, ["n"], id="deadline"),
        pytest.param({"n": [failed(2)]}, [], 2, ["n"], id="wrong command"),
        pytest.param({"n": [STOPPED]}, [], 1, ["n"], id="ray job stop"),
        pytest.param({"n": [failed(1)], "n-2": [RUNNING, DONE]}, [], 0, ["n", "n-2"], id="a second try"),
        pytest.param({"n": [failed(None)], "n-2": [failed(3)]}, [], 3, ["n", "n-2"], id="a driver that died"),
        pytest.param({"n": [failed(-9)], "n-2": [failed(1)]}, [], 1, ["n", "n-2"], id="all tries failed"),
        # submitted again in the same night
        pytest.param({"n": [DONE]}, ["n"], 0, [], id="again, done"),
        pytest.param({"n": [failed(3)]}, ["n"], 3, [], id="again, videos failed"),
        pytest.param({"n": [failed(4)]}, ["n"], 4, [], id="again, deadline"),
        pytest.param({"n": [RUNNING, RUNNING, failed(3)]}, ["n"], 3, [], id="again, in progress"),
        pytest.param({"n": [RUNNING, failed(1)], "n-2": [DONE]}, ["n"], 0, ["n-2"], id="again, in progress, fails"),
        pytest.param({"n": [failed(1)], "n-2": [DONE]}, ["n"], 0, ["n-2"], id="again, failed"),
        pytest.param({"n": [failed(1)], "n-2": [DONE]}, ["n", "n-2"], 0, [], id="again, second try done"),
        pytest.param({"n": [failed(2)], "n-2": [DONE]}, ["n"], 0, ["n-2"], id="again, with a better command"),
        pytest.param({"n": [STOPPED], "n-2": [DONE]}, ["n"], 0, ["n-2"], id="again, was stopped"),
        pytest.param(
            {"n": [failed(1)], "n-2": [failed(1)], "n-3": [failed(1)], "n-4": [DONE]},
            ["n", "n-2"], 0, ["n-3", "n-4"], id="again, all tries of before failed",
        ),
    ],
)  # fmt: skip
def test_night_ends_with_the_exit_code_of_its_job(
    plays: dict[str, list[Submission]], there: list[str], code: int, submitted: list[str]
):
    cluster = MadeUpCluster(plays, {*there})
    assert (night(cluster), cluster.submitted) == (code, submitted)


def test_two_processes_that_submit_at_once_wait_for_one_job():
    cluster = MadeUpCluster({"n": [RUNNING, failed(3)]})
    cluster.before_submit = cluster.there.add  # the other process is faster by a hair
    assert (night(cluster), cluster.submitted) == (3, [])


def test_night_bears_a_cluster_that_is_silent_for_a_while():
    cluster = MadeUpCluster({"n": [RUNNING, DONE]}, silent=MAX_UNANSWERED - 1)
    assert night(cluster) == 0
    with pytest.raises(RunAbortedError, match="did not answer 30 times in a row: refused"):
        night(MadeUpCluster({}, silent=MAX_UNANSWERED))


def test_night_says_that_the_cluster_has_forgotten_it():
    class Forgetful(MadeUpCluster):
        def submit(self, submission_id: str, command: str) -> bool:
            return True

    with pytest.raises(RunAbortedError, match="its head was started anew"):
        night(Forgetful({}))


@pytest.mark.parametrize(
    ("moment", "begins"),
    [
        ("2026-11-29T12:00", "2026-11-29"),
        ("2026-11-29T23:59", "2026-11-29"),
        ("2026-11-30T01:00", "2026-11-29"),
        ("2026-11-30T11:59", "2026-11-29"),
        ("2026-11-30T12:00", "2026-11-30"),
        ("2026-03-01T00:00", "2026-02-28"),
    ],
)
def test_night_lasts_from_noon_to_noon(moment: str, begins: str):
    assert night_of(datetime.fromisoformat(moment)) == date.fromisoformat(begins)
    assert night_of(datetime.fromisoformat(moment).replace(tzinfo=UTC)) == date.fromisoformat(begins)


@pytest.mark.parametrize(
    ("text", "zone", "moment"),
    [
        ("06:00", "UTC", "2026-11-30T06:00:00+00:00"),
        ("23:00", "UTC", "2026-11-29T23:00:00+00:00"),
        ("06:00Z", "Europe/Berlin", "2026-11-30T06:00:00+00:00"),
        ("06:00 America/New_York", "America/New_York", "2026-11-30T11:00:00+00:00"),
    ],
)
def test_deadline_is_a_moment_of_the_night(text: str, zone: str, moment: str):
    assert deadline_of(date(2026, 11, 29), text, ZoneInfo(zone)) == moment


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--night", "yesterday", "--", "true"], 2, "Invalid isoformat string: 'yesterday'"),
        (["--time-zone", "Nowhere", "--", "true"], 2, "No time zone found with key Nowhere"),
        (["--deadline", "soon", "--", "true"], 2, "deadline must be a time such as 06:00"),
        (["--address", "http://127.0.0.1:9", "--", "true"], 1, "the cluster refuses the job"),
    ],
)
def test_submission_that_cannot_begin_says_why(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == code
    assert says in capsys.readouterr().err
