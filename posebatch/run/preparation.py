"""The preparation of a run: everything that can be refused before work begins."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from posebatch.core.execution_settings import ExecutionSettings
from posebatch.core.extras import need
from posebatch.core.settings import Settings
from posebatch.core.videos import SourceVideo
from posebatch.models.networks.input_size import check_detect_size
from posebatch.models.weights.names import resolve
from posebatch.models.weights.quantized import quantized_identity
from posebatch.models.weights.records import Kind
from posebatch.run.context import RunContext
from posebatch.run.planning.commit_index import CommitIndex, Scope
from posebatch.run.planning.inputs import InputListing, list_inputs, parse_inputs
from posebatch.run.planning.output_place import check_output_apart, check_output_outside_inputs
from posebatch.run.run_folder import new_run_id
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


@dataclass(frozen=True)
class Prepared:
    """A run whose settings, inputs and output are checked."""

    context: RunContext
    store: Store
    """The output."""
    listing: InputListing

    def videos(self) -> Iterator[SourceVideo]:
        """The videos of the inputs, in the order of the listing."""
        return iter(self.listing.videos)

    def load_index(
        self, on_listed: Callable[[], None] = lambda: None, say: Callable[[str], None] = print
    ) -> CommitIndex:
        """What the output holds for these videos; arguments and errors as for `CommitIndex.load`."""
        scope = Scope(self.context.settings.selection.part, self.listing.videos.folder)
        return CommitIndex.load(self.store, len(self.listing.videos), scope, on_listed=on_listed, say=say)


def prepare(named: list[str], output: str, settings: Settings) -> Prepared:
    """Check settings, inputs and output, and list the inputs; writes nothing. ``named``: inputs as the user gave them.

    Raises `UsageError` if the run is refused, and `StorageError` if an input cannot be listed.
    """
    _check_device(settings.execution)
    if settings.estimator.recover_flow:
        need("cv2")
    endpoint_url = settings.selection.endpoint_url
    estimator = settings.estimator
    detector = weights_identity("detector", estimator.detector_name, settings)
    check_detect_size(
        estimator.detect_size, estimator.detector_name, resolve("detector", estimator.detector_name).architecture
    )
    pose = weights_identity("pose", estimator.pose_name, settings)
    store = open_store(output, endpoint_url)
    inputs = parse_inputs(named, endpoint_url, settings.selection.request_payer or "")
    check_output_outside_inputs(inputs, store.root)
    context = RunContext(new_run_id(), settings, store.root, detector, pose)
    listing = list_inputs(inputs, settings.selection)
    check_output_apart(inputs, listing.videos, store.root)
    return Prepared(context, store, listing)


def _check_device(execution: ExecutionSettings) -> None:
    """Refuse a GPU that this machine lacks, if the workers run here. Those of a cluster are on other machines."""
    if execution.device != "cuda" or os.environ.get("RAY_ADDRESS"):
        return
    from posebatch.models.networks.engines import resolve_device  # noqa: PLC0415 - loads torch, which takes seconds

    resolve_device("cuda")


def weights_identity(kind: Kind, name_or_path: str, settings: Settings) -> str:
    """Name and hash of the weights that the settings' precision takes. Raises `WeightsError`."""
    if settings.estimator.precision == "int8":
        return quantized_identity(kind, name_or_path)
    return resolve(kind, name_or_path).identity
