import io
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from posebatch.core.errors import PreviewError
from posebatch.core.skeleton import SKELETON_EDGES
from posebatch.report import gif
from posebatch.report.drawing import EDGE_COLOURS, JOINT_COLOUR, draw_skeletons
from posebatch.report.gif import AnnotatedFrame, encode_gif

RED = np.array(JOINT_COLOUR)
GREY = 90


def blank(width=120, height=80) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def person(**joints: tuple[float, float, float]) -> np.ndarray:
    """Keypoints of one person, given as j5=(x, y, score); the others have score 0."""
    keypoints = np.zeros((1, 17, 3), np.float32)
    for name, values in joints.items():
        keypoints[0, int(name[1:])] = values
    return keypoints


def is_red(pixel) -> bool:
    return bool(pixel[0] > 200 and pixel[1] < 60 and pixel[2] < 60)


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
    assert is_red(drawn[round(at_y), round(at_x)])
    changed = np.argwhere((drawn != GREY).any(axis=2))
    weights = np.abs(drawn[tuple(changed.T)].astype(float) - GREY).sum(axis=1)
    centre_y, centre_x = (changed * weights[:, None]).sum(axis=0) / weights.sum()
    assert centre_x == pytest.approx(at_x, abs=0.3)
    assert centre_y == pytest.approx(at_y, abs=0.3)
    assert np.abs(changed - (at_y, at_x)).max() < 6, "a joint is a dot"


def test_draw_skeletons_draws_edges_in_their_colours():
    for (a, b), colour in zip(SKELETON_EDGES, EDGE_COLOURS, strict=True):
        drawn = draw_skeletons(blank(), person(**{f"j{a}": (20, 40, 1), f"j{b}": (100, 40, 1)}), 0.2)
        assert np.abs(drawn[40, 60].astype(int) - colour).max() <= 8, (a, b)
        assert is_red(drawn[40, 20]), (a, b)
        assert is_red(drawn[40, 100]), "keypoints are drawn over edges"


def test_edge_colours_differ():
    assert len(set(EDGE_COLOURS)) == len(SKELETON_EDGES)
    assert EDGE_COLOURS[0] == (255, 0, 0)


def test_draw_skeletons_needs_both_ends_of_an_edge():
    a, b = SKELETON_EDGES[7]
    drawn = draw_skeletons(blank(), person(**{f"j{a}": (20, 40, 1), f"j{b}": (100, 40, 0.2)}), 0.2)
    assert (drawn[40, 60] == GREY).all()
    assert is_red(drawn[40, 20])
    assert (drawn[40, 100] == GREY).all()


def test_draw_skeletons_draws_all_persons():
    keypoints = np.concatenate([person(j0=(20, 20, 1)), person(j0=(90, 60, 1)), person(j0=(-500, 1e4, 1))])
    drawn = draw_skeletons(blank(), keypoints, 0.2)
    assert is_red(drawn[20, 20])
    assert is_red(drawn[60, 90])


def test_draw_skeletons_accepts_a_rotated_view():
    image = np.rot90(blank(80, 120))
    assert not image.flags["C_CONTIGUOUS"]
    assert is_red(draw_skeletons(image, person(j0=(60, 40, 1)), 0.2)[40, 60])


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
        pytest.param([0, 0.04, 0.08, 0.12], [4, 4, 4], id="25 fps"),
        pytest.param([i / 30 for i in range(7)], [3, 4, 3, 3, 4, 3], id="30 fps: no drift"),
        pytest.param([0, 0.5, 0.6, 2.6], [50, 10, 200], id="variable"),
        pytest.param([i / 50 for i in range(4)], [2, 2, 2], id="50 fps: the fastest"),
        pytest.param([i / 100 for i in range(9)], [2, 2, 2, 2], id="100 fps: every other frame"),
        pytest.param([i / 60 for i in range(7)], [2, 3, 2, 3], id="60 fps: what is too close is left out"),
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


def test_encode_gif_is_deterministic():
    assert gif_of([0, 0.1]) == gif_of([0, 0.1])


def test_gif_tick_is_a_hundredth_of_a_second():
    assert Fraction(1, 100) == gif.TICK
