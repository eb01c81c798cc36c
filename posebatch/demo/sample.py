"""The sample video of ``posebatch demo``, its true joints, and the errors of estimated poses.

The video shows a promenade for ten seconds. Two rendered walkers cross it; their joints come from the kinematics of
`posebatch.demo.walker`. Three portraits, from photographs in the public domain (``assets/ORIGIN.md``), pass close to
the camera; their joints are labelled by hand.
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
"""Frames from one keyframe to the next."""


MIN_JOINTS: Final = 5
"""A person with fewer visible joints is entering or leaving. Neither missing nor finding them is an error."""


MATCH_DISTANCE: Final = 0.3
"""A pose can match a person if their mean joint distance is smaller, box heights."""


PCK_DISTANCE: Final = 0.1
"""A joint is right if it is nearer than this to the true one, box heights."""


_ASSETS: Final = Path(__file__).with_name("assets")


_CYCLE_FRAMES: Final = 24
"""Frames of one walk cycle."""


_SPEED: Final = STRIDE / _CYCLE_FRAMES
"""Speed of a walker, metres per frame."""


_HEADING: Final = float(np.radians(22.0))
"""Direction of the walkers, radians towards the viewer."""


@dataclass(frozen=True)
class TruePerson:
    """One person of one frame, pixels of the frame."""

    box_xyxy: NDArray[np.float64]
    """(4,) the part of the person's box inside the frame."""
    joints: NDArray[np.float64]
    """(17, 2) x, y; nan where not visible."""
    visible: NDArray[np.bool_]
    """(17,) false if unknown, outside the frame, or hidden. At least one joint is visible."""
    name: str = ""
    """Who it is: the same in all frames."""

    def __post_init__(self) -> None:
        check_array("box_xyxy", self.box_xyxy, np.float64, (4,))
        check_array("joints", self.joints, np.float64, (NUM_KEYPOINTS, 2))
        check_array("visible", self.visible, np.bool_, (NUM_KEYPOINTS,))
        if not self.visible.any():
            raise ValueError("a person of whom no joint is visible cannot be compared with anything")

    @property
    def height(self) -> float:
        """Height of the box, pixels."""
        return float(self.box_xyxy[3] - self.box_xyxy[1])

    @property
    def counts(self) -> bool:
        """Whether enough joints are visible (`MIN_JOINTS`) to expect a pose."""
        return int(self.visible.sum()) >= MIN_JOINTS


@dataclass(frozen=True)
class SampleTruth:
    """The persons of every frame of a sample video."""

    width: int
    height: int
    fps: int
    frames: tuple[tuple[TruePerson, ...], ...]
    """Per frame, the persons with a visible joint, the farthest first."""


@dataclass(frozen=True)
class SampleErrors:
    """Errors of estimated poses. A figure without data is nan."""

    persons: int
    """Persons in the compared frames who count."""
    found: int
    """Persons among them with a matching pose."""
    false_persons: int
    """Poses that match nobody."""
    median_px: float
    """Median distance between visible and estimated joints of found persons, pixels."""
    median_of_height: float
    """The same as a share of the height of the person's box."""
    pck: float
    """Share of the visible joints of found persons within `PCK_DISTANCE`, 0..1."""


