"""Recipes: a training's data, initial weights and settings, and the weight file of its result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import nn
from torchvision.models.detection.ssd import SSD

from posebatch.core.errors import TrainingError
from posebatch.core.skeleton import KEYPOINT_NAMES
from posebatch.evaluation.labels import LabelledDataset
from posebatch.evaluation.readers import read_dataset
from posebatch.models.networks.pose_resnet import PoseMobileNet, build_pose_network
from posebatch.models.networks.preparation import unfold_batch_norms
from posebatch.models.networks.ssdlite import INPUT_SIZE, build_person_ssd
from posebatch.models.weights.files import StateDict, load_backbone, load_into, load_weights, save_weights
from posebatch.models.weights.records import AnyRecord, DetectorRecord, PoseRecord
from posebatch.pose.crops import BOX_PADDING
from posebatch.training.detector_augmentation import SceneAugmentation
from posebatch.training.detector_examples import SceneExamples, join, read_person_crops, read_scenes
from posebatch.training.detector_task import DetectorNetwork, DetectorTask, DetectorTaskSettings
from posebatch.training.loop import LoopSettings, Row, Task
from posebatch.training.pose_augmentation import NO_AUGMENTATION, PoseAugmentation, crop_person
from posebatch.training.pose_examples import PoseExamples, read_pose_examples
from posebatch.training.pose_task import PoseTask, PoseTaskSettings
from posebatch.training.warm_start import narrow_deconvolutions, widen_detector

_CALIBRATION_BATCHES, _CALIBRATION_BATCH = 8, 16


_LICENCE: Final = "that of the images it was trained on, and of the weights it started from"


_COLOUR_MEAN, _COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Recipe(Protocol):
    """A training as names and numbers, so that it can be sent to workers."""

    @property
    def name(self) -> str:
        """Name of the result."""
        ...

    @property
    def loop(self) -> LoopSettings:
        """Settings of the loop."""
        ...

    def prepare(self, device: str) -> Task:
        """Read the data and build the network. Raises `InputError`, `WeightsError` and `TrainingError`."""
        ...

    def finish(self, averaged: StateDict, history: list[Row], path: Path) -> AnyRecord:
        """Write the averaged weights and their record to ``path``; returns the record."""
        ...


@dataclass(frozen=True)
class PoseRecipe:
    """The training of a pose network."""

    name: str
    """Name of the result."""
    data: Path
    images: Path | None
    """The folder of COCO's images."""
    start: str | None
    """Name or file of a pose network to start from; None is random weights."""
    backbone: str | None
    """Name or file of a torchvision classifier or a pose network whose backbone to start from."""
    architecture: str
    input_size_wh: tuple[int, int]
    loop: LoopSettings
    labels: Path | None = None
    """New labels for the persons of ``data``; see `read_pose_examples`."""
    repeats: tuple[tuple[str, int], ...] = ()
    """Value of the column ``source``, and how often its persons come in each round. Others come once."""
    validation: Path | None = None
    validation_images: Path | None = None
    task: PoseTaskSettings = field(default_factory=PoseTaskSettings)
    augmentation: PoseAugmentation = field(default_factory=PoseAugmentation)
    licence: str = _LICENCE

    def __post_init__(self) -> None:
        _check_name(self.name)
        self._record()  # raises for wrong values before any file is read

    def prepare(self, device: str) -> PoseTask:
        """Read the data and build the network. Raises `InputError`, `WeightsError` and `TrainingError`."""
        torch.manual_seed(self.loop.seed)
        examples = read_pose_examples(self.data, self.images, dict(self.repeats), self.labels)
        network = build_pose_network(self.architecture)
        if self.start is not None:
            _start_pose_network(network, self.start, self.architecture, self._calibration(examples))
        if self.backbone is not None:
            load_backbone(network, self.backbone)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        validation = _read_validation(self.validation, self.validation_images)
        return PoseTask(network, self._record(), examples, self.task, self.augmentation, self.loop.seed, validation)

    def finish(self, averaged: StateDict, history: list[Row], path: Path) -> PoseRecord:
        """Write the averaged weights, with batch norms unfolded, and their record; returns the record."""
        plain = build_pose_network(self.architecture)
        record = replace(self._record(), accuracy=_accuracy(history, self.validation))
        return save_weights(path, record, _compact(unfold_batch_norms(plain, averaged)))

    def _record(self) -> PoseRecord:
        return PoseRecord(
            name=self.name,
            architecture=self.architecture,
            input_size_wh=self.input_size_wh,
            mean=_COLOUR_MEAN,
            std=_COLOUR_STD,
            channel_order="RGB",
            box_padding=BOX_PADDING,
            grid_alignment="edges",
            shift_flipped=False,
            keypoint_names=KEYPOINT_NAMES,
            licence=self.licence,
            source=_source(self.start, self.backbone),
            training=_training(self.loop, self._origin(), self.task, self.augmentation),
            accuracy={},
        )

    def _origin(self) -> str:
        repeats = [f"{source} {count} times" for source, count in self.repeats]
        labels = [] if self.labels is None else [f"labels of {self.labels.name}"]
        return ", ".join([self.data.name, *labels, *repeats])

    def _calibration(self, examples: PoseExamples) -> Iterator[torch.Tensor]:
        """A few batches of normalised crops without augmentation."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_COLOUR_MEAN, _COLOUR_STD))
        random = np.random.default_rng(self.loop.seed)
        for _ in range(_CALIBRATION_BATCHES):
            chosen = random.integers(0, len(examples), _CALIBRATION_BATCH)
            crops = [
                crop_person(
                    examples.read_image(index), examples.targets[index], self.input_size_wh, NO_AUGMENTATION, random
                )
                for index in chosen.tolist()
            ]
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2)
            yield (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class DetectorRecipe:
    """The training of a person detector."""

    name: str
    """Name of the result."""
    data: Path
    images: Path | None
    """The folder of COCO's images."""
    start: str | None
    """Name or file of a detector to start from; None is random weights."""
    architecture: str
    loop: LoopSettings
    persons: Path | None = None
    """Person crops to mix in, a file of `read_pose_examples`."""
    persons_sources: tuple[str, ...] = ()
    """Values of the column ``source`` of the crops to use; empty uses all."""
    repeat: int = 1
    """How often ``data`` comes for each time ``persons`` come."""
    validation: Path | None = None
    validation_images: Path | None = None
    task: DetectorTaskSettings = field(default_factory=DetectorTaskSettings)
    augmentation: SceneAugmentation = field(default_factory=SceneAugmentation)
    licence: str = _LICENCE

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.repeat < 1:
            raise ValueError(f"repeat must be at least 1, got {self.repeat}")

    def prepare(self, device: str) -> DetectorTask:
        """Read the data and build the network. Raises `InputError`, `WeightsError` and `TrainingError`."""
        torch.manual_seed(self.loop.seed)
        examples = self._examples()
        ssd = build_person_ssd(self.architecture)
        if self.start is not None:
            _start_detector(ssd, self.start, self.architecture)
        ssd.to(device, memory_format=torch.channels_last)
        validation = _read_validation(self.validation, self.validation_images)
        return DetectorTask(ssd, self._record(), examples, self.task, self.augmentation, self.loop.seed, validation)

    def finish(self, averaged: StateDict, history: list[Row], path: Path) -> DetectorRecord:
        """Write the averaged weights, with batch norms unfolded, and their record; returns the record."""
        plain = DetectorNetwork(build_person_ssd(self.architecture))
        record = replace(self._record(), accuracy=_accuracy(history, self.validation))
        return save_weights(path, record, _compact(unfold_batch_norms(plain, averaged)))

    def _examples(self) -> SceneExamples:
        scenes = read_scenes(self.data, self.images)
        if self.persons is None:
            return scenes
        return join(scenes, read_person_crops(self.persons, self.persons_sources), self.repeat)

    def _origin(self) -> str:
        """The names of the data, for the record."""
        if self.persons is None:
            return self.data.name
        return f"{self.repeat} x {self.data.name} + {' '.join([self.persons.name, *self.persons_sources])}"

    def _record(self) -> DetectorRecord:
        return DetectorRecord(
            name=self.name,
            architecture=self.architecture,
            input_size_wh=(INPUT_SIZE, INPUT_SIZE),
            mean=_COLOUR_MEAN,
            std=_COLOUR_STD,
            channel_order="RGB",
            licence=self.licence,
            source=_source(self.start),
            training=_training(self.loop, self._origin(), self.task, self.augmentation),
            accuracy={},
        )


