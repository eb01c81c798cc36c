"""Decoding on a GPU, and what happens where there is none, or it gives up."""

import contextlib
import io

import numpy as np
import pytest
import torch
from support.factories import corrupt_middle, frame_number, video_bytes

from posebatch.core.errors import IndexDisagreesError, ObjectNotFoundError, SettingsError
from posebatch.core.settings import SamplingSettings
from posebatch.core.videos import Segment
from posebatch.pose.uploads import to_device
from posebatch.video import fallback, nvdec
from posebatch.video.frame_images import FrameFormat
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(nvdec, "_said", set())


def decode(video, on_gpu, packing=None, **how):
    plan = probe(io.BytesIO(video), "clip", 1e9)
    sampling = SamplingSettings(**how)
    decoder = SegmentDecoder(
        io.BytesIO(video),
        "clip",
        Segment(),
        plan.info,
        DecodeOptions(sampling=sampling, batch_frames=4, frame_format=packing or FrameFormat(), on_gpu=on_gpu),
    )
    return list(decoder), decoder.report


def numbers(batches):
    return [frame_number(image) for batch in batches for image in batch.images]


def pretend(monkeypatch, error=None, after=10**9):
    """In place of a GPU the CPU decodes, until so many packets are read; then there is an error."""
    real = fallback.open_video
    opened = []

    @contextlib.contextmanager
    def opening(file, limits, accelerator=None):
        opened.append(accelerator is not None)
        if accelerator is not None and error is not None and after == 0:
            raise error
        with real(file, limits) as video:
            yield video

    real_presentation = fallback.Presentation

    class Presentation(real_presentation):
        def __iter__(self):
            for count, shown in enumerate(super().__iter__()):
                if opened[-1] and error is not None and count == after:
                    raise error
                yield shown

    monkeypatch.setattr(fallback, "open_video", opening)
    monkeypatch.setattr(fallback, "Presentation", Presentation)
    return opened


@pytest.mark.parametrize("after", [0, 1, 5, 11])
@pytest.mark.parametrize("error", [RuntimeError("no more surfaces"), IndexDisagreesError("clip: otherwise")])
def test_what_a_gpu_begins_the_cpu_ends_and_no_frame_comes_twice(monkeypatch, capsys, error, after):
    video = video_bytes(frames=12, b_frames=2)
    expected, expected_report = decode(video, on_gpu=False)
    opened = pretend(monkeypatch, error, after)
    batches, report = decode(video, on_gpu=True)
    assert opened == [True, False]
    assert numbers(batches) == list(range(12))
    assert [batch.records for batch in batches] == [batch.records for batch in expected]
    assert report == expected_report
    decode(video, on_gpu=True)
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"clip (h264) is decoded on the CPU: {error}"


def test_damage_is_left_to_the_cpu(monkeypatch):
    video = corrupt_middle(video_bytes(frames=60, b_frames=2), 0.1)
    expected, _ = decode(video, on_gpu=False)
    opened = pretend(monkeypatch)
    batches, _ = decode(video, on_gpu=True)
    assert opened[0]
    assert not opened[-1]
    assert [batch.records for batch in batches] == [batch.records for batch in expected]


def test_a_source_that_cannot_be_read_is_no_failure_of_the_gpu(monkeypatch, capsys):
    opened = pretend(monkeypatch, ObjectNotFoundError("clip: gone"), 3)
    with pytest.raises(ObjectNotFoundError):
        decode(video_bytes(frames=12), on_gpu=True)
    assert opened == [True]
    assert not capsys.readouterr().err


@pytest.mark.parametrize("stride", [1, 3])
def test_a_gpu_that_works_is_asked_alone(monkeypatch, capsys, stride):
    opened = pretend(monkeypatch)
    batches, _ = decode(video_bytes(frames=12), on_gpu=True, stride=stride)
    assert numbers(batches) == list(range(0, 12, stride))
    assert opened == [True]
    assert not capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_without_a_gpu_the_cpu_decodes_and_one_line_says_why(capsys):
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
def test_which_decoder_is_used(monkeypatch, capsys, decoder, device, works, used):
    monkeypatch.setattr(nvdec, "_problem", lambda: None if works else "no library")
    assert [use_nvdec(decoder, device) for _ in range(2)] == [used, used]
    said = capsys.readouterr().err.splitlines()
    assert said == ([] if works else ["videos are decoded on the CPU: no library"])


@pytest.mark.parametrize(("device", "why"), [("cpu", "the networks run on the CPU"), ("cuda", "no library")])
def test_nvdec_that_cannot_be_had_is_refused(monkeypatch, device, why):
    monkeypatch.setattr(nvdec, "_problem", lambda: "no library")
    with pytest.raises(SettingsError, match=f"--decoder nvdec: {why}"):
        use_nvdec("nvdec", device)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(
    "wanted",
    [{}, {"b_frames": 2}, {"codec": "libx265"}, {"codec": "libx265", "pixel_format": "yuv420p10le"}, {"rotation": 90}],
    ids=["H.264", "B-frames", "HEVC", "HEVC, 10 bits", "turned"],
)
def test_nvdec_gives_the_frames_of_the_cpu(wanted):
    video = video_bytes(frames=20, size=(256, 192), **wanted)
    here, report = decode(video, False, FrameFormat(planes=True))
    there, its_report = decode(video, True, FrameFormat(planes=True))
    assert [batch.records for batch in there] == [batch.records for batch in here]
    assert its_report == report
    for a, b in zip(here, there, strict=True):
        pixels = to_device(b.images, "cuda").rgb().cpu().numpy()
        assert np.abs(to_device(a.images, "cpu").rgb().numpy() - pixels).max() <= 1
