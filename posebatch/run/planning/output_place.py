"""The output must lie apart from the inputs: the next run would take its previews for videos."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from posebatch.core.errors import InputError
from posebatch.core.videos import SourceVideo
from posebatch.run.planning.inputs import Input
from posebatch.storage.addresses import is_s3, local_path


def check_output_outside_inputs(inputs: Iterable[Input], output: str) -> None:
    """Raise `InputError` if the output lies inside an input: the next run would take its previews for videos."""
    target = output.rstrip("/") if is_s3(output) else os.path.realpath(local_path(output))
    for source in inputs:
        if source.store is None:  # see `check_output_apart`
            continue
        root = source.store.root if is_s3(source.store.root) else os.path.realpath(source.store.root).rstrip("/")
        if target != root and not target.startswith(f"{root}/"):
            continue
        below = f"{target[len(root) :]}/previews/x.mp4".lstrip("/")
        if below.startswith(source.prefix) and (source.pattern is None or source.pattern.fullmatch(below)):
            raise InputError(f"the output {output} lies inside the input {source.named}: choose one beside it")


def check_output_apart(inputs: Sequence[Input], videos: Iterable[SourceVideo], output: str) -> None:
    """The same for inputs that no folder or prefix describes, such as an inventory, by their videos."""
    if all(source.store is not None for source in inputs):
        return
    inside = next((video.uri for video in videos if video.uri.startswith(f"{output.rstrip('/')}/")), None)
    if inside is not None:
        raise InputError(f"{inside} is an input and lies inside the output {output}: leave it out with --exclude")
