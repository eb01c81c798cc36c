import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from posebatch.core.errors import PreviewError
from posebatch.core.skeleton import FLIP_PAIRS, KEYPOINT_NAMES, SKELETON_EDGES
from posebatch.report import gif
from posebatch.report.drawing import (
    DRAWING_THRESHOLDS,
    EDGE_COLOURS,
    JOINT_COLOURS,
    LEFT_COLOUR,
    MIDDLE_COLOUR,
    RIGHT_COLOUR,
    draw_skeletons,
)
from posebatch.report.frame_spool import STILL
from posebatch.report.gif import AnnotatedFrame, encode_gif

GREY = 90


def blank(width=120, height=80) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def person(**joints: tuple[float, float, float]) -> np.ndarray:
    """Keypoints of one person, given as j5=(x, y, score); the others have score 0."""
    keypoints = np.zeros((1, 17, 3), np.float32)
    for name, values in joints.items():
        keypoints[0, int(name[1:])] = values
    return keypoints


def is_joint(pixel, joint: int) -> bool:
    """Whether a pixel has the colour of a joint."""
    return bool(np.abs(pixel.astype(int) - JOINT_COLOURS[joint]).max() < 12)


# --- drawing -------------------------------------------------------------------------------------------------------


def test_draw_skeletons_without_persons_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    before = image.copy()
    drawn = draw_skeletons(image, np.zeros((0, 17, 3), np.float32), 0.2)
    np.testing.assert_array_equal(drawn, before)


@pytest.mark.parametrize("score", [0.0, 0.1, 0.2])
def test_draw_skeletons_leaves_out_low_scores(score):
    keypoints = np.full((1, 17, 3), 40, np.float32)
    keypoints[:, :, 2] = score
    np.testing.assert_array_equal(draw_skeletons(blank(), keypoints, 0.2), blank())


@pytest.mark.parametrize(
    ("scale", "x", "y"), [(1.0, 60.0, 40.0), (1.0, 20.0, 30.5), (0.5, 20.0, 30.5), (0.35, 100.0, 10.0)]
)
def test_draw_skeletons_draws_keypoints_in_place(scale, x, y):
    full = (round(240 * scale), round(160 * scale))
    drawn = draw_skeletons(blank(*full), person(j5=(2 * x, 2 * y, 0.9)), 0.2, scale)
    # an integer is a pixel's centre, so (x, y) of the full frame lies at (x + 1/2) * scale - 1/2 of the scaled one
    at_x, at_y = ((2 * value + 0.5) * scale - 0.5 for value in (x, y))
    assert is_joint(drawn[round(at_y), round(at_x)], 5)
    changed = np.argwhere((drawn != GREY).any(axis=2))
    weights = np.abs(drawn[tuple(changed.T)].astype(float) - GREY).sum(axis=1)
    centre_y, centre_x = (changed * weights[:, None]).sum(axis=0) / weights.sum()
    assert centre_x == pytest.approx(at_x, abs=0.3)
    assert centre_y == pytest.approx(at_y, abs=0.3)
    assert np.abs(changed - (at_y, at_x)).max() < 6, "a joint is a dot"


def test_draw_skeletons_draws_edges_in_their_colours():
    for (a, b), colour in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True):
        drawn = draw_skeletons(blank(), person(**{f"j{a}": (20, 40, 1), f"j{b}": (100, 40, 1)}), 0.2)
        assert np.abs(drawn[39:42, 60].astype(int) - colour).max(axis=1).min() <= 8, (a, b)
        assert is_joint(drawn[40, 20], a), (a, b)
        assert is_joint(drawn[40, 100], b), "joints are drawn over edges"


