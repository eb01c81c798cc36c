from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from posebatch.core.errors import OutputError
from posebatch.core.skeleton import FLIP_ORDER, KEYPOINT_NAMES
from posebatch.demo.sample import (
    FPS,
    KEYFRAME_INTERVAL,
    NUM_FRAMES,
    SampleTruth,
    TruePerson,
    keypoint_errors,
    render_sample,
    write_sample,
)
from posebatch.demo.sample_movement import walker_movements
from posebatch.demo.scene import HEIGHT, WIDTH, Sprite, SpritePlacement, draw_scene, on_ground, paste
from posebatch.demo.walker import Outfit, walk_cycle

JOINTS = np.linspace(0, 100, 34).reshape(17, 2)
OUTFIT = Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28))


def person(x: float = 0.0, visible: int = 17) -> TruePerson:
    """A person 100 px high with joints within 100 px right of ``x``."""
    shown = np.arange(17) < visible
    joints = np.where(shown[:, None], JOINTS + np.array([x, 0.0]), np.nan)
    return TruePerson(np.array([x, 0.0, x + 100, 100.0]), joints, shown)


def poses(*offsets: tuple[float, float]) -> np.ndarray:
    """Poses (n, 17, 3): the joints of ``person(0)`` moved by each offset x, y."""
    return np.array([np.column_stack([JOINTS + offset, np.ones(17)]) for offset in offsets]).reshape(-1, 17, 3)


def truth(*frames: tuple[TruePerson, ...]) -> SampleTruth:
    return SampleTruth(640, 480, 25, frames)


NAN = float("nan")


@pytest.mark.parametrize(
    ("frames", "estimated", "want"),
    [
        pytest.param((), {}, (0, 0, 0, NAN, NAN, NAN), id="nothing"),
        pytest.param(((person(),),), {}, (0, 0, 0, NAN, NAN, NAN), id="no frame compared"),
        pytest.param(((),), {0: poses()}, (0, 0, 0, NAN, NAN, NAN), id="no person, no pose"),
        pytest.param(((),), {0: poses((0, 0))}, (0, 0, 1, NAN, NAN, NAN), id="no person, false pose"),
        pytest.param(((person(),),), {0: poses()}, (1, 0, 0, NAN, NAN, NAN), id="missed"),
        pytest.param(((person(),),), {0: poses((0, 0))}, (1, 1, 0, 0, 0, 1), id="exact"),
        pytest.param(((person(),),), {0: poses((3, 4))}, (1, 1, 0, 5, 0.05, 1), id="close"),
        pytest.param(((person(),),), {0: poses((0, 20))}, (1, 1, 0, 20, 0.2, 0), id="off, but matched"),
        pytest.param(((person(),),), {0: poses((0, 40))}, (1, 0, 1, NAN, NAN, NAN), id="too far to match"),
        pytest.param(((person(),),), {0: poses((0, 9), (0, 2))}, (1, 1, 1, 2, 0.02, 1), id="two poses, one person"),
        pytest.param(
            ((person(), person(200)),), {0: poses((201, 0), (3, 0))}, (2, 2, 0, 2, 0.02, 1), id="two, in another order"
        ),
        pytest.param(
            ((person(), person(20)),),
            {0: poses((18, 0))},
            (2, 1, 0, 2, 0.02, 1),
            id="one pose is one person, the nearest",
        ),
        pytest.param(
            ((person(visible=4),),), {0: poses((3, 0))}, (0, 0, 0, NAN, NAN, NAN), id="too little seen: found"
        ),
        pytest.param(((person(visible=4),),), {0: poses()}, (0, 0, 0, NAN, NAN, NAN), id="too little seen: missed"),
        pytest.param(((person(),), (person(),)), {1: poses((0, 1))}, (1, 1, 0, 1, 0.01, 1), id="stride"),
    ],
)
def test_keypoint_errors_counts_and_measures(frames, estimated, want):
    got = keypoint_errors(truth(*frames), estimated)

    numbers = (got.persons, got.found, got.false_persons, got.median_px, got.median_of_height, got.pck)
    np.testing.assert_allclose(numbers, want, atol=1e-9)


