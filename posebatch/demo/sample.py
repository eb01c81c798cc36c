"""The video that ``posebatch demo`` runs on: people whose joints are known, and how far estimated poses are from them.

A promenade, ten seconds. Two rendered walkers cross it (`posebatch.demo.walker`: their joints come from the
kinematics), and three portraits, cut out of photographs in the public domain (``assets/ORIGIN.md``), pass close to the
camera (their joints are labelled by hand).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.errors import OutputError
from posebatch.core.frames import check_array
from posebatch.core.skeleton import KEYPOINT_NAMES, NUM_KEYPOINTS
from posebatch.demo.scene import HEIGHT, WIDTH, Sprite, SpritePlacement, draw_scene, on_ground, paste
from posebatch.demo.walker import SCALE, STRIDE, Outfit, walk_cycle

FPS: Final = 25


NUM_FRAMES: Final = 250


KEYFRAME_INTERVAL: Final = 50


MIN_JOINTS: Final = 5
"""A person with fewer visible joints is about to enter or leave: missing it is no error, and neither is finding it."""


MATCH_DISTANCE: Final = 0.3
"""A pose belongs to a person when their joints are nearer than this on average, in box heights."""


PCK_DISTANCE: Final = 0.1
"""A joint counts as right when it is nearer than this, in box heights."""


_ASSETS: Final = Path(__file__).with_name("assets")


_STEPS: Final = 24


_SPEED: Final = STRIDE / _STEPS


_HEADING: Final = float(np.radians(22.0))


@dataclass(frozen=True)
class TruePerson:
    """One person of one frame, pixels of the frame."""

    box_xyxy: NDArray[np.float64]
    """(4,) the part of the person's box inside the frame."""
    joints: NDArray[np.float64]
    """(17, 2) x, y; nan where not visible."""
    visible: NDArray[np.bool_]
    """(17,) false where unknown, outside the frame, or hidden; true somewhere."""

    def __post_init__(self) -> None:
        check_array("box_xyxy", self.box_xyxy, np.float64, (4,))
        check_array("joints", self.joints, np.float64, (NUM_KEYPOINTS, 2))
        check_array("visible", self.visible, np.bool_, (NUM_KEYPOINTS,))
        if not self.visible.any():
            raise ValueError("a person of whom no joint is visible cannot be compared with anything")

    @property
    def height(self) -> float:
        """Of the box, pixels."""
        return float(self.box_xyxy[3] - self.box_xyxy[1])

    @property
    def counts(self) -> bool:
        """Whether enough is visible to expect that the person is found."""
        return int(self.visible.sum()) >= MIN_JOINTS


@dataclass(frozen=True)
class SampleTruth:
    """What a sample video shows."""

    width: int
    height: int
    fps: int
    frames: tuple[tuple[TruePerson, ...], ...]
    """For each frame the persons with a visible joint, the farthest first."""


@dataclass(frozen=True)
class SampleErrors:
    """How far estimated poses are from the truth; nan where nothing could be measured."""

    persons: int
    """Persons in the frames that were looked at."""
    found: int
    """Of those, persons that a pose belongs to."""
    false_persons: int
    """Poses that belong to nobody."""
    median_px: float
    """Median distance of a visible joint of a found person from the truth."""
    median_of_height: float
    """The same as a fraction of the height of the person's box."""
    pck: float
    """Share of the visible joints of found persons within `PCK_DISTANCE` of the truth."""


