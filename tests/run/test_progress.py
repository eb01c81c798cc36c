"""The progress of a run, on a terminal and in a log."""

import io
from datetime import datetime

import pytest

from posebatch.run.progress import LOG_SECONDS, Progress, Tally, describe, duration_text
from posebatch.run.speed import SpeedMeter


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


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_names_each_stage_before_the_first_frames(clock: Clock, terminal: bool):
    stream = Terminal() if terminal else io.StringIO()
    progress = Progress(Tally(videos_total=2, bytes_total=10), stream, clock)
    with progress.during("starting Ray"):
        clock.now += 12
        progress.show()
    for seconds, ready, frames in [(0, 0, 0), (13, 0, 0), (0, 1, 0), (0, 2, 0), (10, 2, 60), (0, 2, 60)]:
        clock.now += seconds
        progress.tally.frames, progress.tally.bytes_done = frames, frames / 30
        progress.note_workers(ready, 2)
        progress.show()
    lines = [line.strip() for line in stream.getvalue().replace("\r", "\n").splitlines() if line.strip()]
    assert [line for line in dict.fromkeys(lines) if "(0 s)" not in line] == [
        "0/2 videos | starting Ray (12 s)",
        "0/2 videos | 2 workers are loading networks (13 s)",
        "0/2 videos | 60 frames, 6.0 frames/s | 0 s of video | about 40 s left",
    ]
    assert [line for line in lines if "(0 s)" in line] == [
        "0/2 videos | starting Ray (0 s)",
        "0/2 videos | 2 workers are loading networks (0 s)",
        "0/2 videos | first frames (0 s)",
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


def test_progress_redraws_one_line_on_a_terminal(clock: Clock):
    stream = Terminal()
    tally = Tally(videos_total=2, failed=1)
    progress = Progress(tally, stream, clock)
    progress.show()
    assert stream.getvalue() == ""
    clock.now += 1
    progress.show()
    long = describe(tally, clock.now - 100, progress.speed)
    assert stream.getvalue() == f"\r{long}"
    tally.failed = 0
    clock.now += 1
    progress.show()
    short = describe(tally, clock.now - 100, progress.speed)
    assert stream.getvalue() == f"\r{long}\r{short.ljust(len(long))}", "nothing of the longer line remains"


def test_progress_prints_messages_above_the_live_line(clock: Clock):
    stream = Terminal()
    progress = Progress(Tally(), stream, clock)
    progress.say("first")
    assert stream.getvalue() == "\r\rfirst\n"
    clock.now += 1
    progress.show()
    line = describe(Tally(), 1, progress.speed)
    progress.say("second")
    assert stream.getvalue().endswith(f"\r{line}\r{' ' * len(line)}\rsecond\n")
    progress.close()
    assert stream.getvalue().endswith(f"second\n\r{line}\n")


def test_progress_measures_elapsed_time(clock: Clock):
    progress = Progress(Tally(), io.StringIO(), clock)
    clock.now += 7
    assert progress.elapsed_s == 7