def test_keypoint_errors_compares_only_visible_joints():
    pose = poses((0, 0))
    pose[:, 5:, :2] += 1000

    got = keypoint_errors(truth((person(visible=5),)), {0: pose})

    assert (got.found, got.median_px, got.pck) == (1, 0, 1)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Path, SampleTruth]:
    path = tmp_path_factory.mktemp("sample") / "sample.mp4"
    return path, write_sample(path)


def test_write_sample_writes_the_promised_video(sample):
    path, shown = sample
    with av.open(path) as container:
        stream = container.streams.video[0]
        promised = (stream.codec_context.name, stream.width, stream.height, stream.average_rate, stream.frames)
        frames = [(frame.pts * frame.time_base * FPS, frame.key_frame) for frame in container.decode(stream)]

    assert promised == ("h264", WIDTH, HEIGHT, FPS, NUM_FRAMES)
    assert [index for index, _ in frames] == list(range(NUM_FRAMES))
    assert [i for i, (_, key) in enumerate(frames) if key] == list(range(0, NUM_FRAMES, KEYFRAME_INTERVAL))
    assert (shown.width, shown.height, shown.fps, len(shown.frames)) == (WIDTH, HEIGHT, FPS, NUM_FRAMES)


def test_write_sample_truth_is_inside_the_frame(sample):
    for person in (person for frame in sample[1].frames for person in frame):
        joints = person.joints[person.visible]
        x1, y1, x2, y2 = person.box_xyxy
        assert -0.5 <= x1 < x2 <= WIDTH - 0.5
        assert -0.5 <= y1 < y2 <= HEIGHT - 0.5
        assert np.isnan(person.joints[~person.visible]).all()
        assert (joints.min(axis=0) >= [x1 - 0.5, y1 - 0.5]).all()
        assert (joints.max(axis=0) <= [x2 + 0.5, y2 + 0.5]).all()


def test_write_sample_has_frames_with_none_one_and_two_persons(sample):
    counted = [sum(person.counts for person in frame) for frame in sample[1].frames]

    assert {n: counted.count(n) >= 15 for n in sorted(set(counted))} == {0: True, 1: True, 2: True}


def test_render_sample_repeats_truth_and_video(sample):
    path, shown = sample
    with av.open(path) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 80)]

    for index, (image, persons) in enumerate(islice(render_sample(), 80)):
        assert np.abs(image.astype(float) - decoded[index]).mean() < 5  # H.264 is lossy
        for person, same in zip(persons, shown.frames[index], strict=True):
            np.testing.assert_array_equal(person.box_xyxy, same.box_xyxy)
            np.testing.assert_array_equal(person.joints, same.joints)


def test_drawing_is_deterministic():
    scenes = [np.asarray(draw_scene()) for _ in range(2)]
    walkers = [np.asarray(walk_cycle(OUTFIT, 0.4, 1)[0].image) for _ in range(2)]

    np.testing.assert_array_equal(*scenes)
    np.testing.assert_array_equal(*walkers)