def test_colours_tell_left_from_right():
    by_name = dict(zip(KEYPOINT_NAMES, JOINT_COLOURS, strict=True))
    assert by_name["nose"] == MIDDLE_COLOUR
    assert {by_name[name] for name in KEYPOINT_NAMES if name.startswith("left_")} == {LEFT_COLOUR}
    assert {by_name[name] for name in KEYPOINT_NAMES if name.startswith("right_")} == {RIGHT_COLOUR}
    edges = dict(zip(SKELETON_EDGES, EDGE_COLOURS, strict=True))
    assert edges[15, 13] == edges[5, 7] == edges[0, 1] == edges[3, 5] == LEFT_COLOUR
    assert edges[16, 14] == edges[6, 8] == edges[0, 2] == edges[4, 6] == RIGHT_COLOUR
    assert edges[11, 12] == edges[5, 6] == edges[1, 2] == MIDDLE_COLOUR


def test_drawing_thresholds_are_the_same_left_and_right():
    assert DRAWING_THRESHOLDS.shape == (17,)
    assert all(DRAWING_THRESHOLDS[left] == DRAWING_THRESHOLDS[right] for left, right in FLIP_PAIRS)


def test_draw_skeletons_takes_a_threshold_for_each_joint():
    """A wrist needs a higher score than an elbow."""
    drawn = draw_skeletons(blank(), person(j7=(20, 40, 0.35), j9=(100, 40, 0.35)), DRAWING_THRESHOLDS)
    assert is_joint(drawn[40, 20], 7)
    assert (drawn[40, 60] == GREY).all()
    assert (drawn[40, 100] == GREY).all()


def test_draw_skeletons_draws_thin_lines():
    drawn = draw_skeletons(blank(480, 270), person(j5=(100, 50, 1), j7=(100, 250, 1)), 0.2)
    changed = (drawn[150] != GREY).any(axis=1).sum()
    assert 1 <= changed <= 5, "the line and its rim"


def test_draw_skeletons_needs_both_ends_of_an_edge():
    a, b = SKELETON_EDGES[7]
    drawn = draw_skeletons(blank(), person(**{f"j{a}": (20, 40, 1), f"j{b}": (100, 40, 0.2)}), 0.2)
    assert (drawn[40, 60] == GREY).all()
    assert is_joint(drawn[40, 20], a)
    assert (drawn[40, 100] == GREY).all()


def test_draw_skeletons_draws_all_persons():
    keypoints = np.concatenate([person(j0=(20, 20, 1)), person(j0=(90, 60, 1)), person(j0=(-500, 1e4, 1))])
    drawn = draw_skeletons(blank(), keypoints, 0.2)
    assert is_joint(drawn[20, 20], 0)
    assert is_joint(drawn[60, 90], 0)


def test_draw_skeletons_accepts_a_rotated_view():
    image = np.rot90(blank(80, 120))
    assert not image.flags["C_CONTIGUOUS"]
    assert is_joint(draw_skeletons(image, person(j0=(60, 40, 1)), 0.2)[40, 60], 0)


# --- GIF -----------------------------------------------------------------------------------------------------------


