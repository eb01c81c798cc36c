"""Quantize networks to 8 bits for --precision int8, calibrated on pictures with marked persons.

    python jobs/quantize.py --pose NAME|PATH --detector NAME|PATH --data LABELS.json --images FOLDER
    python jobs/quantize.py --pose NAME|PATH --data DATA.parquet --validate VALIDATION.parquet

Each network is written beside its original weights, where --precision int8 looks for it. A few hundred pictures like
the frames of the videos are enough. With --validate the accuracy is measured and written to the file's record.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from posebatch.core.errors import OutputError, UsageError
from posebatch.core.extras import need
from posebatch.core.scripts import run_script
from posebatch.evaluation.labels import LabelledDataset
from posebatch.evaluation.readers import read_dataset
from posebatch.models.weights.quantized import QuantizedNetwork, quantized_file, save_quantized
from posebatch.models.weights.records import Kind
from posebatch.training.int8_calibration import quantize_detector, quantize_pose, some_images

Quantize = Callable[[str, LabelledDataset, LabelledDataset | None], QuantizedNetwork]


def main(arguments: Sequence[str] | None = None) -> int:
    """Quantize; returns the exit code: 0 done, 2 usage, 1 other errors."""
    chosen = build_parser().parse_args(arguments)
    return run_script("quantize", lambda: quantize(chosen))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--pose", metavar="NAME|PATH", help="pose network to quantize")
    parser.add_argument("--detector", metavar="NAME|PATH", help="detector to quantize")
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="COCO JSON, or Parquet")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, when --data is JSON")
    parser.add_argument("--count", type=int, default=300, metavar="N", help="images to calibrate on (300)")
    parser.add_argument("--validate", type=Path, metavar="FILE", help="labels to measure the result on")
    parser.add_argument("--validate-images", type=Path, metavar="FOLDER", help="its images, when it is JSON")
    return parser


def quantize(chosen: argparse.Namespace) -> None:
    """Quantize the named networks. Raises `PosebatchError`."""
    if not chosen.pose and not chosen.detector:
        raise UsageError("nothing to quantize: name a --pose network, a --detector, or both")
    if chosen.count < 1:
        raise UsageError(f"--count must be at least 1, got {chosen.count}")
    need("nncf", "openvino", *(["pycocotools"] if chosen.validate else []))
    data = some_images(read_dataset(chosen.data, chosen.images), chosen.count)
    validation = read_dataset(chosen.validate, chosen.validate_images) if chosen.validate else None
    wanted: list[tuple[Kind, str | None, Quantize]] = [
        ("pose", chosen.pose, quantize_pose),
        ("detector", chosen.detector, quantize_detector),
    ]
    for kind, name, make in wanted:
        if name:
            _write(quantized_file(kind, name), make(name, data, validation))


def _write(path: Path, network: QuantizedNetwork) -> None:
    try:
        save_quantized(path, network)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error}") from error
    record = network.record
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, from {record.original}, calibrated on {record.calibration}")
    if record.accuracy:
        print("  " + ", ".join(f"{name} {value}" for name, value in record.accuracy.items()))


if __name__ == "__main__":
    sys.exit(main())
