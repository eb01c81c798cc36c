"""Frames without a detector: persons are followed, and what comes of a frame depends on its group alone.

A person is drawn as three soft dots, red above green and blue. The detector finds red dots in each third of the frame;
the pose network says that a joint is where the crop is brightest in one of the colours.
"""

import io
import weakref
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
from posebatch.core.settings import EstimatorSettings, SamplingSettings, Settings
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
RECORD = SimpleNamespace(input_size_wh=(48, 64), box_padding=1.25, grid_alignment="edges")


@lru_cache(maxsize=256)
def picture(persons):
    """A frame with persons (x, y, brightness) on black: (height, width, 3) uint8."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = np.zeros((HEIGHT, WIDTH, 3))
    for centre_x, centre_y, brightness in persons:
        for color, (right, down) in enumerate(DOTS):
            squared = (x - centre_x - right) ** 2 + (y - centre_y - down) ** 2
            light[:, :, color] += 250 * brightness * np.exp(-squared / (2 * 4**2))
    return light.clip(0, 255).astype(np.uint8)


class RedDots:
    """Whoever has a red dot, brighter than 60, in a third of the frame."""

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
    """Joint k lies where color k % 3 of the crop is brightest."""

    heatmap_size_wh = (24, 32)
    record = RECORD

    def __init__(self, batch_size=3):
        self.batch_size, self.batches = batch_size, []

    def heatmaps(self, crops, flip_test=False):
        assert len(crops) <= self.batch_size
        self.batches.append(len(crops))
        return torch.nn.functional.avg_pool2d(crops, 2)[:, [k % 3 for k in range(17)]] / 255


def in_batches(film, cuts, stride=1, damaged=()):
    """Frames of a film, the unwanted and the damaged ones left out, in batches that end before each of ``cuts``."""
    wanted = range(0, len(film), stride)
    statuses = {number: "corrupt" if number in damaged else "ok" for number in wanted}
    bounds = sorted({0, *(cut for cut in cuts if cut < len(wanted)), len(wanted)})
    for first, end in pairwise(bounds):
        records = tuple(FrameRecord(n, n, False, statuses[n]) for n in wanted[first:end])
        images = [picture(tuple(film[record.frame_index])) for record in records if record.status == "ok"]
        shape = (len(images), HEIGHT, WIDTH, 3)
        yield FrameBatch(records, np.array(images, np.uint8).reshape(shape))


def estimate(batches, detect_every, detector=None, pose=None):
    settings = EstimatorSettings(detect_every=detect_every)
    estimator = PoseEstimator(detector or RedDots(), pose or BrightestColors(), settings, PLAIN)
    return list(estimator.estimate(batches))


def rows(frames):
    return [
        (frame.record, *(array.tolist() for array in (frame.bbox_xyxy, frame.bbox_scores, frame.keypoints)))
        for frame in frames
    ]


def heads(frames):
    """Where each frame's persons have their nose, from the left."""
    return [sorted(frame.keypoints[:, 0, :2].tolist()) for frame in frames]


def walk(frames, pixels=4, start=LOW, brightness=1.0):
    return [(start[0] + pixels * number, start[1], brightness) for number in range(frames)]


def test_no_frames():
    assert estimate([], 5) == []


@pytest.mark.parametrize("detect_every", [1, 2, 5, 100])
def test_a_person_who_moves_is_followed(detect_every):
    path, detector = walk(30), RedDots()
    found = estimate(in_batches([[person] for person in path], range(0, 30, 4)), detect_every, detector)
    assert detector.frames == len(range(0, 30, detect_every))
    for (head,), (x, y, _) in zip(heads(found), path, strict=True):
        assert np.abs(np.array(head) - (x, y - 24)).max() < 2


def test_between_detections_the_box_is_the_joints_and_its_score_the_detections():
    film = [[person] for person in walk(2)]
    detected, following = estimate(in_batches(film, [1]), 2)
    assert following.bbox_scores.tolist() == detected.bbox_scores.tolist()
    joints = detected.keypoints[0, :, :2]
    middle = (joints.min(axis=0) + joints.max(axis=0)) / 2
    np.testing.assert_allclose(following.bbox_xyxy[0].reshape(2, 2).mean(axis=0), middle, atol=1e-3)


