"""Who is who in made-up scenes."""

import numpy as np
import pytest
from support.stick_figures import SIZE_WH, Person, frames_of, in_blocks, scene, switches, walking

from posebatch.core.motion_settings import MotionSettings
from posebatch.motion.tracking import chunks
from posebatch.motion.tracking.linking import link

KPT_THR = 0.2
EMPTY, _ = scene([], seconds=0)
NOBODY, _ = scene([], seconds=2)


def ids(block, **settings):
    return link([block], MotionSettings(**settings), SIZE_WH, KPT_THR).track_ids


LEFT, RIGHT = (100, 360), (1100, 375)  # further from the camera, and nearer
FOUR = ((100, 150), (500, 30), (900, -100), (1100, -180))
CROSSING = [Person(walking(LEFT, (160, 0))), Person(walking(RIGHT, (-160, 0)))]


def behind(seconds):
    """Two who cross in the middle after 3.125 s, the second one hidden for some time."""
    middle = (1000 / 320) - seconds / 2
    return [CROSSING[0], Person(walking(RIGHT, (-160, 0), hidden=((middle, middle + seconds),)))]


@pytest.mark.parametrize("linker", ["global", "greedy-oks"])
@pytest.mark.parametrize("blocks", [[], [EMPTY], [EMPTY, NOBODY], [NOBODY]])
def test_videos_without_persons_have_no_tracks(linker, blocks):
    links = link(blocks, MotionSettings(linker=linker), SIZE_WH, KPT_THR)
    assert links.track_ids.tolist() == links.first_frame.tolist() == links.last_frame.tolist() == []


