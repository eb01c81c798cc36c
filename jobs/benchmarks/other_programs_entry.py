"""Speed of other pose estimators. Runs in a Python that has them installed; posebatch itself is not needed there.

    PYTHON other_programs_entry.py PROGRAM THREADS FRAMES VIDEO...

Prints the figures as one line of JSON; exits with 3 if the program is not installed. Each program reads the video as
its documentation shows and finds the joints of every frame. The programs have networks of their own, so compare their
speed and not their results.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

NOT_INSTALLED = 3
"""Exit code for a missing program."""


PERSONS = 2
"""Boxes per frame of a network with random weights."""


Process = Callable[[Any], int]
"""Finds the persons of a frame; returns their number."""


def keypoint_rcnn(threads: int, videos: Sequence[str]) -> tuple[Process, Iterable[Any]]:
    """torchvision's Keypoint R-CNN on ResNet-50 with random weights; the two best boxes get keypoints."""
    import av  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from torchvision.models.detection import keypointrcnn_resnet50_fpn  # noqa: PLC0415

    torch.set_num_threads(threads)
    torch.manual_seed(0)  # some random weights give fewer boxes
    network = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, box_detections_per_img=PERSONS).eval()

    def process(image: Any) -> int:
        with torch.inference_mode():
            return len(network([torch.tensor(image).permute(2, 0, 1).float() / 255])[0]["keypoints"])

    def frames() -> Iterator[Any]:
        for video in videos:
            with av.open(video) as container:
                container.streams.video[0].thread_type = "AUTO"
                for frame in container.decode(video=0):
                    yield frame.to_ndarray(format="rgb24")

    return process, frames()


def yolo_pose(threads: int, videos: Sequence[str]) -> tuple[Process, Iterable[Any]]:
    """The smallest of Ultralytics' pose networks with random weights. It finds nobody, so joints cost no time."""
    import torch  # noqa: PLC0415
    from ultralytics import YOLO  # noqa: PLC0415

    torch.set_num_threads(threads)
    network = YOLO("yolo11n-pose.yaml")
    results = (result for video in videos for result in network.predict(video, stream=True, verbose=False))
    return (lambda result: len(result.keypoints)), results


def mediapipe_pose(threads: int, videos: Sequence[str]) -> tuple[Process, Iterable[Any]]:
    """MediaPipe's pose landmarks, which follow one person. MediaPipe chooses its own threads."""
    import cv2  # noqa: PLC0415
    import mediapipe  # noqa: PLC0415

    network = mediapipe.solutions.pose.Pose(model_complexity=1)

    def process(image: Any) -> int:
        return int(network.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).pose_landmarks is not None)

    def frames() -> Iterator[Any]:
        for video in videos:
            capture = cv2.VideoCapture(video)
            while True:
                ok, image = capture.read()
                if not ok:
                    break
                yield image

    return process, frames()


PROGRAMS = {
    "Keypoint R-CNN": keypoint_rcnn,
    "YOLO11n pose": yolo_pose,
    "MediaPipe pose": mediapipe_pose,
}
"""The programs, by their names in tables."""


def measure(program: str, threads: int, limit: int, videos: Sequence[str]) -> dict[str, Any]:
    """The fields of `figures.Measured`. The first frame is start-up. Raises ``ImportError`` without the program."""
    started = time.perf_counter()
    process, frames = PROGRAMS[program](threads, videos)
    source = iter(frames)
    process(next(source))  # the first call loads and allocates
    count = persons = 0
    ready = time.perf_counter()
    for frame in islice(source, limit):
        persons += process(frame)
        count += 1
    return {"frames": count, "persons": persons, "seconds": time.perf_counter() - ready, "start_s": ready - started}


if __name__ == "__main__":
    try:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])))
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
