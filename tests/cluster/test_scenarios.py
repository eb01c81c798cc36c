"""Hosts are cut off, slowed, lost and replaced amid a run: the dataset is that of one machine, byte for byte."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import pytest
from cluster.ray_cluster import BIN, IN_FLIGHT_OF_A_HOST, WORKERS, Cluster, Job, Night, wait_until
from cluster.suite import REASON_TO_SKIP, note_row
from faults.nights import InjectedFault
from support.processes import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.slow]
if REASON_TO_SKIP:
    pytestmark.append(pytest.mark.skip(reason=REASON_TO_SKIP))

DONE: Final = 3
"""Exit code of a finished run: the broken videos fail."""

DOWN_S: Final = 60

SLOW_S: Final = 0.8
"""Seconds for a frame while a fault is under way, so that the run does not end before it."""

SEVERAL: Final = 6
"""Segments that are staged before a fault begins."""


def conclude(
    night: Night,
    one_machine: dict[str, Any],
    scenario: str,
    result: str,
    *,
    in_flight: int = 0,
    may_leave_staged: bool = False,
) -> None:
    """Assert what every scenario must end with, and add its row to the table.

    ``in_flight``: segments under way on what was lost. ``may_leave_staged``: a segment may have been staged after its
    video was published; `gc` removes it.
    """
    described = night.describe()
    assert described["published"] == one_machine["published"]
    assert described["records"] == one_machine["records"]
    assert described["attempts"] == [1], "no failed attempt is recorded against any video"
    left = [key for key in described["left"] if not may_leave_staged or "/attempts/" in key]
    assert left == [], "nothing is left of the work"
    night.verify()
    assert night.repeated() <= in_flight, night.computed()
    repeated = f"{night.repeated()} of {len(night.computed())}; in flight {in_flight}"
    note_row(scenario, repeated, result, time.monotonic() - night.started)


def started(night: Night, *options: str) -> Job:
    """A slow run that has staged several segments."""
    night.plan(seconds_per_frame=SLOW_S)
    job = night.submit(*options)
    wait_until(lambda: len(night.stored()) >= SEVERAL, job)
    return job


def finish(night: Night, job: Job) -> str:
    """The log of a run that goes on fast from now on, and ends well."""
    night.plan(seconds_per_frame=0.02)
    code, output = job.finish()
    assert code == DONE, output
    return output


def test_run_on_several_hosts(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    code, output = night.run()
    assert code == DONE, output
    assert {host for _, host in night.stored()} == set(WORKERS), "each host had work"
    conclude(night, one_machine, "three workers, a store, a job from another host", "the same bytes as on one machine")


def test_store_is_far_away(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    others = [host for host in cluster.network.hosts if host != "store"]
    cluster.network.rule(*(("store", host, {"delay_ms": 50, "loss": 0.01}) for host in others))
    code, output = night.run()
    dropped = sum(dropped for _, _, dropped in cluster.network.statistics().values())
    cluster.network.heal()
    assert code == DONE, output
    assert dropped > 0
    conclude(night, one_machine, "100 ms there and back, and 1 % loss, between the store and all others",
             f"{dropped} frames lost")  # fmt: skip


def test_head_is_slow(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    others = [host for host in cluster.network.hosts if host != "head"]
    cluster.network.rule(*(("head", host, {"delay_ms": 100, "mbit_per_s": 4}) for host in others))
    code, output = night.run()
    cluster.network.heal()
    assert code == DONE, output
    conclude(night, one_machine, "200 ms there and back, and 4 Mbit/s, between the head and each other host", "slower")


def test_link_that_flaps(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    job = started(night)
    for _ in range(3):
        cluster.network.cut("w2")
        time.sleep(5)
        cluster.network.heal()
        time.sleep(5)
    finish(night, job)
    assert cluster.node_runs(cluster.workers["w2"]), "Ray has not noticed"
    conclude(night, one_machine, "a worker's host cut off for 5 s, three times", "nobody noticed")


@pytest.mark.parametrize("store_is_reachable", [False, True], ids=["from all", "from all but the store"])
def test_host_is_cut_off_and_joins_again(
    cluster: Cluster, night: Night, one_machine: dict[str, Any], store_is_reachable: bool
) -> None:
    """A process on it is held amid a publication, and goes on when another one has published the same video."""
    cluster.restore(*WORKERS)
    night.plan(InjectedFault("after put", "^frames/archive/dt", "hold"), seconds_per_frame=SLOW_S)
    job = night.submit()
    wait_until(night.held_by, job)
    name = night.held_by()
    host, before = cluster.workers[name], {key for key, _ in night.stored()}
    began = time.monotonic()
    others = [other for other in cluster.network.hosts if other not in (name, "store")]
    cluster.network.cut(name, *(others if store_is_reachable else ()))
    wait_until(lambda: host.address not in cluster.alive(), job)
    night.plan(seconds_per_frame=0.02)
    if store_is_reachable:  # the process that Ray has given up goes on beside its successors
        night.release()
        code, output = job.finish()
    else:
        wait_for(lambda: time.monotonic() - began > 120 or job.is_over(), 130)
        code, output = job.finish()
        night.release()
    time.sleep(3)
    seconds = time.monotonic() - began
    cluster.network.heal()
    wait_for(lambda: not cluster.node_runs(host), 120, pause_s=1)  # the head has told it that it is dead
    assert code == DONE, output
    again = [key for key, count in night.computed().items() if count > 1]
    assert not before & set(again), "nothing that was staged is done twice"
    conclude(
        night, one_machine,
        f"a worker's host cut off for {seconds:.0f} s amid publishing, from all"
        f"{' but the store' if store_is_reachable else ''}, and joined again",
        "its late puts change nothing", in_flight=IN_FLIGHT_OF_A_HOST, may_leave_staged=True,
    )  # fmt: skip


def test_host_is_cut_off_for_good(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    job = started(night)
    cluster.network.cut("w2")
    wait_until(lambda: cluster.workers["w2"].address not in cluster.alive(), job)
    finish(night, job)
    cluster.remove_worker("w2")
    conclude(night, one_machine, "a worker's host cut off for good", "two workers end the run",
             in_flight=IN_FLIGHT_OF_A_HOST)  # fmt: skip


def test_all_workers_are_replaced(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    job = started(night)
    for name in WORKERS:
        cluster.remove_worker(name)
        host = cluster.add_worker(name)
        wait_until(lambda host=host: host.address in cluster.alive(), job)
    finish(night, job)
    conclude(night, one_machine, "one worker's host after another loses power, and a new one takes its place",
             "no host of the beginning is left", in_flight=IN_FLIGHT_OF_A_HOST * len(WORKERS))  # fmt: skip


def test_hosts_join_late(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore()
    night.plan(seconds_per_frame=SLOW_S)
    job = night.submit()
    wait_until(lambda: "run " in job.output(), job)
    for name in ("w1", "w2"):
        cluster.add_worker(name)
        wait_until(lambda name=name: name in {host for _, host in night.stored()}, job)
    finish(night, job)
    conclude(night, one_machine, "a run begins without any worker; hosts join one after another", "each got work")


def test_clocks_are_apart(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    """The driver's alone: under libfaketime, sleeping fails in the processes of Ray's nodes."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    ahead = {"LD_PRELOAD": str(library), "FAKETIME": "+600s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    cluster.restore(*WORKERS)
    night.plan(seconds_per_frame=SLOW_S)
    job = cluster.submit(night, host=cluster.submitter, environment=ahead)
    wait_until(lambda: len(night.stored()) >= SEVERAL, job)
    code, output = cluster.submitter.run(str(BIN / "posebatch"), "run", "s3://archive/", "--output", night.output)
    assert code == 2, output
    assert "has this output" in output, "the lease goes by the clock of the store"
    finish(night, job)
    conclude(night, one_machine, "the driver's clock 10 minutes ahead", "credentials and lease hold")


