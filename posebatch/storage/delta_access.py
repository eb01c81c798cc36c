"""How the library ``deltalake`` reaches a store: the address of a folder, and its options for S3."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from posebatch.core.errors import UsageError
from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.s3 import s3_client, s3_keys

_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


@dataclass(frozen=True)
class DeltaAccess:
    """The address of a folder, and the options that open it."""

    address: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def below(self, folder: str) -> str:
        """The address of a folder below. ``folder`` needs no escapes."""
        return f"{self.address}/{folder}"


def delta_access(root: str, endpoint_url: str | None = None) -> DeltaAccess:
    """How to open Delta tables below a root. The access to S3 is that of `S3Store`: credentials, region and endpoint.

    Raises `UsageError` for a root with an escape such as ``%20`` in its name, which the library would decode.
    """
    if _ESCAPE.search(root):
        raise UsageError(
            f"{root}: Delta tables cannot lie in a folder whose name has a percent sign before two hexadecimal digits"
        )
    if not is_s3(root):
        return DeltaAccess(Path(local_path(root)).as_uri())
    bucket, key = split_s3(root)
    client, keys = s3_client(endpoint_url), s3_keys()
    endpoint = client.meta.endpoint_url
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": client.meta.region_name,
        "AWS_ALLOW_HTTP": str(endpoint.startswith("http://")).lower(),
        "AWS_CONDITIONAL_PUT": "etag",  # a commit is a PUT with `If-None-Match: *`
    }
    if keys is None:
        options["AWS_SKIP_SIGNATURE"] = "true"
    else:
        options |= {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
        options |= {"AWS_SESSION_TOKEN": keys[2]} if keys[2] else {}
    return DeltaAccess(f"s3://{bucket}/{quote(key.rstrip('/'))}".rstrip("/"), options)
