"""Images of decoded frames: RGB exactly as FFmpeg converts it, or the planes as they are coded."""

import io

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from support.decoding import BY_GOP, batches_of, plan_of
from support.decoding import decode as decode_rgb
from support.factories import video_bytes

from posebatch.core.images import YuvImages
from posebatch.pose.uploads import Uploads, pinned_array, to_device
from posebatch.video.frame_images import RGB, FrameFormat, coding_of_frame, plane_contents

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


def decode(video, frame_format=RGB):
    plan = plan_of(video)
    return batches_of(video, plan, plan.segments[0], batch_frames=4, frame_format=frame_format)[0]


def ffmpeg_frames(video):
    with av.open(io.BytesIO(video)) as container:
        return list(container.decode(video=0))


def ffmpeg_rgb(frame):
    """The conversion that the published data were made with."""
    matrix = frame.colorspace if frame.colorspace != 2 else 1 if frame.height >= 720 else 5
    rgb = frame.reformat(
        frame.width, frame.height, "rgb24", src_colorspace=matrix, interpolation=Interpolation.BILINEAR
    )
    return np.rot90(rgb.to_ndarray(), round(frame.rotation / 90))


@pytest.mark.parametrize(
    "name", ["8 bits", "10 bits", "4:4:4", "full range", "BT.2020", "90 degrees", "270 degrees", "odd", "HD"]
)
def test_rgb_is_the_conversion_of_ffmpeg_to_the_bit(name):
    video = video_bytes(frames=6, **VIDEOS[name])
    images = [image for batch in decode(video) for image in batch.images]
    expected = [ffmpeg_rgb(frame) for frame in ffmpeg_frames(video)]
    assert len(images) == len(expected) == 6
    assert all(np.array_equal(a, b) for a, b in zip(images, expected, strict=True))


@pytest.mark.parametrize("wanted", VIDEOS.values(), ids=VIDEOS)
def test_planes_show_the_same_pictures_as_rgb(wanted):
    video = video_bytes(frames=6, **wanted)
    as_rgb, as_planes = decode(video), decode(video, PLANES)
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
            assert float((one - other).abs().mean()) <= 2.5  # see `test_yuv_pixels`


def test_planes_take_half_the_memory_of_rgb():
    video = video_bytes(frames=4)
    [rgb], [planes] = decode(video), decode(video, PLANES)
    assert planes.images.nbytes * 2 == rgb.images.nbytes == 4 * 128 * 96 * 3


def test_pack_of_no_frames_is_empty():
    for packing in (FrameFormat(), PLANES):
        assert len(packing.pack([])) == 0


@pytest.mark.parametrize("pixel_format", ["rgb24", "gbrp", "yuva420p", "yuyv422"])
def test_pack_converts_formats_without_supported_planes(pixel_format):
    frame = VideoFrame(32, 24, pixel_format)
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[...] = 90
    assert np.array_equal(PLANES.pack([frame]), FrameFormat().pack([frame]))


def test_batch_key_differs_between_codings():
    one, other = VideoFrame(32, 24, "yuv420p"), VideoFrame(32, 24, "yuv420p10le")
    assert PLANES.batch_key(one) != PLANES.batch_key(other)
    assert FrameFormat().batch_key(one) == FrameFormat().batch_key(other)


def test_plane_contents_turns_lines_that_lie_bottom_up():
    class Plane(bytes):
        line_size = -4

    class Frame:
        planes = (Plane(range(12)),)

    coding = coding_of_frame(VideoFrame(4, 3, "gray"))
    [content] = plane_contents(Frame(), coding)
    assert content.tolist() == [[8, 9, 10, 11], [4, 5, 6, 7], [0, 1, 2, 3]]


def test_pack_allocates_planes_with_new_array():
    made = []

    def new_array(shape, dtype):
        made.append(np.full(shape, 77, dtype))
        return made[-1]

    [batch] = decode(video_bytes(frames=3), FrameFormat(planes=True, new_array=new_array))
    assert [plane is own for plane, own in zip(batch.images.planes, made, strict=True)] == [True] * 3


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (128, 128, 128), (16, 16, 16), (255, 255, 255)]
BT709, BT601, BT2020 = (0.2126, 0.0722), (0.299, 0.114), (0.2627, 0.0593)
LIMITED, FULL = 1, 2


