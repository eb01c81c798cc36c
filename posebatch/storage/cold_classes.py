"""Storage classes of S3 from which an object must be restored before it can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

COLD_CLASSES: Final = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes that hold no readable object. GLACIER_IR does."""


COLD_TIERS: Final = ("ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS")
"""Tiers of INTELLIGENT_TIERING that hold no readable object. A listing does not state the tier; an inventory does."""


RESTORING: Final = ", restore in progress"
"""Follows the name of a cold class in `StoredObject.cold_class`."""


def cold_class(storage_class: str, tier: str = "") -> str:
    """The cold class of an object that is not restored; empty if it can be read."""
    if tier in COLD_TIERS:
        return tier
    return storage_class if storage_class in COLD_CLASSES else ""


def cold_class_in_listing(entry: Mapping[str, Any]) -> str:
    """The same for an entry of a listing with its RestoreStatus."""
    cold = cold_class(entry.get("StorageClass", ""))
    status = entry.get("RestoreStatus", {})
    if not cold or (status.get("RestoreExpiryDate") and not status.get("IsRestoreInProgress")):
        return ""
    return cold + RESTORING if status.get("IsRestoreInProgress") else cold


def cold_class_of_head(head: Mapping[str, Any]) -> str:
    """The same for the answer to a HEAD."""
    cold, restore = cold_class(head.get("StorageClass", ""), head.get("ArchiveStatus", "")), head.get("Restore", "")
    if not cold or re.search(r'ongoing-request="false"', restore):
        return ""
    return cold + RESTORING if restore else cold
