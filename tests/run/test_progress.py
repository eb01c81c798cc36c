"""The progress of a run, on a terminal and in a log."""

import io

import pytest

from posebatch.run.progress import LOG_SECONDS, Progress, Tally, describe, duration_text


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


@pytest.mark.parametrize(
    ("tally", "elapsed", "text"),
    [
        pytest.param(Tally(), 0, "0/0 videos | 0 frames, 0.0 frames/s | 0 s of video | 0 s in all", id="empty"),
        pytest.param(
            Tally(videos_total=3, bytes_total=30),
            5,
            "0/3 videos | 0 frames, 0.0 frames/s | 0 s of video | time left: not known yet",
            id="nothing done yet",
        ),
        pytest.param(
            Tally(videos_total=3, bytes_total=30, up_to_date=1, bytes_passed=10),
            5,
            "1/3 videos | 0 frames, 0.0 frames/s | 0 s of video | time left: not known yet",
            id="skipped videos say nothing of the time left",
        ),
        pytest.param(
            Tally(videos_total=4, bytes_total=40, up_to_date=1, published=1, bytes_passed=10, bytes_done=10, frames=50),
            20,
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
            50,
            "4/4 videos, 1 failed | 100 frames, 2.0 frames/s | 1 min 10 s of video | 50 s in all",
            id="end",
        ),
        pytest.param(
            Tally(videos_total=2, bytes_total=10, bytes_done=15),
            10,
            "0/2 videos | 0 frames, 0.0 frames/s | 0 s of video | about 0 s left",
            id="the archive grew meanwhile",
        ),
    ],
)
def test_describe_prints_counts_rate_and_time_left(tally, elapsed, text):
    assert describe(tally, elapsed) == text


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
    assert stream.getvalue() == f"{describe(tally, 10)}\n"
    progress.say("preview left out")
    progress.close()
    assert stream.getvalue().splitlines() == [describe(tally, 10), "preview left out", describe(tally, 10)]
    assert "\r" not in stream.getvalue()


def test_progress_redraws_one_line_on_a_terminal(clock: Clock):
    stream = Terminal()
    tally = Tally(videos_total=2, failed=1)
    progress = Progress(tally, stream, clock)
    progress.show()
    assert stream.getvalue() == ""
    clock.now += 1
    progress.show()
    long = describe(tally, clock.now - 100)
    assert stream.getvalue() == f"\r{long}"
    tally.failed = 0
    clock.now += 1
    progress.show()
    short = describe(tally, clock.now - 100)
    assert stream.getvalue() == f"\r{long}\r{short.ljust(len(long))}", "nothing of the longer line remains"


def test_progress_prints_messages_above_the_live_line(clock: Clock):
    stream = Terminal()
    progress = Progress(Tally(), stream, clock)
    progress.say("first")
    assert stream.getvalue() == "\r\rfirst\n"
    clock.now += 1
    progress.show()
    line = describe(Tally(), 1)
    progress.say("second")
    assert stream.getvalue().endswith(f"\r{line}\r{' ' * len(line)}\rsecond\n")
    progress.close()
    assert stream.getvalue().endswith(f"second\n\r{line}\n")


def test_progress_measures_elapsed_time(clock: Clock):
    progress = Progress(Tally(), io.StringIO(), clock)
    clock.now += 7
    assert progress.elapsed_s == 7