@pytest.mark.parametrize("joint_score", [0.8, 0.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "people",
    [
        [Person(walking(LEFT, (0, 0)))],
        [Person(walking(LEFT, (160, 0)))],
        CROSSING,
        behind(0.4),
        behind(0.7),
        behind(1.0),
        [Person(walking(LEFT, (160, 0))), Person(walking(LEFT, (230, 0), hidden=((0, 0.5),)))],
        [Person(walking(LEFT, (160, 0), hidden=((2, 3),))), Person(walking((100, 500), (160, 0)))],
        [Person(walking((x, x / 20 + 300), (speed, 0))) for x, speed in FOUR],
    ],
    ids=["stands", "walks", "cross", "hidden .4 s", "hidden .7 s", "hidden 1 s", "overtakes", "pole", "four"],
)
def test_people_keep_their_track_when_they_cross_and_hide(people, seed, joint_score):
    people = [Person(person.place, joint_score=joint_score) for person in people]
    block, who = scene(people, seconds=6, seed=seed)
    track_ids = ids(block)
    assert switches(track_ids, who) == 0
    assert len(np.unique(track_ids)) == len(people)
    assert track_ids.min() == 0


def test_tracks_are_numbered_by_first_appearance_and_state_their_frames():
    people = [Person(walking(RIGHT, (0, 0), seen=(2, 5))), Person(walking(LEFT, (0, 0), seen=(1, 3)))]
    block, who = scene(people, seconds=6)
    links = link([block], MotionSettings(), SIZE_WH, KPT_THR)
    assert links.track_ids.tolist() == (1 - who).tolist()
    assert links.first_frame.tolist() == [25, 50]
    assert links.last_frame.tolist() == [74, 124]


def test_who_is_away_for_longer_than_the_longest_gap_is_somebody_new():
    people = [Person(walking(LEFT, (0, 0), hidden=((2, 5),)))]
    block, _ = scene(people, seconds=8)
    assert len(np.unique(ids(block))) == 2
    assert len(np.unique(ids(block, max_gap_seconds=3.0))) == 1


def test_people_who_stand_in_the_same_place_one_after_the_other_are_two():
    people = [
        Person(walking((600, 360), (0, 0), seen=(0, 3))),
        Person(walking((600, 360), (0, 0), seen=(5, 8))),
    ]
    block, who = scene(people, seconds=8)
    assert ids(block).tolist() == who.tolist()


def test_who_walks_out_of_the_picture_is_not_who_walks_in_there():
    people = [
        Person(walking((248, 360), (-120, 0), seen=(0, 1.9))),
        Person(walking((-280, 360), (120, 0), seen=(2.5, 6))),
    ]
    block, who = scene(people, seconds=6)
    assert ids(block).tolist() == who.tolist()


def test_a_cut_ends_all_tracks():
    people = [
        Person(walking((200, 300), (0, 0), seen=(0, 2))),
        Person(walking((800, 300), (0, 0), seen=(0, 2), hidden=((1.6, 2.0),))),
        Person(walking((500, 300), (0, 0), seen=(2, 4))),
        Person(walking((860, 300), (0, 0), seen=(2.2, 4))),
    ]
    block, who = scene(people, seconds=4)
    assert len(np.unique(np.stack([ids(block), who]), axis=1).T) == 4
    assert len(np.unique(ids(block))) == 4


def test_a_person_who_vanishes_while_another_stays_is_no_cut():
    people = [Person(walking(LEFT, (0, 0))), Person(walking(RIGHT, (0, 0), hidden=((2, 2.5),)))]
    block, who = scene(people, seconds=4)
    assert switches(ids(block), who) == 0


@pytest.mark.parametrize(
    ("score", "seconds", "founded"),
    [(0.4, 0.12, False), (0.4, 0.6, False), (0.4, 1.0, True), (0.9, 0.2, False), (0.9, 0.6, True)],
)
def test_lone_boxes_found_no_track(score, seconds, founded):
    people = [Person(walking(LEFT, (0, 0))), Person(walking(RIGHT, (0, 0), seen=(1, 1 + seconds)), score=score)]
    block, who = scene(people, seconds=3)
    track_ids = ids(block)
    assert (track_ids[who == 0] == 0).all()
    assert (track_ids[who == 1] == (1 if founded else -1)).all()


def test_a_double_of_the_detector_does_not_take_the_track():
    double = Person(walking((112, 368), (160, 0), seen=(2, 2.08)), score=0.4, height=180)
    block, who = scene([Person(walking(LEFT, (160, 0))), double], seconds=5)
    track_ids = ids(block)
    assert (track_ids[who == 0] == 0).all()
    assert (track_ids[who == 1] == -1).all()


@pytest.mark.parametrize("step", [5, 25, 50])
def test_consecutive_frames_link_with_strides_too(step):
    people = [Person(walking((300, 360), (5, 0))), Person(walking((900, 360), (-5, 0)))]
    block, who = scene(people, seconds=20)
    frames = np.arange(0, len(block.frame_index), step)
    kept = np.isin(block.frame, frames)
    track_ids = ids(frames_of(block, frames), max_gap_seconds=0.5)
    assert switches(track_ids, who[kept]) == 0
    assert sorted(np.unique(track_ids)) == [0, 1]


def test_boxes_that_flicker_found_no_track():
    flicker = tuple((1 + first, 1.24 + first) for first in np.arange(0, 3, 0.3))
    people = [Person(walking(LEFT, (0, 0))), Person(walking(RIGHT, (0, 0), hidden=flicker, seen=(1, 4)))]
    block, who = scene(people, seconds=5)
    assert (ids(block)[who == 1] == -1).all()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_videos_have_tracks(frames):
    block, who = scene([Person(walking(LEFT, (0, 0))), Person(walking(RIGHT, (0, 0)))], seconds=frames / 25)
    assert switches(ids(block), who) == 0
    assert sorted(np.unique(ids(block))) == [0, 1]


def test_no_time_for_gaps_means_no_gaps():
    people = [Person(walking(LEFT, (0, 0), hidden=((2, 2.2),)))]
    block, _ = scene(people, seconds=4)
    assert np.unique(ids(block, max_gap_seconds=0.0)).tolist() == [0, 1]


def test_greedy_linker_follows_the_most_similar_pose():
    block, who = scene([Person(walking(LEFT, (50, 0))), Person(walking(RIGHT, (-50, 0)))], seconds=4)
    assert switches(ids(block, linker="greedy-oks"), who) == 0


def busy_scene(seed):
    """Many who come, go, cross and flicker."""
    random = np.random.default_rng(seed)
    people = []
    for _ in range(6):
        start = (float(random.uniform(100, 1180)), float(random.uniform(200, 500)))
        speed = (float(random.uniform(-200, 200)), float(random.uniform(-20, 20)))
        hidden = tuple((first, first + float(random.uniform(0.04, 1.2))) for first in random.uniform(0, 8, 6))
        people.append(Person(walking(start, speed, hidden), height=float(random.uniform(80, 250))))
    return scene(people, seconds=8, noise=0.03, seed=seed)[0]


@pytest.mark.parametrize("linker", ["global", "greedy-oks"])
@pytest.mark.parametrize("seed", range(8))
def test_tracks_do_not_depend_on_blocks(monkeypatch, seed, linker):
    """Also where chunks are so short that each video has many."""
    monkeypatch.setattr(chunks, "CHUNK_FRAMES", 60)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 200)
    block = busy_scene(seed)
    random = np.random.default_rng(seed)
    settings = MotionSettings(linker=linker)
    whole = link([block], settings, SIZE_WH, KPT_THR)
    frames = len(block.frame_index)
    for ends in (list(range(1, frames)), sorted(random.choice(np.arange(1, frames), 9, replace=False)), [7, 7, 60]):
        parts = link(in_blocks(block, ends), settings, SIZE_WH, KPT_THR)
        assert parts.track_ids.tolist() == whole.track_ids.tolist()
        assert parts.first_frame.tolist() == whole.first_frame.tolist()
        assert parts.last_frame.tolist() == whole.last_frame.tolist()


def test_a_long_track_goes_on_over_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_FRAMES", 10)
    block, who = scene(behind(1.0), seconds=6)
    assert switches(ids(block), who) == 0
    assert len(np.unique(ids(block))) == 2


def test_one_video_says_nothing_about_the_next():
    first, _ = scene(CROSSING, seconds=6)
    second = busy_scene(1)
    alone = ids(second)
    ids(first)
    assert ids(second).tolist() == alone.tolist()
