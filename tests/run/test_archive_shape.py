"""An archive whose folders readers of the output stumble over is noted; any other is not."""

from __future__ import annotations

import pytest

from posebatch.run.planning.archive_shape import MAX_KINDS, ArchiveShape

SHAPES: dict[str, tuple[list[str], list[str]]] = {
    # paths: what the notes name
    "empty": ([], []),
    "one": (["a.mp4"], []),
    "no partitions": (["a.mp4", "ski/b.mp4", "ski/x/c.mp4", "z.mp4"], []),
    "uniform": (["dt=1/a.mp4", "dt=1/b.mp4", "dt=2/a.mp4"], []),
    "uniform, with other folders": (["dt=1/a.mp4", "dt=1/ski/b.mp4", "x/dt=2/a.mp4"], []),
    "uniform, another order": (["cam=1/dt=1/a.mp4", "dt=1/cam=1/a.mp4"], []),
    "in a file's name": (["a=1.mp4", "b.mp4"], []),
    "deeper": (["dt=1/a.mp4", "dt=1/cam=1/b.mp4"], ["dt=1/a.mp4 and dt=1/cam=1/b.mp4"]),
    "with and without": (["a.mp4", "dt=1/b.mp4"], ["a.mp4 and dt=1/b.mp4"]),
    "with, then without": (["dt=1/b.mp4", "z.mp4"], ["dt=1/b.mp4 and z.mp4"]),
    "other keys": (["day=1/b.mp4", "dt=1/a.mp4"], ["day=1/b.mp4 and dt=1/a.mp4"]),
    "keys in other case": (["DT=1/a.mp4", "dt=2/b.mp4"], ["DT=1/a.mp4 and dt=2/b.mp4"]),
    "a key twice": (["dt=1/dt=2/a.mp4", "dt=3/dt=4/b.mp4"], ["dt=1/dt=2/a.mp4"]),
    "files differ in case": (["A.mp4", "b.mp4", "a.mp4"], ["A.mp4 and a.mp4"]),
    "suffixes differ in case": (["x/a.MP4", "x/a.mp4"], ["x/a.MP4 and x/a.mp4"]),
    "folders differ in case": (["Ski/a.mp4", "ski/b.mp4"], ["Ski and ski"]),
    "upper folders differ in case": (["Ski/x/a.mp4", "run/c.mp4", "ski/y/b.mp4"], ["Ski and ski"]),
    "values differ in case": (["cam=A/a.mp4", "cam=a/b.mp4"], ["cam=A and cam=a"]),
    "a file and a folder": (["X", "x/a.mp4"], ["X and x"]),
    "both": (["A.mp4", "a.mp4", "dt=1/b.mp4"], ["A.mp4 and dt=1/b.mp4", "A.mp4 and a.mp4"]),
}


@pytest.mark.parametrize(("paths", "named"), SHAPES.values(), ids=SHAPES)
def test_shape_is_noted_if_readers_stumble_over_it(paths: list[str], named: list[str]) -> None:
    shape = ArchiveShape()
    for path in paths:
        shape.add(path)
    notes = shape.warnings(paths)
    assert len(notes) == len(named)
    for note, names in zip(notes, named, strict=True):
        assert f": {names}" in note


def test_kinds_of_partitions_are_bounded() -> None:
    shape = ArchiveShape()
    paths = [f"k{i}=1/a.mp4" for i in range(10 * MAX_KINDS)]
    for path in paths:
        shape.add(path)
    assert len(shape.warnings(paths)) == 1
    assert len(shape._kinds) == MAX_KINDS
