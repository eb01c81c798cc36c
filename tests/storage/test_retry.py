"""The retry policy: how often, and after which pauses."""

from __future__ import annotations

import random
import time

import pytest

from posebatch.core.errors import AccessDeniedError, StorageUnavailableError
from posebatch.storage import retry
from posebatch.storage.local import LocalStore
from posebatch.storage.retry import DEFAULT_POLICY, RetryPolicy
from posebatch.storage.s3 import S3Store


class Clock:
    """Time that passes in sleeps only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.lower_bounds: set[float] = set()
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(random, "uniform", self.draw_longest)

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def draw_longest(self, least: float, most: float) -> float:
        self.lower_bounds.add(least)
        return most


class Server:
    """Fails so often, each time after so many seconds."""

    def __init__(self, clock: Clock, failures: int, seconds: float = 0.0) -> None:
        self.clock, self.failures, self.seconds = clock, failures, seconds
        self.requests = 0

    def answer(self) -> str:
        self.requests += 1
        self.clock.now += self.seconds
        if self.requests <= self.failures:
            raise StorageUnavailableError("down")
        return "up"


def test_retry_policy_pauses_double_up_to_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    server = Server(clock, failures=5)
    policy = RetryPolicy(attempts=6, first_pause_s=1.0, longest_pause_s=5.0, patience_s=100.0)
    assert policy.call(server.answer) == "up"
    assert clock.pauses == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert clock.lower_bounds == {0}, "full jitter"


def test_retry_policy_ends_with_its_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Clock(monkeypatch), failures=10)
    with pytest.raises(StorageUnavailableError, match="down"):
        RetryPolicy(attempts=4).call(server.answer)
    assert server.requests == 4


def test_retry_policy_begins_no_attempt_beyond_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(Clock(monkeypatch), failures=10, seconds=6.0)
    with pytest.raises(StorageUnavailableError):
        RetryPolicy(first_pause_s=0.5, patience_s=10.0).call(server.answer)
    assert server.requests == 2


def test_retry_policy_raises_other_errors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def deny() -> None:
        requests.append(None)
        raise AccessDeniedError("no")

    clock = Clock(monkeypatch)
    with pytest.raises(AccessDeniedError):
        DEFAULT_POLICY.call(deny)
    assert (len(requests), clock.pauses) == (1, [])


def test_stores_without_a_policy_take_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    own, other = RetryPolicy(attempts=3), RetryPolicy(attempts=2)
    monkeypatch.setattr(retry, "DEFAULT_POLICY", other)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert (LocalStore(tmp_path).retry_policy, LocalStore(tmp_path, own).retry_policy) == (other, own)
    assert (S3Store("s3://b").retry_policy, S3Store("s3://b", None, own).retry_policy) == (other, own)
