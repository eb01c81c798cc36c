"""Several previews in one pass over a clip: one that fails costs no other."""

from fractions import Fraction

import numpy as np
from support.memory_store import MemoryStore

from posebatch.dataset.layout import PREVIEWS
from posebatch.dataset.staging import StagingArea
from posebatch.report import mp4
from posebatch.report.contact_sheet import SheetWriter
from posebatch.report.gif import GifWriter
from posebatch.report.mp4 import Mp4Writer
from posebatch.report.picture_writer import AnnotatedFrame
from posebatch.run.workers.previews import Pictures


def drawn(writers, frames=3):
    """Give a clip to the writers; returns the staged kinds with their counts, and the error."""
    staging = StagingArea(MemoryStore(), "0" * 32)
    pictures = Pictures(writers)
    for number in range(frames):
        if takers := pictures.takers(number, number / 10):
            pictures.add(takers, AnnotatedFrame(number / 10, np.full((20, 30, 3), 50 * number, np.uint8)))
    counts = dict(pictures.staged(staging))
    assert staging.staged_keys() == {staging.preview_key(PREVIEWS[form]) for form in counts}
    return counts, pictures.error


def writers():
    return {"gif": GifWriter(), "mp4": Mp4Writer(Fraction(1, 10)), "sheet": SheetWriter(3)}


def test_all_kinds_are_written_in_one_pass():
    assert drawn(writers()) == ({"gif": 3, "mp4": 3, "sheet": 1}, None)


def test_kind_that_fails_costs_no_other(monkeypatch):
    monkeypatch.setattr(mp4, "ENCODERS", ("libnone",))
    counts, error = drawn(writers())
    assert counts == {"gif": 3, "sheet": 1}
    assert error.startswith("mp4: this build of FFmpeg cannot write an MP4")


def test_clip_without_frames_has_no_picture():
    counts, error = drawn(writers(), frames=0)
    assert counts == {}
    assert error.count("no frame of the video can be shown") == 3
