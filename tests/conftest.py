"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
from support.ray_head import RayHead, running_ray_head
from support.s3_server import S3Server, running_s3_server

hypothesis.settings.register_profile("posebatch", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("posebatch")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for the whole session: starting it costs seconds."""
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """One Ray for the whole session, where tests are not about starting one."""
    with running_ray_head() as head:
        yield head
