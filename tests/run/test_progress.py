"""The progress of a run, on a terminal and in a log."""

import io
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from rich.cells import cell_len
from rich.console import Console

from posebatch.core.records import VideoRecord
from posebatch.run.progress import LOG_SECONDS, SCREEN_SECONDS, Progress
from posebatch.run.progress_text import describe, duration_text, published_text
from posebatch.run.speed import SpeedMeter
from posebatch.run.tally import Tally
from posebatch.run.terminal import counts_table, live_view


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (42, "42 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599, "59 min 59 s"),
        (3599.7, "1 h 00 min"),
        (26_400, "7 h 20 min"),
    ],
)
def test_duration_text_chooses_its_unit(seconds, text):
    assert duration_text(seconds) == text


def speed_after(clock: Clock, start: float, steps: list[tuple[float, int, int]]) -> SpeedMeter:
    """A meter after ``start`` seconds without workers, and steps of seconds, workers then ready, frames in all."""
    meter = SpeedMeter(clock)
    clock.now += start
    for seconds, ready, frames in steps:
        clock.now += seconds
        meter.note(ready, frames)
    return meter


@pytest.mark.parametrize(
    ("start", "steps", "start_s", "rate"),
    [
        pytest.param(0, [], None, None, id="empty"),
        pytest.param(30, [(0, 0, 0)], None, None, id="no worker yet"),
        pytest.param(30, [(0, 2, 0), (5, 2, 0)], 30, None, id="no frames yet"),
        pytest.param(30, [(0, 2, 0), (5, 2, 100)], 30, 20, id="the start does not count"),
        pytest.param(30, [(0, 2, 0), (5, 2, 100), (60, 2, 100)], 30, 20, id="nor do publication and previews"),
        pytest.param(0, [(0, 1, 0), (10, 10, 100), (10, 10, 1100)], 0, 100, id="a cluster that grew"),
        pytest.param(0, [(0, 2, 0), (10, 1, 200), (10, 1, 300)], 0, 10, id="a worker that was lost"),
        pytest.param(0, [(0, 2, 0), (10, 0, 200), (9, 0, 200)], 0, 20, id="all workers lost"),
        pytest.param(0, [(0, 0, 50)], None, None, id="frames without workers"),
    ],
)
def test_speed_is_that_of_the_steady_state(clock: Clock, start, steps, start_s, rate):
    meter = speed_after(clock, start, steps)
    assert meter.start_s == start_s
    assert meter.frames_per_second == (None if rate is None else pytest.approx(rate))
    assert meter.summary() == {"start_s": start_s, "frames_per_second": rate}


