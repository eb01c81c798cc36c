"""The job as a user starts it, but without Ray and without networks: everybody stands at the number of their frame."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from factories import staged_file
from test_runner import FakePool, Fault, Job, no_fault

from posebatch import job as job_module
from posebatch import runner as runner_module
from posebatch.cli import main
from posebatch.commits import Work
from posebatch.plan import RunContext
from posebatch.runner import Runner
from posebatch.storage import check_unchanged, open_source, open_store
from posebatch.tasks import perform
from posebatch.types import FramePoses, FrameRecord, SegmentDone, SegmentJob, SegmentReport
from posebatch.video import SegmentDecoder

Command = Callable[..., int]


def person_at(record: FrameRecord) -> FramePoses:
    box = np.full((1, 4), record.frame_index, np.float32)
    one = np.ones(1, np.float32)
    return FramePoses(record, box, one, one, np.ones((1, 17, 3), np.float32))


def process(job: SegmentJob, context: RunContext) -> SegmentDone:
    """What a worker does with a segment, but for the networks."""
    with open_source(job.video.uri, job.video.etag, context.endpoint_url) as file:
        decoder = SegmentDecoder(file, job.video.uri, job.segment, job.info, context.settings.sampling, 4)
        frames = [person_at(record) for batch in decoder for record in batch.records]
    check_unchanged(job.video.uri, job.video.etag)
    work = Work.of(open_store(context.output, context.endpoint_url), job.video, context.data_fingerprint)
    work.stage(job.segment, staged_file(frames, SegmentReport(decoder.report)))
    return SegmentDone(len(frames), len(frames), 0.1)


def plain_command(patch: pytest.MonkeyPatch, fault: Fault = no_fault) -> Command:
    """``posebatch``, as a function of its arguments that returns the exit code; ``fault`` says which jobs fail."""

    @contextmanager
    def pool(context: RunContext, _: Runner) -> Iterator[FakePool]:
        def really(job: Job) -> object:
            return process(job, context) if isinstance(job, SegmentJob) else perform(job, context)

        yield FakePool(context, fault, lambda _: False, really)

    def command(*arguments: str) -> int:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return main(arguments)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    patch.setattr(job_module, "_ray_pool", pool)
    patch.setattr(runner_module, "RETRY_SECONDS", 0.0)
    patch.setattr(runner_module, "POLL_SECONDS", 0.01)
    return command
