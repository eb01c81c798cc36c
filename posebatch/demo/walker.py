"""A walking figure with known joints: gait kinematics, drawn as shaded solids.

Coordinates are metres in two frames. *Body*: forward, up, to the figure's right. *View*: right, up, towards the viewer.
The view is orthographic: a good approximation at a distance from which the whole person is in the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.demo.scene import Sprite

Array = NDArray[np.float64]


Pixels = NDArray[np.float32]


Triple = tuple[float, float, float]


Color = Triple
"""RGB, 0..255."""


Points = dict[str, Array]
"""Named points, metres: (3,) each."""


Window = tuple[slice, slice]


STRIDE: Final = 1.36
"""Distance that the figure walks in one cycle of two steps, metres."""


SCALE: Final = 250.0
"""Pixels per metre of a drawn figure."""


# Lengths of the bones, metres.
_THIGH: Final = 0.43


_SHANK: Final = 0.42


_UPPER_ARM: Final = 0.29


_FOREARM: Final = 0.25


# The canvas: its width, and its upper and lower edge above the ground, metres.
_WIDTH: Final = 1.3


_TOP: Final = 1.84


_BOTTOM: Final = -0.06


_UP: Final = np.array([0.0, 1.0, 0.0])


_LIGHT: Final = np.array([-0.45, 0.65, 0.61], np.float32)
"""Direction towards the light, in the view."""


_BLEND: Final = 0.009
"""Depth over which two touching solids blend, metres."""


_FLESH: Final = 0.13
"""A joint deeper than this below the visible surface is hidden by another part of the body, metres."""


# Values at the tenths of the gait cycle, from heel strike to heel strike, degrees forward and up: the sagittal curves
# of level walking (Winter, Biomechanics and Motor Control of Human Movement), rounded.
_THIGH_SWING: Final = (23.0, 19.0, 11.0, 2.0, -8.0, -16.0, -14.0, 5.0, 20.0, 25.0)


_KNEE_BEND: Final = (4.0, 15.0, 16.0, 9.0, 5.0, 10.0, 36.0, 60.0, 46.0, 14.0)


_ANKLE_LIFT: Final = (0.0, -6.0, 3.0, 8.0, 10.0, 6.0, -12.0, -12.0, -2.0, 1.0)


# From point, to point, radius at either, colour: the round cones of one side of the body.
_LIMBS: Final[tuple[tuple[str, str, float, float, str], ...]] = (
    ("collar", "shoulder", 0.058, 0.060, "shirt"),
    ("shoulder", "sleeve", 0.064, 0.057, "shirt"),
    ("sleeve", "elbow", 0.043, 0.039, "skin"),
    ("elbow", "forearm", 0.039, 0.038, "skin"),
    ("forearm", "wrist", 0.038, 0.027, "skin"),
    ("wrist", "knuckle", 0.027, 0.034, "skin"),
    ("knuckle", "finger", 0.022, 0.013, "skin"),
    ("hip", "knee", 0.092, 0.064, "trousers"),
    ("knee", "calf", 0.064, 0.064, "trousers"),
    ("calf", "cuff", 0.064, 0.056, "trousers"),
    ("ankle", "counter", 0.045, 0.045, "shoe"),
    ("counter", "instep", 0.043, 0.043, "shoe"),
    ("instep", "vamp", 0.043, 0.040, "shoe"),
    ("vamp", "cap", 0.040, 0.028, "shoe"),
    ("heel", "ball", 0.020, 0.020, "sole"),
    ("ball", "toe", 0.020, 0.017, "sole"),
)


@dataclass(frozen=True)
class Outfit:
    """Colours of a figure."""

    shirt: Color
    trousers: Color
    hair: Color
    skin: Color = (224.0, 172.0, 138.0)
    shoe: Color = (48.0, 44.0, 44.0)
    sole: Color = (226.0, 222.0, 214.0)


def walk_cycle(outfit: Outfit, heading: float, frames: int) -> tuple[Sprite, ...]:
    """Draw one cycle of two steps in ``frames`` pictures. The anchor of each is the ground below the pelvis.

    The figure walks to the viewer's right, turned ``heading`` radians towards the viewer.
    """
    return tuple(_draw(_pose(step / frames, heading), heading, outfit) for step in range(frames))


# Kinematics


def _curve(tenths: tuple[float, ...], phase: float) -> float:
    """The trigonometric interpolation of ten equidistant angles (degrees) at ``phase`` cycles, radians."""
    spectrum = np.fft.rfft(np.radians(tenths)) / len(tenths)
    doubled = np.array([1.0, *[2.0] * (len(spectrum) - 2), 1.0])  # rfft omits the mirrored half
    turns = np.exp(2j * np.pi * np.arange(len(spectrum)) * phase)
    return float((doubled * spectrum * turns).real.sum())


def _hanging(length: float, angle: float) -> Array:
    """The vector of a hanging bone, swung forward by ``angle`` radians; body frame."""
    return length * np.array([np.sin(angle), -np.cos(angle), 0.0])


def _between(a: Array, b: Array, share: float) -> Array:
    return (1 - share) * a + share * b


def _yaw(angle: float) -> Array:
    """(3, 3) rotation about the vertical, positive to the left. Its columns are the rotated forward, up and right."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _leg(hip: Array, phase: float) -> Points:
    thigh = _curve(_THIGH_SWING, phase)
    shank = thigh - _curve(_KNEE_BEND, phase)
    foot = shank + _curve(_ANKLE_LIFT, phase)
    knee = hip + _hanging(_THIGH, thigh)
    ankle = knee + _hanging(_SHANK, shank)
    forward, up = np.array([np.cos(foot), np.sin(foot), 0.0]), np.array([-np.sin(foot), np.cos(foot), 0.0])
    heel, ball, toe = (ankle + x * forward + y * up for x, y in ((-0.055, -0.075), (0.1, -0.08), (0.17, -0.078)))
    calf = _between(knee, ankle, 0.35) - np.array([0.012, 0.0, 0.0])
    points = {"hip": hip, "knee": knee, "calf": calf, "cuff": _between(knee, ankle, 0.9), "ankle": ankle}
    sole = {"heel": heel, "ball": ball, "toe": toe}
    upper = {"counter": _between(ankle, heel, 0.5), "instep": _between(ankle, ball, 0.5)}
    return points | sole | upper | {"vamp": ball + 0.02 * up, "cap": toe + 0.015 * up}


