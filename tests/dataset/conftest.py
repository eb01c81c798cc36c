"""An output of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from support.s3_server import S3Server

from posebatch.storage import s3
from posebatch.storage.open import open_store
from posebatch.storage.store import Store


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty output, on the disk and in a bucket."""
    if request.param == "local":
        yield open_store(str(tmp_path / "out"))
        return
    server: S3Server = request.getfixturevalue("s3_server")
    name = f"output-{uuid4().hex[:8]}"
    server.client().create_bucket(Bucket=name)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in server.environment().items():
            patch.setenv(variable, value)
        s3.s3_client.cache_clear()
        yield open_store(f"s3://{name}/out")
    s3.s3_client.cache_clear()