def test_names_are_not_found(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    job = started(night)
    for host in cluster.network.hosts.values():
        host.know({})
    night.plan(seconds_per_frame=0.02)
    time.sleep(20)
    cluster.introduce()
    finish(night, job)
    conclude(night, one_machine, "no host finds the store's name for 20 s", "the requests are repeated",
             in_flight=IN_FLIGHT_OF_A_HOST * len(WORKERS))  # fmt: skip


def test_store_is_gone(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    job = started(night)
    night.plan(seconds_per_frame=0.02)
    cluster.network.cut("store")
    time.sleep(300)
    cluster.network.heal()
    code, output = job.finish()
    assert code in (1, DONE), output
    if code == 1:
        code, output = night.run()
    assert code == DONE, output
    conclude(night, one_machine, "the store is out of reach for 300 s", "", in_flight=6)


def test_store_is_down(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    """Connections are refused at once, so that the attempts of each request end within a minute."""
    cluster.restore(*WORKERS)
    job = started(night)
    night.plan(seconds_per_frame=0.02)
    cluster.stop_store()
    time.sleep(DOWN_S)
    cluster.start_store()
    code, output = job.finish()
    runs = 1
    if code == 1:  # the run ended because of too many errors in a row
        assert "storage errors in a row" in output
        code, output = night.run()
        runs += 1
    assert code == DONE, output
    conclude(night, one_machine, f"the store refuses connections for {DOWN_S} s", f"{runs} runs",
             in_flight=IN_FLIGHT_OF_A_HOST * len(WORKERS))  # fmt: skip


def test_two_runs_at_once(cluster: Cluster, night: Night, one_machine: dict[str, Any]) -> None:
    cluster.restore(*WORKERS)
    night.plan(seconds_per_frame=SLOW_S)
    jobs = [night.submit("--wait", host=host) for host in (cluster.submitter, cluster.workers["w1"])]
    wait_for(lambda: any("waiting: run " in job.output() for job in jobs), 240)
    refused = night.submit(host=cluster.workers["w2"])
    assert refused.finish()[0] == 2, refused.output()
    assert "has this output" in refused.output()
    night.plan(seconds_per_frame=0.02)
    ends = [job.finish() for job in jobs]
    assert [code for code, _ in ends] == [DONE, DONE], ends
    assert sum("\n0 published" in output for _, output in ends) == 1, "the one that waited has found the work done"
    conclude(night, one_machine, "three hosts submit a run of the same output", "one works, one waits, one is refused")