def _arm(shoulder: Array, phase: float, outward: float) -> Points:
    """An arm, swinging against the leg of its side, which is at ``phase``. ``outward``: +1 right, -1 left."""
    swing = np.radians(2.0 - 20.0 * np.cos(2 * np.pi * phase))
    bend = np.radians(24.0 - 12.0 * np.cos(2 * np.pi * phase))
    elbow = shoulder + _hanging(_UPPER_ARM, swing) + np.array([0.0, 0.0, 0.045 * outward])
    wrist = elbow + _hanging(_FOREARM, swing + bend)
    knuckle = wrist + _hanging(0.09, swing + bend + 0.15)
    points = {"shoulder": shoulder, "elbow": elbow, "wrist": wrist, "knuckle": knuckle}
    sleeve, forearm = _between(shoulder, elbow, 0.65), _between(elbow, wrist, 0.4)
    return points | {"sleeve": sleeve, "forearm": forearm, "finger": knuckle + np.array([0.04, 0.02, 0.0])}


def _head(center: Array) -> Points:
    points = {"head": center, "nose": center + np.array([0.112, -0.022, 0.0])}
    for side, outward in (("left", -1.0), ("right", 1.0)):
        points[f"{side}_eye"] = center + np.array([0.085, 0.015, 0.031 * outward])
        points[f"{side}_ear"] = center + np.array([-0.005, -0.005, 0.076 * outward])
    return points


