"""Write the addresses of the nodes that are alive, as the head of a cluster says, into a file every second.

``python watch_nodes.py ADDRESS FILE`` runs until it is killed. One process for all looks: each would import Ray.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from ray._raylet import GcsClient


def main(address: str, file: Path) -> None:
    """Ask and write, for ever."""
    while True:
        with suppress(Exception):  # the head is still starting, or too busy to answer
            nodes = GcsClient(address=address).get_all_node_info(timeout=20).values()
            alive = [node.node_manager_address for node in nodes if node.state == 0]
            file.with_suffix(".new").write_text(json.dumps(alive))
            file.with_suffix(".new").replace(file)
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
