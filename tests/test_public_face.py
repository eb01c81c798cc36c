"""The names of `import posebatch`: pinned, cheap to import, with examples that run."""

import doctest
import os
import subprocess
import sys

import pytest
from support.factories import video_bytes

import posebatch
from posebatch import api

PUBLIC = {
    *("connect", "decode", "draw", "estimate", "export", "plot", "run", "verify"),
    *("read_frames", "read_motion", "read_poses", "read_tracks", "read_videos"),
    *("PoseEstimator", "EstimatorSettings", "Settings", "settings_from"),
    *("Detections", "FrameBatch", "FramePoses", "KEYPOINT_NAMES", "SKELETON_EDGES"),
    *("PosebatchError", "UsageError", "SettingsError", "InputError", "OutputError", "OutputHeldError", "WeightsError"),
    *("VideoError", "DamagedVideoError", "StorageError", "RunAbortedError"),
    "__version__",
}


def test_public_names_are_pinned():
    assert set(posebatch.__all__) == PUBLIC
    assert set(dir(posebatch)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_name_is_there(name):
    assert getattr(posebatch, name) is not None


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = posebatch.nonsense


def test_import_loads_no_library():
    """Each process pays for its imports; a reader of tables needs neither torch nor Ray."""
    heavy = "('torch', 'ray', 'av', 'pandas', 'pyarrow', 'numpy', 'boto3')"
    script = f"import sys, posebatch; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_examples_of_public_functions_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(video_bytes(frames=21, size=(160, 120)))
    outcome = doctest.testmod(api, extraglobs={"posebatch": posebatch})
    assert outcome.failed == 0
    assert outcome.attempted >= 3


def test_estimate_gives_each_sampled_frame(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(video_bytes(frames=7, size=(160, 120)))
    assert [poses.record.frame_index for poses in posebatch.estimate(path, stride=3)] == [0, 3, 6]


def test_decode_names_a_file_that_is_no_video(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_text("no video")
    with pytest.raises(posebatch.VideoError, match=r"clip\.mp4: a text, not a video"):
        list(posebatch.decode(path))


def test_decode_names_a_file_that_is_missing(tmp_path):
    with pytest.raises(posebatch.StorageError, match=r"missing\.mp4"):
        list(posebatch.decode(tmp_path / "missing.mp4"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"stride": 0}, "decode: stride must be at least 1, got 0"),
        ({"stride": -1}, "decode: stride must be at least 1, got -1"),
        ({"stride": 2.5}, "decode: stride must be a whole number, got 2.5"),
        ({"batch_frames": 0}, "decode: batch_frames must be a whole number from 1 on, got 0"),
    ],
)
def test_decode_refuses_what_makes_no_sense(wanted, message):
    with pytest.raises(posebatch.SettingsError, match=message):
        posebatch.decode("clip.mp4", **wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"settings": {"stride": 1}}, "estimate: settings must be EstimatorSettings, got dict"),
        ({"stride": 0}, "estimate: stride must be at least 1, got 0"),
        ({"device": "gpu"}, "estimate: device must be one of auto, cpu, cuda, got 'gpu'"),
    ],
)
def test_estimate_refuses_what_makes_no_sense(wanted, message):
    with pytest.raises(posebatch.SettingsError, match=message):
        posebatch.estimate("clip.mp4", **wanted)


@pytest.mark.parametrize(("make", "message"), [(os.mkfifo, "no regular file"), (os.mkdir, "a folder")])
def test_decode_of_what_is_no_file_ends_at_once(tmp_path, make, message):
    make(tmp_path / "clip.mp4")
    with pytest.raises(posebatch.InputError, match=rf"clip\.mp4: {message}; give a video file"):
        list(posebatch.decode(tmp_path / "clip.mp4"))