def write_sample(path: Path) -> SampleTruth:
    """Write the sample to ``path`` as H.264 in MP4; returns its truth. Raises `OutputError`."""
    persons: list[tuple[TruePerson, ...]] = []
    try:
        with av.open(path, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.gop_size = KEYFRAME_INTERVAL
            container.start_encoding()  # opens the file: a wrong path fails before the rendering
            for image, shown in render_sample():
                persons.append(shown)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise OutputError(f"cannot write the sample video {path}: {error}") from error
    return SampleTruth(WIDTH, HEIGHT, FPS, tuple(persons))


def render_sample() -> Iterator[tuple[NDArray[np.uint8], tuple[TruePerson, ...]]]:
    """Render each frame, (height, width, 3) RGB, with its persons. Every call gives the same frames."""
    scene = draw_scene()
    appearances = _appearances()
    for frame in range(NUM_FRAMES):
        present = [appearance for appearance in appearances if appearance.start <= frame < appearance.stop]
        placed = [appearance.at(frame) for appearance in present]
        image = scene.copy()
        layers = [paste(image, sprite, placement) for sprite, placement in placed]
        yield np.asarray(image), _visible_persons([appearance.name for appearance in present], placed, layers)


def keypoint_errors(truth: SampleTruth, poses: Mapping[int, NDArray[np.floating]]) -> SampleErrors:
    """Compare estimated poses with the truth, on the frames of ``poses``.

    ``poses`` maps a frame's index to its poses (n, 17, 3): x, y in pixels, score; n may be 0. Only visible joints
    count, with any score.
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


# The appearances of the persons


@dataclass(frozen=True)
class _Appearance:
    """One person in the frames ``start <= frame < stop``."""

    name: str
    start: int
    stop: int
    cycle: tuple[Sprite, ...]
    """Pictures of the person, repeated."""
    path: Callable[[float], SpritePlacement]
    """Placement by the number of frames since ``start``."""

    def at(self, frame: int) -> tuple[Sprite, SpritePlacement]:
        elapsed = frame - self.start
        return self.cycle[elapsed % len(self.cycle)], self.path(elapsed)


def _appearances() -> tuple[_Appearance, ...]:
    """All persons, the farthest first."""
    red = walk_cycle(Outfit(shirt=(176, 52, 46), trousers=(58, 78, 120), hair=(62, 42, 28)), _HEADING, _CYCLE_FRAMES)
    pale = walk_cycle(Outfit(shirt=(226, 214, 188), trousers=(72, 66, 60), hair=(28, 24, 22)), _HEADING, _CYCLE_FRAMES)
    mirrored = tuple(sprite.mirrored() for sprite in pale)
    collins = _glide((0, -160, 0.72), (22, 300, 0.8), (45, 330, 0.84), (70, 830, 0.78))
    hopper = _glide((0, 800, 0.7), (20, 535, 0.76), (45, 525, 0.78), (67, 820, 0.72))
    cameraman = _glide((0, -120, 0.9), (20, 108, 0.98), (40, 112, 1.0), (60, -130, 0.95))
    return (
        _Appearance("first walker", 60, 168, red, _walk(-2.95, 5.6, +1.0)),
        _Appearance("second walker", 172, 250, mirrored, _walk(2.75, 5.3, -1.0)),
        _Appearance("Collins", 15, 85, (_collins(),), collins),
        _Appearance("Hopper", 105, 172, (_hopper(),), hopper),
        _Appearance("cameraman", 185, 245, (_cameraman(),), cameraman),
    )


def _walk(x: float, z: float, side: float) -> Callable[[float], SpritePlacement]:
    """Start ``x`` metres right of the camera and ``z`` metres in front of it. ``side``: +1 walks right, -1 left."""

    def path(elapsed: float) -> SpritePlacement:
        distance = _SPEED * elapsed
        column, row, per_metre = on_ground(x + side * distance * np.cos(_HEADING), z - distance * np.sin(_HEADING))
        return SpritePlacement(column, row, per_metre / SCALE)

    return path


def _glide(*stops: tuple[float, float, float]) -> Callable[[float], SpritePlacement]:
    """Move along the frame's lower edge through ``stops``: frame, x in pixels, scale."""
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
    """An asset with its labels, in pixels of the asset. The anchor is the middle of its lower edge."""
    with Image.open(_ASSETS / name) as file:
        image = file.convert("RGBA")
    joints = np.array([labels.get(joint, (0, 0)) for joint in KEYPOINT_NAMES], np.float64)
    visible = np.array([joint in labels for joint in KEYPOINT_NAMES])
    return Sprite(image, ((image.width - 1) / 2, image.height - 0.5), np.array(box, np.float64), joints, visible)


# The visible joints


def _visible_persons(
    names: Sequence[str], placed: Sequence[tuple[Sprite, SpritePlacement]], layers: Sequence[NDArray[np.bool_]]
) -> tuple[TruePerson, ...]:
    """The persons with a visible joint. ``layers``: per sprite, the pixels (height, width) that it covers."""
    persons = []
    for i, (sprite, placement) in enumerate(placed):
        nearer = np.any([np.zeros((HEIGHT, WIDTH), bool), *layers[i + 1 :]], axis=0)
        joints = placement.to_frame(sprite, sprite.joints)
        visible = sprite.visible & _uncovered(joints, nearer)
        if visible.any():
            corners = placement.to_frame(sprite, sprite.box_xyxy.reshape(2, 2))
            box = np.clip(corners, -0.5, [WIDTH - 0.5, HEIGHT - 0.5]).reshape(4)
            persons.append(TruePerson(box, np.where(visible[:, None], joints, np.nan), visible, names[i]))
    return tuple(persons)


def _uncovered(points: NDArray[np.float64], covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) whether each point (n, 2) lies inside the frame and outside the mask ``covered`` (height, width)."""
    columns, rows = np.round(points).astype(int).T
    inside = (columns >= 0) & (columns < WIDTH) & (rows >= 0) & (rows < HEIGHT)
    return np.asarray(inside & ~covered[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)])