@pytest.mark.parametrize(
    ("tally", "steps", "elapsed", "text"),
    [
        pytest.param(Tally(), [], 0, "0/0 videos | 0 s in all", id="empty"),
        pytest.param(Tally(videos_total=3, bytes_total=30), [], 5, "0/3 videos", id="nothing done yet"),
        pytest.param(
            Tally(videos_total=3, bytes_total=30, up_to_date=1, bytes_passed=10),
            [(0, 2, 0)],
            5,
            "1/3 videos",
            id="skipped videos say nothing of the time left",
        ),
        pytest.param(
            Tally(videos_total=4, bytes_total=40, up_to_date=1, published=1, bytes_passed=10, bytes_done=10, frames=50),
            [(0, 2, 0), (20, 2, 50)],
            100,
            "2/4 videos | 50 frames, 2.5 frames/s | 0 s of video | about 40 s left",
            id="half",
        ),
        pytest.param(
            Tally(videos_total=100, bytes_total=1000, published=1, bytes_done=10, frames=50),
            [(0, 2, 0), (20, 2, 50)],
            50,
            "1/100 videos | 50 frames, 2.5 frames/s | 0 s of video",
            id="the first 20 s of a long run say nothing of the time left",
        ),
        pytest.param(
            Tally(videos_total=100, bytes_total=1000, published=3, bytes_done=30, frames=150),
            [(0, 2, 0), (60, 2, 150)],
            90,
            "3/100 videos | 150 frames, 2.5 frames/s | 0 s of video | about 32 min 20 s left",
            id="the first minute of a long run",
        ),
        pytest.param(
            Tally(videos_total=100, bytes_total=1000, published=3, bytes_done=30, frames=160),
            [(0, 1, 0), (60, 1, 150), (1, 32, 160)],
            91,
            "3/100 videos | 160 frames, 83.9 frames/s | 0 s of video | about 1 min 02 s left",
            id="workers that join do not take it back",
        ),
        pytest.param(
            Tally(
                videos_total=4,
                bytes_total=40,
                up_to_date=1,
                quarantined=1,
                published=1,
                failed=1,
                frames=100,
                video_seconds=70,
                bytes_done=20,
            ),
            [(0, 2, 0), (50, 2, 100)],
            85,
            "4/4 videos, 1 failed | 100 frames, 2.0 frames/s | 1 min 10 s of video | 1 min 25 s in all, "
            "30 s of it to start",
            id="end",
        ),
        pytest.param(
            Tally(videos_total=1, frames=1, bytes_total=10, bytes_done=15),
            [(0, 1, 0), (10, 1, 1)],
            10,
            "0/1 video | 1 frame, 0.1 frames/s | 0 s of video | about 0 s left",
            id="the archive grew meanwhile",
        ),
    ],
)
def test_describe_prints_counts_rate_and_time_left(clock: Clock, tally, steps, elapsed, text):
    assert describe(tally, elapsed, speed_after(clock, 30, steps)) == text


def run_to_the_first_frames(progress: Progress, clock: Clock) -> None:
    """12 s to start Ray, 13 s for the networks, 10 s for 60 frames."""
    with progress.during("starting Ray"):
        clock.now += 12
        progress.show()
    for seconds, ready, frames in [(0, 0, 0), (13, 0, 0), (0, 1, 0), (0, 2, 0), (10, 2, 60), (0, 2, 60)]:
        clock.now += seconds
        progress.tally.frames, progress.tally.bytes_done = frames, frames / 30
        progress.note_workers(ready, 2)
        progress.show()


def test_log_has_a_line_for_each_stage_before_the_first_frames(clock: Clock):
    stream = io.StringIO()
    run_to_the_first_frames(Progress(Tally(videos_total=2, bytes_total=10), stream, clock), clock)
    assert stream.getvalue().splitlines() == [
        "0/2 videos | starting Ray (0 s)",
        "0/2 videos | 2 workers are loading networks (0 s)",
        "0/2 videos | first frames (0 s)",
        "0/2 videos | 60 frames, 6.0 frames/s | 0 s of video | about 40 s left",
    ]


def test_lines_of_a_log_carry_time_and_run(clock: Clock):
    stream = io.StringIO()
    progress = Progress(Tally(), stream, clock, "run-1", lambda: datetime(2026, 1, 31, 1, 2, 3))
    progress.say("preview left out")
    progress.close()
    assert stream.getvalue() == (
        "2026-01-31 01:02:03 run-1 preview left out\n2026-01-31 01:02:03 run-1 0/0 videos | 0 s in all\n"
    )


def test_progress_writes_whole_lines_to_a_log(clock: Clock):
    stream = io.StringIO()
    tally = Tally(videos_total=2)
    progress = Progress(tally, stream, clock)
    for _ in range(20):
        progress.show()
    assert stream.getvalue() == "", "not at once"
    clock.now += LOG_SECONDS
    tally.published = 1
    progress.show()
    progress.show()
    assert stream.getvalue() == f"{describe(tally, 10, progress.speed)}\n"
    progress.say("preview left out")
    progress.close()
    assert stream.getvalue().splitlines() == [
        describe(tally, 10, progress.speed),
        "preview left out",
        describe(tally, 10, progress.speed),
    ]
    assert "\r" not in stream.getvalue()