_NARROWED = ("mobilenet_v2", "mobilenet_v2_d128")
"""Architecture whose weights can start a narrower one, and that one (`narrow_deconvolutions`)."""


def _start_pose_network(network: nn.Module, start: str, architecture: str, calibration: Iterator[torch.Tensor]) -> None:
    record, state = load_weights("pose", start)
    if (record.architecture, architecture) == _NARROWED:
        wide = build_pose_network(record.architecture)
        assert isinstance(wide, PoseMobileNet)
        assert isinstance(network, PoseMobileNet)
        load_into(wide, state, start)
        narrow_deconvolutions(wide, calibration, network)
        return
    _same_architecture(start, record, architecture)
    load_into(network, state, start)


def _start_detector(ssd: SSD, start: str, architecture: str) -> None:
    record, state = load_weights("detector", start)
    if record.architecture == "ssdlite_mobilenet_v2" != architecture:
        plain = build_person_ssd(record.architecture)
        load_into(plain, state, start)
        widen_detector(plain, ssd)
        return
    _same_architecture(start, record, architecture)
    load_into(ssd, state, start)


def _check_name(name: str) -> None:
    if not name or Path(name).name != name:
        raise ValueError(f"the result's name must be a file's name without folder, got {name!r}")


def _same_architecture(start: str, record: AnyRecord, architecture: str) -> None:
    if record.architecture != architecture:
        raise TrainingError(
            f"{start} is a {record.architecture}, which is no start for a {architecture}; "
            f"train with --architecture {record.architecture}, or start from something else"
        )


def _read_validation(data: Path | None, images: Path | None) -> LabelledDataset | None:
    return None if data is None else read_dataset(data, images)


def _source(start: str | None, backbone: str | None = None) -> str:
    """The origin of the initial weights: names only, because paths mean nothing on another machine."""
    parts = [f"network of {Path(start).name}"] if start else []
    parts += [f"backbone of {Path(backbone).name}"] if backbone else []
    return ", ".join(parts) or "random weights"


def _training(loop: LoopSettings, origin: str, *settings: Any) -> str:
    """Data and settings as JSON, for the record."""
    return json.dumps(
        {"data": origin, "loop": asdict(loop), **{type(part).__name__: asdict(part) for part in settings}}
    )


def _accuracy(history: list[Row], validation: Path | None) -> dict[str, float | str]:
    """The last figures of merit in the history; empty without any."""
    names = {"AP", "AP50", "AR", "recall_at_precision_0.8"}
    measured = [row for row in history if names & row.keys()]
    if not measured or validation is None:
        return {}
    figures: dict[str, float | str] = {key: round(value, 3) for key, value in measured[-1].items() if key in names}
    return {**figures, "measured on": validation.name}


def _compact(state: StateDict) -> StateDict:
    """Weights as fp16. Biases and batch norms are small and sensitive and keep their format."""
    return {key: tensor.half() if tensor.dim() > 1 else tensor for key, tensor in state.items()}
