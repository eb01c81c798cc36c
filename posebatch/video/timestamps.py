"""Timestamps that lead through a video: wrong ones are put in line, right ones stay as they are.

A decoder gives frames in presentation order, whatever their timestamps say. So timestamps must increase from frame to
frame. Where they do not, or jump, the rule is:

1. The frames are held until `WINDOW_FRAMES` of them are known. Of their timestamps the largest increasing subset is
   kept. Among equally large subsets the one with the most regular intervals is kept.
2. A timestamp that repeats the one before it moves by one tick, or not at all where the next one leaves no room.
3. Other rejected timestamps are replaced by even steps between their kept neighbours, or by steps of the usual
   interval where there is a neighbour on one side only.
4. A rejected run that increases by itself, `CLOCK_FRAMES` long at least, is a clock that was set anew: it is moved as a
   whole, and keeps its intervals.
5. At most `STRAY_FRAMES` frames at the beginning or at the end that stand alone, more than `STRAY_JUMP` usual intervals
   and `STRAY_RATIO` longest ones away from all others, are rejected too, unless the duration of the frame before the
   jump explains it. A recording of a still screen has long intervals elsewhere, too.

Frames without a timestamp take part as rejected ones. All else is kept to the tick.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Generic, TypeVar

from posebatch.core.frames import TimeStatus

T = TypeVar("T")

WINDOW_FRAMES: Final = 32
"""Frames that are held while their timestamps contradict each other."""

CLOCK_FRAMES: Final = 12
"""Frames in a row that a clock must lead before it is believed."""

STRAY_FRAMES: Final = 2
"""Frames at an end of the video that do not make a clock of their own."""

STRAY_JUMP: Final = 250
"""Usual intervals: 10 s at 25 frames a second. A longer jump to so few frames is not believed."""

STRAY_RATIO: Final = 10
"""Longest intervals so far. Together with `STRAY_JUMP`: a jump must be rare for the video, too."""

KNOWN_INTERVALS: Final = 65
"""Latest intervals whose median is the usual interval."""

OPENING_ITEMS: Final = 4
"""First items that are placed at once when their intervals agree."""

USUAL: Final = 1.5
"""An interval of up to so many usual ones raises no doubt."""


@dataclass(frozen=True)
class Timed(Generic[T]):
    """An item with its place in time."""

    item: T
    pts: int
    """Ticks; never before that of the item ahead of it."""
    status: TimeStatus


@dataclass(frozen=True)
class _Raw(Generic[T]):
    item: T
    pts: int | None
    duration: int
    """Ticks; 0 where it is not known."""


class TimestampRepair(Generic[T]):
    """Puts timestamps in line, item by item in presentation order.

    >>> repair = TimestampRepair()
    >>> timed = [t for pts in (0, 40, 3_600_000, 120) for t in repair.push(str(pts), pts, 40)] + repair.flush()
    >>> [(t.pts, t.status) for t in timed]
    [(0, 'ok'), (40, 'ok'), (80, 'repaired'), (120, 'ok')]
    """

    def __init__(self, window_frames: int = WINDOW_FRAMES) -> None:
        self._window_frames = window_frames
        self._held: list[_Raw[T]] = []
        self._last: int | None = None
        self._last_duration = 0
        self._intervals: deque[int] = deque(maxlen=KNOWN_INTERVALS)
        self._longest = 0  # interval, ticks
        self._clock = 0  # ticks to add to the stream's own timestamps

    @property
    def held(self) -> int:
        """Items whose place is not known yet."""
        return len(self._held)

    def is_ahead(self, pts: int) -> bool:
        """Whether a timestamp lies behind that of the last item, as far as that is known."""
        latest = next((raw.pts for raw in reversed(self._held) if raw.pts is not None), self._last)
        return latest is None or pts + self._clock > latest

    def is_near(self, pts: int) -> bool:
        """Whether a timestamp is no jump from that of the last item."""
        latest = next((raw.pts for raw in reversed(self._held) if raw.pts is not None), self._last)
        return latest is None or pts + self._clock - latest <= STRAY_JUMP * self._interval()

    def push(self, item: T, pts: int | None, duration: int) -> list[Timed[T]]:
        """Take the next item; returns those whose place is known now."""
        raw = _Raw(item, None if pts is None else pts + self._clock, duration)
        if not self._held and self._is_usual(raw):
            assert raw.pts is not None
            return [self._place(raw, raw.pts, "ok")]
        self._held.append(raw)
        if self._opens_regularly():
            held, self._held = self._held, []
            return [self._place(one, one.pts or 0, "ok") for one in held]
        if len(self._held) < self._window_frames:
            return []
        return self._settle(len(self._held) // 2)

    def flush(self) -> list[Timed[T]]:
        """Place all that is held: the video has ended."""
        placed: list[Timed[T]] = []
        while self._held:
            placed += self._settle(len(self._held), at_end=True)
        return placed

    def _is_usual(self, raw: _Raw[T]) -> bool:
        if raw.pts is None or self._last is None or not self._intervals:
            return False
        return 0 < raw.pts - self._last <= USUAL * self._interval()

    def _opens_regularly(self) -> bool:
        """Whether the first items, `OPENING_ITEMS` of them, raise no doubt."""
        stamps = [raw.pts for raw in self._held]
        if self._last is not None or len(stamps) != OPENING_ITEMS or None in stamps:
            return False
        steps = [after - before for before, after in pairwise(stamp for stamp in stamps if stamp is not None)]
        return min(steps) > 0 and max(steps) <= USUAL * min(steps)

    def _interval(self) -> float:
        """The usual interval, ticks."""
        known = self._intervals or [raw.duration for raw in self._held if raw.duration > 0]
        if known:
            return max(1.0, statistics.median(known))
        stamps = sorted({raw.pts for raw in self._held if raw.pts is not None})
        steps = [after - before for before, after in pairwise(stamps)]
        return max(1.0, statistics.median(steps)) if steps else 1.0

    def _settle(self, count: int, at_end: bool = False) -> list[Timed[T]]:
        """Place the first ``count`` items that are held."""
        held, interval = self._held, self._interval()
        stamps = [raw.pts for raw in held]
        kept = regular_subset(stamps, self._last, interval)
        kept = self._without_strays(kept, interval, at_end)
        run = self._clock_run(kept)
        if run is not None and run < count:
            if run == 0:
                self._set_clock(interval)
                return self._settle(count, at_end)
            count = run
        places = fill_in(stamps, kept, self._last, interval)
        self._held = held[count:]
        placed: list[Timed[T]] = []
        for i in range(count):
            status: TimeStatus = (
                "made_up" if stamps[i] is None else "ok" if i in kept and not self._clock else "repaired"
            )
            placed.append(self._place(held[i], places[i], status))
        return placed

    def _place(self, raw: _Raw[T], pts: int, status: TimeStatus) -> Timed[T]:
        if self._last is not None and status == "ok":
            self._intervals.append(pts - self._last)
            self._longest = max(self._longest, pts - self._last)
        self._last, self._last_duration = pts, raw.duration
        return Timed(raw.item, pts, "repaired" if status == "ok" and self._clock else status)

    def _without_strays(self, kept: frozenset[int], interval: float, at_end: bool) -> frozenset[int]:
        """Rule 5."""
        order = sorted(kept)
        stamps = [self._held[i].pts or 0 for i in order]
        steps = [after - before for before, after in pairwise(stamps)]
        for at in range(1, len(order)):
            jump, duration = steps[at - 1], self._held[order[at] - 1].duration
            opens = self._last is None and at <= STRAY_FRAMES < len(order) - at
            if opens and _is_stray_jump(jump, interval, max(steps[at:]), duration):
                return frozenset(order[at:])
            to_first = 0 if self._last is None else stamps[0] - self._last
            longest = max((self._longest, to_first, *steps[: at - 1]))
            if at_end and len(order) - at <= STRAY_FRAMES and _is_stray_jump(jump, interval, longest, duration):
                return frozenset(order[:at])
        if not (at_end and order and self._intervals and self._last is not None and len(self._held) <= STRAY_FRAMES):
            return kept
        is_stray = _is_stray_jump(stamps[0] - self._last, interval, self._longest, self._last_duration)
        return frozenset() if is_stray else kept

    def _clock_run(self, kept: frozenset[int]) -> int | None:
        """Where a rejected run begins that increases by itself; None without one."""
        begin = 0
        for i in range(len(self._held) + 1):
            stays = i < len(self._held) and i not in kept
            rises = stays and (i == begin or _rises(self._held[i - 1].pts, self._held[i].pts))
            if rises:
                continue
            if i - begin >= CLOCK_FRAMES and self._last is not None:
                return begin
            begin = i if stays else i + 1
        return None

    def _set_clock(self, interval: float) -> None:
        """Let the clock of the items that are held go on where the last item ended."""
        first = self._held[0].pts
        assert first is not None
        assert self._last is not None
        shift = self._last + round(interval) - first
        self._clock += shift
        self._held = [_Raw(raw.item, None if raw.pts is None else raw.pts + shift, raw.duration) for raw in self._held]


def _is_stray_jump(jump: int, interval: float, longest: int, duration: int) -> bool:
    """Rule 5, all in ticks. ``duration``: of the frame before the jump, as the stream states it."""
    return jump > STRAY_JUMP * interval and jump > STRAY_RATIO * longest and duration <= jump / 2


def _rises(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def regular_subset(stamps: Sequence[int | None], last: int | None, interval: float) -> frozenset[int]:
    """Positions of the largest strictly increasing subset of ``stamps`` above ``last``.

    Of equally large ones the subset whose intervals deviate least from ``interval`` per frame, and of these the one
    with the earlier positions. None never belongs to it.
    """
    best: list[tuple[int, float, int]] = []  # for each position: size, irregularity, the position before it
    cap = 4 * interval
    for j, stamp in enumerate(stamps):
        if stamp is None or (last is not None and stamp <= last):
            best.append((0, 0.0, -1))
            continue
        irregular = min(cap, j * interval if last is None else abs(stamp - last - (j + 1) * interval))
        choice = (1, irregular, -1)
        for i in range(j):
            before = stamps[i]
            if best[i][0] and before is not None and before < stamp:
                step = min(cap, abs(stamp - before - (j - i) * interval))
                candidate = (best[i][0] + 1, best[i][1] + step, i)
                if (-candidate[0], candidate[1]) < (-choice[0], choice[1]):
                    choice = candidate
        best.append(choice)
    position = min(range(len(best)), key=lambda j: (-best[j][0], best[j][1], j), default=-1)
    kept: list[int] = []
    while position >= 0 and best[position][0]:
        kept.append(position)
        position = best[position][2]
    return frozenset(kept)


def fill_in(stamps: Sequence[int | None], kept: frozenset[int], last: int | None, interval: float) -> list[int]:
    """A place for each stamp: its own where it is kept, by rules 2 and 3 where not."""
    order = sorted(kept)
    places: list[int] = []
    for i, stamp in enumerate(stamps):
        if i in kept:
            assert stamp is not None
            places.append(stamp)
            continue
        left = places[-1] if places else last
        at = bisect_left(order, i)
        right = stamps[order[at]] if at < len(order) else None
        if left is None:
            places.append(0 if right is None else right - round(interval * (order[at] - i)))
            continue
        if right is None:
            step = 1 if stamp == left else max(1, round(interval))
            places.append(left + step)
            continue
        if stamp == left:
            places.append(min(left + 1, right - 1) if right - 1 > left else left)
            continue
        frames = order[at] - i + 1
        places.append(left + (right - left) // frames)
    return places