def solid(rgb: tuple[int, int, int], weights: tuple[float, float], full: bool, size: tuple[int, int]) -> VideoFrame:
    """One colour, coded by the standard's own formula, so that it shares no code with the conversion under test."""
    (kr, kb), (r, g, b) = weights, np.array(rgb) / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    pb, pr = (b - y) / (1 - kb) / 2, (r - y) / (1 - kr) / 2
    levels = (255 * y, 128 + 255 * pb, 128 + 255 * pr) if full else (16 + 219 * y, 128 + 224 * pb, 128 + 224 * pr)
    width, height = size
    planes = [np.full((height, width), round(levels[0])), np.full((height // 2, width), round(levels[1]))]
    planes[1][height // 4 :] = round(levels[2])  # the chroma planes lie one behind the other
    return VideoFrame.from_ndarray(np.clip(np.concatenate(planes), 0, 255).astype(np.uint8), format="yuv420p")


SD, HD = (64, 96), (64, 720)
COLOUR_CASES: dict[str, tuple[tuple[float, float], int | None, int | None, tuple[int, int], str]] = {
    "untagged SD is 601": (BT601, None, None, SD, "libx264"),
    "untagged HD is 709": (BT709, None, None, HD, "libx264"),
    "709": (BT709, 1, LIMITED, SD, "libx264"),
    "709, full": (BT709, 1, FULL, SD, "libx264"),
    "601 (PAL)": (BT601, 5, LIMITED, HD, "libx264"),
    "601 (NTSC)": (BT601, 6, LIMITED, HD, "libx264"),
    "601, full": (BT601, 6, FULL, HD, "libx264"),
    "2020": (BT2020, 9, LIMITED, SD, "libx264"),
    "709 in HEVC": (BT709, 1, FULL, SD, "libx265"),
}


@pytest.mark.parametrize("case", COLOUR_CASES.values(), ids=COLOUR_CASES)
def test_rgb_has_the_colours_of_the_standard(
    case: tuple[tuple[float, float], int | None, int | None, tuple[int, int], str],
) -> None:
    weights, matrix, color_range, size, codec = case
    video = video_bytes(
        frames=len(COLOURS),
        codec=codec,
        gop=1,
        size=size,
        matrix=matrix,
        color_range=color_range,
        options=(("crf", "1"),),
        draw=lambda number: solid(COLOURS[number], weights, color_range == FULL, size),
    )
    for image, colour in zip(decode_rgb(video).images, COLOURS, strict=True):
        assert image is not None
        centre = image[size[1] // 4 : -size[1] // 4, 16:-16].astype(int)
        assert np.abs(centre - colour).max() <= 4, (colour, centre[0, 0])


def test_rgb_is_scaled():
    result = decode_rgb(video_bytes(frames=3, rotation=90), frame_format=FrameFormat(scale=0.5))
    assert {image.shape for image in result.images if image is not None} == {(48, 64, 3)}
    assert result.numbers == [0, 1, 2]


@pytest.mark.parametrize(
    ("container", "rotation"), [("mp4", 0), ("mp4", 90), ("mov", 90), ("mkv", 90), ("mp4", 180), ("mkv", 270)]
)
def test_rgb_is_upright(container, rotation):
    video = video_bytes(frames=12, rotation=rotation, container=container, gop=6)
    info, result = plan_of(video).info, decode_rgb(video, BY_GOP)
    assert (info.rotation, info.width, info.height) == (rotation, 128, 96)
    assert {image.shape for image in result.images if image is not None} == {(96, 128, 3)}
    assert result.numbers == list(range(12))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["8 bits", "10 bits", "4:2:2, 10 bits", "270 degrees", "odd"])
def test_uploads_send_batches_unchanged(name):
    video = video_bytes(frames=6, **VIDEOS[name])
    batches = decode(video, PLANES)
    uploads = Uploads()
    sent = [uploads.send(batch) for batch in decode(video, FrameFormat(planes=True, new_array=pinned_array))]
    for a, b in zip(batches, sent, strict=True):
        assert (a.records, len(a.images), a.images.nbytes) == (b.records, len(b.images), b.images.nbytes)
        uploaded = to_device(b.images, "cuda").rgb()
        assert uploaded.device.type == "cuda"
        assert float((to_device(a.images, "cpu").rgb() - uploaded.cpu()).abs().max()) < 0.01
