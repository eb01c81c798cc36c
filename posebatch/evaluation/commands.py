"""The command lines of ``jobs/evaluate_pose.py``, ``jobs/evaluate_boxes.py`` and ``jobs/compare_settings.py``.

Each command prints its result and returns the exit code: 0 done, 2 usage, 1 other errors.
"""

from __future__ import annotations

import argparse
import functools
import json
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch

from posebatch.core.errors import InputError, OutputError, UsageError
from posebatch.core.extras import need
from posebatch.core.options import Option
from posebatch.core.scripts import run_script
from posebatch.core.settings import options, settings_from
from posebatch.evaluation.labels import GROUND_TRUTH, HALVES, half_of
from posebatch.evaluation.readers import read_dataset
from posebatch.evaluation.report import report_text
from posebatch.evaluation.setting_comparison import (
    PLANES,
    compare_runs,
    comparison_json,
    comparison_text,
    variants,
)
from posebatch.evaluation.setting_runs import run_setting
from posebatch.models.networks.engines import choose_placement
from posebatch.pose.estimator import load_person_detector
from posebatch.video.frame_images import FrameFormat

MACHINE_SETTINGS: Final = ("device", "engine")


POSE_SETTINGS: Final = (
    *("preset", "detector", "decoding", "bbox_thr", "nms_thr", "kpt_thr", "max_persons", "oks_nms_thr"),
    *("precision", *MACHINE_SETTINGS),
)


BOX_SETTINGS: Final = (
    *("preset", "detector", "detect_size", "tiles", "bbox_thr", "nms_thr", "max_persons"),
    *("precision", *MACHINE_SETTINGS),
)


PAPERS_OKS_NMS_THR: Final = 0.9
"""OKS-NMS threshold of SimpleBaseline (Xiao et al., ECCV 2018)."""


FLIP_TESTS: Final[Mapping[str, tuple[bool, ...]]] = {"off": (False,), "on": (True,), "both": (False, True)}


# evaluate_pose


def evaluate_pose(arguments: Sequence[str] | None, description: str | None) -> int:
    """Measure networks on labelled images."""
    chosen = pose_parser(description).parse_args(arguments)
    return run_script("evaluate_pose", lambda: _evaluate_pose(chosen))


def pose_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``evaluate_pose``. Flags shared with ``posebatch run`` mean the same."""
    parser = _parser(description)
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="COCO keypoint JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--pose", nargs="+", default=[None], metavar="NAME|PATH", help="pose networks to compare")
    parser.add_argument(
        "--boxes",
        nargs="+",
        default=[GROUND_TRUTH],
        metavar="SOURCE",
        help="gt: labelled boxes (default); detector: ours, from end to end; FILE.json: COCO's result format",
    )
    parser.add_argument(
        "--flip-test", nargs="?", choices=tuple(FLIP_TESTS), const="on", default="off", help="off (default), on, both"
    )
    parser.add_argument("--half", choices=HALVES, help="of the images, only those with even or odd numbers")
    parser.add_argument("--raw-scores", action="store_true", help="scores without the calibration of the weights")
    parser.add_argument("--detector-only", action="store_true", help="measure boxes and no poses")
    parser.add_argument("--pictures", type=int, default=0, metavar="N", help="draw the N worst persons, and N others")
    parser.add_argument("--output", type=Path, default=Path("out/accuracy"), metavar="FOLDER")
    for option in _options(POSE_SETTINGS):
        metavar = option.metavar or ("{" + ",".join(option.choices) + "}" if option.choices else None)
        default = PAPERS_OKS_NMS_THR if option.name == "oks_nms_thr" else option.default
        parser.add_argument(
            option.flag,
            type=option.value_type,
            metavar=metavar,
            default=argparse.SUPPRESS,
            help=f"{option.help}{'' if default is None else f' (default: {default})'}",
        )
    return parser


def _evaluate_pose(chosen: argparse.Namespace) -> None:
    need("pycocotools", "matplotlib")
    from posebatch.evaluation.network_evaluation import (  # noqa: PLC0415 - the other commands need no matplotlib
        Evaluation,
        evaluate_networks,
        make_folder,
        write_report,
    )

    given = {name: value for name, value in vars(chosen).items() if name in POSE_SETTINGS}
    settings = settings_from({"oks_nms_thr": PAPERS_OKS_NMS_THR, **given}, "command line")
    if chosen.detector_only and set(chosen.boxes) == {GROUND_TRUTH}:
        raise UsageError("--detector-only measures boxes: add --boxes detector, or --boxes FILE.json")
    dataset = read_dataset(chosen.data, chosen.images)
    if chosen.half:
        dataset = half_of(dataset, chosen.half)
    if not chosen.detector_only and not dataset.has_keypoints:
        raise InputError(f"{chosen.data}: its labels hold no keypoints; --detector-only measures boxes alone")
    folder = make_folder(chosen.output)
    evaluation = Evaluation(
        settings,
        given,
        pose_networks=chosen.pose,
        box_sources=chosen.boxes,
        flip_tests=FLIP_TESTS[chosen.flip_test],
        with_poses=not chosen.detector_only,
        raw_scores=chosen.raw_scores,
        pictures=chosen.pictures,
    )
    report = evaluate_networks(dataset, evaluation, folder)
    print(report_text(report))
    write_report(report, folder)
    print(f"\nwritten to {folder}")


# evaluate_boxes


def evaluate_boxes(arguments: Sequence[str] | None, description: str | None) -> int:
    """Count the persons that a detector finds, by height."""
    chosen = boxes_parser(description).parse_args(arguments)
    return run_script("evaluate_boxes", lambda: _evaluate_boxes(chosen))


def boxes_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``evaluate_boxes``. Flags shared with ``posebatch run`` mean the same."""
    parser = _parser(description)
    parser.add_argument("--data", type=Path, metavar="FILE", help="labelled images: COCO keypoint JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--video", type=Path, metavar="FILE")
    parser.add_argument("--truth", type=Path, metavar="FILE.csv", help="the true boxes of the video")
    parser.add_argument("--stride", type=int, default=1, metavar="N", help="of the video, every N-th frame")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the networks (default: 1)")
    for option in _options(BOX_SETTINGS):
        help_text = option.help.replace("%", "%%")
        parser.add_argument(option.flag, type=option.value_type, default=argparse.SUPPRESS, help=help_text)
    return parser


