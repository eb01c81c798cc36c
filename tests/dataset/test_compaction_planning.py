"""What a compaction plans: partitions by the paths, batches by listings, files to write again. No file is read."""

import pytest

from posebatch.dataset.compaction.delta import DataFile
from posebatch.dataset.compaction.names import PUBLISHED_DAY
from posebatch.dataset.compaction.partitions import Partitioning, choose_partitioning, published_day
from posebatch.dataset.compaction.planning import SMALL_BYTES, Batch, files_to_replace, plan_batches
from posebatch.dataset.compaction.taking import ListedVideo

DAY = "2026-01-02"
BY_DAY = Partitioning((PUBLISHED_DAY,))


@pytest.mark.parametrize(
    ("paths", "columns"),
    [
        ([], (PUBLISHED_DAY,)),
        (["a.mp4"], (PUBLISHED_DAY,)),
        (["dt=1/a.mp4", "dt=2/b.mp4"], ("dt",)),
        (["dt=1/cam=2/a.mp4", "dt=2/x/cam=3/b.mp4"], ("dt", "cam")),
        (["dt=1/cam=2/a.mp4", "dt=2/b.mp4"], ("dt",)),
        (["dt=1/a.mp4", "b.mp4"], (PUBLISHED_DAY,)),
        (["dt=1/DT=2/a.mp4"], (PUBLISHED_DAY,)),
        (["dt=1/dt=1/a.mp4"], (PUBLISHED_DAY,)),
        (["published_day=1/a.mp4"], (PUBLISHED_DAY,)),
        (["dt=1.mp4"], (PUBLISHED_DAY,)),
        (["a b=1/=2/c.mp4"], (PUBLISHED_DAY,)),
        ([f"dt=1/clip={n}/a.mp4" for n in range(1001)], ("dt",)),
        ([f"clip={n // 100}/{n}.mp4" for n in range(150_000)], ("clip",)),
    ],
)
def test_partitioning_is_by_the_folders_that_all_paths_have(paths, columns):
    assert choose_partitioning(paths).columns == columns


@pytest.mark.parametrize(
    ("columns", "path", "values"),
    [
        ((PUBLISHED_DAY,), "dt=1/a.mp4", (DAY,)),
        (("dt",), "dt=1/a.mp4", ("1",)),
        (("dt",), "a.mp4", (None,)),
        (("dt",), "dt=/a.mp4", (None,)),
        (("dt", "cam"), "cam=x y/dt=1/a.mp4", ("1", "x y")),
        (("dt",), "dt=1=2/a.mp4", ("1=2",)),
    ],
)
def test_partition_of_a_video(columns, path, values):
    assert Partitioning(columns).values(path, DAY) == values


def test_folders_of_partitions_differ_and_need_no_escapes():
    values = [None, "null", "1", "x y", "x%y", "ü", "~", "..", "a/b", "A" * 300]
    folders = {Partitioning(("dt",)).folder((value,)) for value in values}
    assert len(folders) == len(values)
    assert all(name.isascii() and " " not in name and "%" not in name and len(name) < 120 for name in folders)


def test_published_day_is_in_utc():
    assert published_day(1767398399.9) == "2026-01-02"
    assert published_day(1767398400.0) == "2026-01-03"


def listed(path: str, etag: str = "1") -> ListedVideo:
    return ListedVideo(path, etag, DAY)


@pytest.mark.parametrize(
    ("now", "held", "batches"),
    [
        ([], [], []),
        ([listed("a")], [("a", "1", DAY)], []),
        ([listed("b"), listed("a")], [], [Batch((listed("a"), listed("b")), {})]),
        ([], [("a", "1", DAY)], [Batch((), {"a": (DAY,)})]),
        ([listed("a", "2")], [("a", "1", "2026-01-01")], [Batch((listed("a", "2"),), {"a": ("2026-01-01",)})]),
        (
            [listed("a"), listed("b"), listed("c")],
            [("z", "1", DAY)],
            [Batch((listed("a"), listed("b")), {"z": (DAY,)}), Batch((listed("c"),), {})],
        ),
    ],
)
def test_batches_are_the_difference_of_both_lists(now, held, batches):
    assert list(plan_batches(now, held, BY_DAY, batch_videos=2)) == batches


@pytest.mark.parametrize(
    ("gone", "with_small", "replaced"),
    [
        ([], False, ""),
        ([], True, "s"),
        (["c"], False, "1"),
        (["d"], False, "1"),
        (["e"], False, ""),
        (["a", "f"], False, "12"),
        (["z"], True, "s"),
    ],
)
def test_files_with_rows_that_leave_are_written_again(gone, with_small, replaced):
    files = [
        DataFile(name, size, 1, (), paths, paths, 0)
        for name, size, paths in [
            ("1", SMALL_BYTES, ("a", "d")),
            ("2", SMALL_BYTES, ("f", "g")),
            ("s", SMALL_BYTES - 1, ("h", "k")),
        ]
    ]
    assert "".join(file.path for file in files_to_replace(files, gone, with_small)) == replaced
