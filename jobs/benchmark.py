"""Measure the speed of the job on this machine: each stage alone, the whole job, and other ways to do the same work.

    python jobs/benchmark.py speed      cost of a frame in each stage, the whole job, other programs (default)
    python jobs/benchmark.py startup    from the command to the first frame through the networks, by step and process
    python jobs/benchmark.py scaling    frames per second by the number of workers
    python jobs/benchmark.py driver     cost of a segment in Ray; segments per second and memory of the driver
    python jobs/benchmark.py clips      many short clips: cost of one in driver and Ray; the job against its stages
    python jobs/benchmark.py scheduling 32 made-up workers on Ray: the share of their capacity that is used
    python jobs/benchmark.py plan       planning a night over a large archive: seconds, requests, dollars, memory
    python jobs/benchmark.py publish    publication rate of tiny videos, by the number published
    python jobs/benchmark.py scale      10^9 videos: limits and costs; a fleet of 1,000 workers, simulated
    python jobs/benchmark.py queries    three questions to a large output: small files against compacted tables
    python jobs/benchmark.py networks   each network alone on every engine, at several batch sizes

speed renders videos and measures every stage of the job alone (decode, detect, pose, publish), then the whole job in
one process and on Ray. It compares them, with the same weights and frames, with a plain loop (frame by frame, eager
fp32, all cores on one frame) and with a Ray Data pipeline. --others PYTHON adds other programs, with networks of their
own, that this Python has installed. "Of the stages" is the job's rate as a fraction of the rate that the stages alone
predict: on a CPU, cores / (the sum of the stages' core seconds for a frame); with a GPU, the slower of the networks
and of the cores' work. The job processes at least --frames frames. The time before its first segment (starting Ray,
loading networks) is stated and not counted. Every measurement runs in a process of its own.

On a cluster, run it as a job: with RAY_ADDRESS set, the runs on Ray use that cluster; everything else runs here, and
--folder must name a folder that every node sees. On a machine without Ray, give --no-ray.
"""

import sys

from benchmarks.command_line import main

if __name__ == "__main__":
    sys.exit(main(description=__doc__))
