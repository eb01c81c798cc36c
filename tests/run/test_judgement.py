"""What a commit record says of a decoding."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from posebatch.core.records import DecodeReport
from posebatch.core.videos import VideoInfo
from posebatch.run.workers.judgement import avg_fps, duration_s, is_vfr, problems_of

INFO = VideoInfo("h264", "yuv420p", 640, 480, 0, Fraction(1, 100), 0, 100.0, 24.0, 0)
EMPTY = DecodeReport()
WHOLE = DecodeReport(frames_decoded=50, first_pts=0, last_pts=196, min_interval=4, max_interval=4)


@pytest.mark.parametrize(
    ("info", "decode", "words"),
    [
        (INFO, EMPTY, []),
        (INFO, WHOLE, []),
        (INFO, replace(WHOLE, frames_damaged=2), ["2 frames are damaged"]),
        (INFO, replace(WHOLE, ends_early=True), ["the file ends early: 50 frames decoded"]),
        (replace(INFO, frames_in_header=60), replace(WHOLE, ends_early=True), ["50 frames decoded, 60 promised"]),
        (replace(INFO, missing_bytes=2048), WHOLE, ["it lacks 2048 of the bytes"]),
        (replace(INFO, missing_bytes=2048), replace(WHOLE, ends_early=True), ["it lacks 2048 of the bytes"]),
        (replace(INFO, matrix_ignored=True), replace(WHOLE, frames_damaged=1), ["1 frames", "display matrix"]),
    ],
)
def test_problems_make_a_video_partial(info: VideoInfo, decode: DecodeReport, words: list[str]) -> None:
    problems = problems_of(info, decode)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


@pytest.mark.parametrize(
    ("info", "decode", "seconds", "rate"),
    [
        (INFO, EMPTY, 100.0, 24.0),
        (INFO, WHOLE, 100.0, 25.0),
        (INFO, replace(WHOLE, timestamps_repaired=1), 2.0, 25.0),  # the header may come from the wrong timestamp
        (replace(INFO, duration_s=0.0), WHOLE, 1.96, 25.0),
        (INFO, DecodeReport(frames_decoded=1, first_pts=0, last_pts=0, timestamps_repaired=1), 100.0, 24.0),
    ],
)
def test_duration_and_rate(info: VideoInfo, decode: DecodeReport, seconds: float, rate: float) -> None:
    assert duration_s(info, decode) == pytest.approx(seconds)
    assert avg_fps(info, decode) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("decode", "expected"),
    [
        (EMPTY, None),
        (replace(WHOLE, frames_decoded=2), None),
        (WHOLE, False),
        (replace(WHOLE, frames_damaged=1), None),
        (replace(WHOLE, max_interval=6), False),  # within 2 ticks
        (replace(WHOLE, max_interval=7), True),
        (replace(WHOLE, min_interval=40, max_interval=43), False),  # within 10 %
    ],
)
def test_variable_rate_is_more_than_rounding(decode: DecodeReport, expected: bool | None) -> None:
    assert is_vfr(decode) is expected