def _pose(phase: float, heading: float) -> Points:
    """The figure ``phase`` cycles after its left heel strike; view frame, with the ground below the pelvis at 0."""
    swing = np.radians(np.cos(2 * np.pi * phase))
    spine = np.array([np.sin(np.radians(3.0)), np.cos(np.radians(3.0)), 0.0])
    points = {"pelvis": np.zeros(3), "chest": 0.3 * spine, "neck": 0.5 * spine}
    points |= _head(0.69 * spine + np.array([0.02, 0.0, 0.0]))
    for side, outward, shift in (("left", -1.0, 0.0), ("right", 1.0, 0.5)):
        hip = _yaw(-5.0 * swing) @ np.array([0.0, -0.02, 0.09 * outward])
        shoulder = 0.48 * spine + _yaw(7.0 * swing) @ np.array([0.0, 0.0, 0.172 * outward])
        limbs = _leg(hip, phase + shift) | _arm(shoulder, phase + shift, outward) | {"collar": 0.485 * spine}
        points |= {f"{side}_{name}": point for name, point in limbs.items()}
    lowest = min(points[f"{side}_{part}"][1] for side in ("left", "right") for part in ("heel", "ball", "toe"))
    floor = np.array([0.0, lowest - 0.02, 0.0])
    return {name: _to_view(heading) @ (point - floor) for name, point in points.items()}


def _to_view(heading: float) -> Array:
    """(3, 3) rotation from the body frame to the view."""
    return _yaw(-heading)


# Drawing


class _Canvas:
    """Solids in an orthographic view. Each has the weight exp(depth): the nearest wins, and equal depths mix."""

    def __init__(self) -> None:
        self.x = ((np.arange(round(_WIDTH * SCALE)) + 0.5) / SCALE - _WIDTH / 2).astype(np.float32)
        self.y = (_TOP - (np.arange(round((_TOP - _BOTTOM) * SCALE)) + 0.5) / SCALE).astype(np.float32)
        shape = (len(self.y), len(self.x))
        self.weight = np.zeros(shape, np.float32)
        self.normal = np.zeros((*shape, 3), np.float32)
        self.color = np.zeros((*shape, 3), np.float32)

    def window(self, low: Array, high: Array) -> Window:
        columns = np.searchsorted(self.x, [low[0], high[0]])
        rows = np.searchsorted(-self.y, [-high[1], -low[1]])
        return slice(*rows), slice(*columns)

    def add(self, window: Window, depth: Pixels, normal: Pixels, color: Pixels) -> None:
        """Add a solid: ``depth`` (h, w), -inf outside it; unit ``normal`` (h, w, 3); ``color`` (3,) or (h, w, 3)."""
        weight = np.exp(depth / _BLEND)
        self.weight[window] += weight
        self.normal[window] += weight[..., None] * normal
        self.color[window] += weight[..., None] * color

    def limb(self, a: Array, b: Array, ra: float, rb: float, color: Color) -> None:
        """Draw a round cone from ``a`` with radius ``ra`` to ``b`` with radius ``rb``."""
        reach = max(ra, rb)
        rows, columns = self.window(np.minimum(a, b) - reach, np.maximum(a, b) + reach)
        a32, axis = a.astype(np.float32), (b - a).astype(np.float32)
        px, py = self.x[None, columns] - a32[0], self.y[rows, None] - a32[1]
        t = np.clip((px * axis[0] + py * axis[1]) / (axis[0] ** 2 + axis[1] ** 2 + np.float32(1e-9)), 0, 1)
        r = np.float32(ra) + np.float32(rb - ra) * t
        nx, ny = (px - t * axis[0]) / r, (py - t * axis[1]) / r
        square = 1 - nx**2 - ny**2
        nz = np.sqrt(np.maximum(square, 0))
        depth = np.where(square > 0, a32[2] + t * axis[2] + r * nz, np.float32(-np.inf))
        self.add((rows, columns), depth, np.stack([nx, ny, nz], -1), np.array(color, np.float32))

    def ellipsoid(self, center: Array, axes: Array, radii: Triple, color: Color | Callable[[Pixels], Pixels]) -> None:
        """Draw an ellipsoid with ``axes`` (3, 3), columns in the view. ``color`` may depend on the direction."""
        rows, columns = self.window(center - max(radii), center + max(radii))
        px, py = np.meshgrid(self.x[columns] - np.float32(center[0]), self.y[rows] - np.float32(center[1]))
        to_unit = (axes.T / np.array(radii)[:, None]).astype(np.float32)
        m = to_unit.T @ to_unit  # the surface is where q @ m @ q = 1
        half_b = m[0, 2] * px + m[1, 2] * py
        root = half_b**2 - m[2, 2] * (m[0, 0] * px**2 + 2 * m[0, 1] * px * py + m[1, 1] * py**2 - 1)
        pz = (np.sqrt(np.maximum(root, 0)) - half_b) / m[2, 2]
        q = np.stack([px, py, pz], -1)
        normal = q @ m
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        depth = np.where(root > 0, np.float32(center[2]) + pz, np.float32(-np.inf))
        painted = color(q @ to_unit.T) if callable(color) else np.array(color, np.float32)
        self.add((rows, columns), depth, normal, painted)

    def depth(self) -> Pixels:
        """(h, w) metres towards the viewer; behind everything if no solid is there."""
        return np.where(self.weight > 0, _BLEND * np.log(np.maximum(self.weight, 1e-37)), np.float32(-0.3))


