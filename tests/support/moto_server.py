"""A made-up S3 for what the real server of the tests lacks: storage classes, restored copies, payers, access points."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def running_moto_server() -> Iterator[dict[str, str]]:
    """Serve while the block runs; gives the environment variables that lead to it."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - its import takes seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield {
            "AWS_ACCESS_KEY_ID": "made",
            "AWS_SECRET_ACCESS_KEY": "made-up-secret",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
    finally:
        server.stop()


def moto_client(environment: dict[str, str]) -> Any:
    """A boto3 client for the server."""
    import boto3  # noqa: PLC0415

    return boto3.session.Session().client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id="made",
        aws_secret_access_key="made-up-secret",
        region_name="us-east-1",
    )
