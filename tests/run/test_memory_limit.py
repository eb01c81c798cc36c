"""The default of ``--max-memory-gb`` fits the container in which the workers run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posebatch.core.settings import settings_from
from posebatch.run.workers.memory_limit import container_memory_bytes, default_memory_bytes, workers_on_node

GIB = 1 << 30


@pytest.mark.parametrize(
    ("container_bytes", "workers", "gigabytes"),
    [
        (None, 1, 16),
        (None, 64, 16),
        (24 * GIB, 2, 10.3079215104),
        (24 * GIB, 1, 16),
        (512 * GIB, 2, 16),
        (20 * 10**9, 2, 8),
        (8 * GIB, 64, 4),
        (1 * GIB, 1, 4),
    ],
)
def test_default_memory_is_a_share_of_the_container(container_bytes: int | None, workers: int, gigabytes: float):
    assert default_memory_bytes(container_bytes, workers) == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, None),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "25769803776\n"}, 24 * GIB),
        ({"memory.max": ""}, None),
        ({"memory/memory.limit_in_bytes": "25769803776\n"}, 24 * GIB),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({"memory.max": "1024\n", "memory/memory.limit_in_bytes": "2048\n"}, 1024),
    ],
)
def test_container_memory_is_read_from_cgroups(tmp_path: Path, files: dict[str, str], limit: int | None):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert container_memory_bytes(tmp_path) == limit


@pytest.mark.parametrize(
    ("resources", "chosen", "workers"),
    [
        ({}, {}, 1),
        ({"CPU": 8.0}, {}, 8),
        ({"CPU": 8.0}, {"workers": "3"}, 3),
        ({"CPU": 8.0}, {"workers": "30"}, 8),
        ({"CPU": 6.0, "GPU": 1.0}, {}, 2),
        ({"CPU": 48.0, "GPU": 4.0}, {"device": "cuda", "workers": "32"}, 8),
        ({"CPU": 6.0, "GPU": 1.0}, {"device": "cpu"}, 6),
        ({"memory": 8e9}, {"device": "cuda", "workers": "8"}, 1),
    ],
)
def test_workers_on_node_are_those_that_ray_can_place_there(
    resources: dict[str, float], chosen: dict[str, Any], workers: int
):
    assert workers_on_node(resources, settings_from(chosen).execution) == workers
