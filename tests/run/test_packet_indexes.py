"""Videos without an index of their own: scanned once, cut, resumed, and published as in one segment."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import av
import pytest
from faults.plain_runs import plain_command
from support.factories import video_bytes
from support.fake_pool import Task, process

from posebatch import read_videos
from posebatch.core.errors import PosebatchError
from posebatch.core.settings import settings_from
from posebatch.core.videos import Segment, SourceVideo
from posebatch.dataset.verify import verify
from posebatch.run.context import RunContext
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.tasks import ProbeResult, ProbeTask, SegmentTask
from posebatch.run.workers import packet_indexes
from posebatch.run.workers.packet_indexes import LatestIndex
from posebatch.run.workers.video_tasks import perform
from posebatch.storage.open import open_store

H264 = {"frames": 60, "b_frames": 2}


def with_damaged_picture(video: bytes, number: int) -> bytes:
    """The video with noise in most of one of its packets."""
    with av.open(io.BytesIO(video)) as container:
        content = [bytes(packet) for packet in container.demux(video=0) if packet.size][number]
    kept = len(content) // 4
    return video.replace(content, content[:kept] + bytes(37 * i & 255 for i in range(len(content) - kept)))


ARCHIVE = {
    "a.mkv": video_bytes(container="mkv", **H264),
    "b.avi": video_bytes(container="avi", frames=60),
    "c.ts": video_bytes(container="mpegts", gop=12, open_gop=True, **H264),
    "d.mp4": video_bytes(fragmented=True, **H264),
    "e.webm": video_bytes(container="webm", codec="libvpx-vp9", frames=60),
    "damaged.mkv": with_damaged_picture(video_bytes(container="mkv", **H264), 30),
    "intra refresh.mkv": video_bytes(
        container="mkv",
        frames=60,
        options=(("x264-params", "keyint=10:min-keyint=10:scenecut=0:bframes=0:intra-refresh=1"),),
    ),
}
CUT = ("a.mkv", "b.avi", "c.ts", "d.mp4", "e.webm")


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each video is scanned."""
    counts: Counter[str] = Counter()
    scan = packet_indexes.scan

    def counted(file, limits, *arguments):
        counts[Path(limits.name).name] += 1
        return scan(file, limits, *arguments)

    monkeypatch.setattr(packet_indexes, "scan", counted)
    return counts


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in ARCHIVE.items():
        (folder / name).write_bytes(content)
    return folder


def context_of(tmp_path: Path, seconds: float = 0.4) -> RunContext:
    return RunContext("run", settings_from({"segment_seconds": seconds}), str(tmp_path / "out"), "d@1", "p@1")


def video_of(archive: Path, name: str) -> SourceVideo:
    return next(iter(list_videos(parse_inputs([str(archive / name)]), settings_from({}).selection)))


def probed(video: SourceVideo, context: RunContext) -> ProbeResult:
    result = perform(ProbeTask(video), context)
    assert isinstance(result, ProbeResult)
    return result


def tables(output: Path) -> dict[str, bytes]:
    folders = ("poses", "frames", "tracks", "motion")
    return {
        str(path.relative_to(output)): path.read_bytes()
        for folder in folders
        for path in sorted((output / folder).rglob("*.parquet"))
    }


# --- the published tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [(), ("--stride", "3"), ("--fps", "7", "--detect-every", "4")], ids=str)
def test_tables_are_those_of_one_segment(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: Counter[str], sampling: tuple[str, ...]
) -> None:
    command = plain_command(monkeypatch)

    def run(name: str, *options: str) -> Path:
        output = tmp_path / name
        assert command("run", str(archive), "--output", str(output), "--preview", "none", *sampling, *options) in (0, 3)
        return output

    whole = run("whole", "--segment-seconds", "1000")
    assert not scans
    cut = run("cut", "--segment-seconds", "0.4")
    assert scans == dict.fromkeys(ARCHIVE, 1)
    assert len(tables(cut)) == 4 * len(ARCHIVE)
    assert tables(cut) == tables(whole)
    facts = [
        "status",
        "frames_decoded",
        "frames_processed",
        "is_vfr",
        "persons",
        "settings_fingerprint",
    ]
    assert sampling or sorted(read_videos(str(cut))["status"]) == ["ok"] * (len(ARCHIVE) - 1) + ["partial"]
    assert read_videos(str(cut))[facts].equals(read_videos(str(whole))[facts])
    assert not list((cut / "_state" / "staging").rglob("*.*")), "the index goes with the staged segments"
    assert not verify(open_store(str(cut))).problems
    run("cut", "--segment-seconds", "0.2")
    assert scans == dict.fromkeys(ARCHIVE, 1), "nothing is recomputed"


