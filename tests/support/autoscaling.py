"""A Ray head whose autoscaler adds and removes nodes, all on this machine, by Ray's fake node provider.

Not `ray.cluster_utils.AutoscalingCluster`: it stops every other Ray of the machine, and reads a file that Ray's wheel
lacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.ray_head import RayHead, running_ray_head

ATTEMPTS = 5
"""How often the dashboard is asked."""


HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"


@dataclass(frozen=True)
class AutoscalingHead:
    """A head without cores, and up to ``max_nodes`` worker nodes."""

    head: RayHead

    def worker_nodes(self) -> list[str]:
        """The ids of the worker nodes that are alive."""
        nodes = json.loads(self._summary())["data"]["summary"]
        raylets = [node["raylet"] for node in nodes]
        return [
            raylet["nodeId"] for raylet in raylets if raylet["state"] == "ALIVE" and not raylet.get("isHeadNode", False)
        ]

    def _summary(self) -> bytes:
        for _ in range(ATTEMPTS - 1):
            with suppress(ConnectionError):  # a busy dashboard closes a connection without an answer
                return self.head.ask("nodes?view=summary")
        return self.head.ask("nodes?view=summary")


@contextmanager
def autoscaling_head(folder: Path, max_nodes: int, idle_s: float = 5.0, version: int = 1) -> Iterator[AutoscalingHead]:
    """Start a head with an autoscaler that adds nodes of one core, and removes those idle for ``idle_s`` seconds."""
    config = folder / "autoscaling.json"

    def options(address: str) -> tuple[str, ...]:
        config.write_text(json.dumps(_config(address, max_nodes, idle_s)))
        return (f"--autoscaling-config={config}",)

    variables = {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    variables |= {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID, "RAY_CLOUD_INSTANCE_ID": HEAD_ID}
    variables["RAY_enable_autoscaler_v2"] = str(int(version == 2))
    with running_ray_head(num_cpus=0, more_options=options, variables=variables) as head:
        yield AutoscalingHead(head)


def _config(address: str, max_nodes: int, idle_s: float) -> dict[str, Any]:
    return {
        "cluster_name": "fake",
        "max_workers": max_nodes,
        "upscaling_speed": 1000.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": {
            "type": "external",  # by its own name it needs a file that Ray's wheel lacks
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": address,
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
            "use_node_id_as_ip": True,  # all nodes have one address
            "disable_node_updaters": True,  # no SSH
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "object_store_memory": 100 << 20},
                "node_config": {},
                "min_workers": 0,
                "max_workers": max_nodes,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }
