"""The whole job: the command line, Ray, an S3 server, the networks and the codecs; nothing is faked."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.factories import audio_only, corrupt_middle, encode_video, video_bytes
from support.leaks import assert_no_secrets, everything_in, everything_of
from support.processes import processes_with, wait_for
from support.ray_head import RayHead
from support.s3_server import S3Server
from support.upkeep_factories import make_version_3

from posebatch import read_frames, read_poses, read_videos
from posebatch.dataset.verify import verify
from posebatch.demo.sample import render_sample
from posebatch.report.track_drawing import TRACK_COLOURS
from posebatch.storage.addresses import is_s3
from posebatch.storage.open import open_store
from posebatch.storage.s3 import S3Store, s3_client

pytestmark = [pytest.mark.ray, pytest.mark.slow]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]

KILLS = int(os.environ.get("POSEBATCH_TEST_KILLS", "3"))
"""Times that the driver, or an actor, is killed."""

PEOPLE_FRAMES = range(60, 100)
"""Frames of the demo's sample in which a person walks."""

FAILING = {"audio.mp4": "no_video_stream", "empty.mp4": "not_a_video", "playlist.mp4": "not_a_video",
           "sub/text.mp4": "not_a_video"}  # fmt: skip
PLAYABLE = {"damaged.mp4", "dt=2026-01-01/walk.mp4", "numbers Ünïcode.mkv"}


@dataclass(frozen=True)
class Finished:
    """The end of a command."""

    code: int
    output: str


Command = Callable[..., Finished]


PLANTED = {"AWS_SECRET_ACCESS_KEY": "plantedSecretKey0wJalrXUtn", "AWS_SESSION_TOKEN": "plantedSessionToken0bPxRf"}
"""Credentials that every run receives. No file or message may contain them."""


@pytest.fixture(scope="module")
def run(ray_head: RayHead) -> Iterator[Command]:
    """Run a command on the Ray of the session. Its output and files must contain no credentials."""
    secrets = {ray_head.token, *PLANTED.values()}

    def run_command(*arguments: str, environment: dict[str, str] | None = None) -> Finished:
        # Loading the networks dominates a small run, so one worker unless the test needs more.
        workers = ("--workers", "1") if arguments[0] == "run" and "--workers" not in arguments else ()
        environment = {**PLANTED, **(environment or {})}
        secrets.update(environment[name] for name in PLANTED if environment[name])
        process = start(ray_head, (*arguments, *workers), environment)
        output, _ = process.communicate(timeout=600)
        assert_no_secrets({"its messages": output, **_left_behind(arguments, environment)}, sorted(secrets))
        return Finished(process.returncode, output)

    yield run_command
    assert_no_secrets(everything_in(ray_head.folder), sorted(secrets))
    assert_no_secrets(_answers_of_ray(ray_head), sorted(secrets))


def _left_behind(arguments: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, bytes]:
    output = arguments[arguments.index("--output") + 1]
    if not is_s3(output):
        return everything_in(Path(output))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3_client.cache_clear()
        try:
            return everything_of(S3Store(output))
        finally:
            s3_client.cache_clear()


def _answers_of_ray(head: RayHead) -> dict[str, bytes]:
    """The answers of the dashboard, which `ray list` shows, too."""
    kinds = ("actors", "tasks", "jobs", "workers", "objects", "runtime_envs")
    answers = {page: head.ask(page) for page in ("api/jobs/", *(f"api/v0/{kind}?detail=true" for kind in kinds))}
    assert b"SegmentWorker" in answers["api/v0/actors?detail=true"]
    return answers


def start(head: RayHead, arguments: Sequence[str], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    variables = {**os.environ, **head.environment(), **(environment or {})}
    return subprocess.Popen([BIN / "posebatch", *arguments], env=variables, stdin=subprocess.DEVNULL, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with people, without people, and with damage, and files that are no videos."""
    folder = tmp_path_factory.mktemp("archive")
    for name in ("dt=2026-01-01", "sub"):
        (folder / name).mkdir()
    people = [image for image, _ in islice(render_sample(), PEOPLE_FRAMES.start, PEOPLE_FRAMES.stop)]
    height, width = people[0].shape[:2]
    encode_video(folder / "dt=2026-01-01" / "walk.mp4", frames=len(people), gop=8, b_frames=2, size=(width, height),
                 draw=people.__getitem__)  # fmt: skip
    encode_video(folder / "numbers Ünïcode.mkv", frames=20, container="mkv")
    numbers = video_bytes(frames=60, gop=20, size=(320, 240), faststart=True)
    (folder / "damaged.mp4").write_bytes(corrupt_middle(numbers, share=0.1))
    (folder / "audio.mp4").write_bytes(audio_only())
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:1,\nwalk.mp4\n")
    (folder / "sub" / "text.mp4").write_text("no video at all\n" * 100)
    (folder / "notes.txt").write_text("passed over")
    return folder


@pytest.fixture(scope="module")
def reference(run: Command, archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset of the archive, from an undisturbed run."""
    output = tmp_path_factory.mktemp("reference")
    finished = run("run", str(archive), "--output", str(output), "--preview", "gif", "--segment-seconds", "0.3",
                   "--workers", "3")  # fmt: skip
    assert finished.code == 3, finished.output
    return output


def tables(output: Path) -> dict[str, bytes]:
    """The bytes of all tables."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for folder in ("poses", "frames", "tracks", "motion")
        for path in sorted((output / folder).rglob("*.parquet"))
    }


def test_run_accounts_for_every_video(reference: Path) -> None:
    videos = read_videos(str(reference)).set_index("video")
    kinds = {Path(video).name: kind for video, kind in videos["error_kind"].items()}
    assert len(videos) == len(PLAYABLE) + len(FAILING)
    assert {name: kinds[Path(name).name] for name in FAILING} == FAILING
    status = {Path(video).name: state for video, state in videos["status"].items()}
    assert (status["walk.mp4"], status["numbers Ünïcode.mkv"], status["damaged.mp4"]) == ("ok", "ok", "partial")
    assert {path.relative_to(reference / "poses").as_posix() for path in (reference / "poses").rglob("*.parquet")} == {
        f"{name}.parquet" for name in PLAYABLE
    }


def test_run_writes_a_row_for_every_frame_and_finds_the_walker(reference: Path) -> None:
    frames, poses = read_frames(str(reference)), read_poses(str(reference))
    walk = frames[frames["video"].str.endswith("walk.mp4")]
    assert walk["frame_index"].tolist() == list(range(len(PEOPLE_FRAMES)))
    assert (walk["num_persons"] > 0).mean() > 0.9
    assert len(frames[frames["video"].str.endswith(".mkv")]) == 20
    damaged = frames[frames["video"].str.endswith("damaged.mp4")]
    assert damaged["frame_index"].tolist() == list(range(60))
    assert set(damaged["status"]) > {"ok"}
    assert set(poses["video"]) <= set(walk["video"])
    merged = poses.groupby("frame_index").size().reindex(walk["frame_index"], fill_value=0)
    assert merged.tolist() == walk["num_persons"].tolist()


def test_pandas_reads_the_folders(reference: Path) -> None:
    poses = pd.read_parquet(f"{reference}/poses/")
    assert "dt" in poses.columns
    assert len(poses) == len(read_poses(str(reference)))


def test_preview_shows_the_persons(reference: Path) -> None:
    with Image.open(reference / "previews" / "dt=2026-01-01" / "walk.mp4.gif") as gif:
        assert gif.n_frames == len(PEOPLE_FRAMES[::3])  # 25 frames a second, of which a preview shows at most 10
        gif.seek(4)
        pixels = np.asarray(gif.convert("RGB")).astype(int)
    for colour in TRACK_COLOURS[:2]:
        assert (abs(pixels - colour).max(axis=2) < 40).sum() > 10


def test_second_run_computes_and_writes_nothing(run: Command, archive: Path, reference: Path) -> None:
    def state() -> dict[str, int]:
        files = (
            path
            for folder in ("poses", "frames", "tracks", "motion", "videos", "previews")
            for path in (reference / folder).rglob("*")
        )
        return {str(path): path.stat().st_mtime_ns for path in files if path.is_file()}

    before = state()
    finished = run("run", str(archive), "--output", str(reference), "--preview", "gif", "--segment-seconds", "7")
    assert finished.code == 0, "nothing failed in this run"
    assert f"0 published, {len(PLAYABLE)} up to date, 0 failed, {len(FAILING)} failed before" in finished.output
    assert all(name in finished.output for name in FAILING)
    assert state() == before


def test_dataset_verifies_and_nothing_stays_staged(run: Command, reference: Path) -> None:
    finished = run("verify", "--output", str(reference))
    assert (finished.code, finished.output.split(":")[0]) == (0, "clean"), finished.output
    left = {path.relative_to(reference / "_state").parts[0] for path in (reference / "_state").rglob("*.*")}
    assert left == {"leases"}


def without_torch(folder: Path) -> dict[str, str]:
    """An environment in which nothing can load the networks."""
    folder.mkdir()
    (folder / "torch.py").write_text("raise ImportError('torch must not be loaded')\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}


def test_derive_changes_motion_alone_and_loads_no_network(reference: Path, tmp_path: Path) -> None:
    """On a Ray of its own, in whose processes torch cannot be imported. The videos may be gone."""
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    before = tables(output)
    environment = {**os.environ, **without_torch(tmp_path / "blocked")}
    command = [BIN / "posebatch", "derive", "--output", str(output), "--cutoff-hz", "2", "--workers", "1"]
    for derived in (len(PLAYABLE), 0):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (f"{derived} derived from stored poses" in done.stdout) == bool(derived)
    after = tables(output)
    changed = {key for key, content in before.items() if after[key] != content}
    assert "motion/dt=2026-01-01/walk.mp4.parquet" in changed
    assert all(key.split("/")[0] in ("tracks", "motion") for key in changed)
    assert verify(open_store(str(output)), deep=True).problems == ()


def test_run_upgrades_a_dataset_of_version_3_without_a_worker(
    run: Command, archive: Path, reference: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    for name in PLAYABLE:
        make_version_3(open_store(str(output)), name)
    assert verify(open_store(str(output)), deep=True).problems == ()
    finished = run("run", str(archive), "--output", str(output), "--preview", "gif")
    assert finished.code == 0, finished.output
    assert f"0 published, {len(PLAYABLE)} derived from stored poses" in finished.output
    assert "loading networks" not in finished.output
    upgraded, whole = tables(output), tables(reference)
    # frames, and poses without a track, stay as version 3 wrote them
    same = {key for key in whole if key.startswith(("tracks/", "motion/")) or key.endswith("walk.mp4.parquet")}
    same -= {"frames/dt=2026-01-01/walk.mp4.parquet"}
    assert {key: upgraded[key] for key in same} == {key: whole[key] for key in same}
    assert verify(open_store(str(output)), deep=True).problems == ()


def test_run_recomputes_after_a_change_of_setting_or_source(
    run: Command, archive: Path, tmp_path: Path, reference: Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (videos / name).write_bytes(video_bytes(frames=12))
    output = str(tmp_path / "output")
    command = ("run", str(videos), "--output", output)
    assert "2 published" in run(*command).output
    encode_video(videos / "b.mp4", frames=15)
    assert "1 published, 1 up to date" in run(*command).output
    frames = read_frames(output)
    assert frames.groupby("video").size().tolist() == [12, 15]
    assert "2 published, 0 up to date" in run(*command, "--stride", "5").output
    assert read_frames(output).groupby("video")["frame_index"].apply(list).tolist() == [[0, 5, 10], [0, 5, 10]]
    previewed = run(*command, "--stride", "5", "--preview", "gif").output
    assert "2 published" in previewed
    assert "0 frames" in previewed  # only the previews were made
    assert run("verify", "--output", output).code == 0


def test_rows_do_not_depend_on_segments_or_workers(
    run: Command, archive: Path, reference: Path, tmp_path: Path
) -> None:
    whole = ("--segment-seconds", "1000", "--workers", "1")
    run("run", str(archive / "dt=2026-01-01"), "--output", str(tmp_path / "one"), *whole)
    whole_poses, poses = read_poses(str(tmp_path / "one")), read_poses(str(reference), match="*walk.mp4")
    numbers = poses.select_dtypes("number").columns
    np.testing.assert_allclose(whole_poses[numbers].to_numpy(float), poses[numbers].to_numpy(float), atol=0.01)
    pd.testing.assert_frame_equal(read_frames(str(tmp_path / "one")), read_frames(str(reference), match="*walk.mp4"))


@pytest.mark.s3
def test_run_from_s3_to_s3_gives_the_same_rows(
    run: Command, archive: Path, reference: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket="end-to-end")
    for path in archive.rglob("*"):
        if path.is_file():
            client.put_object(
                Bucket="end-to-end", Key=f"in/{path.relative_to(archive).as_posix()}", Body=path.read_bytes()
            )
    command = (
        "run",
        "s3://end-to-end/in/",
        "--output",
        "s3://end-to-end/out",
        "--preview",
        "gif",
        "--segment-seconds",
        "0.3",
    )
    environment = s3_server.environment()
    finished = run(*command, environment=environment)
    assert finished.code == 3, finished.output
    again = run(*command, environment=environment)
    assert f"0 published, {len(PLAYABLE)} up to date" in again.output
    assert run("verify", "--output", "s3://end-to-end/out", environment=environment).code == 0
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for read in (read_poses, read_frames):
        ours, theirs = read("s3://end-to-end/out"), read(str(reference))
        assert ours["video"].str.removeprefix("s3://end-to-end/in").tolist() == (
            theirs["video"].str.removeprefix(str(archive)).tolist()
        )
        pd.testing.assert_frame_equal(ours.drop(columns="video"), theirs.drop(columns="video"))


def test_run_through_ray_job_submit_gives_the_same_rows(
    ray_head: RayHead, archive: Path, reference: Path, tmp_path: Path
) -> None:
    command = [BIN / "ray", "job", "submit", "--address", ray_head.dashboard_url, "--working-dir", ROOT, "--",
               sys.executable, "jobs/extract_poses.py", archive, "--output", tmp_path / "out",
               "--workers", "1"]  # fmt: skip
    variables = {**os.environ, **ray_head.environment()}
    del variables["RAY_ADDRESS"]
    job = subprocess.run(
        [str(part) for part in command], env=variables, capture_output=True, text=True, timeout=600, check=False
    )
    output = job.stdout + job.stderr
    assert job.returncode != 0, output  # some videos failed
    assert "exit code 3" in output, output
    assert f"{len(PLAYABLE)} published" in output
    assert tables(tmp_path / "out") == tables(reference)


def test_run_survives_killed_drivers(
    ray_head: RayHead, run: Command, archive: Path, reference: Path, tmp_path: Path
) -> None:
    chance = random.Random(1)
    command = ("run", str(archive), "--output", str(tmp_path), "--segment-seconds", "0.3", "--preview", "gif",
               "--workers", "1", "--fail-on", "any")  # fmt: skip
    for _ in range(KILLS):
        process = start(ray_head, command)
        wait_for(lambda process=process: bool(ray_head.workers()) or process.poll() is not None)
        time.sleep(chance.uniform(0, 12))
        process.kill()
        process.communicate()
    assert run(*command).code == 3
    assert tables(tmp_path) == tables(reference)
    assert run("verify", "--output", str(tmp_path)).code == 0


def test_run_survives_killed_actors(ray_head: RayHead, archive: Path, reference: Path, tmp_path: Path) -> None:
    chance = random.Random(2)
    patience = ("--max-attempts", str(KILLS + 1), "--workers", "2")
    process = start(ray_head, ("run", str(archive), "--output", str(tmp_path), "--segment-seconds", "0.3", *patience))
    kills = 0
    while kills < KILLS and process.poll() is None:
        time.sleep(chance.uniform(0, 5))
        for pid in chance.sample(ray_head.workers(), min(1, len(ray_head.workers()))):
            os.kill(pid, signal.SIGKILL)
            kills += 1
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 3, output
    assert kills
    assert tables(tmp_path) == tables(reference)


def test_terminated_run_stops_cleanly_and_resumes(
    ray_head: RayHead, run: Command, archive: Path, reference: Path, tmp_path: Path
) -> None:
    command = ("run", str(archive), "--output", str(tmp_path), "--segment-seconds", "0.3", "--workers", "1",
               "--fail-on", "any")  # fmt: skip
    process = start(ray_head, command)
    wait_for(lambda: any(tmp_path.rglob("*.arrow")))
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, "stopped by SIGTERM" in output, "Traceback" in output) == (1, True, False), output
    (summary,) = (json.loads(path.read_bytes()) for path in tmp_path.glob("runs/*/summary.json"))
    (lease,) = (json.loads(path.read_bytes()) for path in tmp_path.glob("_state/leases/*.json"))
    assert (summary["finished"], lease["ended"]) == (False, True)
    assert run(*command).code == 3
    assert tables(tmp_path) == tables(reference)


def test_run_without_a_cluster_starts_its_own_ray(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "one.mp4").write_bytes(video_bytes(frames=5))
    variables = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {"HOME": str(home)}
    command = [str(BIN / "posebatch"), "run", str(tmp_path / "one.mp4"), "--output", str(tmp_path / "out")]
    job = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert job.returncode == 0, job.stdout + job.stderr
    assert not (home / ".ray").exists()  # no token that a later cluster would ask for
    assert len(read_frames(str(tmp_path / "out"))) == 5


def test_run_whose_own_ray_is_killed_says_so_and_is_resumed(
    run: Command, archive: Path, reference: Path, tmp_path: Path
) -> None:
    """Without its GCS; `test_ray_end` has the raylet. A worker that Ray has just started may stay a while."""
    command = ["run", str(archive), "--output", str(tmp_path), "--segment-seconds", "0.3", "--fail-on", "any"]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")} | {
        "TEST_RUN": tmp_path.name
    }
    process = subprocess.Popen([BIN / "posebatch", *command, "--workers", "1"], env=variables, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    own = partial(processes_with, "TEST_RUN", tmp_path.name)
    try:
        wait_for(lambda: any(tmp_path.rglob("*.arrow")))
        (killed,) = (pid for pid, text in own() if text.split()[0].endswith("/gcs_server"))
        os.kill(killed, signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    last = "posebatch: stopped by the end of Ray's gcs_server on this machine, by signal 9; the same command goes on"
    assert (process.returncode, last in output, "Traceback" in output) == (1, True, False), output
    (lease,) = (json.loads(path.read_bytes()) for path in tmp_path.glob("_state/leases/*.json"))
    assert lease["ended"]
    wait_for(lambda: not any("ray::" in text and "IDLE" not in text for _, text in own()), seconds=60)
    assert run(*command).code == 3
    assert tables(tmp_path) == tables(reference)
