"""The end of admission, by a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from posebatch.core.night_settings import NightSettings
from posebatch.run.admission import Admission
from posebatch.run.tally import Tally


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def admission(clock: Clock, deadline: float | None = None, **night) -> tuple[Admission, Tally, list[str]]:
    tally, said = Tally(), list[str]()
    moment = None if deadline is None else datetime.fromtimestamp(deadline, UTC)
    return Admission(NightSettings(**night), tally, moment, said.append, clock), tally, said


def test_without_deadline_and_budget_every_video_may_begin():
    clock = Clock()
    gate, tally, said = admission(clock)
    gate.note_gpus(8)
    clock.now = 1e9
    gate.note_gpus(8)
    assert (gate.is_open, gate.is_over, tally.stopped_by, said) == (True, False, None, [])


def test_deadline_ends_admission_and_its_grace_ends_the_run():
    clock = Clock()
    gate, tally, said = admission(clock, 1060, grace_minutes=2)
    assert (gate.is_open, gate.is_over) == (True, False)
    clock.now = 1060
    assert (gate.is_open, gate.is_over, tally.stopped_by) == (False, False, "deadline")
    clock.now = 1179
    assert not gate.is_over
    clock.now = 1180
    assert gate.is_over
    assert said == [
        "the deadline 1970-01-01T00:17+00:00 has passed: no further video begins; "
        "those in flight have 2 minutes to finish"
    ]


def test_admission_stays_ended_when_the_clock_is_put_back():
    clock = Clock()
    gate, _, said = admission(clock, 1060)
    clock.now = 1061
    assert not gate.is_open
    clock.now = 1000
    assert not gate.is_open
    assert len(said) == 1


@pytest.mark.parametrize("grace", [0, 1])
def test_deadline_that_is_past_admits_nothing(grace: int):
    gate, tally, _ = admission(Clock(), 10, grace_minutes=grace)
    assert (gate.is_over, tally.stopped_by) == (grace == 0, "deadline")


def test_budget_counts_the_hours_of_ready_workers():
    clock = Clock()
    gate, tally, said = admission(clock, max_gpu_hours=2.5)
    gate.note_gpus(0)
    clock.now += 3600  # an hour without a ready worker costs nothing
    for gpus, hours in ((0.5, 1), (2, 0.5), (2, 0.5)):  # half a GPU, then two
        gate.note_gpus(gpus)
        assert gate.is_open
        clock.now += 3600 * hours
    gate.note_gpus(2)
    assert tally.gpu_hours == pytest.approx(2.5)
    assert (gate.is_open, tally.stopped_by) == (False, "gpu_hours")
    assert said[0].startswith("the budget of 2.5 GPU hours is spent: no further video begins")


def test_budget_of_nothing_admits_nothing_and_a_clock_that_goes_back_gives_nothing_back():
    gate, _, _ = admission(Clock(), max_gpu_hours=0)
    assert not gate.is_open
    clock = Clock()
    gate, tally, _ = admission(clock)
    gate.note_gpus(1)
    clock.now -= 600
    gate.note_gpus(1)
    assert tally.gpu_hours == 0
