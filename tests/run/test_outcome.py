"""How a run ended: its exit code by the rule of the settings, its report on the terminal, its summary."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from posebatch.core.records import VideoRecord
from posebatch.core.settings import settings_from
from posebatch.core.videos import VideoInfo
from posebatch.run.context import RunContext
from posebatch.run.outcome import (
    PROBLEMS_PRINTED_BEFORE,
    Problems,
    RunOutcome,
    exit_code,
    print_outcome,
    summary,
)
from posebatch.run.tally import Tally
from posebatch.storage.local import LocalStore

VIDEO_INFO = VideoInfo("h264", "yuv420p", 64, 48, 0, Fraction(1, 100), 0, 1.0, 10.0, 4)
RECORD = VideoRecord("/in/a.mp4", "e", 1, 1.0, "ok", "f", "run-1", "0")
NOTHING = Tally()
WHOLE = Tally(published=2, up_to_date=1)
FAILED = Tally(published=8, up_to_date=90, failed=1, partial=1)
BEFORE = Tally(published=10, up_to_date=80, quarantined=10, partial=5, partial_before=5)
BOTH = Tally(published=9, failed=1, quarantined=90)


@pytest.mark.parametrize(
    ("tally", "chosen", "code"),
    [
        (NOTHING, {}, 0),
        (NOTHING, {"fail_on": "any"}, 0),
        (NOTHING, {"fail_above": "0.0"}, 0),
        (WHOLE, {}, 0),
        (WHOLE, {"fail_on": "any", "fail_above": "0.0"}, 0),
        (Tally(failed=1), {}, 3),
        (Tally(published=1, partial=1), {}, 3),
        (FAILED, {}, 3),
        (FAILED, {"fail_on": "any"}, 3),
        (FAILED, {"fail_on": "never"}, 0),
        (BEFORE, {}, 0),
        (BEFORE, {"fail_on": "any"}, 3),
        (BEFORE, {"fail_on": "never"}, 0),
        (Tally(up_to_date=1, partial=1, partial_before=1), {}, 0),
        (Tally(up_to_date=1, partial=1, partial_before=1), {"fail_on": "any"}, 3),
        # two of the nine videos that this run worked on
        (FAILED, {"fail_above": "20%"}, 3),
        (FAILED, {"fail_above": "0.23"}, 0),
        (FAILED, {"fail_on": "never", "fail_above": "0.2"}, 3),
        (FAILED, {"fail_on": "never", "fail_above": "0.23"}, 0),
        # two of the 99 videos of the inputs
        (FAILED, {"fail_on": "any", "fail_above": "0.03"}, 0),
        (FAILED, {"fail_on": "any", "fail_above": "0.02"}, 3),
        (BEFORE, {"fail_above": "0.0"}, 0),
        (BEFORE, {"fail_on": "any", "fail_above": "0.15"}, 0),
        (BOTH, {"fail_above": "0.1"}, 0),
        (BOTH, {"fail_on": "any", "fail_above": "0.1"}, 3),
        (Tally(videos_total=2, stopped_by="deadline", published=1), {}, 4),
        (Tally(videos_total=2, stopped_by="gpu_hours", published=1), {"fail_on": "any"}, 4),
        (Tally(videos_total=2, stopped_by="deadline", published=1, up_to_date=1), {}, 0),
        (Tally(videos_total=3, published=1), {}, 0),  # --limit
        (Tally(videos_total=3, stopped_by="deadline", failed=1), {}, 3),
        (Tally(videos_total=9, stopped_by="deadline", failed=1, published=1), {"fail_above": "50%"}, 4),
        (Tally(failed=7), {"fail_above": "100%"}, 0),
        (Tally(failed=29, published=71), {"fail_above": "0.29"}, 0),
    ],
)
def test_exit_code_counts_the_videos_that_the_settings_name(tally: Tally, chosen: dict[str, Any], code: int):
    assert exit_code(tally, settings_from(chosen).selection) == code


def test_problems_of_earlier_runs_never_hide_those_of_this_run():
    problems = Problems(most=2)
    assert problems.in_order() == ()
    for i in range(4):
        problems.add(f"old-{i}", "failed before" if i % 2 else "partial before", "why")
    for i in range(4):
        problems.add(f"new-{i}", "partial" if i % 2 else "failed", "why")
    assert [problem.video for problem in problems.in_order()] == ["new-0", "new-1", "old-0", "old-1"]


def outcome_of(tally: Tally, problems: Problems, **chosen: Any) -> RunOutcome:
    return RunOutcome(tally, 61.0, problems.in_order(), exit_code(tally, settings_from(chosen).selection))


def printed(outcome: RunOutcome, capsys: pytest.CaptureFixture[str], **chosen: Any) -> list[str]:
    print_outcome(outcome, LocalStore("/out"), "runs/1", settings_from(chosen))
    return capsys.readouterr().out.splitlines()


def test_report_of_a_whole_run_ends_with_its_exit_code(capsys: pytest.CaptureFixture[str]):
    lines = printed(outcome_of(WHOLE, Problems(9)), capsys)
    assert lines[1] == (
        "2 published, 1 up to date, 0 failed, 0 failed before, 0 partial; 0 frames, 0 persons in 1 min 01 s"
    )
    assert lines[-2:] == ["this run /out/runs/1/", "exit code 0"]


def test_report_names_the_page_of_the_run(capsys: pytest.CaptureFixture[str]):
    print_outcome(outcome_of(WHOLE, Problems(9)), LocalStore("/out"), "runs/1", settings_from({}), "runs/1/report.html")
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "this run /out/runs/1/",
        "report   /out/runs/1/report.html",
        "exit code 0",
    ]


def test_report_of_a_terminal_has_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = [re.sub(" +", " ", line) for line in printed(outcome_of(WHOLE, Problems(9)), capsys)]
    assert lines[1:4] == ["published 2", "up to date 1", "failed 0"]
    assert lines[-2:] == ["this run /out/runs/1/", "exit code 0"]


def test_report_as_json_is_one_line(capsys: pytest.CaptureFixture[str]):
    problems = Problems(9)
    problems.add("/in/new", "failed", "/in/new: no container")
    tally = replace(FAILED, frames_cut=3)
    (line,) = printed(outcome_of(tally, problems, log_format="json"), capsys, log_format="json", track=False)
    said = json.loads(line)
    assert {name: said[name] for name in ("event", "level", "run_id", "exit_code", "failed", "published")} == {
        **{"event": "run_finished", "level": "error", "run_id": "1"},
        **{"exit_code": 3, "failed": 1, "published": 8},
    }
    assert said["notes"] == ["cut off: 3 frames hold more persons than --max-persons 20"]
    assert said["places"] == {
        **{name: f"/out/{name}/" for name in ("poses", "frames", "videos")},
        "this run": "/out/runs/1/",
    }


def test_problems_of_this_run_are_told_at_once():
    told: list[tuple[str, ...]] = []
    problems = Problems(1, lambda *problem: told.append(problem))
    problems.add("/in/old", "failed before", "why")
    for name in ("/in/a", "/in/b"):
        problems.add(name, "failed", "why")
    assert told == [("failed", "/in/a", "why"), ("failed", "/in/b", "why")], "beyond the limit, too"


def test_report_names_failures_of_this_run_and_of_earlier_ones(capsys: pytest.CaptureFixture[str]):
    problems = Problems(99)
    for i in range(30):
        problems.add(f"/in/old-{i}", "failed before", "damaged: no frame")
    problems.add("/in/new", "failed", "/in/new: no container")
    lines = printed(outcome_of(Tally(failed=1, quarantined=35), problems), capsys)
    named = [line for line in lines if line.startswith("  ")]
    assert named[:2] == ["  failed: /in/new: no container", "  failed before: /in/old-0: damaged: no frame"]
    assert len(named) == 1 + PROBLEMS_PRINTED_BEFORE + 1
    assert named[-1] == "  and 15 more that failed or were partial before: see /out/runs/1/summary.json"
    assert lines[-1] == "exit code 3: 1 of 1 videos of this run failed or partial (--fail-on new)"


@pytest.mark.parametrize(
    ("info", "counts", "notes"),
    [
        pytest.param(None, {}, [], id="nothing known"),
        pytest.param(replace(VIDEO_INFO, tracks_in_file=("0: h264 64x48",)), {}, [], id="ordinary"),
        pytest.param(
            VIDEO_INFO,
            {"timestamps_repaired": 3},
            ["  3 frames of 1 video had a wrong time or none: frames.time_status marks them"],
            id="times",
        ),
        pytest.param(
            replace(VIDEO_INFO, tracks_in_file=("0: h264 64x48", "1: h264 32x24")),
            {"frames_resized": 2},
            [
                "  1 video with more than one video track: see videos.tracks_in_file; --video-track chooses",
                "  1 video with frames of several sizes, scaled to the first: see videos.frames_resized",
            ],
            id="tracks and sizes",
        ),
    ],
)
def test_report_names_peculiarities_of_videos(
    info: VideoInfo | None, counts: dict[str, int], notes: list[str], capsys: pytest.CaptureFixture[str]
):
    tally = Tally(published=1)
    tally.count_peculiarities(replace(RECORD, info=info, **counts))
    lines = printed(outcome_of(tally, Problems(9)), capsys)
    assert [line for line in lines if line.startswith("  ")] == notes


def test_report_says_why_earlier_failures_do_not_count(capsys: pytest.CaptureFixture[str]):
    problems = Problems(9)
    problems.add("/in/old", "partial before", "3 frames are damaged")
    lines = printed(outcome_of(BEFORE, problems), capsys)
    assert "10 failed before, 5 partial (5 of them before); " in lines[1]
    assert lines[-1] == "exit code 0: 0 of 10 videos of this run failed or partial (--fail-on new)"


def test_report_says_what_is_left_for_the_next_run(capsys: pytest.CaptureFixture[str]):
    tally = Tally(videos_total=9, published=2, failed=1, stopped_by="deadline", videos_unfinished=1)
    lines = printed(outcome_of(tally, Problems(0), fail_on="never"), capsys, fail_on="never")
    assert "  stopped at the deadline; left for the next run: 6 videos, 1 of them begun" in lines
    assert lines[-1] == (
        "exit code 4: 1 of 3 videos of this run failed or partial (--fail-on never); "
        "stopped at the deadline with 6 videos left; the same command continues"
    )
    lines = printed(outcome_of(Tally(videos_total=1, stopped_by="gpu_hours", gpu_hours=1.5), Problems(0)), capsys)
    assert "  stopped after 1.50 GPU hours; left for the next run: 1 video" in lines
    assert lines[-1] == "exit code 4: stopped at the end of its GPU hours with 1 video left; the same command continues"


def test_report_names_the_share(capsys: pytest.CaptureFixture[str]):
    chosen = {"fail_on": "any", "fail_above": "0.5"}
    lines = printed(outcome_of(BOTH, Problems(0), **chosen), capsys, **chosen)
    assert lines[-1] == "exit code 3: 91 of 100 videos failed or partial (--fail-on any --fail-above 0.5)"


def test_summary_holds_exit_code_counts_and_problems(tmp_path: Path):
    context = RunContext("run-1", settings_from({}), str(tmp_path), "d@1", "p@1")
    problems = Problems(9)
    problems.add("/in/old", "failed before", "why")
    written = summary(context, BEFORE, 1.0, outcome_of(BEFORE, problems))
    assert (written["finished"], written["exit_code"], written["quarantined"]) == (True, 0, 10)
    assert (written["partial"], written["partial_before"]) == (5, 5)
    assert written["complaints"] == [asdict(problem) for problem in problems.in_order()]
    stopped = summary(context, BEFORE, 1.0, None)
    assert (stopped["finished"], stopped["exit_code"], stopped["complaints"]) == (False, None, [])
