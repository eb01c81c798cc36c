"""Compare the highest peak of each heatmap with the peak that the person's track suggests.

    python jobs/evaluate_peaks.py --pose NAME                                     a drawn walker with known joints
    python jobs/evaluate_peaks.py --pose NAME --videos VIDEOS --truth IDENTITY    clips with true boxes and identities

The pose network runs on true boxes, so no detector and no linker takes part. The walker walks in three directions, with
and without poles before it, another person before it, and noise. IDENTITY holds a file `<clip>.csv` for each clip (see
evaluate_tracks.py). Lengths are in torso lengths. docs/motion.md explains the choice and the figures.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from posebatch.core.motion_settings import MotionSettings
from posebatch.core.settings import EstimatorSettings, SamplingSettings
from posebatch.core.skeleton import NUM_KEYPOINTS
from posebatch.core.text_table import text_table
from posebatch.demo.scene import HEIGHT, WIDTH, SpritePlacement, draw_scene, on_ground, paste
from posebatch.demo.walker import SCALE, STRIDE, Outfit, walk_cycle
from posebatch.evaluation.identity_score import read_identities
from posebatch.evaluation.motion_errors import all_seen, block_of
from posebatch.evaluation.peak_choice import PEAKS, Track, choices, top_peaks
from posebatch.evaluation.video_batches import batches_until
from posebatch.models.networks.pixels import Pixels
from posebatch.motion.movement.quality import TrackSummary
from posebatch.motion.movement.series import Movement
from posebatch.motion.movement.torso import torso_lengths
from posebatch.pose.crops import apply_affine
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.uploads import to_device
from posebatch.video.options import DecodeOptions

Array = NDArray[np.float64]

BODY: Final = slice(5, NUM_KEYPOINTS)
"""Shoulders to ankles."""
CYCLE_FRAMES: Final = 24
FPS: Final = 25
PATHS: Final = ((0.0, -2.6, 6.0), (0.3, -2.6, 7.0), (1.2, -1.0, 10.5))
"""Heading of the walker in radians towards the viewer, and the first position, metres right and away."""
SCENES: Final = ((), ("poles",), ("crossing",), ("noise",), ("poles", "crossing", "noise"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pose", default=EstimatorSettings().pose_name, metavar="NAME")
    parser.add_argument("--videos", type=Path, metavar="FOLDER")
    parser.add_argument("--truth", type=Path, metavar="FOLDER")
    parser.add_argument("--clip", action="append", metavar="NAME", help="only this clip; repeatable")
    parser.add_argument("--frames", type=int, default=sys.maxsize, metavar="N", help="only the first N of each clip")
    chosen = parser.parse_args(arguments)
    if (chosen.videos is None) != (chosen.truth is None):
        parser.error("--videos and --truth belong together")
    torch.set_num_threads(1)
    estimator = PoseEstimator.load(EstimatorSettings(pose=chosen.pose, precision="fp32"), "cpu")
    if chosen.truth is None:
        print(walker_table(estimator, min(chosen.frames, 90)))
        return 0
    rows = []
    for truth in sorted(chosen.truth.glob("*.csv")):
        if not chosen.clip or truth.stem in chosen.clip:
            rows += clip_rows(truth.stem, clip_tracks(estimator, chosen.videos, truth, chosen.frames))
    print(text_table(["clip", "peak", "joints", "changed", "seen", "swaps", "jumps", "jitter", "2nd difference"], rows))
    return 0


def smoothed(track: Track, keypoints: Array) -> tuple[Array, TrackSummary]:
    """Joints (f, 17, 2) of the table ``motion``, and the row of ``tracks``."""
    frames, kpt_thr = len(keypoints), EstimatorSettings.kpt_thr
    series = Movement(all_seen(frames, 1), MotionSettings(), track.size_wh, kpt_thr)
    block = block_of(track.time_s, keypoints[:, None].astype(np.float32))
    blocks = [*series.add(block), *series.finish()]
    return np.concatenate([part.joints[..., :2] for part in blocks]).astype(np.float64), series.summaries()[0]


def walker_table(estimator: PoseEstimator, frames: int) -> str:
    """Errors of the walker's joints by direction, over all scenes."""
    rows = []
    for path in PATHS:
        figures: dict[str, list[Array]] = {}
        for number, scene in enumerate(SCENES):
            track = walker_track(estimator, path, scene, frames, number)
            assert track.joints is not None
            assert track.visible is not None
            torso = torso_lengths(track.joints)[:, None]
            for name, keypoints in choices(track).items():
                smooth, summary = smoothed(track, keypoints)
                off, smooth_off = (
                    np.linalg.norm(xy - track.joints, axis=2) / torso for xy in (keypoints[..., :2], smooth)
                )
                exchanged = _exchanged(keypoints[..., :2], track.joints, torso)
                columns = np.stack([track.visible, off, smooth_off, exchanged, np.zeros_like(off)])
                columns[4, 0, BODY.start] = summary.swap_suspects
                figures.setdefault(name, []).append(columns[:, :, BODY].reshape(5, -1))
        rows += [[f"{path[0]} rad", name, *_errors(np.hstack(parts))] for name, parts in figures.items()]
    columns_text = ["median", "within 0.2", "beyond 0.5", "hidden: within 0.2", "smoothed RMS", "exchanged", "suspects"]
    return text_table(["heading", "peak", *columns_text], rows)


