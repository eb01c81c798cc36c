"""Decoding on a GPU, and the fallback where there is none or where it fails."""

import contextlib

import numpy as np
import pytest
import torch
from support.decoding import batches_of, plan_of
from support.factories import corrupt_middle, frame_number, video_bytes

from posebatch.core.errors import IndexDisagreesError, ObjectNotFoundError, SettingsError
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.pose.uploads import to_device
from posebatch.video import fallback, nvdec
from posebatch.video.frame_images import RGB, FrameFormat
from posebatch.video.nvdec import use_nvdec

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def nothing_printed(monkeypatch):
    monkeypatch.setattr(nvdec, "_printed", set())


def decode(video, on_gpu, frame_format=RGB, **sampling):
    options = {"batch_frames": 4, "frame_format": frame_format, "on_gpu": on_gpu}
    return batches_of(video, plan_of(video), Segment(), SamplingSettings(**sampling), **options)


def numbers(batches):
    return [frame_number(image) for batch in batches for image in batch.images]


def pretend_gpu(monkeypatch, error=None, after=10**9):
    """Let the CPU decode in place of a GPU; after so many frames the error is raised. Returns which decoder opened."""
    real_open, real_decode = fallback.open_video, fallback.FullDecode
    opened = []

    @contextlib.contextmanager
    def open_video(file, limits, accelerator, on_frame, video_track, streamed):
        opened.append("CPU" if accelerator is None else "GPU")
        if opened[-1] == "GPU" and error is not None and after == 0:
            raise error
        with real_open(file, limits, None, on_frame) as video:
            yield video

    class FailingDecode(real_decode):
        def __iter__(self):
            for count, frame in enumerate(super().__iter__()):
                if opened[-1] == "GPU" and error is not None and count == after:
                    raise error
                yield frame

    monkeypatch.setattr(fallback, "open_video", open_video)
    monkeypatch.setattr(fallback, "FullDecode", FailingDecode)
    return opened


FAILURE, DISAGREEMENT = RuntimeError("no more surfaces"), IndexDisagreesError("clip: otherwise")


@pytest.mark.parametrize(("after", "error"), [(0, FAILURE), (1, DISAGREEMENT), (5, FAILURE), (11, DISAGREEMENT)])
def test_fallback_to_the_cpu_yields_no_frame_twice(monkeypatch, capsys, error, after):
    video = video_bytes(frames=12, b_frames=2)
    expected, expected_report = decode(video, on_gpu=False)
    opened = pretend_gpu(monkeypatch, error, after)
    batches, report = decode(video, on_gpu=True)
    assert opened == ["GPU", "CPU"]
    assert numbers(batches) == list(range(12))
    assert [batch.records for batch in batches] == [batch.records for batch in expected]
    assert report == expected_report
    decode(video, on_gpu=True)
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"clip (h264) is decoded on the CPU: {error}"


def test_fallback_decodes_damage_on_the_cpu(monkeypatch):
    video = corrupt_middle(video_bytes(frames=60, b_frames=2), 0.1)
    expected, _ = decode(video, on_gpu=False)
    opened = pretend_gpu(monkeypatch)
    batches, _ = decode(video, on_gpu=True)
    assert (opened[0], opened[-1]) == ("GPU", "CPU")
    assert [batch.records for batch in batches] == [batch.records for batch in expected]


def test_fallback_does_not_hide_errors_of_the_storage(monkeypatch, capsys):
    opened = pretend_gpu(monkeypatch, ObjectNotFoundError("clip: gone"), 3)
    with pytest.raises(ObjectNotFoundError):
        decode(video_bytes(frames=12), on_gpu=True)
    assert opened == ["GPU"]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("stride", [1, 3])
def test_gpu_that_works_decodes_alone(monkeypatch, capsys, stride):
    opened = pretend_gpu(monkeypatch)
    batches, _ = decode(video_bytes(frames=12), on_gpu=True, stride=stride)
    assert numbers(batches) == list(range(0, 12, stride))
    assert opened == ["GPU"]
    assert not capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_fallback_without_a_gpu_prints_one_line(capsys):
    video = video_bytes(frames=5)
    for _ in range(3):
        assert numbers(decode(video, on_gpu=True)[0]) == list(range(5))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("clip (h264) is decoded on the CPU: ")


@pytest.mark.parametrize(
    ("decoder", "device", "works", "used"),
    [
        ("cpu", "cpu", True, False),
        ("cpu", "cuda", True, False),
        ("auto", "cpu", True, False),
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("nvdec", "cuda", True, True),
    ],
)
def test_use_nvdec_by_setting_and_device(monkeypatch, capsys, decoder, device, works, used):
    monkeypatch.setattr(nvdec, "_problem", lambda: None if works else "no library")
    assert [use_nvdec(decoder, device) for _ in range(2)] == [used, used]
    printed = capsys.readouterr().err.splitlines()
    assert printed == ([] if works else ["videos are decoded on the CPU: no library"])


@pytest.mark.parametrize(("device", "reason"), [("cpu", "the networks run on the CPU"), ("cuda", "no library")])
def test_use_nvdec_refuses_a_demand_that_cannot_be_met(monkeypatch, device, reason):
    monkeypatch.setattr(nvdec, "_problem", lambda: "no library")
    with pytest.raises(SettingsError, match=f"--decoder nvdec: {reason}"):
        use_nvdec("nvdec", device)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "wanted",
    [{}, {"b_frames": 2}, {"codec": "libx265"}, {"codec": "libx265", "pixel_format": "yuv420p10le"}, {"rotation": 90}],
    ids=["H.264", "B-frames", "HEVC", "HEVC, 10 bits", "turned"],
)
def test_nvdec_yields_the_frames_of_the_cpu(wanted):
    video = video_bytes(frames=20, size=(256, 192), **wanted)
    on_cpu, cpu_report = decode(video, False, FrameFormat(planes=True))
    on_gpu, gpu_report = decode(video, True, FrameFormat(planes=True))
    assert [batch.records for batch in on_gpu] == [batch.records for batch in on_cpu]
    assert gpu_report == cpu_report
    for a, b in zip(on_cpu, on_gpu, strict=True):
        pixels = to_device(b.images, "cuda").rgb().cpu().numpy()
        assert np.abs(to_device(a.images, "cpu").rgb().numpy() - pixels).max() <= 1