def test_interrupted_run_goes_on_without_a_second_scan(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scans: Counter[str]
) -> None:
    done: Counter[tuple[str, Segment]] = Counter()
    ends_after = 12

    def fault(task: Task) -> PosebatchError | None:
        if not isinstance(task, SegmentTask):
            return None
        if done.total() >= ends_after:
            raise KeyboardInterrupt
        done[task.video.uri, task.segment] += 1
        return None

    arguments = ("run", *(str(archive / name) for name in CUT), "--output", str(tmp_path / "out"), "--preview", "none")
    arguments = (*arguments, "--segment-seconds", "0.4")
    command = plain_command(monkeypatch, fault)
    assert command(*arguments) != 0
    staged = len(list((tmp_path / "out" / "_state" / "staging").rglob("*.arrow")))
    assert 0 < staged <= ends_after
    begun = +scans
    ends_after = 1000
    assert command(*arguments) == 0
    assert scans == dict.fromkeys(CUT, 1)
    assert begun, "the first run has scanned"
    assert set(done.values()) == {1}, "no segment is processed twice"


# --- the staged index ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CUT)
def test_video_is_scanned_once_for_all_processes(name: str, archive: Path, tmp_path: Path, scans: Counter[str]) -> None:
    video, context = video_of(archive, name), context_of(tmp_path)
    plan = probed(video, context).plan
    assert len(plan.segments) > 2
    assert all(segment.is_scanned for segment in plan.segments)
    for _ in range(2):
        assert len(LatestIndex(context).of(video)) == 60
    assert probed(video, context).plan == plan
    assert scans == {name: 1}


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"nonsense")])
def test_lost_or_damaged_index_is_made_again(damage, archive: Path, tmp_path: Path, scans: Counter[str]) -> None:
    video, context = video_of(archive, "a.mkv"), context_of(tmp_path)
    plan = probed(video, context).plan
    [path] = (tmp_path / "out" / "_state" / "staging").rglob("packets.index")
    before = path.read_bytes()
    damage(path)
    task = SegmentTask(video, plan.info, plan.segments[2])
    assert process(task, context).frames == 10
    assert path.read_bytes() == before
    assert scans == {"a.mkv": 2}
    assert probed(video, context).staged == {plan.segments[2]}


def test_video_that_cannot_be_cut_is_scanned_once(archive: Path, tmp_path: Path, scans: Counter[str]) -> None:
    video, context = video_of(archive, "intra refresh.mkv"), context_of(tmp_path)
    for _ in range(2):
        assert probed(video, context).plan.segments == (Segment(),)
    assert scans == {"intra refresh.mkv": 1}


def test_video_that_is_staged_as_a_whole_is_not_scanned(archive: Path, tmp_path: Path, scans: Counter[str]) -> None:
    video = video_of(archive, "a.mkv")
    plan = probed(video, context_of(tmp_path, 1000)).plan
    process(SegmentTask(video, plan.info, Segment()), context_of(tmp_path))
    result = probed(video, context_of(tmp_path))
    assert (result.plan.segments, result.staged) == ((Segment(),), {Segment()})
    assert not scans


def test_index_of_another_version_of_the_video_is_not_used(archive: Path, tmp_path: Path, scans: Counter[str]) -> None:
    context, video = context_of(tmp_path), video_of(archive, "a.mkv")
    probed(video, context)
    (archive / "a.mkv").write_bytes(ARCHIVE["b.avi"])
    assert len(probed(video_of(archive, "a.mkv"), context).plan.segments) > 2
    assert scans == {"a.mkv": 2}
