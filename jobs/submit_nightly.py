"""Submit the job of a night to a Ray cluster, once, and wait for its end.

    python jobs/submit_nightly.py --address http://127.0.0.1:8265 --deadline 06:00 -- \\
      python jobs/extract_poses.py s3://my-archive/videos/ --output s3://my-poses/dataset --wait

The submission id is the date on which the night begins, as in posebatch-2026-11-29; a night lasts from noon to noon. A
second submission of the same night attaches to the first and ends with the same exit code: that of the job. A run that
could not go on (exit code 1, or a driver that died) is submitted again, with a number behind the date. The exit code is
1 if the cluster does not answer, or if all tries have failed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Final, Protocol, TypeVar
from zoneinfo import ZoneInfo

from posebatch.core.deadline import Deadline
from posebatch.core.errors import RunAbortedError, UsageError
from posebatch.core.scripts import (
    EXIT_CANNOT_GO_ON,
    EXIT_OK,
    EXIT_SOME_FAILED,
    EXIT_USAGE,
    EXIT_VIDEOS_LEFT,
    run_script,
)

POLL_SECONDS: Final = 10.0

MAX_UNANSWERED: Final = 30
"""Questions in a row to which the cluster may give no answer: five minutes."""

NOON: Final = timedelta(hours=12)

SAID_BY_THE_RUN: Final = (EXIT_SOME_FAILED, EXIT_VIDEOS_LEFT)
"""Exit codes of runs that came to their end: another try would not change them."""


@dataclass(frozen=True)
class Submission:
    """A job of the cluster."""

    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    exit_code: int | None = None
    """Of a driver that has ended by itself."""
    message: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether the job has come to an end, whichever."""
        return self.status in ("SUCCEEDED", "FAILED", "STOPPED")

    @property
    def may_be_repeated(self) -> bool:
        """Whether a submission in its place could do better: it was stopped, died, or could not go on."""
        return self.status == "STOPPED" or (self.status == "FAILED" and self.exit_code not in SAID_BY_THE_RUN)

    @property
    def night_code(self) -> int:
        """The exit code of a night that ends with it."""
        if self.status == "SUCCEEDED":
            return EXIT_OK
        return self.exit_code if self.exit_code in (*SAID_BY_THE_RUN, EXIT_USAGE) else EXIT_CANNOT_GO_ON


Answer = TypeVar("Answer")


class Cluster(Protocol):
    """A Ray cluster that takes jobs. Both methods raise `ConnectionError` if it does not answer."""

    def find(self, submission_id: str) -> Submission | None:
        """The job of this id; None if there is none."""

    def submit(self, submission_id: str, command: str) -> bool:
        """Submit a job; returns whether the id was free."""


