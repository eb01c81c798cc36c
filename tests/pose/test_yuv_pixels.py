"""YUV planes that are sampled first and converted then equal frames that FFmpeg has converted before the sampling."""

import numpy as np
import pytest
import torch
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from posebatch.core.images import PixelCoding, coding_of
from posebatch.core.tiling import Grid, Tile, tiles_of
from posebatch.pose.pixels import JoinedPixels, RgbPixels
from posebatch.pose.yuv_pixels import YuvPixels

FORMATS = [
    *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv440p", "yuv411p", "gray"),
    *("yuv420p9le", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le", "yuv444p16le"),
    *("gray10le", "nv12", "p010le"),
]
EVEN, ODD_WIDTH, ODD_HEIGHT, ODD = (96, 72), (97, 72), (96, 73), (97, 73)
BT709, BT601, BT2020 = 1, 5, 9
UNSPECIFIED, LIMITED, FULL = 0, 1, 2

REGIONS = np.array(
    [
        [48.0, 36.0, 36.0, 48.0],  # inside, about one pixel for each of the crop's
        [45.3, 30.7, 7.5, 10.0],  # enlarged
        [48.0, 36.0, 90.0, 120.0],  # the whole frame, black above and below
        [2.0, 1.0, 18.0, 24.0],  # over a corner
        [96.0, 71.0, 15.0, 20.0],  # over the other one
        [-500.0, 30.0, 18.0, 24.0],  # beside the frame
    ]
)
CROP_WH, SMALL_WH = (36, 48), (40, 32)


def planes_of(frame, coding):
    """Views of the planes of a frame without the padding of their lines."""
    for plane, shape in zip(frame.planes, coding.plane_shapes, strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: shape[0]].view(coding.dtype)
        yield lines[:, : int(np.prod(shape[1:]))].reshape(shape)


def coded(pixel_format, size, picture, matrix=BT709, color_range=0, turns=0):
    """A frame, its coding and its planes. ``picture(h, w, component)`` gives levels in 0..255."""
    frame = VideoFrame(*size, pixel_format)
    frame.color_range = color_range
    coding = coding_of(pixel_format, size, matrix, color_range == FULL, turns)
    assert coding is not None
    for number, plane in enumerate(planes_of(frame, coding)):
        height, width = plane.shape[:2]
        if plane.ndim == 2:
            levels = picture(height, width, number)
        else:
            levels = np.stack([picture(height, width, 1), picture(height, width, 2)], axis=2)
        plane[...] = np.round(levels * coding.levels).astype(plane.dtype)
    return frame, coding, [torch.from_numpy(plane.copy()) for plane in planes_of(frame, coding)]


def smooth(height, width, component):
    y, x = np.mgrid[:height, :width] / [[[height]], [[width]]]
    return 128 + (60 if component == 0 else 30) * np.sin(7 * x + component) * np.cos(5 * y + component)


def noise(height, width, component):
    """Independent luma and chroma samples, within the range of RGB."""
    spread = 50 if component == 0 else 20
    return np.random.default_rng(component).integers(128 - spread, 128 + spread, (height, width))


def converted_first(frame, matrix=BT709, turns=0):
    """The reference: the frame converted by FFmpeg and then rotated."""
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=Interpolation.BILINEAR).to_ndarray()
    return RgbPixels(torch.from_numpy(np.ascontiguousarray(np.rot90(rgb, turns))[None]))


def differences(planes, rgb):
    """Largest and mean difference, grey levels, over resized frames, crops and whole frames."""
    asked = [0] * len(REGIONS), REGIONS, CROP_WH, "edges"
    pairs = [
        (planes.resized(SMALL_WH), rgb.resized(SMALL_WH)),
        (planes.crops(*asked), rgb.crops(*asked)),
        (planes.rgb(), rgb.rgb()),
    ]
    for a, b in pairs:
        assert (a.dtype, a.shape) == (torch.float32, b.shape)
    return max(float((a - b).abs().max()) for a, b in pairs), max(float((a - b).abs().mean()) for a, b in pairs)


EXACT = (1.2, 0.3)
"""Largest and mean difference, grey levels, where FFmpeg's exact converter runs: along odd widths and heights. The
rest is rounding, of FFmpeg and of the 8-bit resizing."""

FAST = (4.5, 2.2)
"""The same where FFmpeg's fast converters run, which truncate fractions, some of them twice."""


def assert_close(planes, rgb, limits):
    greatest, mean = differences(planes, rgb)
    assert greatest <= limits[0]
    assert mean <= limits[1]


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_yuv_pixels_equal_converted_frames_in_each_format(pixel_format):
    frame, coding, planes = coded(pixel_format, ODD, noise)
    if pixel_format == "nv12":  # a GPU's form of a stream that is yuv420p on a CPU, so that is the reference
        frame, _, _ = coded("yuv420p", ODD, noise)
    assert_close(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame), EXACT)


