"""Planes sampled and converted where needed give the pictures of converting whole frames first, as FFmpeg does it."""

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
LIMITED, FULL = 1, 2

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
    """Views of a frame's planes, without the padding of their lines."""
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
    """Every pixel and every colour sample another, within what RGB can show."""
    spread = 50 if component == 0 else 20
    return np.random.default_rng(component).integers(128 - spread, 128 + spread, (height, width))


def converted_first(frame, matrix=BT709, turns=0):
    """As frames are converted on a CPU: by FFmpeg, then turned."""
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=Interpolation.BILINEAR).to_ndarray()
    return RgbPixels(torch.from_numpy(np.ascontiguousarray(np.rot90(rgb, turns))[None]))


def differences(planes, rgb):
    """Greatest and mean difference, in grey levels, of small pictures, crops and whole frames."""
    asked = [0] * len(REGIONS), REGIONS, CROP_WH, "edges"
    pairs = [
        (planes.resized(SMALL_WH), rgb.resized(SMALL_WH)),
        (planes.crops(*asked), rgb.crops(*asked)),
        (planes.rgb(), rgb.rgb()),
    ]
    for a, b in pairs:
        assert (a.dtype, a.shape) == (torch.float32, b.shape)
    return max(float((a - b).abs().max()) for a, b in pairs), max(float((a - b).abs().mean()) for a, b in pairs)


ROUGH_CONVERTER = 2.3
"""Grey levels by which FFmpeg's fast converters are darker on the mean: they cut fractions off, some of them twice."""


def limits(pixel_format, picture):
    """How far apart the two ways may be: greatest and mean difference."""
    if picture is noise and pixel_format in ("yuv440p", "yuv411p"):
        return 65.0, 11.0  # along even widths FFmpeg halves the colours of these, which noise shows and nothing else
    return 7.0, ROUGH_CONVERTER


@pytest.mark.parametrize("picture", [smooth, noise])
@pytest.mark.parametrize("size", [EVEN, ODD_WIDTH, ODD_HEIGHT, ODD])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_planes_are_what_converting_first_gives(pixel_format, size, picture):
    frame, coding, planes = coded(pixel_format, size, picture)
    if pixel_format == "nv12":  # stands for the yuv420p that the same stream is on a CPU, not for FFmpeg's own nv12
        frame, _, _ = coded("yuv420p", size, picture)
    greatest, mean = differences(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame))
    allowed = limits(pixel_format, picture)
    assert greatest <= allowed[0]
    assert mean <= allowed[1]


@pytest.mark.parametrize("size", [ODD_WIDTH, ODD])
@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv422p10le", "yuv420p10le", "yuv420p12le", "p010le", "yuv411p"])
def test_where_ffmpeg_converts_exactly_so_do_planes(pixel_format, size):
    """Along odd widths it uses its exact converter: what is left is its rounding, and that of its 8-bit resizing."""
    frame, coding, planes = coded(pixel_format, size, noise)
    greatest, mean = differences(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame))
    assert greatest <= 2.0
    assert mean <= 0.35


@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
@pytest.mark.parametrize("matrix", [BT709, BT601, BT2020])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv420p10le", "yuv444p", "gray"])
def test_every_matrix_and_range(pixel_format, matrix, color_range):
    frame, coding, planes = coded(pixel_format, EVEN, smooth, matrix, color_range)
    greatest, mean = differences(YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame, matrix))
    assert greatest <= 7.0
    assert mean <= ROUGH_CONVERTER


@pytest.mark.parametrize("size", [EVEN, ODD])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "nv12"])
def test_frames_that_are_displayed_turned(pixel_format, turns, size):
    frame, coding, planes = coded(pixel_format, size, smooth, turns=turns)
    pixels, rgb = YuvPixels(coding, [plane[None] for plane in planes]), converted_first(frame, turns=turns)
    assert pixels.size_wh == rgb.size_wh == (size[::-1] if turns % 2 else size)
    greatest, mean = differences(pixels, rgb)
    assert greatest <= 7.0
    assert mean <= ROUGH_CONVERTER


def test_the_coding_formulas_are_those_of_the_standards():
    """Grey, white, black and a red by hand: BT.709, limited, 8 and 10 bits."""
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


@pytest.mark.parametrize(
    "pixel_format", ["", "rgb24", "gbrp", "pal8", "yuva420p", "yuv410p", "yuyv422", "yuv420p10be", "yuv420p10", "nv21"]
)
def test_other_formats_are_left_to_ffmpeg(pixel_format):
    assert coding_of(pixel_format, (8, 8), BT709, False) is None


@pytest.mark.parametrize("matrix", [0, 2, 3, 4, 7, 8, 10, 14])
def test_other_matrices_are_left_to_ffmpeg(matrix):
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
def test_planes_are_rounded_up_as_ffmpeg_has_them(pixel_format, size, shapes):
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


def test_no_frames_no_crops():
    nobody = np.zeros((0, 4))
    for pixels in (batch(0), batch(2)):
        assert pixels.crops([], nobody, CROP_WH, "edges").shape == (0, 3, 48, 36)
    assert batch(0).resized((32, 32)).shape == (0, 3, 32, 32)


def test_parts_put_together_are_the_whole():
    whole = batch()
    joined = JoinedPixels([whole[:2], whole[2:2], whole[2:]])
    numbers, regions = [0, 4, 4, 2], REGIONS[:4] / 2
    assert torch.equal(joined.resized((32, 24)), whole.resized((32, 24)))
    assert torch.equal(joined.rgb(), whole.rgb())
    assert torch.equal(
        joined.crops(numbers, regions, CROP_WH, "origin"), whole.crops(numbers, regions, CROP_WH, "origin")
    )


def test_a_crop_depends_on_no_other():
    """Bit by bit, so that results cannot depend on what shares a batch."""
    whole = batch()
    together = whole.crops([3, 1, 0], REGIONS[:3] / 2, CROP_WH, "edges")
    for number, (frame, region) in enumerate(zip([3, 1, 0], REGIONS[:3] / 2, strict=True)):
        assert torch.equal(whole.crops([frame], region[None], CROP_WH, "edges")[0], together[number])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("size", [EVEN, ODD_WIDTH, ODD_HEIGHT, ODD])
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_tile_of_planes_is_that_of_the_picture(pixel_format, size, turns):
    """But for its outermost pixels, whose colours lack a neighbour."""
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


def test_a_tile_that_begins_between_samples_of_the_colours_is_refused():
    _, coding, planes = coded("yuv420p", EVEN, smooth)
    with pytest.raises(ValueError, match="does not begin at a sample"):
        YuvPixels(coding, [plane[None] for plane in planes]).cut(Tile(3, 0, 8, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_gpu_gives_the_same_pictures(pixel_format):
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


def test_pyav_knows_these_formats():
    """Otherwise the table above would test spellings of ours."""
    assert {VideoFormat(name, 8, 8).name for name in FORMATS} == set(FORMATS)