def _errors(figures: Array) -> list[str]:
    visible, off, smooth_off, exchanged, suspects = figures
    seen, hidden = off[visible > 0], off[visible == 0]
    smooth = smooth_off[(visible > 0) & ~np.isnan(smooth_off)]
    shares = (seen < 0.2).mean(), (seen > 0.5).mean(), (hidden < 0.2).mean()
    rms = math.sqrt((smooth**2).mean())
    counts = str(int(exchanged.sum())), str(int(suspects.sum()))
    return [f"{np.median(seen):.3f}", *(f"{share:.2%}" for share in shares), f"{rms:.3f}", *counts]


def _exchanged(xy: Array, joints: Array, torso: Array) -> Array:
    """(f, 17) 1 at the left joint of a pair, 0.15 apart or more, that fits the true joints twice as well exchanged."""
    marks = np.zeros(xy.shape[:2])
    left, right = slice(5, None, 2), slice(6, None, 2)

    def apart(a: slice, b: slice) -> Array:
        distances: Array = np.linalg.norm(xy[:, a] - joints[:, b], axis=2)
        return distances

    wide = np.linalg.norm(joints[:, left] - joints[:, right], axis=2) > 0.15 * torso
    as_is, swapped = apart(left, left) + apart(right, right), apart(left, right) + apart(right, left)
    marks[:, left] = wide & (swapped < 0.5 * as_is)
    return marks


def walker_track(
    estimator: PoseEstimator, path: tuple[float, float, float], scene: Sequence[str], frames: int, seed: int
) -> Track:
    """Draw the walker in ``frames`` frames of a scene, and run the network on its true box, moved by 2 % at random."""
    heading, x, z = path
    rng, background = np.random.default_rng(seed), draw_scene()
    cycle = walk_cycle(Outfit((176, 52, 46), (58, 78, 120), (62, 42, 28)), heading, CYCLE_FRAMES)
    other = walk_cycle(Outfit((70, 80, 140), (90, 80, 70), (40, 30, 20)), 0.2, CYCLE_FRAMES)
    peaks, joints, visible = [], [], []
    for frame, walked in enumerate(STRIDE / CYCLE_FRAMES * np.arange(frames)):
        at = x + walked * math.cos(heading), z + 3.0 * ("noise" in scene) - walked * math.sin(heading)
        sprite, image, covered = cycle[frame % CYCLE_FRAMES], background.copy(), np.zeros((HEIGHT, WIDTH), np.bool_)
        place = _placed(*at)
        paste(image, sprite, place)
        if "crossing" in scene:
            ahead = (frame % 40 - 20) * 1.3 * STRIDE / CYCLE_FRAMES
            nearer = other[(frame + 5) % CYCLE_FRAMES].mirrored()
            covered |= paste(image, nearer, _placed(at[0] - ahead, at[1] - 0.5))
        pixels = np.array(image)
        if "poles" in scene:
            poles = (np.arange(WIDTH) - 15) % 62 < 11
            pixels[60:, poles], covered[60:, poles] = (70, 72, 76), True
        if "noise" in scene:
            blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1.3))
            pixels = (np.asarray(blurred) + rng.normal(0, 14, pixels.shape)).clip(0, 255).astype(np.uint8)
        true = place.to_frame(sprite, sprite.joints)
        columns, rows = np.round(true).astype(int).T
        box = place.to_frame(sprite, sprite.box_xyxy.reshape(2, 2)).reshape(4)
        box += rng.normal(0, 0.02 * (box[3] - box[1]), 4)
        peaks.append(_peaks(estimator, to_device(pixels[None], "cpu"), [0], box[None])[0])
        joints.append(true)
        visible.append(sprite.visible & ~covered[rows.clip(0, HEIGHT - 1), columns.clip(0, WIDTH - 1)])
    return Track(np.arange(frames) / FPS, np.stack(peaks), (WIDTH, HEIGHT), np.stack(joints), np.stack(visible))