RECORD = VideoRecord(
    "/in/ski/run.mp4", "e", 1, 1.0, "ok", "f", "run-1", "0", frames_processed=60, persons=1, objects=()
)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({}, "ski/run.mp4: 60 frames, 1 person"),
        ({"video": "a.mp4", "persons": 0}, "a.mp4: 60 frames, 0 persons"),
        ({"video": "s3://b/a.mp4", "status": "partial"}, "b/a.mp4: 60 frames, 1 person, partial"),
    ],
)
def test_published_text_names_the_end_of_the_address(changed, text):
    assert published_text(replace(RECORD, **changed)) == text


def test_a_failed_or_partial_video_has_a_line_of_its_own(clock: Clock):
    stream = io.StringIO()
    progress = Progress(Tally(), stream, clock, "run-1", lambda: datetime(2026, 1, 31, 1, 2, 3))
    progress.complain("failed", "/in/a.mp4", "/in/a.mp4: no container")
    progress.complain("partial", "/in/b.mp4", "3 frames are damaged")
    assert stream.getvalue().splitlines() == [
        "2026-01-31 01:02:03 run-1 failed: /in/a.mp4: no container",
        "2026-01-31 01:02:03 run-1 partial: /in/b.mp4: 3 frames are damaged",
    ]


# --- as JSON -----------------------------------------------------------------------------------------------------


def in_zone(hours: int) -> datetime:
    return datetime(2026, 1, 31, 1, 2, 3, tzinfo=timezone(timedelta(hours=hours)))


def test_each_line_is_a_json_object_with_time_run_and_counts(clock: Clock):
    stream = Terminal()  # a terminal, too
    tally = Tally(videos_total=2, bytes_total=10)
    progress = Progress(tally, stream, clock, "run-1", lambda: in_zone(2), "json")
    run_to_the_first_frames(progress, clock)
    tally.failed, tally.published = 1, 1
    progress.complain("failed", "/in/a.mp4", "no\ncontainer \x1b[2J \udc80")
    progress.warn("tried again")
    progress.abort("stopped by SIGTERM")
    progress.close()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        *[("stage", "info")] * 3,
        ("progress", "info"),
        ("video_failed", "error"),
        ("warning", "warning"),
        ("run_aborted", "error"),
        ("progress", "info"),
    ]
    assert {(line["time"], line["run_id"]) for line in lines} == {("2026-01-31T01:02:03.000+02:00", "run-1")}
    assert [line.get("stage") for line in lines[:4]] == [
        "starting Ray",
        "2 workers are loading networks",
        "first frames",
        "",
    ]
    assert (lines[3]["frames"], lines[3]["frames_per_second"], lines[3]["left_s"]) == (60, 6.0, 40)
    failure = lines[4]
    assert (failure["video"], failure["failed"], failure["videos_done"]) == ("/in/a.mp4", 1, 2)
    assert failure["reason"] == "no\ncontainer \x1b[2J \\x80"


# --- on a terminal -----------------------------------------------------------------------------------------------


def drawn(renderable, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, legacy_windows=False)
    console.print(renderable)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def without_bar(lines: list[str]) -> list[str]:
    return [re.sub("^[━╸╺ ]+", "", line) for line in lines]


def test_live_view_is_calm_and_short(clock: Clock):
    meter = speed_after(clock, 30, [(0, 2, 0), (20, 2, 50)])
    tally = Tally(videos_total=4, bytes_total=40, up_to_date=1, failed=1, bytes_passed=10, bytes_done=10, frames=50)
    assert without_bar(drawn(live_view(Tally(videos_total=2), 0, SpeedMeter(clock), "starting Ray (3 s)"))) == [
        "0/2 videos",
        "starting Ray (3 s)",
    ]
    recent = ("ski/run.mp4: 60 frames, 1 person", "[red]\x1b[2J\nb.mp4: 1 frame, 0 persons")
    view = drawn(live_view(tally, 50, meter, "", recent))
    assert without_bar(view) == [
        "2/4 videos, 1 failed",
        "50 frames, 2.5 frames/s | 0 s of video | about 40 s left",
        "ski/run.mp4: 60 frames, 1 person",
        "[red]\\x1b[2J b.mp4: 1 frame, 0 persons",
    ]
    assert view[0].startswith("━" * 15)