@pytest.mark.parametrize("size", [EVEN, ODD_WIDTH, ODD_HEIGHT])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv420p10le", "yuv422p10le"])
def test_yuv_pixels_equal_converted_frames_at_each_size(pixel_format, size):
    """FFmpeg repeats or blends chroma samples depending on format and size, see `PixelCoding.repeats_xy`."""
    frame, coding, planes = coded(pixel_format, size, noise)
    assert_close(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame), FAST)


@pytest.mark.parametrize(
    ("pixel_format", "matrix", "color_range"),
    [
        ("yuv420p", BT709, UNSPECIFIED),
        ("yuv420p", BT709, LIMITED),
        ("yuv420p", BT601, FULL),
        ("yuv420p", BT2020, UNSPECIFIED),
        ("yuvj420p", BT709, LIMITED),
        ("yuvj420p", BT2020, UNSPECIFIED),
        ("yuv420p10le", BT2020, FULL),
        ("yuv444p", BT601, LIMITED),
        ("gray", BT601, FULL),
        ("gray", BT709, LIMITED),
    ],
)
def test_yuv_pixels_follow_matrix_and_range(pixel_format, matrix, color_range):
    frame, coding, planes = coded(pixel_format, ODD, noise, matrix, color_range)
    assert_close(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame, matrix), EXACT)


@pytest.mark.parametrize(
    ("pixel_format", "size", "turns", "limits"),
    [
        ("yuv420p", ODD, 1, EXACT),
        ("yuv420p", ODD, 2, EXACT),
        ("yuv420p", ODD, 3, EXACT),
        ("yuv422p10le", ODD, 1, EXACT),
        ("yuv422p10le", ODD, 3, EXACT),
        ("nv12", ODD, 1, EXACT),
        ("yuv420p", EVEN, 1, FAST),
    ],
)
def test_yuv_pixels_rotate_frames_as_displayed(pixel_format, size, turns, limits):
    frame, coding, planes = coded(pixel_format, size, smooth, turns=turns)
    pixels, rgb = YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame, turns=turns)
    assert pixels.size_wh == rgb.size_wh == (size[::-1] if turns % 2 else size)
    assert_close(pixels, rgb, limits)


def test_rgb_matrix_follows_bt709():
    """Black, white, grey and red, calculated by hand for limited range in 8 and 10 bits."""
    kr, kb = 0.2126, 0.0722
    red = (16 + 219 * kr, 128 - 224 * kr / (2 * (1 - kb)), 128 + 224 * 0.5)
    for (y, u, v), expected in {
        (16, 128, 128): (0, 0, 0),
        (235, 128, 128): (255, 255, 255),
        (16 + 219 / 2, 128, 128): (127.5, 127.5, 127.5),
        red: (255, 0, 0),
    }.items():
        for pixel_format, levels in (("yuv444p", 1), ("yuv444p10le", 4)):
            coding = coding_of(pixel_format, (2, 2), BT709, False)
            assert coding is not None
            matrix, offset = coding.rgb_matrix()
            assert matrix @ np.array([y, u, v]) * levels + offset == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("pixel_format", ["", "rgb24", "yuva420p", "yuv410p", "yuv420p10be", "yuv420p10", "nv21"])
def test_coding_of_returns_none_for_other_formats(pixel_format):
    assert coding_of(pixel_format, (8, 8), BT709, False) is None


@pytest.mark.parametrize("matrix", [0, 2, 8])
def test_coding_of_returns_none_for_other_matrices(matrix):
    assert coding_of("yuv420p", (8, 8), matrix, False) is None


@pytest.mark.parametrize(
    ("pixel_format", "size", "shapes"),
    [
        ("gray", (3, 5), [(5, 3)]),
        ("yuv420p", (1, 1), [(1, 1), (1, 1), (1, 1)]),
        ("yuv420p", (5, 3), [(3, 5), (2, 3), (2, 3)]),
        ("yuv422p10le", (5, 3), [(3, 5), (3, 3), (3, 3)]),
        ("yuv440p", (5, 3), [(3, 5), (2, 5), (2, 5)]),
        ("yuv411p", (5, 3), [(3, 5), (3, 2), (3, 2)]),
        ("nv12", (5, 3), [(3, 5), (2, 3, 2)]),
    ],
)
def test_plane_shapes_are_rounded_up_as_in_ffmpeg(pixel_format, size, shapes):
    coding = coding_of(pixel_format, size, BT709, False)
    assert coding is not None
    assert list(coding.plane_shapes) == shapes
    frame = VideoFrame(*size, pixel_format)
    assert [(plane.height, plane.width) for plane in frame.planes] == [shape[:2] for shape in shapes]


def batch(frames=5):
    shapes = PixelCoding((64, 48), (2, 2)).plane_shapes
    rng = np.random.default_rng(0)
    planes = [torch.from_numpy(rng.integers(0, 256, (frames, *shape), np.uint8)) for shape in shapes]
    return YuvPixels(PixelCoding((64, 48), (2, 2)), planes)


