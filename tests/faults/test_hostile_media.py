"""Hostile media: any file is at worst one failed row.

The short form decodes some hundred mutants, ``POSEBATCH_FAULTS=full`` `FULL_MUTANTS`. All else is the same in both.
"""

from __future__ import annotations

import ctypes
import io
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pytest
from faults.crafted_media import (
    GROWING,
    growing,
    huge_h264,
    huge_header,
    huge_mjpeg,
    many_frames,
    many_frames_in_fragment,
    many_streams,
    numbers,
    patched,
    playlists,
)
from faults.media_child import Outcome
from faults.media_pool import child, outcomes
from faults.mutated_media import BASES, MUTATIONS, Mutant, base, mutants
from faults.suite import FULL, SEED, note_figure
from support.factories import corrupt_middle, video_bytes
from support.fake_pool import Archive, facts

from posebatch.core.errors import DamagedVideoError, LimitError
from posebatch.core.execution_settings import LimitSettings
from posebatch.core.images import FrameBatch
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.video import frame_numbers, full_decode, segment_decoder
from posebatch.video.limits import Limits
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

WORSE_THAN_FAILED = ("bug", "crash", "hang")
SHORT_MUTANTS = 23 * 7 * 5
FULL_MUTANTS = 20_000
MOST_MEGABYTES = 1000
"""Most memory of a process that decodes mutants. `BOMBS` names its own limits."""


def written(folder: Path, files: dict[str, bytes]) -> list[Path]:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


# --- mutants -------------------------------------------------------------------------------------------------------


def test_base_videos_decode(tmp_path: Path):
    paths = written(tmp_path, {f"{codec}-{box}": base(codec, box) for codec, boxes in BASES.items() for box in boxes})
    outcome_of = outcomes(paths)
    assert {path.name: outcome.verdict for path, outcome in outcome_of.items()} == {
        path.name: "decoded" for path in paths
    }


@pytest.mark.slow
def test_mutated_video_is_at_worst_one_failed_row(tmp_path: Path):
    chosen = mutants(FULL_MUTANTS if FULL else SHORT_MUTANTS)
    assert {(mutant.codec, mutant.container, mutant.kind) for mutant in chosen} == {
        (codec, box, kind) for codec, boxes in BASES.items() for box in boxes for kind in MUTATIONS
    }, "every mutation of every codec in every container"
    outcome_of = outcomes(written(tmp_path, {mutant.name: mutant.content(SEED) for mutant in chosen}))
    verdicts = Counter(outcome.verdict for outcome in outcome_of.values())
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common())
    note_figure("hostile media tried", ">= 2,000; 0 deaths, 0 hangs, 0 bugs", f"{len(outcome_of):,}: {counts}")
    assert len(outcome_of) == len(chosen)
    assert {
        path.name: result.detail for path, result in outcome_of.items() if result.verdict in WORSE_THAN_FAILED
    } == {}
    assert verdicts["decoded"] > 0
    assert verdicts["partial"] > 0
    assert verdicts["failed:damaged"] > 0
    if not FULL:  # among thousands, some claim indexes of gigabytes, which only --max-memory-gb bounds
        assert max(outcome.megabytes for outcome in outcome_of.values()) < MOST_MEGABYTES


@pytest.mark.parametrize("mutant", [Mutant("h264", "ts", "noise", 740), Mutant("mpeg4", "mkv", "flip", 1792)])
def test_tolerated_damage_decodes_alike_with_any_number_of_threads(mutant: Mutant, tmp_path: Path):
    # found among 12,000 mutants: no frame is marked as damaged, but several threads decoded other pictures
    [path] = written(tmp_path, {mutant.name: mutant.content(seed=2)})
    with child() as process:
        by_one, by_several = (process.outcome(path, threads=threads) for threads in (1, 4))
    assert by_one.frames == by_several.frames > 0
    assert by_one.pixels == by_several.pixels


EARLIER_BUGS = [
    Mutant("mpeg4", "ts", "flip", 68),  # streams that appear in the middle of the file
    Mutant("mpeg4", "mp4", "noise", 4551),  # a frame that reaches into the next segment
]


@pytest.mark.parametrize("mutant", EARLIER_BUGS, ids=lambda mutant: mutant.name)
def test_earlier_bugs_stay_fixed(mutant: Mutant, tmp_path: Path):
    [path] = written(tmp_path, {mutant.name: mutant.content(seed=1)})
    assert outcomes([path], 1)[path].verdict == "partial"


class Strict(io.BytesIO):
    """A file that cannot seek beyond its end, as on some disks."""

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0 and not 0 <= offset <= len(self.getbuffer()):
            raise OSError(22, "Invalid argument")
        return super().seek(offset, whence)


def test_index_pointing_outside_the_file_is_a_damaged_video():
    video = Strict(patched(video_bytes(frames=6, gop=6), b"stco", 12, numbers(0xFFFFFFF0)))
    with pytest.raises(DamagedVideoError, match="no frame can be decoded"):
        probe(video, "clip", 20)


def test_packets_waiting_for_their_number_are_bounded(monkeypatch: pytest.MonkeyPatch):
    video = video_bytes(frames=24, b_frames=2)
    expected = [batch.records for batch in decoded(video, LimitSettings(), stride=6)]
    monkeypatch.setattr(frame_numbers, "MAX_HELD_PACKETS", 1)
    info = probe(io.BytesIO(video), "clip", 20).info
    slow = SegmentDecoder(
        io.BytesIO(video), "clip", Segment(), info, DecodeOptions(sampling=SamplingSettings(6), batch_frames=1)
    )
    assert [batch.records for batch in slow] == expected
    assert slow.frames_out == 24, "every frame was decoded"


def test_missing_frames_are_reported_while_the_stream_goes_on(monkeypatch: pytest.MonkeyPatch):
    video = corrupt_middle(video_bytes(frames=60), share=0.8, at=0.6)
    expected = [batch.records for batch in decoded(video, LimitSettings())]
    assert {record.status for records in expected for record in records} > {"missing"}
    monkeypatch.setattr(full_decode, "MAX_PENDING_PACKETS", 4)
    assert [batch.records for batch in decoded(video, LimitSettings())] == expected


def test_huge_frames_make_smaller_batches(monkeypatch: pytest.MonkeyPatch):
    video = video_bytes(frames=10)
    assert [len(batch.images) for batch in decoded(video, LimitSettings(), batch_frames=4)] == [4, 4, 2]
    monkeypatch.setattr(segment_decoder, "MAX_BATCH_PIXELS", 128 * 96)
    assert [len(batch.images) for batch in decoded(video, LimitSettings(), batch_frames=4)] == [2] * 5


# --- bombs ---------------------------------------------------------------------------------------------------------

BOMBS: dict[str, tuple[Callable[[], bytes], str, str, int]] = {
    # content, verdict, part of the message, most megabytes
    "a header that lies": (huge_header, "decoded", "", 300),
    "65k MJPEG": (lambda: huge_mjpeg(65500), "failed:limit", "65500x65500 pixels, and --max-pixels allows", 300),
    "65k H.264": (lambda: huge_h264(65520), "failed:damaged", "no frame can be decoded", 300),
    "16k H.264": (lambda: huge_h264(16000), "failed:limit", "16000x16000 pixels, and --max-pixels allows", 1000),
    "10^9 frames": (lambda: many_frames(10**9), "failed:limit", "--max-frames allows 50000000 frames", 300),
    "10^6 frames of nothing": (lambda: many_frames(10**6), "failed:damaged", "its index lists 1000000 frames", 300),
    "10^9 in a fragment": (lambda: many_frames_in_fragment(10**9), "failed:not_a_video", "error reading header", 300),
    "10^6 fps": (lambda: video_bytes(frames=24, fps=10**6), "decoded", "", 300),
    "100 streams": (lambda: many_streams(100, "matroska"), "decoded", "", 500),
    "101 streams": (lambda: many_streams(101, "matroska"), "failed:limit", "--max-streams allows 100 streams", 500),
    "1000 streams": (lambda: many_streams(1000, "matroska"), "failed:limit", "--max-streams allows 100 streams", 500),
    "101 TS streams": (lambda: many_streams(101, "mpegts"), "failed:limit", "--max-streams allows 100 streams", 500),
    "1000 TS streams": (lambda: many_streams(1000, "mpegts"), "failed:limit", "--max-streams allows 100 streams", 500),
    "101 MP4 streams": (lambda: many_streams(101, "mp4"), "failed:limit", "--max-streams allows 100 streams", 500),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_takes_little_memory(name: str, tmp_path: Path):
    make, verdict, message, megabytes = BOMBS[name]
    [path] = written(tmp_path, {"bomb": make()})
    with child() as process:
        outcome = process.outcome(path)
    note_figure(f"memory: {name}", f"< {megabytes} MB", f"{outcome.megabytes:.0f} MB, {outcome.verdict}")
    assert outcome.verdict == verdict, outcome.detail
    assert message in outcome.detail
    assert outcome.megabytes < megabytes


# --- limits --------------------------------------------------------------------------------------------------------


def decoded(video: bytes, limits: LimitSettings, stride: int = 1, batch_frames: int = 1) -> list[FrameBatch]:
    info = probe(io.BytesIO(video), "clip", 20, limits).info
    sampling = SamplingSettings(stride)
    return list(
        SegmentDecoder(
            io.BytesIO(video),
            "clip",
            Segment(),
            info,
            DecodeOptions(sampling=sampling, batch_frames=batch_frames, limits=limits),
        )
    )


@pytest.mark.parametrize("codec", GROWING)
@pytest.mark.parametrize("ffmpeg_refuses", [False, True])
def test_stream_growing_beyond_max_pixels_fails(codec: str, ffmpeg_refuses: bool, monkeypatch: pytest.MonkeyPatch):
    video = growing(codec)
    whole = decoded(video, LimitSettings())  # larger pictures have the size of the first one
    assert {batch.images.shape[1:3] for batch in whole if len(batch.images)} == {(96, 128)}
    if ffmpeg_refuses:  # FFmpeg itself refuses pictures of more than twice the limit
        monkeypatch.setattr(Limits, "decoder_options", {"max_pixels": "100000"})
    limits = LimitSettings(max_pixels=100_000)
    with pytest.raises(LimitError, match=r"clip: it has a picture of 640x480 pixels, and --max-pixels allows 100000"):
        decoded(video, limits)


CONTAINERS = [("mp4", "libx264"), ("mkv", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4")]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": 64 * 48 - 1}, "--max-pixels allows 3071 pixels"),
        ({"max_frames": 11}, "12 frames or more, and --max-frames allows 11 frames"),
        ({"max_hours": 0.001}, "hours or more by its own clock, and --max-hours allows 0.001 hours"),
        ({"max_streams": 1}, "2 streams or more, and --max-streams allows 1 streams"),
    ],
)
def test_video_fails_only_beyond_a_limit(container, stride, limits, message):
    box, codec = container
    # 12 frames, the last one 4.4 seconds from the first, with sound
    video = video_bytes(container=box, codec=codec, frames=12, fps=5, size=(64, 48), audio=True, gop=4)
    long = video if "max_hours" not in limits else video_bytes(container=box, codec=codec, frames=24, fps=5, gop=4)
    within = {name: 1.001 * value if name == "max_hours" else value + 2 for name, value in limits.items()}
    assert sum(len(batch.records) for batch in decoded(video, LimitSettings(**within), stride)) == 12 // stride
    with pytest.raises(LimitError) as caught:
        decoded(long, LimitSettings(**limits), stride)
    assert message in str(caught.value)
    assert "--retry-failed" in str(caught.value)


def test_max_frames_holds_without_a_header():
    with pytest.raises(LimitError, match="21 frames or more"):
        decoded(video_bytes(container="mpegts", frames=30), LimitSettings(max_frames=20))


