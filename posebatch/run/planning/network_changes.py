"""Why a video is computed again, if the networks or OKS-NMS have changed, and how to keep its rows."""

from __future__ import annotations

import functools

from posebatch.core.records import VideoRecord
from posebatch.models.weights.names import EMBEDDED, REMOVED, resolve
from posebatch.models.weights.quantized import quantized_identity
from posebatch.models.weights.records import Kind
from posebatch.run.context import RunContext


def name_changes(record: VideoRecord, context: RunContext) -> str | None:
    """What differs between a commit record and this run, as text: the networks or OKS-NMS; None if it is neither.

    ``record`` is the commit record of a video whose decision says `decisions.SETTINGS_CHANGED`.
    """
    if record.settings_fingerprint == context.fingerprint_without_oks_nms:
        threshold = context.settings.estimator.same_person_oks
        return f"OKS-NMS was off, is {threshold:g}, without --oks-nms-thr its rows stay"
    networks: tuple[tuple[Kind, str, str], ...] = (
        ("detector", record.detector, context.detector),
        ("pose", record.pose, context.pose),
    )
    changes = [
        f"{kind} was {_short(before)}, is {_short(now)}{_hint(kind, before, now)}"
        for kind, before, now in networks
        if before and before != now
    ]
    return "; ".join(changes) or None


def _hint(kind: Kind, before: str, now: str) -> str:
    """How to keep the published rows, if the former network has another name; or that the package lacks its weights."""
    former, _, _ = before.partition("@")
    if now.startswith(f"{former}@"):
        return ""
    if former in REMOVED:
        return ", the former weights are not in the package any more"
    if former in EMBEDDED[kind] and before not in _packaged_identities(kind, former):
        return f", the package has other weights of {former} now"
    return f", --{kind} {former} keeps it"


@functools.cache
def _packaged_identities(kind: Kind, name: str) -> tuple[str, str]:
    """Of weights in the package and of their 8-bit version. Kept, because both are hashed: plan asks for each video."""
    return resolve(kind, name).identity, quantized_identity(kind, name)


def _short(identity: str) -> str:
    name, _, sha256 = identity.partition("@")
    return f"{name}@{sha256[:8]}"