def write_sample(path: Path) -> SampleTruth:
    """Write the sample to ``path`` as H.264 in MP4, and say what it shows."""
    persons: list[tuple[TruePerson, ...]] = []
    try:
        with av.open(path, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.gop_size = KEYFRAME_INTERVAL
            container.start_encoding()  # a path that cannot be written should say so before the rendering
            for image, shown in render_sample():
                persons.append(shown)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write the sample video {path}: {error}") from error
    return SampleTruth(WIDTH, HEIGHT, FPS, tuple(persons))


def render_sample() -> Iterator[tuple[NDArray[np.uint8], tuple[TruePerson, ...]]]:
    """Each frame, (height, width, 3) RGB, with the persons in it; the same whenever it is called."""
    scene = draw_scene()
    acts = _acts()
    for frame in range(NUM_FRAMES):
        placed = [act.at(frame) for act in acts if act.start <= frame < act.stop]
        image = scene.copy()
        layers = [paste(image, sprite, place) for sprite, place in placed]
        yield np.asarray(image), _persons(placed, layers)


def keypoint_errors(truth: SampleTruth, poses: Mapping[int, NDArray[np.floating]]) -> SampleErrors:
    """Compare estimated poses with the truth.

    ``poses``: for each frame that was looked at its (n, 17, 3) poses (x, y in pixels, score), n = 0 where nobody was
    found; frames that were left out are left out here too. Only visible joints count, whatever their score.
    """
    persons = found = false_persons = 0
    distances, relative = [np.zeros(0)], [np.zeros(0)]
    for frame, estimated in poses.items():
        shown = truth.frames[frame]
        matches = _matches(shown, estimated)
        persons += sum(person.counts for person in shown)
        false_persons += len(estimated) - len(matches)
        for person, pose in ((shown[i], estimated[j]) for i, j in matches.items() if shown[i].counts):
            found += 1
            distances.append(_distances(person, pose))
            relative.append(distances[-1] / person.height)
    px, share = np.concatenate(distances), np.concatenate(relative)
    if not found:
        return SampleErrors(persons, 0, false_persons, np.nan, np.nan, np.nan)
    pck = float((share < PCK_DISTANCE).mean())
    return SampleErrors(persons, found, false_persons, float(np.median(px)), float(np.median(share)), pck)


def _distances(person: TruePerson, pose: NDArray[np.floating]) -> NDArray[np.float64]:
    """(k,) pixels between the visible joints and the estimated ones."""
    return np.asarray(np.linalg.norm(pose[person.visible, :2] - person.joints[person.visible], axis=-1))


def _matches(shown: Sequence[TruePerson], estimated: NDArray[np.floating]) -> dict[int, int]:
    """Person to pose, the nearest pair first."""
    pairs = sorted(
        (float(_distances(person, pose).mean()) / person.height, i, j)
        for i, person in enumerate(shown)
        for j, pose in enumerate(estimated)
    )
    matches: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance < MATCH_DISTANCE and i not in matches and j not in matches.values():
            matches[i] = j
    return matches


# Who appears when


@dataclass(frozen=True)
class _Act:
    """Someone's appearance: ``start <= frame < stop``; ``cycle`` is shown over and over."""

    start: int
    stop: int
    cycle: tuple[Sprite, ...]
    path: Callable[[float], SpritePlacement]
    """Takes frames since ``start``."""

    def at(self, frame: int) -> tuple[Sprite, SpritePlacement]:
        elapsed = frame - self.start
        return self.cycle[elapsed % len(self.cycle)], self.path(elapsed)


def _acts() -> tuple[_Act, ...]:
    """The farthest first."""
    red = walk_cycle(Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28)), _HEADING, _STEPS)
    pale = walk_cycle(Outfit(shirt=(226, 214, 188), trousers=(72, 66, 60), hair=(28, 24, 22)), _HEADING, _STEPS)
    return (
        _Act(60, 168, red, _stroll(-2.95, 5.6, +1.0)),
        _Act(172, 250, tuple(sprite.mirrored() for sprite in pale), _stroll(2.75, 5.3, -1.0)),
        _Act(15, 85, (_collins(),), _glide((0, -160, 0.72), (22, 300, 0.8), (45, 330, 0.84), (70, 830, 0.78))),
        _Act(105, 172, (_hopper(),), _glide((0, 800, 0.7), (20, 535, 0.76), (45, 525, 0.78), (67, 820, 0.72))),
        _Act(185, 245, (_cameraman(),), _glide((0, -120, 0.9), (20, 108, 0.98), (40, 112, 1.0), (60, -130, 0.95))),
    )


