"""The simulated fleet: it meets what arithmetic says where one limit alone counts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from benchmarks import command_line, scale_measurement
from benchmarks.fleet_simulation import GET, LIMITS, PUT, Fleet, FleetCosts, Partition, simulate

FREE = FleetCosts(
    driver_s=1e-6,
    publish_s=0.0,
    compute_s=1.0,
    source_gets=4,
    probe_gets=1,
    probe_puts=1,
    publish_gets=2,
    publish_puts=3,
    latency_s=0.001,
)


def rate_of(workers: int, shards: int = 1, partitions: int = 1, **costs: float) -> float:
    fleet = Fleet("a fleet", shards, workers, partitions, replace(FREE, **costs))
    return simulate(fleet, warm_up_s=20, seconds=60).rate


@pytest.mark.parametrize("shards", [1, 4])
def test_fleet_without_limits_is_bound_by_its_networks(shards: int) -> None:
    assert rate_of(20, shards) == pytest.approx(20, rel=0.05)


def test_fleet_is_bound_by_its_driver_and_shards_lift_that() -> None:
    """Three tasks a video."""
    assert rate_of(40, driver_s=0.02) == pytest.approx(1 / 0.06, rel=0.1)
    assert rate_of(40, shards=4, driver_s=0.02) == pytest.approx(40, rel=0.1)


def test_fleet_is_bound_by_the_store_and_partitions_lift_that() -> None:
    """501 puts a video: one in the probe, one of the segment, 499 at the end."""
    bound = LIMITS[PUT] / 501
    limited = simulate(Fleet("a fleet", 4, 20, 1, replace(FREE, publish_puts=499)), 20, 60)
    assert 0.5 * bound < limited.rate < 1.05 * bound
    assert limited.slowed_share > 0.1
    assert limited.requests[PUT] / 60 <= LIMITS[PUT] * 1.02
    assert limited.requests[GET] > 0
    assert rate_of(20, shards=4, partitions=8, publish_puts=499) == pytest.approx(20, rel=0.1)


def test_partition_answers_at_its_rate() -> None:
    partition = Partition()
    assert partition.take(PUT, int(LIMITS[PUT]), now=0.0), "a second's worth"
    assert not partition.take(PUT, 1, now=0.0)
    assert partition.take(GET, 1, now=0.0), "each kind has its own limit"
    assert partition.take(PUT, 35, now=0.0101)
    assert not partition.take(PUT, 35, now=0.0102)


def test_benchmark_scale_prints_limits_costs_and_fleets(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(scale_measurement, "in_child", lambda function, *arguments: function(*arguments))
    for name, value in (("COUNTED_SECONDS", 1), ("DRIVER_VIDEOS", 20), ("WARM_UP_S", 5.0), ("SIMULATED_S", 5.0)):
        monkeypatch.setattr(scale_measurement, name, value)
    words = (
        "scale",
        "--no-ray",
        "--gpus",
        "20",
        "--json",
        str(tmp_path / "a.json"),
        "--picture",
        str(tmp_path / "a.png"),
    )
    assert command_line.main(words) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["requests"]["by_step"]["SegmentTask"] == {"put": 1.0}
    assert report["requests"]["by_step"]["ProbeTask"] == {"list": 1.0}
    assert {fleet["fleet"]["shards"] for fleet in report["fleets"]} == {1, 16, 64}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "listing the whole archive" in printed
    assert "1,000,000 requests, 28 h" in printed
    assert "5 s, 64 shards, 8 partitions" in printed