@pytest.mark.parametrize("width", [20, 40, 80])
def test_live_view_never_wraps(clock: Clock, width: int):
    meter = speed_after(clock, 30, [(0, 2, 0), (20, 2, 50)])
    view = live_view(Tally(videos_total=10**6, frames=50), 50, meter, "", ("a" * 300, "漢" * 300))
    lines = drawn(view, width)
    assert len(lines) == 4
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize(
    ("tally", "share"),
    [
        pytest.param(Tally(), 1, id="empty"),
        pytest.param(Tally(videos_total=2, bytes_total=10), 0, id="nothing"),
        pytest.param(Tally(videos_total=4, derived=1), 0.25, id="sizes are not known"),
        pytest.param(Tally(videos_total=2, bytes_total=10, bytes_passed=2, bytes_done=3), 0.5, id="half a video"),
        pytest.param(Tally(videos_total=2, bytes_total=10, bytes_done=15), 1, id="the archive grew"),
        pytest.param(Tally(videos_total=2, bytes_total=10, failed=2), 1, id="all failed"),
    ],
)
def test_share_done_is_of_the_bytes(tally: Tally, share: float):
    assert tally.share_done == share


@pytest.mark.parametrize(
    ("tally", "rows"),
    [
        (
            Tally(),
            ["published 0", "up to date 0", "failed 0", "partial 0", "frames 0", "persons 0", "time 1 min 01 s"],
        ),
        (
            Tally(published=2, derived=3, up_to_date=4, failed=1, quarantined=5, partial=6, partial_before=5, frames=7),
            [
                *("published 2", "derived from stored poses 3", "up to date 4", "failed 1", "failed before 5"),
                *("partial (5 of them before) 6", "frames 7", "persons 0", "time 1 min 01 s"),
            ],
        ),
    ],
)
def test_counts_table_leaves_out_what_did_not_happen(tally: Tally, rows: list[str]):
    assert [re.sub(" +", " ", line) for line in drawn(counts_table(tally, 61))] == rows


def test_terminal_is_drawn_again_and_left_in_order(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    tally = Tally(videos_total=2)
    progress = Progress(tally, stream, clock)
    progress.show()
    assert stream.getvalue() == "", "not at once"
    clock.now += 2 * SCREEN_SECONDS
    progress.show()
    assert "0/2 videos" in stream.getvalue()
    before = len(stream.getvalue())
    progress.show()
    assert len(stream.getvalue()) == before, "not at any rate"
    tally.published = 1
    progress.published(RECORD)
    progress.published(replace(RECORD, video="/in/no.mp4", status="failed"))
    progress.complain("failed", "/in/[b]no.mp4", "no\x1b[2J container")
    clock.now += 2 * SCREEN_SECONDS
    progress.show()
    text = stream.getvalue()
    assert "failed: /in/[b]no.mp4: no\\x1b[2J container" in text, "markup and control characters do nothing"
    assert "ski/run.mp4: 60 frames, 1 person" in text
    assert "in/no.mp4: 60 frames" not in text
    progress.close()
    end = stream.getvalue()[len(text) :]
    assert end.endswith("1/2 videos\n")
    assert "\x1b[?25" not in stream.getvalue(), "the cursor stays: a killed process could not show it again"


def test_a_terminal_that_cannot_draw_gets_lines(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress = Progress(Tally(videos_total=1), stream, clock, "run-1")
    progress.enter("starting Ray")
    assert stream.getvalue() == "0/1 video | starting Ray (0 s)\n"


def test_progress_measures_elapsed_time(clock: Clock):
    progress = Progress(Tally(), io.StringIO(), clock)
    clock.now += 7
    assert progress.elapsed_s == 7