class Night:
    """The submissions of one night."""

    def __init__(
        self,
        cluster: Cluster,
        first_id: str,
        command: str,
        tries: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``first_id``: the submission id of the night. ``tries``: submissions that this process waits for at most."""
        self._cluster, self._first_id, self._command = cluster, first_id, command
        self._tries, self._sleep = tries, sleep

    def run(self) -> int:
        """Submit, or attach to what was submitted, and wait; returns the exit code of the night."""
        number, tried, ended = 1, 0, Submission("")
        while tried < self._tries:
            name = self._first_id if number == 1 else f"{self._first_id}-{number}"
            number += 1
            before = self._answered(lambda name=name: self._cluster.find(name))  # type: ignore[misc]
            if before is not None and before.has_ended:
                if not before.may_be_repeated:
                    return self._end(name, before)
                print(f"{name}: {_why(before)}, earlier; it is submitted again", flush=True)
                continue
            ended = self._watched(name, is_there=before is not None)
            tried += 1
            if ended.status == "STOPPED" or ended.exit_code == EXIT_USAGE or not ended.may_be_repeated:
                return self._end(name, ended)
            print(f"{name}: {_why(ended)}", flush=True)
        return ended.night_code

    def _end(self, name: str, submission: Submission) -> int:
        print(f"{name}: {_why(submission)}", flush=True)
        return submission.night_code

    def _watched(self, name: str, is_there: bool) -> Submission:
        is_ours = not is_there and self._answered(lambda: self._cluster.submit(name, self._command))
        print(f"{name}: {'submitted' if is_ours else 'attached to the submission that is there'}", flush=True)
        while True:
            submission = self._answered(lambda: self._cluster.find(name))
            if submission is None:
                raise RunAbortedError(f"the cluster knows {name} no more: its head was started anew; submit again")
            if submission.has_ended:
                return submission
            self._sleep(POLL_SECONDS)

    def _answered(self, ask: Callable[[], Answer]) -> Answer:
        for _ in range(MAX_UNANSWERED - 1):
            try:
                return ask()
            except ConnectionError:
                self._sleep(POLL_SECONDS)
        try:
            return ask()
        except ConnectionError as error:
            raise RunAbortedError(f"the cluster did not answer {MAX_UNANSWERED} times in a row: {error}") from error


def _why(submission: Submission) -> str:
    code = "" if submission.exit_code is None else f", exit code {submission.exit_code}"
    return f"{submission.status.lower()}{code}" + (f" ({submission.message})" if submission.status == "FAILED" else "")


class RayCluster:
    """A real one, by its dashboard."""

    def __init__(self, address: str | None, working_dir: str | None) -> None:
        from ray.job_submission import JobSubmissionClient  # noqa: PLC0415 - takes seconds

        self._runtime_env = {"working_dir": working_dir} if working_dir else {}
        self._client: Any = JobSubmissionClient(address)

    def find(self, submission_id: str) -> Submission | None:
        """See `Cluster`."""
        try:
            jobs = self._client.list_jobs()
        except (OSError, RuntimeError) as error:  # no answer, or one that something behind the dashboard gives none
            raise ConnectionError(str(error)) from error
        for job in jobs:
            if job.submission_id == submission_id:
                lines = (job.message or "").strip().splitlines()
                return Submission(str(job.status.value), job.driver_exit_code, lines[0] if lines else "")
        return None

    def submit(self, submission_id: str, command: str) -> bool:
        """See `Cluster`."""
        try:
            self._client.submit_job(entrypoint=command, submission_id=submission_id, runtime_env=self._runtime_env)
        except OSError as error:  # perhaps it has arrived: the next attempt finds it there
            raise ConnectionError(str(error)) from error
        except RuntimeError:
            if self.find(submission_id) is None:
                raise
            return False  # another process was faster
        return True


def night_of(moment: datetime) -> date:
    """The date on which the night of a moment begins: it lasts from noon to noon."""
    return (moment.replace(tzinfo=None) - NOON).date()


def deadline_of(night: date, text: str, zone: ZoneInfo | None) -> str:
    """A deadline as a moment of this night, so that a second try has the same one and not the next day's."""
    noon = datetime.combine(night, time_of_day(12)).replace(tzinfo=zone)
    moment = Deadline.parse(text).after(noon.astimezone(zone))
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def submit_night(chosen: argparse.Namespace) -> int:
    """Submit the job of a night; returns its exit code."""
    zone = ZoneInfo(chosen.time_zone) if chosen.time_zone else None
    night = date.fromisoformat(chosen.night) if chosen.night else night_of(datetime.now(zone))
    words = list(chosen.command)
    if chosen.deadline:
        words += ["--deadline", deadline_of(night, chosen.deadline, zone)]
    cluster = RayCluster(chosen.address, chosen.working_dir)
    return Night(cluster, f"{chosen.name}-{night}", shlex.join(words), chosen.tries).run()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", metavar="URL", help="Ray's dashboard; default: RAY_ADDRESS, as `ray job submit`")
    parser.add_argument("--name", default="posebatch", help="begin of the submission id (default: posebatch)")
    parser.add_argument("--night", metavar="DATE", help="date on which the night begins (default: that of this night)")
    parser.add_argument("--time-zone", metavar="ZONE", help="zone of the night, as Europe/Berlin (default: local)")
    parser.add_argument("--deadline", metavar="TIME", help="passed to the job as a moment of this night")
    parser.add_argument("--tries", type=int, default=2, metavar="N", help="submissions of a failing run (default: 2)")
    parser.add_argument("--working-dir", metavar="DIR", help="folder that the job gets a copy of, as `ray job submit`")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the job, after --")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit and wait; returns the exit code."""
    chosen = parse(arguments)

    def action() -> int:
        try:
            return submit_night(chosen)
        except (ValueError, KeyError) as error:
            raise UsageError(f"{error}; see --help") from error
        except (ConnectionError, RuntimeError) as error:
            raise RunAbortedError(f"the cluster refuses the job: {error}") from error

    return run_script("submit_nightly", action)


if __name__ == "__main__":
    sys.exit(main())