def _evaluate_boxes(chosen: argparse.Namespace) -> None:
    from posebatch.evaluation.box_evaluation import (  # noqa: PLC0415 - the other commands need no SciPy
        TimedDetector,
        count_in_images,
        count_in_video,
        counts_text,
    )

    given = {name: value for name, value in vars(chosen).items() if name in BOX_SETTINGS}
    settings = settings_from(given, "command line")
    if (chosen.data is None) == (chosen.video is None) or (chosen.video is None) != (chosen.truth is None):
        raise UsageError("give --data, or --video and --truth")
    torch.set_num_threads(chosen.threads)
    placement = choose_placement(settings.execution.device, settings.estimator.precision, settings.execution.engine)
    detector = TimedDetector(load_person_detector(settings.estimator, placement))
    if chosen.data is not None:
        counts = count_in_images(detector, read_dataset(chosen.data, chosen.images))
    else:
        counts = count_in_video(detector, chosen.video, chosen.truth, chosen.stride, placement.device)
    print(counts_text(counts))
    print(
        f"{detector.frames_per_second:.1f} frames/s of the detector; "
        f"{detector.frames_cut} frames with more than max-persons"
    )


# compare_settings


def compare_settings(arguments: Sequence[str] | None, description: str | None) -> int:
    """Compare settings on videos."""
    chosen = comparison_parser(description).parse_args(arguments)
    return run_script("compare_settings", lambda: _compare_settings(chosen))


def comparison_parser(description: str | None = None) -> argparse.ArgumentParser:
    """The command line of ``compare_settings``. Flags shared with ``posebatch run`` mean the same."""
    parser = _parser(description)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--frames", type=_positive, metavar="N", help="take only the first N frames of each video")
    parser.add_argument(
        "--stride", type=_positive, default=1, metavar="N", help="process every N-th frame (default: 1)"
    )
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of the networks (default: 1)")
    parser.add_argument("--planes", action="store_true", help="compare frames that stay planes, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, of each video too")
    for option in _compared_options():
        parser.add_argument(
            option.flag,
            nargs="+",
            type=_truth_value if option.value_type is bool else option.value_type,
            default=argparse.SUPPRESS,
            metavar=option.metavar or "VALUE",
            help=option.help.replace("%", "%%"),
        )
    return parser


def _compare_settings(chosen: argparse.Namespace) -> None:
    need("pycocotools")
    names = [option.name for option in _compared_options()]
    settings = variants({name: getattr(chosen, name) for name in names if hasattr(chosen, name)})
    if len(settings) == 1 and not chosen.planes:
        raise UsageError("nothing to compare: give an option two values or more, such as --detect-every 1 5")
    for video in chosen.videos:
        if not video.is_file():
            raise InputError(f"{video}: no such file")
    torch.set_num_threads(chosen.threads)
    frames = [*map(str, chosen.videos)], chosen.stride, chosen.frames
    runs = {label: [*run_setting(label, variant, *frames)] for label, variant in settings.items()}
    reference = next(iter(settings.values()))
    if chosen.planes:
        runs[PLANES] = [*run_setting(PLANES, reference, *frames, FrameFormat(planes=True))]
    kpt_thr = reference.estimator.kpt_thr
    all_videos = {label: functools.reduce(operator.add, by_video) for label, by_video in runs.items()}
    comparisons = compare_runs(all_videos, kpt_thr)
    print(comparison_text(comparisons))
    if chosen.json is None:
        return
    body = {"reference": reference.flat(), "all": comparison_json(comparisons)}
    for number, video in enumerate(chosen.videos):
        of_video = {label: by_video[number] for label, by_video in runs.items()}
        body[str(video)] = comparison_json(compare_runs(of_video, kpt_thr))
    try:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(body, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"--json {chosen.json}: cannot be written: {error}") from error


def _compared_options() -> list[Option]:
    return [option for option in options() if option.group == "estimator" or option.name in MACHINE_SETTINGS]


# shared


def _parser(description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def _options(names: Sequence[str]) -> list[Option]:
    return [option for option in options() if option.name in names]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def _truth_value(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, got {text!r}")
    return text == "true"