def _placed(x: float, z: float) -> SpritePlacement:
    column, row, per_metre = on_ground(x, z)
    return SpritePlacement(column, row, per_metre / SCALE)


def _peaks(estimator: PoseEstimator, pixels: Pixels, frames: Sequence[int], boxes: NDArray[np.floating[Any]]) -> Array:
    """Peaks (n, 17, PEAKS, 3) in the frame, of boxes (n, 4) in ``frames`` of ``pixels``."""
    parts = [np.zeros((0, NUM_KEYPOINTS, PEAKS, 3))]
    for first in range(0, len(boxes), estimator.pose_batch):
        batch = slice(first, first + estimator.pose_batch)
        regions = estimator.regions(boxes[batch].astype(np.float32))
        crops = estimator.crops(pixels, frames[batch], regions)
        peaks = top_peaks(estimator.heatmaps(crops).numpy()).astype(np.float64)
        flat = peaks[..., :2].reshape(len(regions), -1, 2)
        peaks[..., :2] = apply_affine(estimator.heatmaps_to_frame(regions), flat).reshape(peaks[..., :2].shape)
        parts.append(peaks)
    return np.concatenate(parts)


def clip_rows(name: str, tracks: Sequence[Track]) -> list[list[str]]:
    """Figures of a clip, summed over its persons: one row for each way to choose."""
    rows = []
    for way in ("highest", "track"):
        changed = seen = swaps = jumps = joints = 0
        jitter, second = [np.zeros(0)], [np.zeros(0)]
        for track in tracks:
            keypoints = choices(track)[way]
            smooth, summary = smoothed(track, keypoints)
            known = keypoints[:, BODY, 2] > EstimatorSettings.kpt_thr
            xy = np.where(known[..., None], keypoints[:, BODY, :2], np.nan)
            torso = max(1.0, summary.torso_px)
            steps = np.diff(xy, axis=0)
            steps = steps[~np.isnan(steps).all(axis=(1, 2))]
            beyond = steps - np.nanmedian(steps, axis=1, keepdims=True)
            changed += int((keypoints != track.peaks[:, :, 0])[:, BODY].any(axis=2).sum())
            seen, joints, swaps = seen + int(known.sum()), joints + known.size, swaps + summary.swap_suspects
            jumps += int((np.linalg.norm(beyond, axis=2) > 0.5 * torso).sum())
            second.append(np.linalg.norm(np.diff(smooth[:, BODY], 2, axis=0), axis=2).ravel() / torso)
            jitter.append(np.linalg.norm(xy - smooth[:, BODY], axis=2).ravel() / torso)
        medians = [f"{np.nanmedian(np.concatenate(values)):.4f}" for values in (jitter, second)]
        rows.append([name, way, str(joints), str(changed), f"{seen / joints:.3f}", str(swaps), str(jumps), *medians])
    return rows


def clip_tracks(estimator: PoseEstimator, videos: Path, truth: Path, frames: int) -> list[Track]:
    """The persons of a clip by their true boxes, in its first ``frames`` frames."""
    people = read_identities(truth)
    counted, last = people.counted & (people.frame_index < frames), min(people.frames[-1], frames - 1)
    (video,) = videos.glob(f"{truth.stem}.*")
    found: dict[int, list[tuple[float, Array]]] = {}
    size_wh = 0, 0
    for batch, info in batches_until(video, DecodeOptions(SamplingSettings(), estimator.batch_frames), last):
        time_s = [float(record.pts * info.time_base) for record in batch.records]
        pixels, index = to_device(batch.images, "cpu"), [record.frame_index for record in batch.records]
        rows = np.flatnonzero(counted & np.isin(people.frame_index, index))
        numbers = np.searchsorted(index, people.frame_index[rows])
        size_wh = pixels.size_wh
        for row, number, peaks in zip(
            rows, numbers, _peaks(estimator, pixels, numbers.tolist(), people.bbox_xyxy[rows]), strict=True
        ):
            found.setdefault(int(people.person[row]), []).append((time_s[number], peaks))
    return [
        Track(np.array([t for t, _ in track]), np.stack([p for _, p in track]), size_wh) for track in found.values()
    ]


if __name__ == "__main__":
    sys.exit(main())
