"""One notification at the end of a run: a JSON object, posted to the address of ``--notify``.

It is sent when the summary is written and the lease is released, and never decides how the run ends: an address that
does not answer costs `TOTAL_SECONDS` and one line in the log.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol

from posebatch.core.errors import PosebatchError
from posebatch.core.night_settings import NightSettings, masked_address
from posebatch.core.redaction import redacted, utf8_text
from posebatch.core.scripts import EXIT_CANNOT_GO_ON, exit_code_of
from posebatch.core.version import USER_AGENT, __version__
from posebatch.run.log_lines import LogLine, LogWriter, counts
from posebatch.run.tally import Tally

SCHEMA: Final = "posebatch.notification/1"

PROBLEMS_NAMED: Final = 10
"""Problems that a notification names."""

TOTAL_SECONDS: Final = 20.0
"""Longest time that a notification may take, with all attempts."""

ATTEMPT_SECONDS: Final = 5.0
"""Longest wait for the connection, and for the answer, of one attempt."""

PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the attempts."""


class Post(Protocol):
    """Posts a JSON text; see `post_once`."""

    def __call__(self, address: str, body: str) -> Answer:
        """Post ``body`` to ``address`` once."""


@dataclass(frozen=True)
class Answer:
    """How one attempt ended."""

    fault: str | None
    """Why it failed, without the address; None if the receiver has accepted the notification."""
    may_pass: bool = False
    """Whether another attempt may succeed."""


def post_once(address: str, body: str) -> Answer:
    """Post a JSON text once. Redirects are not followed: they would carry the text to a host that nobody named."""
    import requests  # noqa: PLC0415 - the library takes time to load, and most runs notify nobody

    headers = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
    try:
        with requests.post(
            address,
            data=body.encode(),
            headers=headers,
            timeout=(ATTEMPT_SECONDS, ATTEMPT_SECONDS),
            allow_redirects=False,
            stream=True,  # the body of the answer is not read
        ) as response:
            status = response.status_code
    except requests.RequestException as error:  # its text holds the address
        return Answer(type(error).__name__, may_pass=isinstance(error, requests.ConnectionError | requests.Timeout))
    if 200 <= status < 300:
        return Answer(None)
    hint = ", a redirect, which is not followed" if 300 <= status < 400 else ""
    return Answer(f"HTTP status {status}{hint}", may_pass=status >= 500 or status == 429)


def post_with_retries(address: str, body: str, ended: threading.Event, post: Post = post_once) -> str | None:
    """Post until the receiver accepts; returns why it never did, or None. Gives up once ``ended`` is set."""
    answer = post(address, body)
    for pause_s in PAUSES_S:
        if answer.fault is None or not answer.may_pass or ended.wait(pause_s):
            break
        answer = post(address, body)
    return answer.fault


class EndNotice:
    """Posts how a run has ended, once, when the block that it guards is left.

    Blocks may be nested: the innermost one that is left sends. Without an address nothing is sent.
    """

    def __init__(
        self, night: NightSettings, output: str, total_seconds: float = TOTAL_SECONDS, log_format: str = "text"
    ) -> None:
        """``log_format``: of the line about a notification that was not delivered.

        Raises `SettingsError` if the address is to come from an environment variable that holds none.
        """
        self._address, self._shown = night.notify_address(), masked_address(night.notify or "")
        self._output, self._total_seconds, self._log_format = output, total_seconds, log_format
        self._facts: Mapping[str, Any] = {}
        self._started = time.monotonic()
        self._is_sent = False

    def note(self, **facts: Any) -> None:
        """Add facts about the run: fields of `content`, and ``tally``, whose counts are read at the end."""
        self._facts = {**self._facts, **facts}

    def __enter__(self) -> EndNotice:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._address is None or self._is_sent:
            return
        self._is_sent = True
        fault = _within(self._total_seconds, self._address, self._text(error))
        if fault is not None:
            line = LogLine("warning", f"the notification to {self._shown} was not delivered: {fault}", "warning")
            LogWriter(sys.stderr, self._facts.get("run_id") or "", self._log_format).write(line)

    def _text(self, error: BaseException | None) -> str:
        facts = dict(self._facts)
        facts["counts"] = counts_of(facts.pop("tally", None), time.monotonic() - self._started)
        return json_text(content(self._output, facts, error))


def counts_of(tally: Tally | None, elapsed_s: float) -> dict[str, Any]:
    """The counts of a run; empty if it has ended before it looked at its videos."""
    if tally is None:
        return {}
    left = {"videos_left": tally.videos_left, "stopped_by": tally.stopped_by}
    return {**counts(tally, elapsed_s), **left}


def content(output: str, facts: Mapping[str, Any], error: BaseException | None) -> dict[str, Any]:
    """The fields of a notification. ``facts``: those known of the run, ``error``: what ended it early."""
    known = {"run_id": None, "exit_code": None, "reason": "", "counts": {}, "problems": [], "report_key": None, **facts}
    if error is not None:
        known |= {"exit_code": _exit_code(error), "reason": _reason(error)}
    problems = known.pop("problems")
    run_id = known["run_id"]
    return {
        "schema": SCHEMA,
        "text": f"posebatch {output}: {known['reason'] or 'ended'}",
        "output": output,
        "posebatch_version": __version__,
        **known,
        "aborted": error is not None,
        "problems": [vars(problem) for problem in problems[:PROBLEMS_NAMED]],
        "problems_kept": len(problems),
        "summary_key": None if run_id is None else f"runs/{run_id}/summary.json",
    }


def json_text(fields: Mapping[str, Any]) -> str:
    """The fields as JSON, without credentials."""
    return json.dumps(_without_secrets(fields))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return utf8_text(redacted(value))
    if isinstance(value, Mapping):
        return {name: _without_secrets(each) for name, each in value.items()}
    return [_without_secrets(each) for each in value] if isinstance(value, list | tuple) else value


def _exit_code(error: BaseException) -> int:
    return exit_code_of(error) if isinstance(error, PosebatchError) else EXIT_CANNOT_GO_ON


def _reason(error: BaseException) -> str:
    """A bug is named by its type alone: the text of a library's error may hold anything."""
    return str(error) if isinstance(error, PosebatchError) else f"an internal error: {type(error).__name__}"


def _within(total_seconds: float, address: str, body: str) -> str | None:
    """Post in a thread, which is left alone after the total time: looking up a name has no time limit of its own."""
    ended, faults = threading.Event(), list[str | None]()
    thread = threading.Thread(
        target=lambda: faults.append(post_with_retries(address, body, ended)), name="notification", daemon=True
    )
    thread.start()
    thread.join(total_seconds)
    ended.set()
    return faults[0] if faults else f"no answer within {total_seconds:g} s"
