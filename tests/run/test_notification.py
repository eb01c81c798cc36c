"""The notification at the end of a run, posted to a real HTTP server."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from pathlib import Path

import pytest
from support.driver_runs import kept_signal_handlers, working_pool
from support.notice_receiver import HANG, receiving

from posebatch.core.errors import RunAbortedError, SettingsError, UsageError
from posebatch.core.night_settings import NightSettings
from posebatch.core.settings import settings_from
from posebatch.core.version import __version__
from posebatch.run import notification
from posebatch.run.driver import run_job
from posebatch.run.notification import PROBLEMS_NAMED, SCHEMA, EndNotice, content, counts_of
from posebatch.run.outcome import VideoProblem
from posebatch.run.run_folder import settings_yaml
from posebatch.run.tally import Tally
from posebatch.storage.local import LocalStore

SECRET = "T0K3N-of-the-receiver"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(notification, "PAUSES_S", (0.01, 0.01))


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(url: str, total_seconds: float = 20.0, **facts) -> None:
    with EndNotice(NightSettings(notify=url), "s3://poses/out", total_seconds) as notice:
        notice.note(**facts)


@pytest.mark.parametrize(
    ("statuses", "attempts", "says"),
    [
        ([200], 1, ""),
        ([204], 1, ""),
        ([500, 200], 2, ""),
        ([503, 429, 201], 3, ""),
        ([500], 3, "was not delivered: HTTP status 500"),
        ([404, 200], 1, "was not delivered: HTTP status 404"),
        ([302, 200], 1, "was not delivered: HTTP status 302, a redirect, which is not followed"),
        ([307, 200], 1, "was not delivered: HTTP status 307, a redirect, which is not followed"),
    ],
)
def test_notification_is_repeated_while_that_may_help(
    statuses: list[int], attempts: int, says: str, capsys: pytest.CaptureFixture[str]
):
    with receiving(*statuses) as receiver:
        send(f"{receiver.url}/hooks/{SECRET}?token={SECRET}", reason="exit code 0")
    assert receiver.paths == [f"/hooks/{SECRET}?token={SECRET}"] * attempts
    assert all(body == receiver.bodies[0] for body in receiver.bodies)
    said = capsys.readouterr().err
    assert says in said if says else said == ""
    assert SECRET not in said


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_receiver_that_is_not_there_costs_one_line(host: str, capsys: pytest.CaptureFixture[str]):
    send(f"http://me:{SECRET}@{host}:{free_port()}/{SECRET}")
    said = capsys.readouterr().err
    assert said.endswith("/*** was not delivered: ConnectionError\n")
    assert SECRET not in said


def test_receiver_that_hangs_is_left_after_the_total_time(capsys: pytest.CaptureFixture[str]):
    with receiving(HANG) as receiver:
        send(receiver.url, total_seconds=0.3)
    assert "was not delivered: no answer within 0.3 s" in capsys.readouterr().err


def test_line_about_it_is_json_if_that_is_chosen(capsys: pytest.CaptureFixture[str]):
    night = NightSettings(notify=f"http://127.0.0.1:{free_port()}/{SECRET}")
    with EndNotice(night, "out", log_format="json") as notice:
        notice.note(run_id="run-1")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["run_id"]) == ("warning", "run-1")
    assert line["message"].endswith("/*** was not delivered: ConnectionError")


def test_nobody_is_told_without_an_address():
    with EndNotice(NightSettings(), "out"):
        pass


def test_notification_is_sent_once_by_the_innermost_block():
    with receiving(200) as receiver, EndNotice(NightSettings(notify=receiver.url), "out") as notice:
        with pytest.raises(RunAbortedError), notice:
            raise RunAbortedError("stopped by SIGTERM")
        assert len(receiver.bodies) == 1
    assert [body["reason"] for body in receiver.bodies] == ["stopped by SIGTERM"]


def test_content_of_a_run_that_never_began():
    assert content("out", {}, UsageError("--preset: none")) == {
        **{"schema": SCHEMA, "text": "posebatch out: --preset: none", "output": "out"},
        **{"posebatch_version": __version__, "run_id": None, "exit_code": 2, "reason": "--preset: none"},
        **{"counts": {}, "report_key": None, "aborted": True, "problems": [], "problems_kept": 0, "summary_key": None},
    }


def test_content_is_what_the_page_on_clusters_says():
    page = (Path(__file__).resolve().parents[2] / "docs/cluster.md").read_text(encoding="utf-8")
    table = page.split("### The notification")[1]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))
    assert sorted(named) == sorted(content("out", {}, None))
    (counts,) = re.findall(r"^\| `counts` \|(.*)\|$", table, re.MULTILINE)
    assert set(counts_of(Tally(), 0.0)) == set(re.findall(r"`(\w+)`", counts))


def test_content_names_the_first_problems_and_no_text_of_a_library():
    problems = tuple(VideoProblem(f"/in/{i}.mp4", "failed", "no container") for i in range(PROBLEMS_NAMED + 2))
    fields = content("out", {"run_id": "r", "problems": problems}, RuntimeError(SECRET))
    assert (len(fields["problems"]), fields["problems_kept"]) == (PROBLEMS_NAMED, PROBLEMS_NAMED + 2)
    assert fields["problems"][0] == {"video": "/in/0.mp4", "status": "failed", "reason": "no container"}
    assert (fields["exit_code"], fields["reason"]) == (1, "an internal error: RuntimeError")
    assert fields["summary_key"] == "runs/r/summary.json"


def test_notification_holds_no_credentials(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    problem = VideoProblem(f"https://b/k.mp4?X-Amz-Signature={SECRET}", "failed", f"key {SECRET}")
    with receiving(200) as receiver:
        send(receiver.url, reason=f"http://me:{SECRET}x@h/", problems=(problem,), tally=Tally(videos_total=2, failed=1))
    (body,) = receiver.bodies
    assert SECRET not in json.dumps(body)
    assert body["counts"]["videos_left"] == 1


# --- of whole runs ---------------------------------------------------------------------------------------------


def test_run_posts_its_end_after_its_lease_and_writes_the_address_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_bytes(b"no video")
    output = LocalStore(tmp_path / "out")
    ended: list[bool] = []
    post = notification.post_once

    def noting(address: str, body: str) -> notification.Answer:
        (lease,) = (json.loads(output.read(one.key)) for one in output.list("_state/leases/"))
        ended.append(lease["ended"] and any(one.key.endswith("summary.json") for one in output.list("runs/")))
        return post(address, body)

    monkeypatch.setattr(notification, "post_with_retries", lambda address, body, _: noting(address, body).fault)
    with receiving(200) as receiver, kept_signal_handlers():
        settings = settings_from({"notify": f"{receiver.url}/{SECRET}"})
        outcome = run_job([str(tmp_path / "in")], output.root, settings, working_pool)
    (body,) = receiver.bodies
    assert (outcome.exit_code, body["exit_code"], ended) == (3, 3, [True])
    assert (body["aborted"], body["counts"]["failed"], len(body["problems"])) == (False, 1, 1)
    assert body["reason"] == "exit code 3: 1 of 1 videos of this run failed or partial (--fail-on new)"
    assert (tmp_path / "out" / body["summary_key"]).is_file()
    written = "".join(path.read_text(errors="replace") for path in (tmp_path / "out").rglob("*") if path.is_file())
    printed = capsys.readouterr()
    assert SECRET not in written + printed.out + printed.err
    assert f"# notify: {receiver.url}/***" in written


def test_run_that_is_refused_posts_that(tmp_path: Path):
    with receiving(200) as receiver, pytest.raises(UsageError):
        run_job([str(tmp_path / "none")], str(tmp_path / "out"), settings_from({"notify": receiver.url}), working_pool)
    (body,) = receiver.bodies
    assert (body["aborted"], body["exit_code"], body["run_id"]) == (True, 2, None)
    assert "none" in body["reason"]


def test_settings_of_a_run_can_be_used_again(tmp_path: Path):
    settings = settings_from({"notify": f"https://h/{SECRET}"})
    assert settings_yaml(settings).startswith("# notify: https://h/***\n")
    assert "\nnotify: null\n" in settings_yaml(settings)
    named = settings_from({"notify": "env:NAME"})
    assert "notify: env:NAME\n" in settings_yaml(named)
    with pytest.raises(SettingsError):
        run_job([str(tmp_path)], str(tmp_path / "out"), named, working_pool)
