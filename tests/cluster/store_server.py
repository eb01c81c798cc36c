"""The store of the cluster: an S3 server with conditional puts, on the address of its host.

``python store_server.py FOLDER ADDRESS`` serves on port `PORT` until it is killed. It prints the environment of its
clients as one line of JSON.
"""

import json
import signal
import sys
from pathlib import Path

from faults.s3_proxy import running_proxy
from support.s3_server import running_s3_server

PORT = 9000
NAME = "store"
"""The name by which clients know the host."""


def main(folder: str, address: str) -> None:
    """Serve until killed."""
    with running_s3_server(Path(folder)) as server, running_proxy(server, conditional=True, address=(address, PORT)):
        endpoint_url = f"http://{NAME}:{PORT}"
        environment = server.environment() | {"AWS_ENDPOINT_URL": endpoint_url, "AWS_ENDPOINT_URL_S3": endpoint_url}
        print(json.dumps(environment | {"NO_PROXY": "*", "no_proxy": "*"}), flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
