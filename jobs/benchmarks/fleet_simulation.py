"""A night of a large fleet, simulated: shards with their drivers, workers, helpers, and a store that limits requests.

Time is simulated, events are handled in their order. Each video goes through the steps of a real run: the driver plans
it, a helper probes it, a worker reads its bytes, computes and stages, a helper publishes it. What a step costs is
measured or assumed, and stated in `FleetCosts`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Final

from posebatch.run.failure_policy import DEFAULT_LIMITS
from posebatch.run.pool import SEGMENTS_PER_WORKER
from posebatch.storage.retry import RetryPolicy

GET, PUT = "get", "put"
"""Kinds of limited requests. S3 counts HEAD with GET, and DELETE with PUT. LIST is counted with PUT here."""


LIMITS: Final = {GET: 5500.0, PUT: 3500.0}
"""Requests a second that S3 promises for each partitioned prefix (Amazon S3 User Guide, November 2026)."""


READ_TOGETHER: Final = 8
"""Ranged reads of a video that are simulated as one event."""


@dataclass(frozen=True)
class FleetCosts:
    """What the steps of a video cost."""

    driver_s: float
    """Seconds of the driver for each of the three tasks of a video."""
    publish_s: float
    """Seconds of a helper's core to publish a video."""
    compute_s: float
    """Seconds of a worker's networks for a video."""
    source_gets: int
    """Ranged reads of a video."""
    probe_gets: int
    probe_puts: int
    publish_gets: int
    publish_puts: int
    latency_s: float
    """Time of one request, seconds."""


@dataclass(frozen=True)
class Fleet:
    """A scenario."""

    name: str
    shards: int
    workers: int
    """Of all shards together."""
    partitions: int
    """Partitions of the store, each for the output and as many for the source."""
    costs: FleetCosts
    in_flight: int = 1
    """Videos in flight, segments and helpers of a worker, as a multiple of those that a run has today."""


@dataclass
class FleetFigures:
    """A simulated stretch of a night, without its beginning."""

    fleet: Fleet
    seconds: float
    videos: int = 0
    given_up: int = 0
    """Requests that failed after all attempts of the retry policy; the run tries the step again."""
    requests: dict[str, int] = field(default_factory=lambda: {GET: 0, PUT: 0})
    """That the store answered."""
    slowed: int = 0
    """Answers that asked to slow down."""
    driver_s: float = 0.0
    """Busy seconds of the busiest driver."""
    compute_s: float = 0.0
    """Busy seconds of all workers."""
    publish_waits: list[float] = field(default_factory=list)
    """Seconds from the staging of each video to its publication."""

    @property
    def rate(self) -> float:
        """Videos per second."""
        return self.videos / self.seconds

    @property
    def ideal(self) -> float:
        """Videos per second if the workers never waited."""
        return self.fleet.workers / self.fleet.costs.compute_s

    @property
    def busy(self) -> float:
        """Share of the workers' time in which their networks compute."""
        return self.compute_s / (self.seconds * self.fleet.workers)

    @property
    def driver_busy(self) -> float:
        """Share of its time in which the busiest driver works."""
        return self.driver_s / self.seconds

    @property
    def slowed_share(self) -> float:
        """Share of all answers that ask to slow down."""
        return self.slowed / max(1, self.slowed + sum(self.requests.values()))

    def publish_wait(self, share: float) -> float:
        """The time from staging to publication that ``share`` of the videos do not exceed, seconds."""
        waits = sorted(self.publish_waits) or [0.0]
        return waits[min(len(waits) - 1, int(share * len(waits)))]


Steps = Generator["float | Resource | Urgent", None, None]
"""A process: it yields a number of seconds to wait, or a `Resource` to acquire."""


class Resource:
    """Places that processes take in the order of their coming, but those in ``urgent`` first."""

    def __init__(self, places: int) -> None:
        self.free = places
        self.waiting: deque[Steps] = deque()
        self.urgent: deque[Steps] = deque()


@dataclass(frozen=True)
class Urgent:
    """A `Resource` to acquire before those who wait already."""

    resource: Resource


class Simulation:
    """The clock, and the processes that wait for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Steps]] = []
        self._order = itertools.count()

    def start(self, process: Steps, after_s: float = 0.0) -> None:
        """Begin or resume a process."""
        heapq.heappush(self._events, (self.now + after_s, next(self._order), process))

    def release(self, resource: Resource) -> None:
        """Give a place back: to the first that waits."""
        queue = resource.urgent or resource.waiting
        if queue:
            self.start(queue.popleft())
        else:
            resource.free += 1

    def run(self, until_s: float) -> None:
        """Handle all events up to a time, seconds."""
        while self._events and self._events[0][0] <= until_s:
            self.now, _, process = heapq.heappop(self._events)
            self._resume(process)
        self.now = until_s

    def _resume(self, process: Steps) -> None:
        for wanted in process:
            if isinstance(wanted, float):
                self.start(process, wanted)
                return
            resource = wanted.resource if isinstance(wanted, Urgent) else wanted
            if not resource.free:
                (resource.urgent if isinstance(wanted, Urgent) else resource.waiting).append(process)
                return
            resource.free -= 1


class Partition:
    """One partition of the store: a bucket of tokens for each kind of request, at most a second's worth."""

    def __init__(self) -> None:
        self._tokens = dict(LIMITS)
        self._filled_at = 0.0

    def take(self, kind: str, requests: int, now: float) -> bool:
        """Whether the store answers so many requests now."""
        for each, limit in LIMITS.items():
            self._tokens[each] = min(limit, self._tokens[each] + limit * (now - self._filled_at))
        self._filled_at = now
        if self._tokens[kind] < requests:
            return False
        self._tokens[kind] -= requests
        return True


