"""A store as a file system of Arrow, which scans tables in its own threads."""

from __future__ import annotations

from pyarrow import fs

from posebatch.storage.addresses import is_s3, local_path, split_s3
from posebatch.storage.s3 import s3_client, s3_keys


def arrow_files(root: str, endpoint_url: str | None = None) -> fs.FileSystem:
    """The objects of a store by key. The access to S3 is that of `S3Store`: credentials, region and endpoint."""
    if not is_s3(root):
        return fs.SubTreeFileSystem(local_path(root), fs.LocalFileSystem())
    client = s3_client(endpoint_url)
    scheme, _, host = client.meta.endpoint_url.partition("://")
    access_key, secret_key, token = s3_keys() or (None, None, None)
    files = fs.S3FileSystem(
        access_key=access_key,
        secret_key=secret_key,
        session_token=token,
        anonymous=access_key is None,
        region=client.meta.region_name,
        scheme=scheme,
        endpoint_override=host,
    )
    return fs.SubTreeFileSystem("/".join(split_s3(root)).rstrip("/"), files)
