"""Groups of frames in the estimator: persons are followed, and results depend on the frames of a group alone.

A person is drawn as three soft dots, red above green and blue. The fake detector finds the red dots in each third of
the frame. The fake pose network puts each joint where one of the colours is brightest in the crop.
"""

import io
import weakref
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.factories import video_bytes

from posebatch.core.frames import Detections, FrameRecord
from posebatch.core.images import FrameBatch
from posebatch.core.settings import RECOVERY_FRAMES, EstimatorSettings, SamplingSettings, Settings
from posebatch.core.videos import Segment
from posebatch.dataset.publication import read_published_frames
from posebatch.models.networks.engines import PLAIN
from posebatch.pose.estimator import HELD_IMAGE_BYTES, PoseEstimator
from posebatch.run.context import RunContext
from posebatch.run.planning.inputs import list_videos, parse_inputs
from posebatch.run.tasks import FinalizeTask, SegmentTask
from posebatch.run.workers.finalize import finalize_video
from posebatch.run.workers.segment_worker import SegmentProcessor
from posebatch.storage.open import open_store
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

WIDTH, HEIGHT, LANES = 240, 160, 3
DOTS = ((0, -24), (-14, 24), (14, 24))
LOW, HIGH = (WIDTH // 6 + 4, HEIGHT // 2), (WIDTH - WIDTH // 6 - 4, HEIGHT // 2)
RECORD = SimpleNamespace(input_size_wh=(48, 64), box_padding=1.25, grid_alignment="edges", score_calibration=())


@lru_cache(maxsize=256)
def picture(persons):
    """A frame (height, width, 3) uint8 with persons (x, y, brightness) on black."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.zeros((HEIGHT, WIDTH, 3))
    for centre_x, centre_y, brightness in persons:
        for color, (right, down) in enumerate(DOTS):
            squared = (x - centre_x - right) ** 2 + (y - centre_y - down) ** 2
            light[:, :, color] += 250 * brightness * np.exp(-squared / (2 * 4**2))
    return light.clip(0, 255).astype(np.uint8)


class RedDots:
    """A detector of one person in each third of the frame: the brightest red dot above 60. Counts its frames."""

    def __init__(self, batch_size=4):
        self.batch_size, self.frames = batch_size, 0

    def detect(self, frames):
        assert len(frames) <= self.batch_size
        self.frames += len(frames)
        return [self._persons(red.numpy()) for red in frames.rgb()[:, 0]]

    def _persons(self, red):
        found = []
        for lane in range(LANES):
            start = lane * red.shape[1] // LANES
            part = red[:, start : (lane + 1) * red.shape[1] // LANES]
            y, x = np.unravel_index(part.argmax(), part.shape)
            neighbours = red[y, max(0, start + x - 1) : start + x + 2]
            if part.max() > 60 and part.max() == neighbours.max():
                found.append((part.max() / 300, start + x - 20, y - 6, start + x + 20, y + 54))
        best_first = np.array(sorted(found, reverse=True), np.float32).reshape(-1, 5)
        return Detections(best_first[:, 1:].copy(), best_first[:, 0].copy())


class BrightestColors:
    """A pose network that puts joint k where color k % 3 of the crop is brightest. Records its batch sizes."""

    heatmap_size_wh = (24, 32)
    record = RECORD

    def __init__(self, batch_size=3):
        self.batch_size, self.batches = batch_size, []

    def heatmaps(self, crops, flip_test=False):
        assert len(crops) <= self.batch_size
        self.batches.append(len(crops))
        return torch.nn.functional.avg_pool2d(crops, 2)[:, [k % 3 for k in range(17)]] / 255


def in_batches(film, cuts, stride=1, damaged=()):
    """Every stride-th frame of a film in batches that end before each of ``cuts``; damaged frames have no image."""
    sampled = range(0, len(film), stride)
    statuses = {number: "corrupt" if number in damaged else "ok" for number in sampled}
    bounds = sorted({0, *(cut for cut in cuts if cut < len(sampled)), len(sampled)})
    for first, end in pairwise(bounds):
        records = tuple(FrameRecord(n, n, False, statuses[n]) for n in sampled[first:end])
        images = [picture(tuple(film[record.frame_index])) for record in records if record.status == "ok"]
        shape = (len(images), HEIGHT, WIDTH, 3)
        yield FrameBatch(records, np.array(images, np.uint8).reshape(shape))


class OverlookingDots(RedDots):
    """Overlooks persons of brightness 0.8."""

    def _persons(self, red):
        found = super()._persons(red)
        seen = np.flatnonzero(np.abs(found.scores - 0.8 * 250 / 300) > 0.05)
        return Detections(found.bbox_xyxy[seen], found.scores[seen])


def estimate(batches, detect_every, detector=None, pose=None, recover_flow=False):
    settings = EstimatorSettings(detect_every=detect_every, recover_flow=recover_flow)
    estimator = PoseEstimator(detector or RedDots(), pose or BrightestColors(), settings, PLAIN)
    return list(estimator.estimate(batches))


def rows(frames):
    return [
        (frame.record, *(array.tolist() for array in (frame.bbox_xyxy, frame.bbox_scores, frame.keypoints)))
        for frame in frames
    ]


def heads(frames):
    """Positions of the noses in each frame, from left to right."""
    return [sorted(frame.keypoints[:, 0, :2].tolist()) for frame in frames]


def walking_person(frames, pixels=4, start=LOW, brightness=1.0):
    return [(start[0] + pixels * number, start[1], brightness) for number in range(frames)]


def test_batcher_accepts_no_frames():
    assert estimate([], 5) == []


@pytest.mark.parametrize("detect_every", [1, 2, 5, 100])
def test_batcher_follows_a_moving_person(detect_every):
    path, detector = walking_person(30), RedDots()
    found = estimate(in_batches([[person] for person in path], range(0, 30, 4)), detect_every, detector)
    assert detector.frames == len(range(0, 30, detect_every))
    for (head,), (x, y, _) in zip(heads(found), path, strict=True):
        assert np.abs(np.array(head) - (x, y - 24)).max() < 2


def test_batcher_gives_followed_persons_the_joints_box_and_the_detection_score():
    film = [[person] for person in walking_person(2)]
    detected, following = estimate(in_batches(film, [1]), 2)
    assert following.bbox_scores.tolist() == detected.bbox_scores.tolist()
    joints = detected.keypoints[0, :, :2]
    middle = (joints.min(axis=0) + joints.max(axis=0)) / 2
    np.testing.assert_allclose(following.bbox_xyxy[0].reshape(2, 2).mean(axis=0), middle, atol=1e-3)


@pytest.mark.parametrize(("detect_every", "seen"), [(1, 2), (2, 2), (3, 3), (5, 5), (9, None)])
def test_batcher_finds_a_new_person_at_the_next_detection(detect_every, seen):
    film = [[(*HIGH, 1.0)] if number < 2 else [(*LOW, 0.9), (*HIGH, 1.0)] for number in range(7)]
    counts = [len(frame) for frame in estimate(in_batches(film, [3, 5]), detect_every)]
    assert counts == [2 if seen is not None and number >= seen else 1 for number in range(7)]


def test_batcher_detects_an_empty_group_once():
    film = [[] if number % 4 == 0 and number < 8 else [(*LOW, 1.0)] for number in range(12)]
    detector = RedDots()
    assert [len(frame) for frame in estimate(in_batches(film, [5]), 4, detector)] == [0] * 8 + [1] * 4
    assert detector.frames == 3


def test_batcher_handles_a_long_empty_group_without_recursion():
    """Each frame starts the next one. There are more frames than Python allows nested calls."""
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    film = [FrameBatch((FrameRecord(number, number, False, "ok"),), frame) for number in range(2000)]
    no_detections = SimpleNamespace(
        batch_size=4, detect=lambda frames: [RedDots()._persons(np.zeros((8, 8)))] * len(frames)
    )
    assert len(estimate(film, 3000, no_detections)) == 2000


def test_batcher_redetects_once_when_a_person_becomes_faint():
    """The confidence at that detection is the new reference."""
    film = [[(*LOW, 1.0 if number < 4 else 0.5)] for number in range(10)]
    detector = RedDots()
    found = estimate(in_batches(film, [5]), 10, detector)
    assert detector.frames == 2
    assert [len(frame) for frame in found] == [1] * 10
    assert found[4].bbox_scores < found[3].bbox_scores
    assert found[4].bbox_xyxy.tolist() == estimate(in_batches(film, []), 1)[4].bbox_xyxy.tolist()


def test_batcher_redetection_finds_all_persons():
    film = [[(*LOW, 1.0)]] * 2 + [[(*LOW, 0.5), (*HIGH, 1.0)]] * 3
    assert [len(frame) for frame in estimate(in_batches(film, []), 5)] == [1, 1, 2, 2, 2]


def test_batcher_drops_a_person_who_left():
    film = [[(*LOW, 1.0), (*HIGH, 1.0)]] * 2 + [[(*LOW, 1.0)]] * 3
    detector = RedDots()
    assert [len(frame) for frame in estimate(in_batches(film, []), 5, detector)] == [2, 2, 1, 1, 1]
    assert detector.frames == 2


@pytest.mark.parametrize("damaged", [[0], [1], [1, 2], [4], [0, 1, 2, 3]])
def test_batcher_follows_persons_past_damaged_frames(damaged):
    film = [[person] for person in walking_person(6, pixels=2)]
    detector = RedDots()
    found = estimate(in_batches(film, [3], damaged=damaged), 4, detector)
    assert [len(frame) for frame in found] == [number not in damaged for number in range(6)]
    assert detector.frames == (1 if set(damaged) == {0, 1, 2, 3} else 2)


def test_batcher_starts_a_group_at_another_frame_size():
    small = picture(((*LOW, 1.0),))[: HEIGHT - 20]
    first = next(in_batches([[(*LOW, 1.0)]] * 3, []))
    then = FrameBatch(tuple(FrameRecord(n, n, False, "ok") for n in (3, 4)), np.stack([small, small]))
    detector = RedDots()
    assert [len(frame) for frame in estimate([first, then], 10, detector)] == [1] * 5
    assert detector.frames == 2


def test_batcher_fills_batches_from_several_groups():
    """Ten groups of ten frames with two persons need at least 40 pose batches of five persons."""
    film = [[(*LOW, 1.0), (*HIGH, 0.9)]] * 100
    detector, pose = RedDots(batch_size=5), BrightestColors(batch_size=5)
    estimate(in_batches(film, range(0, 100, 5)), 10, detector, pose)
    assert detector.frames == 10
    assert len(pose.batches) <= 44


def test_batcher_follows_lead_in_frames_without_giving_them():
    film = [[person] for person in walking_person(8)]
    batches = list(in_batches(film, [5]))
    lead_in = FrameBatch(batches[0].records, batches[0].images, lead_in=True)
    assert rows(estimate([lead_in, batches[1]], 8)) == rows(estimate(batches, 8)[5:])


def test_batcher_limits_the_images_in_memory(monkeypatch):
    """Without the limit, the frames of fifteen groups would be in memory."""
    monkeypatch.setitem(HELD_IMAGE_BYTES, "cpu", 6 * HEIGHT * WIDTH * 3)
    images, alive = [], []

    def recorded_batches():
        for batch in in_batches([[(*LOW, 1.0)]] * 60, range(60)):
            images.append(weakref.ref(batch.images))
            alive.append(sum(image() is not None for image in images))
            yield batch

    assert len(estimate(recorded_batches(), 4)) == 60
    assert 5 <= max(alive) <= 7  # including the newest batch


# --- recovery by optical flow ----------------------------------------------------------------------------------------


def recovered(film, detector=None, cuts=(5,), detect_every=1):
    return estimate(in_batches(film, cuts), detect_every, detector or OverlookingDots(), recover_flow=True)


def overlooked(path, *frames):
    """A film of one person, dimmed to be overlooked in some frames."""
    return [[(x, y, 0.8 if number in frames else light)] for number, (x, y, light) in enumerate(path)]


def test_recovery_accepts_no_frames():
    assert estimate([], 1, recover_flow=True) == []


def test_recovery_of_nobody_changes_no_row():
    film = overlooked(walking_person(30))
    assert rows(recovered(film)) == rows(estimate(in_batches(film, [5]), 1))


@pytest.mark.parametrize("pixels", [0, 4, 16])
def test_recovery_finds_an_overlooked_person_who_moves(pixels):
    film = overlooked(walking_person(9, pixels), 3, 4, 5, 7)
    found = recovered(film)
    assert [len(frame) for frame in found] == [1] * 9
    for (head,), ((x, y, _),) in zip(heads(found), film, strict=True):
        assert np.abs(np.array(head) - (x, y - 24)).max() < 2
    scores = [frame.bbox_scores.item() for frame in found]
    assert scores[2] > scores[3] > scores[4] > scores[5] < scores[6]


def test_recovery_needs_the_flow_for_a_fast_person(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("posebatch.pose.estimator.carry_points", lambda points, *_: points.astype(float))
    film = overlooked(walking_person(9, 16), 3, 4, 5, 7)
    assert [len(frame) for frame in recovered(film)] == [1, 1, 1, 0, 0, 0, 1, 0, 1]


def test_recovery_ends_when_the_person_is_gone():
    film = [*overlooked(walking_person(4, 0), 3), *[[]] * 6]
    assert [len(frame) for frame in recovered(film)] == [1] * 4 + [0] * 6


def test_recovery_carries_nobody_into_the_next_group():
    """A person who stays overlooked is found until the end of the group, RECOVERY_FRAMES from frame 0."""
    film = overlooked(walking_person(60, 0), *range(10, 60))
    assert [len(frame) for frame in recovered(film)] == [1] * RECOVERY_FRAMES + [0] * (60 - RECOVERY_FRAMES)


def test_recovery_keeps_a_person_apart_from_the_detected_one():
    film = [[(*LOW, 0.8 if number in (2, 3) else 1.0), (*HIGH, 1.0)] for number in range(6)]
    assert [len(frame) for frame in recovered(film)] == [2] * 6


def test_recovery_passes_damaged_frames():
    film = overlooked(walking_person(8, 2), 4, 5)
    batches = in_batches(film, [5], damaged=[3])
    counts = [len(frame) for frame in estimate(batches, 1, OverlookingDots(), recover_flow=True)]
    assert counts == [1, 1, 1, 0, 1, 1, 1, 1]


def test_recovery_works_between_the_detections_of_detect_every():
    """The detector runs in frames 0, 4, 8..., and overlooks the person in the second one."""
    film = overlooked(walking_person(12), 4, 5, 6)
    detector = OverlookingDots()
    assert [len(frame) for frame in recovered(film, detector, detect_every=4)] == [1] * 12
    assert [len(frame) for frame in estimate(in_batches(film, [5]), 4, OverlookingDots())][4:8] == [0] * 4
    assert detector.frames == 3


# --- any cuts and batches --------------------------------------------------------------------------------------------


persons_of_a_frame = st.tuples(*[st.sampled_from([0.0, 0.4, 0.8, 1.0])] * LANES).map(
    lambda lights: [((lane + 0.5) * WIDTH / LANES, HEIGHT / 2, light) for lane, light in enumerate(lights) if light]
)


@settings(max_examples=40)
@given(
    film=st.lists(persons_of_a_frame, min_size=1, max_size=14),
    detect_every=st.integers(1, 6),
    recover_flow=st.booleans(),
    stride=st.integers(1, 3),
    batch_sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cuts=st.sets(st.integers(1, 13)),
    damaged=st.sets(st.integers(0, 13), max_size=4),
    held_frames=st.integers(1, 8),
)
def test_batcher_gives_the_rows_of_each_group_alone(
    film, detect_every, recover_flow, stride, batch_sizes, cuts, damaged, held_frames
):
    """For any batch sizes of networks and decoder, and any memory limit, in the order of the frames."""
    frame_bytes = HEIGHT * WIDTH * 3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("posebatch.core.settings.RECOVERY_FRAMES", 5)
        group_frames = EstimatorSettings(detect_every=detect_every, recover_flow=recover_flow).group_frames
        groups = {}
        for batch in in_batches(film, range(len(film)), stride, damaged):
            groups.setdefault(batch.records[0].frame_index // group_frames, []).append(batch)
        alone = [
            frame
            for group in groups.values()
            for frame in estimate(group, detect_every, OverlookingDots(1), BrightestColors(1), recover_flow)
        ]
        patched.setitem(HELD_IMAGE_BYTES, "cpu", held_frames * frame_bytes)
        together = estimate(
            in_batches(film, cuts, stride, damaged),
            detect_every,
            OverlookingDots(batch_sizes[0]),
            BrightestColors(batch_sizes[1]),
            recover_flow,
        )
    assert rows(together) == rows(alone)


@settings(max_examples=30)
@given(
    films=st.lists(st.lists(persons_of_a_frame, min_size=1, max_size=4), min_size=1, max_size=5),
    detect_every=st.integers(1, 3),
    recover_flow=st.booleans(),
    batch_sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_batcher_gives_the_rows_of_each_segment_alone(films, detect_every, recover_flow, batch_sizes):
    """Several segments in one stream share batches, but nobody is followed from one to the next."""

    def rows_of(batches):
        networks = OverlookingDots(batch_sizes[0]), BrightestColors(batch_sizes[1])
        return rows(estimate(batches, detect_every, *networks, recover_flow))

    alone = [row for film in films for row in rows_of(in_batches(film, (2,)))]
    stream = (replace(batch, segment=number) for number, film in enumerate(films) for batch in in_batches(film, (2,)))
    assert rows_of(stream) == alone


def draw_walkers(number):
    """A frame with two walking persons: one is absent at times, the other dark or overlooked at times."""
    lights = {1: 0.8, 2: 0.8, 3: 0.4}
    walkers = [(LOW, number, float(number % 11 < 8)), (HIGH, -number, lights.get(number % 7, 1.0))]
    return picture(tuple((x + 2 * steps, y, light) for (x, y), steps, light in walkers if light))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("detect_every", [1, 2, 3, 5])
@pytest.mark.parametrize("recover_flow", [False, True])
def test_rows_do_not_depend_on_the_segments(recover_flow, detect_every, stride, monkeypatch: pytest.MonkeyPatch):
    """With the real decoder: a segment that starts within a group follows persons from the first frame of the group."""
    monkeypatch.setattr("posebatch.core.settings.RECOVERY_FRAMES", 7)
    video = video_bytes(frames=24, gop=4, b_frames=1, size=(WIDTH, HEIGHT), draw=draw_walkers)
    group_frames = EstimatorSettings(detect_every=detect_every, recover_flow=recover_flow).group_frames

    def decoded(segment, info):
        sampling = SamplingSettings(stride=stride)
        return SegmentDecoder(
            io.BytesIO(video),
            "film",
            segment,
            info,
            DecodeOptions(sampling=sampling, batch_frames=3, group_frames=group_frames),
        )

    def rows_of(segment, info):
        return estimate(decoded(segment, info), detect_every, OverlookingDots(), recover_flow=recover_flow)

    plan = probe(io.BytesIO(video), "film", segment_seconds=0.3)
    assert len(plan.segments) > 2
    whole = rows_of(Segment(), plan.info)
    cut = [frame for segment in plan.segments for frame in rows_of(segment, plan.info)]
    assert sum(map(len, whole)) > len(whole)
    assert rows(cut) == rows(whole)


@pytest.mark.parametrize(("detect_every", "recover_flow"), [(5, False), (1, True), (5, True)])
def test_published_rows_do_not_depend_on_the_segments(
    detect_every, recover_flow, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    """A worker's segments start with their groups, so published rows do not depend on the segments."""
    video = tmp_path / "film.mp4"
    video.write_bytes(video_bytes(frames=24, gop=4, b_frames=1, size=(WIDTH, HEIGHT), draw=draw_walkers))
    monkeypatch.setattr("posebatch.core.settings.RECOVERY_FRAMES", 10)
    published = []
    for seconds in (0.3, 100.0):
        wanted = Settings(EstimatorSettings(detect_every=detect_every, recover_flow=recover_flow))
        context = RunContext("run", wanted, str(tmp_path / str(seconds)), "d@1", "p@1")
        (listed,) = list_videos(parse_inputs([str(video)]), wanted.selection)
        with open(listed.uri, "rb") as file:
            plan = probe(file, listed.uri, seconds)
        detector = OverlookingDots()
        processor = SegmentProcessor(context, PoseEstimator(detector, BrightestColors(), wanted.estimator, PLAIN))
        for segment in plan.segments:
            processor.process(SegmentTask(listed, plan.info, segment))
        finalize_video(FinalizeTask(listed, plan, 1), context)
        published.append(rows(read_published_frames(open_store(context.output), listed.output_path)))
        assert detector.frames < 24 or detect_every == 1
    assert published[0] == published[1]
