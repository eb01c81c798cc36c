"""MP4, WebP and contact sheet: what players and Pillow read from them."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from posebatch.core.errors import PreviewError
from posebatch.core.preview_settings import PREVIEW_FORMATS
from posebatch.dataset.layout import PREVIEWS
from posebatch.report import mp4, webp
from posebatch.report.contact_sheet import THUMBS, time_label
from posebatch.report.picture_writer import AnnotatedFrame
from posebatch.report.writers import writer_for
from posebatch.video.counting import count_frames

RED, GREEN = (200, 30, 40), (30, 160, 60)
MILLISECOND = Fraction(1, 1000)


def written(form, times, pictures=None, time_base=MILLISECOND, size_hw=(40, 60)):
    """The bytes and the number of pictures of a preview whose frames are half red, half green."""
    file = io.BytesIO()
    with writer_for(form, len(times), time_base) as writer:
        for number, time_s in enumerate(times):
            if writer.wants(number, time_s):
                image = two_colours(*size_hw) if pictures is None else pictures[number]
                writer.add(AnnotatedFrame(time_s, image))
        count = writer.finish(file)
    return file.getvalue(), count


def two_colours(height, width):
    image = np.full((height, width, 3), RED, np.uint8)
    image[:, width // 2 :] = GREEN
    return image


def decoded(content):
    with av.open(io.BytesIO(content), "r") as container:
        return [(frame.pts * frame.time_base, frame) for frame in container.decode(video=0)]


def test_every_format_has_an_artifact_and_a_writer():
    assert tuple(PREVIEWS) == PREVIEW_FORMATS
    for form in PREVIEW_FORMATS:
        assert written(form, [0.0, 0.1])[0]


@pytest.mark.parametrize("form", PREVIEW_FORMATS)
def test_writers_refuse_a_clip_without_frames(form):
    with pytest.raises(PreviewError, match="no frame of the video can be shown"):
        written(form, [])


@pytest.mark.parametrize(
    ("pts", "time_base"),
    [
        pytest.param([0], Fraction(1, 25), id="one frame"),
        pytest.param([0, 1, 2, 3], Fraction(1, 25), id="constant"),
        pytest.param([0, 40, 41, 300, 301, 2000], MILLISECOND, id="variable"),
        pytest.param([126000 + 3003 * i for i in range(0, 40, 5)], Fraction(1, 90000), id="stride, late start"),
        pytest.param([0, 1, 2, 3], Fraction(1001, 30000), id="NTSC"),
        pytest.param([-512, 0, 512], Fraction(1, 12800), id="below zero"),
        pytest.param(range(200), Fraction(1, 30), id="several keyframes"),
    ],
)
def test_mp4_has_the_frames_and_times_of_the_table(pts, time_base):
    content, count = written("mp4", [float(tick * time_base) for tick in pts], time_base=time_base)
    assert count == count_frames(content) == len(pts)
    assert [time for time, _ in decoded(content)] == [(tick - pts[0]) * time_base for tick in pts]


def test_mp4_plays_everywhere():
    content, _ = written("mp4", [0.0, 0.04, 0.08])
    with av.open(io.BytesIO(content), "r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.start_time, stream.duration * stream.time_base) == (0, Fraction(12, 100))
    assert content.index(b"moov") < content.index(b"mdat"), "a browser plays it before it has the whole file"


@pytest.mark.parametrize(("size_hw", "expected"), [((40, 60), (40, 60)), ((41, 63), (42, 64)), ((1, 1), (2, 2))])
def test_mp4_has_even_sides(size_hw, expected):
    (_, frame), *_ = decoded(written("mp4", [0.0, 0.1], size_hw=size_hw)[0])
    assert (frame.height, frame.width) == expected


def test_mp4_keeps_the_colours():
    (_, frame), *_ = decoded(written("mp4", [0.0])[0])
    shown = frame.to_ndarray(format="rgb24").astype(int)
    assert np.abs(shown[5:-5, 5:20] - RED).max() < 12
    assert np.abs(shown[5:-5, -20:-5] - GREEN).max() < 12


def test_mp4_resizes_to_the_first_frame():
    pictures = [two_colours(40, 60), two_colours(20, 80)]
    assert {(frame.height, frame.width) for _, frame in decoded(written("mp4", [0, 0.1], pictures)[0])} == {(40, 60)}


@pytest.mark.parametrize("form", PREVIEW_FORMATS)
def test_same_frames_give_the_same_bytes(form):
    assert written(form, [0.0, 0.1, 0.2]) == written(form, [0.0, 0.1, 0.2])


@pytest.mark.parametrize(("form", "module"), [("mp4", mp4), ("webp", webp)])
def test_missing_encoder_is_a_preview_error(form, module, monkeypatch):
    monkeypatch.setattr(module, "ENCODERS", ("libnone",))
    with pytest.raises(PreviewError, match=r"this build of FFmpeg cannot write an .* lacks the encoder libnone"):
        written(form, [0.0, 0.1])


# --- WebP ----------------------------------------------------------------------------------------------------------


def noise(count):
    return list(np.random.default_rng(0).integers(0, 256, (count, 40, 60, 3), np.uint8))


@pytest.mark.parametrize(
    ("times", "delays"),
    [([0.0], []), ([0.0, 0.1, 0.2], [100, 100, 100]), ([5.0, 5.5, 5.52, 7.5], [500, 2000, 2000])],
)
def test_webp_plays_in_real_time(times, delays):
    content, count = written("webp", times, noise(len(times)))
    with Image.open(io.BytesIO(content), formats=["WEBP"]) as image:
        assert (image.n_frames, image.size) == (count, (60, 40))
        found = []
        for number in range(image.n_frames if delays else 0):
            image.seek(number)
            image.load()
            found.append(image.info["duration"])
        assert image.info["loop"] == 0 or not delays
    assert found[:-1] == delays[:-1], "the last frame lasts about as long as the others"


@pytest.mark.parametrize(("share", "most"), [(1.01, 16), (0.6, 8), (0.1, 3)])
def test_webp_stays_within_its_size(share, most, monkeypatch):
    times = [i / 10 for i in range(16)]
    whole, count = written("webp", times, noise(16))
    assert count == 16
    monkeypatch.setattr(webp, "MAX_WEBP_BYTES", round(len(whole) * share))
    content, count = written("webp", times, noise(16))
    assert len(content) <= webp.MAX_WEBP_BYTES
    assert 0 < count <= most


def test_webp_counts_equal_frames_as_pillow_does():
    content, count = written("webp", [i / 10 for i in range(5)])
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == count


# --- contact sheet -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "size_hw", "columns", "rows"),
    [(1, (40, 60), 1, 1), (3, (40, 60), 3, 1), (500, (40, 60), 4, 3), (500, (60, 40), 6, 2)],
)
def test_sheet_shows_the_whole_clip(frames, size_hw, columns, rows):
    content, count = written("sheet", [i / 25 for i in range(frames)], size_hw=size_hw)
    with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
        page = np.asarray(image.convert("RGB")).astype(int)
    assert count == 1
    height, width = size_hw
    reds = np.abs(page - RED).max(axis=2) < 60
    starts = [np.flatnonzero(np.diff(line.astype(int)) > 0).size for line in (reds.any(axis=0), reds.any(axis=1))]
    assert starts == [columns, rows]
    assert page.shape[0] > rows * height
    assert page.shape[1] > columns * width


def test_sheet_takes_the_first_and_the_last_frame():
    with writer_for("sheet", 100, MILLISECOND) as writer:
        wanted = [number for number in range(100) if writer.wants(number, 0.0)]
    assert (wanted[0], wanted[-1], len(wanted)) == (0, 99, THUMBS)


@pytest.mark.parametrize(
    ("time_s", "label"),
    [(0, "0:00.0"), (9.96, "0:10.0"), (83.46, "1:23.5"), (3600, "1:00:00.0"), (-1.5, "-0:01.5"), (-0.01, "0:00.0")],
)
def test_time_label_has_tenths(time_s, label):
    assert time_label(time_s) == label