@dataclass
class _Shard:
    driver: Resource
    in_flight: Resource
    helpers: Resource
    segments: Resource
    networks: Resource
    busy_s: float = 0.0


class _Night:
    def __init__(self, fleet: Fleet, figures: FleetFigures, seed: int) -> None:
        self.fleet, self.figures, self.simulation = fleet, figures, Simulation()
        self._chance, self._policy = random.Random(seed), RetryPolicy()
        self._sources = [Partition() for _ in range(fleet.partitions)]
        self._outputs = [Partition() for _ in range(fleet.partitions)]
        self.counts = False
        share, more = divmod(fleet.workers, fleet.shards)
        self.shards = [_shard_of(share + (number < more), fleet.in_flight) for number in range(fleet.shards)]
        for shard in self.shards:
            self.simulation.start(self._admit(shard))

    def _admit(self, shard: _Shard) -> Steps:
        """Without end: a night has more videos than the simulated stretch."""
        while True:
            yield shard.in_flight
            self.simulation.start(self._video(shard))

    def _video(self, shard: _Shard) -> Steps:
        costs, simulation = self.fleet.costs, self.simulation
        source, output = self._chance.choice(self._sources), self._chance.choice(self._outputs)
        yield from self._drive(shard)
        yield shard.helpers
        yield from self._request(source, GET, costs.probe_gets)
        yield from self._request(output, PUT, costs.probe_puts)
        simulation.release(shard.helpers)
        yield from self._drive(shard)
        yield shard.segments
        for first in range(0, costs.source_gets, READ_TOGETHER):
            yield from self._request(source, GET, min(READ_TOGETHER, costs.source_gets - first))
        yield shard.networks
        compute_s = costs.compute_s * self._chance.uniform(0.5, 1.5)  # videos differ in length
        yield compute_s
        simulation.release(shard.networks)
        yield from self._request(output, PUT, 1)
        simulation.release(shard.segments)
        staged = simulation.now
        yield from self._drive(shard, first=True)  # the scheduler finishes videos before it begins others
        yield shard.helpers
        yield costs.publish_s
        yield from self._request(output, GET, costs.publish_gets)
        yield from self._request(output, PUT, costs.publish_puts)
        simulation.release(shard.helpers)
        simulation.release(shard.in_flight)
        if self.counts:
            self.figures.videos += 1
            self.figures.compute_s += compute_s
            self.figures.publish_waits.append(simulation.now - staged)

    def _drive(self, shard: _Shard, first: bool = False) -> Steps:
        yield Urgent(shard.driver) if first else shard.driver
        yield self.fleet.costs.driver_s
        self.simulation.release(shard.driver)
        shard.busy_s += self.fleet.costs.driver_s * self.counts

    def _request(self, partition: Partition, kind: str, requests: int) -> Steps:
        """Requests one after another, each repeated as the job's retry policy does."""
        policy, figures = self._policy, self.figures
        attempt = 0
        while requests and not partition.take(kind, requests, self.simulation.now):
            figures.slowed += requests * self.counts
            bound = min(policy.longest_pause_s, policy.first_pause_s * 2**attempt)
            attempt += 1
            if attempt == policy.attempts:  # the scheduler repeats the step after a pause
                figures.given_up += self.counts
                attempt = 0
            yield self._chance.uniform(0, bound)
        figures.requests[kind] += requests * self.counts
        yield requests * self.fleet.costs.latency_s


def _shard_of(workers: int, in_flight: int) -> _Shard:
    """The bounds are those of the job: see `SchedulerLimits`, `RayPool`, `SEGMENTS_PER_WORKER`."""
    return _Shard(
        driver=Resource(1),
        in_flight=Resource(in_flight * (DEFAULT_LIMITS.videos_per_worker * workers + DEFAULT_LIMITS.look_ahead_videos)),
        helpers=Resource(in_flight * max(2, workers)),
        segments=Resource(in_flight * SEGMENTS_PER_WORKER * workers),
        networks=Resource(workers),
    )


def simulate(fleet: Fleet, warm_up_s: float, seconds: float, seed: int = 0) -> FleetFigures:
    """Simulate the beginning of a night, then ``seconds`` that count."""
    figures = FleetFigures(fleet, seconds)
    night = _Night(fleet, figures, seed)
    night.simulation.run(warm_up_s)
    night.counts = True
    night.simulation.run(warm_up_s + seconds)
    figures.driver_s = max(shard.busy_s for shard in night.shards)
    return figures
