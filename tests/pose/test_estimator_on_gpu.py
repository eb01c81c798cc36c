"""The estimator on a GPU, with the frames and uploads of a worker, compared with the CPU. Needs a CUDA device."""

import math

import numpy as np
import pytest
import torch

from posebatch.core.settings import EstimatorSettings, SamplingSettings
from posebatch.core.videos import Segment
from posebatch.demo.sample import write_sample
from posebatch.evaluation.agreement import compare
from posebatch.pose.estimator import PoseEstimator
from posebatch.pose.uploads import Uploads
from posebatch.run.workers.segment_worker import GPU_PACKING
from posebatch.video.frame_images import RGB
from posebatch.video.nvdec import use_nvdec
from posebatch.video.options import DecodeOptions
from posebatch.video.probe import probe
from posebatch.video.segment_decoder import SegmentDecoder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
SAMPLING = SamplingSettings(stride=5)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "sample.mp4"
    write_sample(path)
    return path


def poses_of(video, device, precision, decode_on_gpu=False):
    on_cuda = device == "cuda"
    estimator = PoseEstimator.load(EstimatorSettings(precision=precision), device, "torch")
    packing = GPU_PACKING if on_cuda else RGB
    uploads = Uploads() if on_cuda else None
    with video.open("rb") as file:
        info = probe(file, video.name, math.inf).info
        decoder = SegmentDecoder(
            file,
            video.name,
            Segment(),
            info,
            DecodeOptions(
                sampling=SAMPLING, batch_frames=estimator.batch_frames, frame_format=packing, on_gpu=decode_on_gpu
            ),
        )
        batches = (batch if uploads is None else uploads.send(batch) for batch in decoder)
        return list(estimator.estimate(batches))


@pytest.fixture(scope="module")
def reference(video):
    return poses_of(video, "cpu", "fp32")


@pytest.mark.parametrize(("precision", "noticeable"), [("fp32", 0.5), ("fp16", 0.9), ("bf16", 0.95)])
def test_estimator_on_gpu_finds_the_persons_of_the_cpu(video, reference, precision, noticeable):
    agreement = compare(reference, poses_of(video, "cuda", precision), kpt_thr=0.2)
    assert agreement.reference_persons > 0
    assert agreement.kept >= 0.95 * agreement.reference_persons
    assert agreement.added <= 0.05 * agreement.reference_persons
    assert agreement.heights.median < 0.02
    assert agreement.noticeable < noticeable


def test_estimator_with_nvdec_finds_the_persons_of_the_cpu(video, reference):
    if not use_nvdec("auto", "cuda"):
        pytest.skip("FFmpeg cannot open NVDEC here")
    agreement = compare(reference, poses_of(video, "cuda", "fp32", decode_on_gpu=True), kpt_thr=0.2)
    assert agreement.kept >= 0.95 * agreement.reference_persons
    assert agreement.heights.median < 0.02


def test_estimator_on_gpu_is_deterministic(video):
    first, second = (poses_of(video, "cuda", "bf16") for _ in range(2))
    for frame, same_frame in zip(first, second, strict=True):
        np.testing.assert_array_equal(frame.keypoints, same_frame.keypoints)
