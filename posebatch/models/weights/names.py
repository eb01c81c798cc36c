"""From the name of a network to its record and its file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, overload

from posebatch.core.errors import WeightsError
from posebatch.models.weights.cache import check_hash, fetch_object, fetch_published, sha256_of
from posebatch.models.weights.published import (
    PUBLISHED_POSES,
    TORCHVISION_BACKBONES,
    TORCHVISION_DETECTORS,
    PublishedDetector,
    PublishedFile,
    PublishedPose,
)
from posebatch.models.weights.records import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PAPER_PREPROCESSING,
    AnyRecord,
    DetectorRecord,
    Kind,
    PoseRecord,
    read_record,
)
from posebatch.storage.addresses import is_s3

EMBEDDED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "pose": (
        "simplebaseline_mobilenet_v2_w175_256x192",
        "simplebaseline_mobilenet_v2_256x192_relabelled",
    ),
    "detector": ("ssdlite_mobilenet_v2_320",),
}
"""Names of the weights in the package, the default first."""


REMOVED: Final[Mapping[str, str]] = {
    "simplebaseline_mobilenet_v2_256x192": (
        "it is not in the package since version 0.2.0; take simplebaseline_mobilenet_v2_256x192_relabelled (--preset "
        "fast), the same network trained on better labels, or the default, simplebaseline_mobilenet_v2_w175_256x192. "
        "To continue an output that was made with it, give the path of its file from an older version"
    )
}
"""Names of weights that the package held in an earlier version: what to take instead."""


_PICKLE_SUFFIXES = (".pth", ".pt", ".tar", ".pkl", ".pickle", ".ckpt", ".bin")


@overload
def resolve(kind: Literal["pose"], name_or_path: str) -> PoseRecord: ...


@overload
def resolve(kind: Literal["detector"], name_or_path: str) -> DetectorRecord: ...


def resolve(kind: Kind, name_or_path: str) -> AnyRecord:
    """The record of a registered name or of a weight file, without building the network.

    Nothing is downloaded for a name whose weights are pinned by a hash in the registry. Published files without a hash
    and ``s3://`` objects are downloaded, because their content is their identity. Raises `WeightsError` for an unknown
    name, with the nearest known one, and for a pickle that is no published file::

        >>> resolve("pose", "mmpose_resnet50_256x192").input_size_wh
        (192, 256)
    """
    published = _published(kind).get(name_or_path)
    if published is not None and published.file.sha256_prefix:
        return _published_record(published)
    path = weight_file(kind, name_or_path)
    published = published or published_as(kind, path)
    if published is not None:
        record = _published_record(published)
        return record if published.file.sha256_prefix else replace(record, sha256=sha256_of(path))
    if is_pickle(path):
        if not path.exists():
            raise WeightsError(f"{path}: no such weight file")
        raise WeightsError(
            f"{path}: nothing in this file says how its input must be prepared, and its name is none of the published "
            f"ones; convert it once: posebatch models convert {path} {path.name.split('.')[0]}.safetensors"
        )
    return read_record(path, PoseRecord) if kind == "pose" else read_record(path, DetectorRecord)


def describe(kind: Kind, name: str) -> AnyRecord:
    """The record of a registered name. Downloads nothing, so the hash of a file that is not pinned stays empty."""
    published = _published(kind).get(name)
    return resolve(kind, name) if published is None else _published_record(published)


def weight_file(kind: Kind, name_or_path: str) -> Path:
    """The path of the weight file behind a name or path; published files and objects are fetched into the cache.

    Raises `WeightsError` for an unknown name, for a failed download, and for a file whose hash is not that of its name.
    """
    if name_or_path in EMBEDDED[kind]:
        return Path(__file__).parent / "embedded" / f"{name_or_path}.safetensors"
    published = _published(kind).get(name_or_path)
    if published is not None:
        return fetch_published(published.file)
    path = fetch_object(name_or_path) if is_s3(name_or_path) else Path(name_or_path)
    published = published_as(kind, path)
    if published is not None:
        check_hash(path, published.file.sha256_prefix)
        return path
    if any(file.file_name == path.name for file in TORCHVISION_BACKBONES.values()):
        raise WeightsError(
            f"{path}: the weights of an image classifier, which are a start for training a pose network, not one"
        )
    if path.suffix == ".safetensors" or is_pickle(path) or os.sep in name_or_path or path.is_file():
        return path
    if name_or_path in REMOVED:
        raise WeightsError(f"{name_or_path}: {REMOVED[name_or_path]}")
    known = known_names(kind)
    nearest = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    raise WeightsError(f"no {kind} is called {name_or_path!r}{hint} `posebatch models` lists them; or give a path")


def known_names(kind: Kind) -> list[str]:
    """All registered names of a kind, the embedded weights first."""
    return [*EMBEDDED[kind], *_published(kind)]


def published_file(name: str) -> PublishedFile:
    """The published file of a registered name of any kind. Raises `WeightsError` for an unknown name."""
    files = {
        **{name: pose.file for name, pose in PUBLISHED_POSES.items()},
        **{name: detector.file for name, detector in TORCHVISION_DETECTORS.items()},
        **TORCHVISION_BACKBONES,
    }
    if name in files:
        return files[name]
    nearest = difflib.get_close_matches(name, files, n=1, cutoff=0.4)
    raise WeightsError(
        f"no weights to fetch are called {name!r}" + (f"; did you mean {nearest[0]}?" if nearest else "")
    )


def published_as(kind: Kind, path: Path) -> PublishedPose | PublishedDetector | None:
    """The published weights with this file name, if there are any."""
    return next((item for item in _published(kind).values() if item.file.file_name == path.name), None)


def is_pickle(path: Path) -> bool:
    """Whether the suffix of the file is one of torch's pickles."""
    return path.suffix.lower() in _PICKLE_SUFFIXES


def _published(kind: Kind) -> Mapping[str, PublishedPose] | Mapping[str, PublishedDetector]:
    return PUBLISHED_POSES if kind == "pose" else TORCHVISION_DETECTORS


def _published_record(published: PublishedPose | PublishedDetector) -> AnyRecord:
    return _pose_record(published) if isinstance(published, PublishedPose) else _detector_record(published)


def _pose_record(pose: PublishedPose) -> PoseRecord:
    return PoseRecord(
        name=pose.name,
        architecture=pose.architecture,
        input_size_wh=pose.input_size_wh,
        channel_order="BGR" if pose.recipe == "paper" else "RGB",
        **PAPER_PREPROCESSING,
        licence="MIT, for research" if pose.recipe == "paper" else "Apache-2.0",
        source=pose.file.url or pose.file.page,
        training=pose.training,
        accuracy={"AP": pose.ap, "measured on": "COCO val2017 by its makers: boxes of person AP 0.564, flip test"},
    )


def _detector_record(detector: PublishedDetector) -> DetectorRecord:
    fixed_size = detector.name == "ssdlite320_mobilenet_v3_large"
    return DetectorRecord(
        name=detector.name,
        architecture=detector.name,
        input_size_wh=(320, 320) if fixed_size else None,
        mean=(0.5, 0.5, 0.5) if fixed_size else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if fixed_size else IMAGENET_STD,
        channel_order="RGB",
        licence="BSD-3-Clause",
        source=detector.file.url,
        training="by torchvision, on COCO train2017",
        accuracy={"box AP": detector.box_ap, "measured on": "COCO val2017, 80 classes, by torchvision"},
    )