@pytest.mark.parametrize(("detect_every", "seen"), [(1, 2), (2, 2), (3, 3), (5, 5), (9, None)])
def test_who_comes_later_is_found_at_the_next_detection(detect_every, seen):
    film = [[(*HIGH, 1.0)] if number < 2 else [(*LOW, 0.9), (*HIGH, 1.0)] for number in range(7)]
    counts = [len(frame) for frame in estimate(in_batches(film, [3, 5]), detect_every)]
    assert counts == [2 if seen is not None and number >= seen else 1 for number in range(7)]


def test_in_an_empty_group_there_is_nobody_until_the_next():
    film = [[] if number % 4 == 0 and number < 8 else [(*LOW, 1.0)] for number in range(12)]
    detector = RedDots()
    assert [len(frame) for frame in estimate(in_batches(film, [5]), 4, detector)] == [0] * 8 + [1] * 4
    assert detector.frames == 3


def test_a_long_group_without_anybody():
    """Each frame begins the next one; there are more of them than Python has room for calls in each other."""
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    film = [FrameBatch((FrameRecord(number, number, False, "ok"),), frame) for number in range(2000)]
    nobody = SimpleNamespace(batch_size=4, detect=lambda frames: [RedDots()._persons(np.zeros((8, 8)))] * len(frames))
    assert len(estimate(film, 3000, nobody)) == 2000


def test_one_who_is_seen_worse_is_detected_again_once():
    """From then on the worse sight is what to expect."""
    film = [[(*LOW, 1.0 if number < 4 else 0.5)] for number in range(10)]
    detector = RedDots()
    found = estimate(in_batches(film, [5]), 10, detector)
    assert detector.frames == 2
    assert [len(frame) for frame in found] == [1] * 10
    assert found[4].bbox_scores < found[3].bbox_scores
    assert found[4].bbox_xyxy.tolist() == estimate(in_batches(film, []), 1)[4].bbox_xyxy.tolist()


def test_a_detection_in_between_finds_all_who_are_there():
    film = [[(*LOW, 1.0)]] * 2 + [[(*LOW, 0.5), (*HIGH, 1.0)]] * 3
    assert [len(frame) for frame in estimate(in_batches(film, []), 5)] == [1, 1, 2, 2, 2]


def test_who_is_gone_is_not_there():
    film = [[(*LOW, 1.0), (*HIGH, 1.0)]] * 2 + [[(*LOW, 1.0)]] * 3
    detector = RedDots()
    assert [len(frame) for frame in estimate(in_batches(film, []), 5, detector)] == [2, 2, 1, 1, 1]
    assert detector.frames == 2


@pytest.mark.parametrize("damaged", [[0], [1], [1, 2], [4], [0, 1, 2, 3]])
def test_persons_are_followed_past_damaged_frames(damaged):
    film = [[person] for person in walk(6, pixels=2)]
    detector = RedDots()
    found = estimate(in_batches(film, [3], damaged=damaged), 4, detector)
    assert [len(frame) for frame in found] == [number not in damaged for number in range(6)]
    assert detector.frames == (1 if set(damaged) == {0, 1, 2, 3} else 2)


def test_another_frame_size_is_a_new_beginning():
    small = picture(((*LOW, 1.0),))[: HEIGHT - 20]
    first = next(in_batches([[(*LOW, 1.0)]] * 3, []))
    then = FrameBatch(tuple(FrameRecord(n, n, False, "ok") for n in (3, 4)), np.stack([small, small]))
    detector = RedDots()
    assert [len(frame) for frame in estimate([first, then], 10, detector)] == [1] * 5
    assert detector.frames == 2


def test_batches_are_full_though_frames_wait_for_each_other():
    """Ten groups of ten frames with two persons: from end to end nearly as few passes as there can be."""
    film = [[(*LOW, 1.0), (*HIGH, 0.9)]] * 100
    detector, pose = RedDots(batch_size=5), BrightestColors(batch_size=5)
    estimate(in_batches(film, range(0, 100, 5)), 10, detector, pose)
    assert detector.frames == 10
    assert len(pose.batches) <= 44


def test_frames_of_a_lead_in_are_followed_and_not_given():
    film = [[person] for person in walk(8)]
    batches = list(in_batches(film, [5]))
    lead_in = FrameBatch(batches[0].records, batches[0].images, lead_in=True)
    assert rows(estimate([lead_in, batches[1]], 8)) == rows(estimate(batches, 8)[5:])