def _draw(points: Points, heading: float, outfit: Outfit) -> Sprite:
    canvas = _Canvas()
    axes = _to_view(heading)
    _draw_head(canvas, points, axes, outfit)
    _draw_trunk(canvas, points, axes, outfit)
    for side in ("left", "right"):
        for start, end, start_radius, end_radius, color in _LIMBS:
            a, b = points[f"{side}_{start}"], points[f"{side}_{end}"]
            canvas.limb(a, b, start_radius, end_radius, getattr(outfit, color))
    return _as_sprite(canvas, points)


def _draw_head(canvas: _Canvas, points: Points, axes: Array, outfit: Outfit) -> None:
    head, forward, right = points["head"], axes[:, 0], axes[:, 2]
    canvas.ellipsoid(head + 0.012 * _UP, axes, (0.099, 0.122, 0.079), lambda d: _face(d, outfit))
    canvas.ellipsoid(head + 0.03 * _UP - 0.018 * forward, axes, (0.099, 0.108, 0.084), lambda d: _face(d, outfit))
    canvas.ellipsoid(head - 0.068 * _UP + 0.034 * forward, axes, (0.052, 0.05, 0.05), outfit.skin)
    canvas.limb(head + 0.092 * forward + 0.02 * _UP, points["nose"] - 0.015 * forward, 0.009, 0.015, outfit.skin)
    canvas.limb(points["neck"], head - 0.05 * _UP - 0.015 * forward, 0.058, 0.054, outfit.skin)
    for outward in (-1.0, 1.0):
        canvas.ellipsoid(head - 0.005 * _UP + 0.077 * outward * right, axes, (0.018, 0.03, 0.012), outfit.skin)


def _draw_trunk(canvas: _Canvas, points: Points, axes: Array, outfit: Outfit) -> None:
    canvas.ellipsoid(points["chest"] + 0.05 * _UP, axes, (0.115, 0.235, 0.165), outfit.shirt)
    canvas.ellipsoid(points["chest"] - 0.13 * _UP, axes, (0.108, 0.21, 0.15), outfit.shirt)
    canvas.ellipsoid(points["pelvis"] - 0.02 * _UP, axes, (0.112, 0.13, 0.152), outfit.trousers)


