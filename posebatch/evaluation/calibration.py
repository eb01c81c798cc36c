"""Fit the calibration of a weight file's scores to labels, and write it into the file."""

from __future__ import annotations

from dataclasses import replace

from posebatch.core.errors import InputError, WeightsError
from posebatch.core.settings import EstimatorSettings
from posebatch.evaluation.joints import pair_poses
from posebatch.evaluation.labels import LabelledDataset, true_boxes
from posebatch.evaluation.pose_accuracy import keypoints_for_boxes
from posebatch.evaluation.score_reliability import fit_calibration, right_joints
from posebatch.models.networks.engines import Placement
from posebatch.models.networks.pose_network import load_pose_network
from posebatch.models.weights.files import load_weights, save_weights
from posebatch.models.weights.names import weight_file
from posebatch.models.weights.quantized import load_quantized, quantized_file, save_quantized
from posebatch.models.weights.records import PoseRecord


def calibrated_record(name_or_path: str, data: LabelledDataset, placement: Placement) -> PoseRecord:
    """The record of a pose network with a calibration fitted to its poses in the labelled boxes of ``data``.

    Raises `WeightsError`, and `InputError` if no person has a labelled torso.
    """
    network = load_pose_network(name_or_path, placement)
    network.record = replace(network.record, score_calibration=())
    settings = EstimatorSettings(oks_nms_thr=1.0)  # nobody is labelled twice
    poses = list(keypoints_for_boxes(network, data, true_boxes(data), settings, placement))
    pairs = pair_poses(data, poses)
    scores, right = right_joints(pairs.truth, pairs.estimate)
    if not len(scores):
        raise InputError(f"{data.name}: nobody with shoulders and hips is labelled in it, so nothing can be fitted")
    accuracy = {**network.record.accuracy, "scores calibrated on": data.name}
    return replace(network.record, score_calibration=fit_calibration(scores, right), accuracy=accuracy)


def write_calibration(name_or_path: str, record: PoseRecord) -> PoseRecord:
    """Write a record with another calibration into its weight file, and renew the 8-bit version beside it.

    Both files get other hashes, so results of the former ones are computed again. Returns the record with the new
    hash. Raises `WeightsError` for a file that holds no record.
    """
    path = weight_file("pose", name_or_path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: has no record to hold a calibration; convert it once: posebatch models convert")
    _, state = load_weights("pose", name_or_path)
    eight_bits = quantized_file("pose", name_or_path)
    quantized = load_quantized("pose", name_or_path) if eight_bits.exists() else None
    written = save_weights(path, record, state)
    if quantized is not None:
        origin = replace(quantized.record, original=written.identity)
        save_quantized(eight_bits, replace(quantized, record=origin))
    return written
