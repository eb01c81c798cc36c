"""What a batch holds of decoded frames: RGB to the bit as FFmpeg converts it, or the planes as they are."""

import io

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from support.factories import video_bytes

from posebatch.core.images import YuvImages
from posebatch.core.settings import SamplingSettings
from posebatch.pose.uploads import Uploads, pinned_array, to_device
from posebatch.video.frame_images import FrameFormat, coding_of_frame, plane_contents
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

PLANES = FrameFormat(planes=True)

VIDEOS = {
    "8 bits": {},
    "10 bits": {"codec": "libx265", "pixel_format": "yuv420p10le"},
    "4:2:2": {"pixel_format": "yuv422p"},
    "4:4:4": {"pixel_format": "yuv444p"},
    "4:2:2, 10 bits": {"pixel_format": "yuv422p10le"},
    "full range": {"color_range": 2, "matrix": 1},
    "full range by name": {"codec": "mjpeg", "container": "mov", "pixel_format": "yuvj420p"},
    "BT.2020": {"matrix": 9},
    "grey": {"pixel_format": "gray"},
    "90 degrees": {"rotation": 90},
    "180 degrees": {"rotation": 180},
    "270 degrees": {"rotation": 270},
    "odd": {"codec": "libvpx-vp9", "container": "webm", "size": (97, 73)},
    "HD": {"size": (128, 720)},
}


def decode(video, packing, **how):
    plan = probe(io.BytesIO(video), "clip", 1e9)
    return list(
        SegmentDecoder(
            io.BytesIO(video),
            "clip",
            plan.segments[0],
            plan.info,
            DecodeOptions(sampling=SamplingSettings(), batch_frames=4, frame_format=packing, **how),
        )
    )


def ffmpeg_frames(video):
    with av.open(io.BytesIO(video)) as container:
        return list(container.decode(video=0))


def ffmpeg_rgb(frame):
    """The way from a frame to RGB of the first release."""
    matrix = frame.colorspace if frame.colorspace != 2 else 1 if frame.height >= 720 else 5
    rgb = frame.reformat(
        frame.width, frame.height, "rgb24", src_colorspace=matrix, interpolation=Interpolation.BILINEAR
    )
    return np.rot90(rgb.to_ndarray(), round(frame.rotation / 90))


@pytest.mark.parametrize("wanted", VIDEOS.values(), ids=VIDEOS)
def test_rgb_is_to_the_bit_what_it_was(wanted):
    video = video_bytes(frames=6, **wanted)
    images = [image for batch in decode(video, FrameFormat()) for image in batch.images]
    expected = [ffmpeg_rgb(frame) for frame in ffmpeg_frames(video)]
    assert len(images) == len(expected) == 6
    assert all(np.array_equal(a, b) for a, b in zip(images, expected, strict=True))


@pytest.mark.parametrize("wanted", VIDEOS.values(), ids=VIDEOS)
def test_planes_are_the_same_pictures(wanted):
    video = video_bytes(frames=6, **wanted)
    as_rgb, as_planes = decode(video, FrameFormat()), decode(video, PLANES)
    assert [batch.records for batch in as_rgb] == [batch.records for batch in as_planes]
    region = np.array([[48.0, 36.0, 60.0, 80.0]])
    for rgb, planes in zip(as_rgb, as_planes, strict=True):
        assert isinstance(planes.images, YuvImages)
        a, b = to_device(rgb.images, "cpu"), to_device(planes.images, "cpu")
        assert (len(a), a.size_wh) == (len(b), b.size_wh)
        for one, other in [
            (a.resized((40, 32)), b.resized((40, 32))),
            (a.crops([1], region, (36, 48), "edges"), b.crops([1], region, (36, 48), "edges")),
            (a.rgb(), b.rgb()),
        ]:
            assert float((one - other).abs().mean()) <= 2.5  # see tests/test_planes.py


def test_planes_take_half_the_memory_of_rgb():
    video = video_bytes(frames=4)
    [rgb], [planes] = decode(video, FrameFormat()), decode(video, PLANES)
    assert planes.images.nbytes * 2 == rgb.images.nbytes == 4 * 128 * 96 * 3


def test_batches_without_a_frame_hold_none():
    for packing in (FrameFormat(), PLANES):
        assert len(packing.pack([])) == 0


@pytest.mark.parametrize("pixel_format", ["rgb24", "gbrp", "yuva420p", "yuyv422"])
def test_other_formats_are_converted_as_ever(pixel_format):
    frame = VideoFrame(32, 24, pixel_format)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[...] = 90
    assert np.array_equal(PLANES.pack([frame]), FrameFormat().pack([frame]))


def test_a_change_of_coding_begins_a_new_batch():
    one, other = VideoFrame(32, 24, "yuv420p"), VideoFrame(32, 24, "yuv420p10le")
    assert PLANES.form(one) != PLANES.form(other)
    assert FrameFormat().form(one) == FrameFormat().form(other)


def test_lines_that_lie_bottom_up_are_turned_over():
    class Plane(bytes):
        line_size = -4

    class Frame:
        planes = (Plane(range(12)),)

    coding = coding_of_frame(VideoFrame(4, 3, "gray"))
    [content] = plane_contents(Frame(), coding)
    assert content.tolist() == [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]]


def test_planes_are_put_where_they_are_wanted():
    made = []

    def new_array(shape, dtype):
        made.append(np.full(shape, 77, dtype))
        return made[-1]

    [batch] = decode(video_bytes(frames=3), FrameFormat(planes=True, new_array=new_array))
    assert [plane is own for plane, own in zip(batch.images.planes, made, strict=True)] == [True] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("wanted", VIDEOS.values(), ids=VIDEOS)
def test_batches_sent_ahead_arrive_as_they_were(wanted):
    video = video_bytes(frames=6, **wanted)
    here = decode(video, PLANES)
    uploads = Uploads()
    sent = [uploads.send(batch) for batch in decode(video, FrameFormat(planes=True, new_array=pinned_array))]
    for a, b in zip(here, sent, strict=True):
        assert (a.records, len(a.images), a.images.nbytes) == (b.records, len(b.images), b.images.nbytes)
        there = to_device(b.images, "cuda").rgb()
        assert there.device.type == "cuda"
        assert float((to_device(a.images, "cpu").rgb() - there.cpu()).abs().max()) < 0.01