def _face(direction: Pixels, outfit: Outfit) -> Pixels:
    """Colours (h, w, 3) of a head at unit directions (h, w, 3): forward, up, right."""
    f, g, h = np.moveaxis(direction, -1, 0)
    side, front = np.abs(h), f > 0
    color = np.broadcast_to(np.array(outfit.skin, np.float32), direction.shape).copy()
    color[front & ((side - 0.4) ** 2 / 0.17**2 + (g - 0.13) ** 2 / 0.075**2 < 1)] = (235, 228, 222)  # white of the eye
    color[front & ((side - 0.39) ** 2 + (g - 0.13) ** 2 < 0.075**2)] = (40, 28, 22)  # iris
    color[front & (np.abs(side - 0.4) < 0.17) & (np.abs(g - 0.2) < 0.02)] = (90, 60, 48)  # lid
    color[front & (np.abs(side - 0.4) < 0.2) & (np.abs(g - 0.29) < 0.035)] = (70, 48, 34)  # brow
    color[front & (side < 0.27) & (np.abs(g + 0.5 - 0.25 * h**2) < 0.05)] = (168, 84, 76)  # mouth
    hair = g > 0.1 + np.where(front, 0.5, 0.8) * f + 0.04 * np.sin(30 * h) * front
    strands = 1 + 0.15 * np.sin(60 * h + 14 * f) * np.sin(23 * f + 9 * h)
    color[hair] = strands[hair][:, None] * np.array(outfit.hair, np.float32)
    return color


def _as_sprite(canvas: _Canvas, points: Points) -> Sprite:
    depth = canvas.depth()
    inside = canvas.weight > 0
    joints = np.array([_pixel(points[name]) for name in KEYPOINT_NAMES])
    columns, rows = np.round(joints).astype(int).T
    buried = depth[rows, columns] - np.array([points[name][2] for name in KEYPOINT_NAMES])
    ys, xs = np.nonzero(inside)
    box = np.array([xs.min() - 0.5, ys.min() - 0.5, xs.max() + 0.5, ys.max() + 0.5])
    shadow = _shadow(canvas, points)
    alpha = np.where(inside, 255.0, shadow)
    rgba = np.dstack([np.where(inside[..., None], _shaded(canvas, depth), 0), alpha]).astype(np.uint8)
    return Sprite(Image.fromarray(rgba), _pixel(np.zeros(3)), box, joints, buried < _FLESH)


def _pixel(point: Array) -> tuple[float, float]:
    return float((point[0] + _WIDTH / 2) * SCALE - 0.5), float((_TOP - point[1]) * SCALE - 0.5)


def _shaded(canvas: _Canvas, depth: Pixels) -> Pixels:
    """(h, w, 3) colours lit from the upper left, darker near parts that stand in front."""
    weight = np.maximum(canvas.weight, np.float32(1e-37))[..., None]
    normal = canvas.normal / weight
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), np.float32(1e-6))
    radius = round(0.04 * SCALE)
    shade = np.clip(4 * (_blurred(_blurred(depth, radius), radius) - depth), 0, 0.5)
    light = 0.42 + 0.18 * normal[..., 1] + 0.62 * np.maximum(normal @ _LIGHT, 0)
    shaded = canvas.color / weight * (light * (1 - shade) * (1 + _cloth(depth.shape)))[..., None]
    return np.asarray(np.clip(shaded, 0, 255), np.float32)


@cache
def _cloth(shape: tuple[int, ...]) -> Pixels:
    """(h, w) relative variation of the brightness, fine and coarse, around 0."""
    rng = np.random.default_rng(5)
    fine, coarse = (_blurred(rng.normal(0, sigma, shape), radius) for sigma, radius in ((0.1, 2), (0.4, 7)))
    return fine + coarse


def _shadow(canvas: _Canvas, points: Points) -> Pixels:
    """(h, w) opacity 0..255 of the shadow on the ground."""
    feet = [points[f"{side}_ankle"][0] for side in ("left", "right")]
    reach = 0.2 + abs(feet[0] - feet[1]) / 2
    distance = ((canvas.x[None, :] - np.mean(feet)) / reach) ** 2 + (canvas.y[:, None] / 0.055) ** 2
    return np.asarray(110 * np.exp(-1.5 * distance**2), np.float32)


def _blurred(image: NDArray[np.floating], radius: int) -> Pixels:
    """``image`` (h, w) averaged over squares of 2 * radius + 1 pixels."""
    for _ in range(2):  # rows, then columns
        padded = np.pad(image, [(radius + 1, radius), (0, 0)], mode="edge")
        sums = np.cumsum(padded, axis=0, dtype=np.float64)
        image = ((sums[2 * radius + 1 :] - sums[: -2 * radius - 1]) / (2 * radius + 1)).T
    return image.astype(np.float32)