def test_yuv_pixels_accept_no_frames_and_no_crops():
    no_regions = np.zeros((0, 4))
    for pixels in (batch(0), batch(2)):
        assert pixels.crops([], no_regions, CROP_WH, "edges").shape == (0, 3, 48, 36)
    assert batch(0).resized((32, 32)).shape == (0, 3, 32, 32)


def test_joined_yuv_pixels_equal_one_batch():
    whole = batch()
    joined = JoinedPixels([whole[:2], whole[2:2], whole[2:]])
    numbers, regions = [0, 4, 4, 2], REGIONS[:4] / 2
    assert torch.equal(joined.resized((32, 24)), whole.resized((32, 24)))
    assert torch.equal(joined.rgb(), whole.rgb())
    assert torch.equal(
        joined.crops(numbers, regions, CROP_WH, "origin"), whole.crops(numbers, regions, CROP_WH, "origin")
    )


def test_yuv_crops_do_not_depend_on_other_crops():
    """Bit for bit, so results cannot depend on the composition of a batch."""
    whole = batch()
    together = whole.crops([3, 1, 0], REGIONS[:3] / 2, CROP_WH, "edges")
    for number, (frame, region) in enumerate(zip([3, 1, 0], REGIONS[:3] / 2, strict=True)):
        assert torch.equal(whole.crops([frame], region[None], CROP_WH, "edges")[0], together[number])


@pytest.mark.parametrize(
    ("pixel_format", "size", "turns"),
    [
        ("yuv420p", ODD, 0),
        ("yuv420p", ODD, 1),
        ("yuv420p", ODD, 2),
        ("yuv420p", ODD, 3),
        ("yuv420p", EVEN, 1),
        ("yuv420p", ODD_WIDTH, 2),
        ("yuv420p", ODD_HEIGHT, 3),
        ("yuv411p", ODD, 2),
        ("yuv411p", ODD, 3),
        ("yuv440p", ODD, 1),
        ("yuv422p10le", ODD, 2),
        ("yuv444p", ODD, 3),
        ("gray", ODD, 1),
        ("nv12", ODD, 0),
    ],
)
def test_cut_gives_the_tile_of_the_displayed_frame(pixel_format, size, turns):
    """Except for the outermost pixels, whose chroma lacks a neighbour."""
    _, coding, planes = coded(pixel_format, size, smooth, turns=turns)
    pixels = YuvPixels(coding, [plane[None] for plane in planes])
    tiles = tiles_of(pixels.size_wh, Grid(2, 2))
    assert len(tiles) == 4
    whole = pixels.rgb()
    for tile in tiles:
        cut = pixels.cut(tile)
        assert cut.size_wh == tile.size_wh
        expected = RgbPixels(whole.permute(0, 2, 3, 1)).cut(tile).rgb()
        inner = slice(2, -2)
        torch.testing.assert_close(cut.rgb()[:, :, inner, inner], expected[:, :, inner, inner], atol=5, rtol=0)
        assert cut.resized((32, 24)).shape == (1, 3, 24, 32)


@pytest.mark.parametrize(
    ("pixel_format", "left", "top"), [("yuv420p", 3, 0), ("yuv420p", 0, 3), ("yuv422p", 3, 0), ("yuv440p", 0, 3)]
)
def test_cut_refuses_a_tile_between_chroma_samples(pixel_format, left, top):
    _, coding, planes = coded(pixel_format, EVEN, smooth)
    pixels = YuvPixels(coding, [plane[None] for plane in planes])
    with pytest.raises(ValueError, match="does not begin at a chroma sample"):
        pixels.cut(Tile(left, top, 8, 8))
    assert pixels.cut(Tile(4, 4, 8, 8)).size_wh == (8, 8)


def test_cut_accepts_any_row_where_only_columns_share_chroma():
    _, coding, planes = coded("yuv422p", EVEN, smooth)
    assert YuvPixels(coding, [plane[None] for plane in planes]).cut(Tile(2, 3, 8, 8)).size_wh == (8, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gray", "nv12", "p010le"])
def test_yuv_pixels_on_a_gpu_equal_those_on_the_cpu(pixel_format):
    _, coding, planes = coded(pixel_format, ODD, noise, turns=1)
    here = YuvPixels(coding, [plane[None] for plane in planes])
    there = YuvPixels(coding, [plane[None].cuda() for plane in planes])
    asked = [0] * len(REGIONS), REGIONS, CROP_WH, "edges"
    for a, b in [
        (here.resized(SMALL_WH), there.resized(SMALL_WH)),
        (here.crops(*asked), there.crops(*asked)),
        (here.rgb(), there.rgb()),
    ]:
        assert b.device.type == "cuda"
        assert float((a - b.cpu()).abs().max()) < 0.01


def test_format_names_are_those_of_ffmpeg():
    assert {VideoFormat(name, 8, 8).name for name in FORMATS} == set(FORMATS)