def test_few_frames_are_held_at_once(monkeypatch):
    """Fifteen groups could be under way, if memory were no matter."""
    monkeypatch.setitem(HELD_IMAGE_BYTES, "cpu", 6 * HEIGHT * WIDTH * 3)
    images, alive = [], []

    def watched():
        for batch in in_batches([[(*LOW, 1.0)]] * 60, range(60)):
            images.append(weakref.ref(batch.images))
            alive.append(sum(one() is not None for one in images))
            yield batch

    assert len(estimate(watched(), 4)) == 60
    assert 5 <= max(alive) <= 7  # with the one that has just been read


persons_of_a_frame = st.tuples(*[st.sampled_from([0.0, 0.4, 0.7, 1.0])] * LANES).map(
    lambda lights: [((lane + 0.5) * WIDTH / LANES, HEIGHT / 2, light) for lane, light in enumerate(lights) if light]
)


@settings(max_examples=40)
@given(
    film=st.lists(persons_of_a_frame, min_size=1, max_size=14),
    detect_every=st.integers(1, 6),
    stride=st.integers(1, 3),
    batch_sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    cuts=st.sets(st.integers(1, 13)),
    damaged=st.sets(st.integers(0, 13), max_size=4),
    held_frames=st.integers(1, 8),
)
def test_rows_are_those_of_each_group_alone(film, detect_every, stride, batch_sizes, cuts, damaged, held_frames):
    """Whatever the networks' batches, the batches from the decoder, and the memory; in the order of the frames."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(HELD_IMAGE_BYTES, "cpu", held_frames * HEIGHT * WIDTH * 3)
        together = estimate(
            in_batches(film, cuts, stride, damaged),
            detect_every,
            RedDots(batch_sizes[0]),
            BrightestColors(batch_sizes[1]),
        )
    groups = {}
    for batch in in_batches(film, range(len(film)), stride, damaged):
        groups.setdefault(batch.records[0].frame_index // detect_every, []).append(batch)
    alone = [
        frame for group in groups.values() for frame in estimate(group, detect_every, RedDots(1), BrightestColors(1))
    ]
    assert rows(together) == rows(alone)


def drawn(number):
    """Two persons who walk, of whom one is away at times and one in the dark."""
    lights = [(LOW, number, float(number % 11 < 8)), (HIGH, -number, 0.4 if number % 7 == 3 else 1.0)]
    return picture(tuple((x + 2 * away, y, light) for (x, y), away, light in lights if light))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("detect_every", [1, 2, 3, 5])
def test_rows_do_not_depend_on_the_cut(detect_every, stride):
    """Through the real decoder: a segment that begins amid a group follows persons from the group's first frame."""
    video = video_bytes(frames=24, gop=4, b_frames=1, size=(WIDTH, HEIGHT), draw=drawn)

    def decoded(segment, info):
        sampling = SamplingSettings(stride=stride)
        return SegmentDecoder(
            io.BytesIO(video),
            "film",
            segment,
            info,
            DecodeOptions(sampling=sampling, batch_frames=3, detect_every=detect_every),
        )

    plan = probe(io.BytesIO(video), "film", segment_seconds=0.3)
    assert len(plan.segments) > 2
    whole = estimate(decoded(Segment(), plan.info), detect_every)
    cut = [frame for segment in plan.segments for frame in estimate(decoded(segment, plan.info), detect_every)]
    assert sum(map(len, whole)) > len(whole)
    assert rows(cut) == rows(whole)


def test_a_workers_segments_begin_with_their_groups(tmp_path):
    """What is published of a video does not depend on how it was shared out."""
    video = tmp_path / "film.mp4"
    video.write_bytes(video_bytes(frames=24, gop=4, b_frames=1, size=(WIDTH, HEIGHT), draw=drawn))
    published = []
    for seconds in (0.3, 100.0):
        wanted = Settings(EstimatorSettings(detect_every=5))
        context = RunContext("run", wanted, str(tmp_path / str(seconds)), "d@1", "p@1")
        (listed,) = list_videos(parse_inputs([str(video)]), wanted.selection)
        with open(listed.uri, "rb") as file:
            plan = probe(file, listed.uri, seconds)
        detector = RedDots()
        processor = SegmentProcessor(context, PoseEstimator(detector, BrightestColors(), wanted.estimator, PLAIN))
        for segment in plan.segments:
            processor.process(SegmentTask(listed, plan.info, segment))
        finalize_video(FinalizeTask(listed, plan, 1), context)
        published.append(rows(read_published_frames(open_store(context.output), listed.output_path)))
        assert detector.frames < 24
    assert published[0] == published[1]
