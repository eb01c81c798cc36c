"""Preparation of a run: everything that can be refused before work begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.weights.names import resolve
from posebatch.models.weights.quantized import quantized_identity
from posebatch.models.weights.records import Kind
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex
from posebatch.run.planning.inputs import InputListing, check_output_outside_inputs, list_inputs, parse_inputs
from posebatch.run.run_folder import new_run_id
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


@dataclass(frozen=True)
class Prepared:
    """A run that nothing speaks against."""

    context: RunContext
    store: Store
    """The output."""
    listing: InputListing
    standings: CommitIndex
    """What the output says of the videos."""

    def videos(self) -> Iterator[SourceVideo]:
        """The videos of the inputs, as they were listed."""
        return iter(self.listing.videos)


def prepare(named: list[str], output: str, settings: Settings) -> Prepared:
    """Everything that can be refused is refused here, before any work begins; nothing is written.

    Raises `UsageError`, and `StorageError` when an input's store cannot be asked.
    """
    endpoint_url = settings.selection.endpoint_url
    wanted = settings.estimator
    detector = _identity("detector", wanted.detector_name, settings)
    check_detect_size(wanted.detect_size, wanted.detector_name, resolve("detector", wanted.detector_name).architecture)
    pose = _identity("pose", wanted.pose_name, settings)
    store = open_store(output, endpoint_url)
    inputs = parse_inputs(named, endpoint_url)
    check_output_outside_inputs(inputs, store.root)
    context = RunContext(new_run_id(), settings, store.root, detector, pose)
    found = list_inputs(inputs, settings.selection)
    return Prepared(context, store, found, CommitIndex(store, len(found.videos)))


def _identity(kind: Kind, name_or_path: str, settings: Settings) -> str:
    if settings.estimator.precision == "int8":
        return quantized_identity(kind, name_or_path)
    return resolve(kind, name_or_path).identity