def _stroll(x: float, z: float, side: float) -> Callable[[float], SpritePlacement]:
    """Walk from ``x`` metres right of the camera and ``z`` in front of it; ``side`` +1 goes right, -1 left."""

    def path(elapsed: float) -> SpritePlacement:
        way = _SPEED * elapsed
        column, row, per_metre = on_ground(x + side * way * np.cos(_HEADING), z - way * np.sin(_HEADING))
        return SpritePlacement(column, row, per_metre / SCALE)

    return path


def _glide(*stops: tuple[float, float, float]) -> Callable[[float], SpritePlacement]:
    """Pass along the frame's lower edge through ``stops``: frame, x, scale."""
    times, xs, scales = np.array(stops, float).T

    def path(elapsed: float) -> SpritePlacement:
        i = int(np.clip(np.searchsorted(times, elapsed, side="right") - 1, 0, len(times) - 2))
        t = (elapsed - times[i]) / (times[i + 1] - times[i])
        eased = t * t * (3 - 2 * t)
        x, scale = (values[i] + eased * (values[i + 1] - values[i]) for values in (xs, scales))
        return SpritePlacement(float(x), HEIGHT + 4.0, float(scale))

    return path


def _collins() -> Sprite:
    joints = {
        "nose": (179, 101),
        "left_eye": (196, 83),
        "right_eye": (161, 81),
        "left_ear": (218, 104),
        "right_ear": (141, 98),
        "left_shoulder": (243, 210),
        "right_shoulder": (78, 208),
        "right_elbow": (50, 364),
        "right_wrist": (106, 397),
    }
    return _portrait("eileen_collins.webp", (16, 12, 292, 409), joints)


def _hopper() -> Sprite:
    joints = {
        "nose": (186, 160),
        "left_eye": (214, 124),
        "right_eye": (155, 126),
        "left_ear": (254, 142),
        "right_ear": (115, 142),
        "left_shoulder": (312, 280),
        "right_shoulder": (64, 278),
    }
    return _portrait("grace_hopper.webp", (14, 8, 357, 412), joints)


def _cameraman() -> Sprite:
    joints = {
        "nose": (202, 92),
        "right_eye": (192, 76),
        "right_ear": (150, 72),
        "right_shoulder": (67, 102),
        "right_elbow": (66, 198),
        "right_wrist": (146, 155),
        "left_elbow": (194, 198),
        "left_wrist": (226, 158),
    }
    return _portrait("cameraman.webp", (0, 9, 265, 367), joints)


def _portrait(name: str, box: tuple[int, int, int, int], labels: Mapping[str, tuple[int, int]]) -> Sprite:
    """An asset with its labels, pixels of the asset; the anchor is the middle of its lower edge."""
    with Image.open(_ASSETS / name) as file:
        image = file.convert("RGBA")
    joints = np.array([labels.get(joint, (0, 0)) for joint in KEYPOINT_NAMES], np.float64)
    visible = np.array([joint in labels for joint in KEYPOINT_NAMES])
    return Sprite(image, ((image.width - 1) / 2, image.height - 0.5), np.array(box, np.float64), joints, visible)


# What is visible of them


def _persons(
    placed: Sequence[tuple[Sprite, SpritePlacement]], layers: Sequence[NDArray[np.bool_]]
) -> tuple[TruePerson, ...]:
    """``layers``: (height, width) what each of ``placed`` covers."""
    shown = []
    for i, (sprite, place) in enumerate(placed):
        nearer = np.any([np.zeros((HEIGHT, WIDTH), bool), *layers[i + 1 :]], axis=0)
        joints = place.to_frame(sprite, sprite.joints)
        visible = sprite.visible & _uncovered(joints, nearer)
        if visible.any():
            corners = place.to_frame(sprite, sprite.box_xyxy.reshape(2, 2))
            box = np.clip(corners, -0.5, [WIDTH - 0.5, HEIGHT - 0.5]).reshape(4)
            shown.append(TruePerson(box, np.where(visible[:, None], joints, np.nan), visible))
    return tuple(shown)


def _uncovered(points: NDArray[np.float64], covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) which of the points (n, 2) lie in the frame where ``covered`` (height, width) is false."""
    columns, rows = np.round(points).astype(int).T
    inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    return np.asarray(inside & ~covered[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)])