@pytest.mark.parametrize("limits", [{"max_pixels": 3071}, {"max_frames": 5}])
def test_video_beyond_a_limit_is_one_failed_row(tmp_path: Path, limits: dict[str, int]):
    archive = Archive(tmp_path)
    archive.add("small.mp4")
    assert facts(archive.run(**limits)) == (0, 0, 1, 0)
    record = archive.record("small.mp4")
    assert (record.status, record.error_kind) == ("failed", "limit")
    assert "--" + next(iter(limits)).replace("_", "-") in str(record.error)
    assert facts(archive.run(**limits)) == (0, 0, 0, 1), "the next run does not try again"
    assert facts(archive.run(retry_failed=True)) == (1, 0, 0, 0), "--retry-failed does, with the limit raised"


def test_hostile_files_do_not_affect_other_videos(tmp_path: Path):
    archive = Archive(tmp_path)
    archive.add("a.mp4", "z.mp4")
    hostile = {
        name.replace(" ", "_") + ".mp4": make() for name, (make, verdict, *_) in BOMBS.items() if "failed" in verdict
    }
    hostile |= {
        f"{name}.mp4": content for name, content in playlists("http://127.0.0.1:9/x.ts", "/etc/hostname").items()
    }
    written(archive.root, {name: content for name, content in hostile.items() if "reference" not in name})
    outcome = archive.run()
    failed = [record for record in archive.records if record.status == "failed"]
    assert outcome.exit_code == 3
    assert {record.status for record in archive.records if record.video.endswith(("/a.mp4", "/z.mp4"))} == {"ok"}
    assert (
        len({record.video for record in archive.records}) == len(archive.records) == len(list(archive.root.iterdir()))
    )
    assert {record.error_kind for record in failed} <= {"limit", "damaged", "not_a_video", "no_video_stream"}
    assert len(failed) > 10


# --- nothing outside ------------------------------------------------------------------------------------------------


class Opened:
    """Notices when any process opens a file, by Linux's inotify."""

    IN_OPEN = 0x20

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK)
        assert self._handle >= 0
        assert self._libc.inotify_add_watch(self._handle, os.fsencode(path), self.IN_OPEN) >= 0

    def seen(self) -> bool:
        """Whether the file was opened since the last call."""
        try:
            return len(os.read(self._handle, 4096)) > 0
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._handle)


@contextmanager
def listener() -> Iterator[socket.socket]:
    """An address to which nothing may connect."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def was_connected(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_no_file_opens_another_file_or_address(tmp_path: Path):
    canary = tmp_path / "canary.ts"
    canary.write_bytes(video_bytes(frames=6, gop=6, container="mpegts"))
    opened = Opened(canary)
    with listener() as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/canary.ts"
        files = playlists(address, str(canary))
        paths = written(tmp_path, files)

        # without protection FFmpeg does open both
        av.open(str(tmp_path / "file.concat"), format="concat", options={"safe": "0"}).close()
        with pytest.raises(av.error.FFmpegError):
            av.open(address, timeout=1)
        assert opened.seen()
        assert was_connected(server)

        outcome_of = outcomes(paths)
        assert not opened.seen()
        assert not was_connected(server)
        note_figure("reads outside", "0", f"0 files and 0 addresses, of {len(files)} playlists and references")
    opened.close()
    assert [path.name for path, outcome in outcome_of.items() if outcome.verdict in WORSE_THAN_FAILED] == []
    decoded_names = {path.name for path, outcome in outcome_of.items() if not outcome.verdict.startswith("failed")}
    assert decoded_names <= {"reference.mov", "address.mov", "attached.mkv"}, "these hold pictures of their own"


def test_crash_or_hang_of_the_child_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Otherwise the tests above could not fail."""
    monkeypatch.setattr("faults.media_pool.HANG_SECONDS", 2)
    pipe = tmp_path / "never"
    os.mkfifo(pipe)
    [good] = written(tmp_path, {"good": base("h264", "mp4")})
    assert outcomes([pipe, good], 1)[pipe] == Outcome("hang", "more than 2 s")
    with child() as process:
        os.kill(process.pid, 9)
        assert process.outcome(good).verdict == "crash"