def picture(i: int, width=40, height=30) -> np.ndarray:
    """A gradient with a moving bright column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 200, width).astype(np.uint8)
    image[..., 1] = np.linspace(40, 160, height).astype(np.uint8)[:, None]
    image[:, (3 * i) % width] = (255, 255, 0)
    return image


def gif_of(times, pictures=None) -> bytes:
    frames = (AnnotatedFrame(t, picture(i) if pictures is None else pictures[i]) for i, t in enumerate(times))
    content, count = encode_gif(frames)
    assert count == opened(content).n_frames
    return content


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def blocks(content: bytes) -> dict[str, list]:
    """Delays, palettes and loops of a GIF, parsed by its specification. Pillow does not report local palettes."""
    flags = content[10]
    assert flags & 0x80, "a global palette"
    at = 13 + 3 * 2 ** ((flags & 7) + 1)
    parts: dict[str, list] = {"delays": [], "local_palettes": [], "loops": []}

    def skip(at: int) -> int:
        while content[at]:
            at += content[at] + 1
        return at + 1

    while content[at] != 0x3B:
        if content[at] == 0x21:
            if content[at + 1] == 0xF9:
                parts["delays"].append(int.from_bytes(content[at + 4 : at + 6], "little"))
            if content[at + 1] == 0xFF and content[at + 3 : at + 14] == b"NETSCAPE2.0":
                parts["loops"].append(int.from_bytes(content[at + 16 : at + 18], "little"))
            at = skip(at + 2)
        else:
            assert content[at] == 0x2C
            local = content[at + 9]
            parts["local_palettes"].append(bool(local & 0x80))
            at = skip(at + 10 + (3 * 2 ** ((local & 7) + 1) if local & 0x80 else 0) + 1)
    return parts


def test_encode_gif_refuses_no_frames():
    with pytest.raises(PreviewError, match="no frame of the video can be shown"):
        encode_gif(iter(()))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_encode_gif_repeats_forever(count):
    content = gif_of([i / 10 for i in range(count)])
    image = opened(content)
    assert (image.format, image.size, image.n_frames) == ("GIF", (40, 30), count)
    if count > 1:
        assert image.info["loop"] == 0
        assert blocks(content)["loops"] == [0]


def test_encode_gif_writes_one_palette():
    parts = blocks(gif_of([i / 10 for i in range(9)]))
    assert len(parts["local_palettes"]) == 9
    assert not any(parts["local_palettes"])


@pytest.mark.parametrize(
    ("times", "delays"),
    [
        pytest.param([0, 0.1, 0.2], [10, 10], id="10 fps"),
        pytest.param([5.0, 5.1, 5.2], [10, 10], id="from the first frame on"),
        pytest.param([-1.0, 0.0, 1.0], [100, 100], id="times below zero"),
        pytest.param([i / 25 for i in range(8)], [12, 12], id="25 fps: every third frame"),
        pytest.param([i / 30 for i in range(10)], [10, 10, 10], id="30 fps: no drift"),
        pytest.param([0, 0.5, 0.6, 2.6], [50, 10, 200], id="variable"),
        pytest.param([i / 100 for i in range(31)], [10, 10, 10], id="100 fps: every tenth frame"),
        pytest.param([i / 60 for i in range(13)], [10, 10], id="60 fps: every sixth frame"),
        pytest.param([0, 0.0, 0.0, 1.0], [100], id="at one time"),
    ],
)
def test_encode_gif_plays_in_real_time(times, delays):
    delays_found = blocks(gif_of(times))["delays"]
    assert delays_found == [*delays, delays[-1]], "the last frame lasts as long as the one before"


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=12))
@settings(max_examples=15)
def test_encode_gif_lasts_as_long_as_the_frames(steps):
    times = np.cumsum(steps)
    delays_found = blocks(gif_of(times))["delays"]
    assert all(delay >= gif.MIN_DELAY for delay in delays_found)
    span = round(times[-1] * 100) - round(times[0] * 100)
    assert 0 <= span - sum(delays_found[:-1]) < gif.MIN_DELAY


def test_encode_gif_limits_long_delays():
    delays_found = blocks(gif_of([0, 1, 1000]))["delays"]
    assert delays_found == [100, gif.MAX_DELAY, gif.MAX_DELAY]


def test_encode_gif_keeps_the_pictures():
    pictures = [picture(i) for i in range(5)]
    image = opened(gif_of([i / 10 for i in range(5)], pictures))
    for i, expected in enumerate(pictures):
        image.seek(i)
        shown = np.asarray(image.convert("RGB")).astype(int)
        error = np.abs(shown - expected)
        assert error.mean() < 8, f"frame {i}"
        column = (3 * i) % 40
        assert error[:, column].mean() < 8, f"frame {i}: its new column"


def test_encode_gif_keeps_few_colours_exactly():
    """The palette does not change a picture of few colours."""
    colours = np.array([(0, 0, 0), (255, 255, 255), (200, 30, 30), (30, 200, 30)], np.uint8)
    pictures = [colours[np.random.default_rng(i).integers(0, 4, (30, 40))] for i in range(3)]
    image = opened(gif_of([0, 0.1, 0.2], pictures))
    for i, expected in enumerate(pictures):
        image.seek(i)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - expected).max() <= 2


def test_encode_gif_does_not_flicker():
    still = picture(0)
    image = opened(gif_of([i / 10 for i in range(4)], [still] * 4))
    assert image.n_frames == 4, "equal frames are shown"
    shown = []
    for i in range(4):
        image.seek(i)
        shown.append(np.asarray(image.convert("RGB")))
    for other in shown[1:]:
        np.testing.assert_array_equal(other, shown[0])


def test_encode_gif_resizes_to_the_first_frame():
    pictures = [picture(0), picture(1, 60, 20), picture(2)]
    image = opened(gif_of([0, 0.1, 0.2], pictures))
    assert (image.size, image.n_frames) == ((40, 30), 3)


@pytest.mark.parametrize(("limit", "value"), [("MAX_GIF_PIXELS", 40 * 30 * 4), ("MAX_GIF_FRAMES", 4)])
def test_encode_gif_ends_at_its_limits(monkeypatch: pytest.MonkeyPatch, limit: str, value: int):
    monkeypatch.setattr(gif, limit, value)
    drawn = []

    def frames():
        for i in range(100):
            drawn.append(i)
            yield AnnotatedFrame(i / 10, picture(i))

    content, count = encode_gif(frames())
    assert count == opened(content).n_frames == 4
    assert len(drawn) <= 5, "frames that are not shown are not drawn"


def noise(count: int, spread: int) -> list[np.ndarray]:
    """Pictures whose pixels differ from each other by at most ``2 * spread``."""
    steps = np.random.default_rng(0).integers(-spread, spread + 1, (count, 30, 40, 1))
    return [(picture(0).clip(20, 235) + step).astype(np.uint8) for step in steps]


@pytest.mark.parametrize(("room", "shown", "step"), [(1.0, 16, 1), (0.6, 8, 2), (0.3, 4, 4)])
def test_encode_gif_leaves_out_frames_to_fit(monkeypatch: pytest.MonkeyPatch, room: float, shown: int, step: int):
    times, pictures = [i / 10 for i in range(16)], noise(16, 20)
    whole = gif_of(times, pictures)
    monkeypatch.setattr(gif, "MAX_GIF_BYTES", round(len(whole) * room) + 2000)
    content = gif_of(times, pictures)
    assert opened(content).n_frames == shown
    assert set(blocks(content)["delays"]) == {10 * step}


def test_encode_gif_ends_where_nothing_more_fits(monkeypatch: pytest.MonkeyPatch):
    times, pictures = [i / 10 for i in range(40)], noise(40, 20)
    size = len(gif_of(times, pictures))
    monkeypatch.setattr(gif, "MAX_GIF_BYTES", size // 8)
    content = gif_of(times, pictures)
    assert len(content) <= size // 8
    assert 1 < opened(content).n_frames < 10


def test_encode_gif_shows_one_frame_however_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gif, "MAX_GIF_BYTES", 10)
    assert opened(gif_of([0, 0.1, 0.2])).n_frames == 1


def test_encode_gif_keeps_still_pixels_still():
    """Noise that nobody sees costs no bytes, and does not add up."""
    times = [i / 10 for i in range(10)]
    still, noisy, moving = (
        len(gif_of(times, pictures)) for pictures in ([picture(0)] * 10, noise(10, 4), noise(10, 40))
    )
    assert noisy < still + 3000 < moving
    slow = [np.full((30, 40, 3), 100 + 2 * i, np.uint8) for i in range(10)]
    image = opened(gif_of(times, slow))
    image.seek(9)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 118).max() <= STILL + 2


def test_encode_gif_is_deterministic():
    assert gif_of([0, 0.1]) == gif_of([0, 0.1])


def test_gif_tick_is_a_hundredth_of_a_second():
    assert Fraction(1, 100) == gif.TICK
