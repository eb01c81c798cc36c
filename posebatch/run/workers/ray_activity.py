"""Whether busy actors still make progress, asked of them now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import ray

from posebatch.run.workers.ray_calls import WORKER_DEATHS, Actor, Ref

ACTIVITY_SECONDS: Final = 15.0
"""How often busy actors are asked for their `Heartbeat.activity`."""


class ActivityMonitor:
    """Counts changes in the activity of actors, without ever waiting for an answer."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[Ref, Actor] = {}  # by the ref of activity()
        self._latest: dict[Actor, int] = {}
        self._next = clock()
        self._changes = 0

    def changes(self, actors: set[Actor]) -> int:
        """A number that has grown if any of these actors made progress since the last call."""
        answered, _ = ray.wait([*self._asked], num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for ref in answered:
            self._compare(self._asked.pop(ref), ref)
        if self._clock() >= self._next:
            self._next = self._clock() + ACTIVITY_SECONDS
            self._latest = {actor: activity for actor, activity in self._latest.items() if actor in actors}
            self._asked |= {actor.activity.remote(): actor for actor in actors - {*self._asked.values()}}
        return self._changes

    def _compare(self, actor: Actor, ref: Ref) -> None:
        try:
            activity = ray.get(ref)
        except WORKER_DEATHS:
            return
        self._changes += activity != self._latest.get(actor)
        self._latest[actor] = activity