def test_write_sample_names_an_unwritable_path(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere.*sample\.mp4"):
        write_sample(tmp_path / "nowhere" / "sample.mp4")


def test_walk_cycle_stands_on_the_ground_and_swings_arms_against_legs():
    for sprite, sign in zip(walk_cycle(OUTFIT, 0.0, 2), (1, -1), strict=True):
        x = dict(zip(KEYPOINT_NAMES, sprite.joints[:, 0], strict=True))
        assert sprite.box_xyxy[3] == pytest.approx(sprite.anchor[1] + 0.5, abs=3)
        assert sign * (x["left_ankle"] - x["right_ankle"]) > 50
        assert sign * (x["left_wrist"] - x["right_wrist"]) < -50


def test_walk_cycle_hides_the_far_arm_in_profile():
    (sprite,) = walk_cycle(OUTFIT, 0.0, 1)
    visible = dict(zip(KEYPOINT_NAMES, sprite.visible, strict=True))

    assert visible["nose"]
    assert visible["right_shoulder"]
    assert visible["left_ankle"]
    assert not visible["left_shoulder"]
    assert not visible["left_ear"]


def test_sprite_mirrored_keeps_the_sides_of_the_body():
    (sprite,) = walk_cycle(OUTFIT, 0.4, 1)
    mirrored = sprite.mirrored()
    last = sprite.image.width - 1

    np.testing.assert_allclose(mirrored.joints[:, 0], last - sprite.joints[list(FLIP_ORDER), 0])
    np.testing.assert_array_equal(np.asarray(mirrored.image), np.asarray(sprite.image)[:, ::-1])
    np.testing.assert_allclose(mirrored.mirrored().joints, sprite.joints)


@pytest.mark.parametrize(("x", "y", "scale"), [(100.0, 200.0, 1.0), (100.3, 200.6, 0.5), (320.25, 100.75, 1.7)])
def test_paste_places_pixels_where_to_frame_places_joints(x, y, scale):
    dot = np.zeros((41, 41, 4), np.uint8)
    dot[15:24, 9:18] = 255
    sprite = Sprite(
        Image.fromarray(dot),
        (20.0, 20.0),
        np.array([8.5, 14.5, 17.5, 23.5]),
        np.full((17, 2), (13.0, 19.0)),
        np.ones(17, bool),
    )
    frame = Image.new("RGB", (WIDTH, HEIGHT))
    place = SpritePlacement(x, y, scale)

    paste(frame, sprite, place)

    light = np.asarray(frame, float)[..., 0]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    center = (light * columns).sum() / light.sum(), (light * rows).sum() / light.sum()
    np.testing.assert_allclose(center, place.to_frame(sprite, sprite.joints)[0], atol=0.05)


def test_paste_outside_the_frame_covers_nothing():
    (sprite,) = walk_cycle(OUTFIT, 0.0, 1)
    frame = Image.new("RGB", (WIDTH, HEIGHT))

    assert not paste(frame, sprite, SpritePlacement(-900.0, 300.0, 1.0)).any()
    assert not np.asarray(frame).any()


def test_on_ground_halves_the_scale_at_twice_the_distance():
    column, row, per_metre = on_ground(1.0, 4.0)
    column2, row2, per_metre2 = on_ground(1.0, 8.0)

    assert per_metre == 2 * per_metre2
    assert column - (WIDTH / 2 - 0.5) == 2 * (column2 - (WIDTH / 2 - 0.5))
    assert row2 < row


def bent_leg(angle_deg: float) -> np.ndarray:
    """Joints of a person whose left knee, below the hip, is bent by an angle."""
    joints = JOINTS.copy()
    hip, knee, ankle = (KEYPOINT_NAMES.index(f"left_{joint}") for joint in ("hip", "knee", "ankle"))
    joints[hip], joints[knee] = (50, 40), (50, 60)
    joints[ankle] = 50 + 20 * np.sin(np.radians(angle_deg)), 60 + 20 * np.cos(np.radians(angle_deg))
    return joints


def motion_rows(*rows: tuple[int, int, np.ndarray, float]) -> pd.DataFrame:
    """A table ``motion``: frame, track, joints and left knee angle of each row."""
    names = [f"{joint}_{axis}" for joint in KEYPOINT_NAMES for axis in ("x", "y")]
    table = pd.DataFrame([joints.ravel() for _, _, joints, _ in rows], columns=names)
    table["frame_index"] = [frame for frame, *_ in rows]
    table["track_id"] = [track for _, track, *_ in rows]
    table["left_knee_deg"] = [angle for *_, angle in rows]
    return table.assign(right_knee_deg=np.nan)


def test_walker_movements_count_the_tracks_of_a_walker_and_measure_its_knee():
    walker = replace(person(), joints=bent_leg(30.0), name="near walker")
    shown = truth((walker,), (walker,), (walker,), ())
    rows = motion_rows(
        (0, 7, bent_leg(33.0), 33.0),
        (1, 7, bent_leg(30.0), 31.0),
        (2, 4, bent_leg(30.0), np.nan),
        (2, 9, bent_leg(30.0) + 500, 80.0),  # somebody else
        (3, 7, bent_leg(30.0), 30.0),  # the walker has left
    )
    (found,) = walker_movements(shown, rows)
    assert (found.name, found.tracks, found.frames) == ("near walker", (7, 4), 3)
    assert found.knee_error_deg == pytest.approx(2.0)


def test_walker_movements_of_a_walker_without_a_track_have_no_error():
    walker = replace(person(), joints=bent_leg(30.0), name="near walker")
    (found,) = walker_movements(truth((walker,)), motion_rows())
    assert (found.tracks, found.frames) == ((), 0)
    assert np.isnan(found.knee_error_deg)
