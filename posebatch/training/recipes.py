"""A training from its files to its result: what to learn from, where to start, what to leave behind."""

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
from posebatch.training.pose_augmentation import NO_AUGMENTATION, PoseAugmentation, cut_person
from posebatch.training.pose_examples import PoseExamples, read_pose_examples
from posebatch.training.pose_task import PoseTask, PoseTaskSettings
from posebatch.training.warm_start import narrow_deconvolutions, widen_detector

_CALIBRATION_BATCHES, _CALIBRATION_BATCH = 8, 16


_LICENCE: Final = "that of the images it was trained on, and of the weights it started from"


_COLOUR_MEAN, _COLOUR_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Recipe(Protocol):
    """What a worker needs to know to take part; it travels to the workers, so it holds names and numbers only."""

    @property
    def name(self) -> str:
        """Of the result."""
        ...

    @property
    def loop(self) -> LoopSettings:
        """How long and how fast."""
        ...

    def prepare(self, device: str) -> Task:
        """Read the data, build the network. Raises `InputError`, `WeightsError` and `TrainingError`."""
        ...

    def finish(self, averaged: StateDict, history: list[Row], path: Path) -> AnyRecord:
        """Write the result, a weight file with its record."""
        ...


@dataclass(frozen=True)
class PoseRecipe:
    """A pose network's training."""

    name: str
    """Of the result."""
    data: Path
    images: Path | None
    """The folder of COCO's images."""
    start: str | None
    """Name or file of a pose network; None: from random weights."""
    backbone: str | None
    """Name or file of a torchvision classifier or a pose network, of which only the backbone is taken."""
    architecture: str
    input_size_wh: tuple[int, int]
    loop: LoopSettings
    labels: Path | None = None
    """Labels made anew for the persons of ``data``; see `read_pose_examples`."""
    repeats: tuple[tuple[str, int], ...] = ()
    """How often persons of a source come in each round, by their column ``source``; others come once."""
    validation: Path | None = None
    validation_images: Path | None = None
    task: PoseTaskSettings = field(default_factory=PoseTaskSettings)
    augmentation: PoseAugmentation = field(default_factory=PoseAugmentation)
    licence: str = _LICENCE

    def __post_init__(self) -> None:
        _check_name(self.name)
        self._record()  # says what is wrong before anything is read

    def prepare(self, device: str) -> PoseTask:
        """See `Recipe.prepare`."""
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
        """See `Recipe.finish`."""
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
        """A few batches of undisturbed persons, normalised."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (_COLOUR_MEAN, _COLOUR_STD))
        random = np.random.default_rng(self.loop.seed)
        for _ in range(_CALIBRATION_BATCHES):
            chosen = random.integers(0, len(examples), _CALIBRATION_BATCH)
            crops = [
                cut_person(
                    examples.read_image(index), examples.targets[index], self.input_size_wh, NO_AUGMENTATION, random
                )
                for index in chosen.tolist()
            ]
            pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2)
            yield (pixels.float() / 255 - mean) / std


@dataclass(frozen=True)
class DetectorRecipe:
    """A person detector's training."""

    name: str
    """Of the result."""
    data: Path
    images: Path | None
    """The folder of COCO's images."""
    start: str | None
    """Name or file of a detector; None: from random weights."""
    architecture: str
    loop: LoopSettings
    persons: Path | None = None
    """Cut-out persons that are mixed in, a file of `read_pose_examples`."""
    persons_sources: tuple[str, ...] = ()
    """Which of them, by their column ``source``; all when empty."""
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
        """See `Recipe.prepare`."""
        torch.manual_seed(self.loop.seed)
        examples = self._examples()
        ssd = build_person_ssd(self.architecture)
        if self.start is not None:
            _start_detector(ssd, self.start, self.architecture)
        ssd.to(device, memory_format=torch.channels_last)
        validation = _read_validation(self.validation, self.validation_images)
        return DetectorTask(ssd, self._record(), examples, self.task, self.augmentation, self.loop.seed, validation)

    def finish(self, averaged: StateDict, history: list[Row], path: Path) -> DetectorRecord:
        """See `Recipe.finish`."""
        plain = DetectorNetwork(build_person_ssd(self.architecture))
        record = replace(self._record(), accuracy=_accuracy(history, self.validation))
        return save_weights(path, record, _compact(unfold_batch_norms(plain, averaged)))

    def _examples(self) -> SceneExamples:
        scenes = read_scenes(self.data, self.images)
        if self.persons is None:
            return scenes
        return join(scenes, read_person_crops(self.persons, self.persons_sources), self.repeat)

    def _origin(self) -> str:
        """The names of what is learnt from."""
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
"""From which architecture's weights another one can start, with channels left out."""


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
    """Where the initial weights came from; names only, as paths mean nothing elsewhere."""
    parts = [f"network of {Path(start).name}"] if start else []
    parts += [f"backbone of {Path(backbone).name}"] if backbone else []
    return ", ".join(parts) or "random weights"


def _training(loop: LoopSettings, origin: str, *settings: Any) -> str:
    """What the record says of how the weights came to be."""
    return json.dumps(
        {"data": origin, "loop": asdict(loop), **{type(part).__name__: asdict(part) for part in settings}}
    )


def _accuracy(history: list[Row], validation: Path | None) -> dict[str, float | str]:
    """The last measured figures of merit; nothing when nothing was measured."""
    figures = {"AP", "AP50", "AR", "recall_at_precision_0.8"}
    measured = [row for row in history if figures & row.keys()]
    if not measured or validation is None:
        return {}
    found: dict[str, float | str] = {key: round(value, 3) for key, value in measured[-1].items() if key in figures}
    return {**found, "measured on": validation.name}


def _compact(state: StateDict) -> StateDict:
    """Weights as fp16; biases and batch norms, which are small and sensitive, as they are."""
    return {key: tensor.half() if tensor.dim() > 1 else tensor for key, tensor in state.items()}
